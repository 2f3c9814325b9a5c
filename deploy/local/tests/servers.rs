//! The three real servers: they start, survive injected faults, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use local_stack::{Child, Reporter, Stack, StackConfig, testing};
use sqlx::{Connection, PgConnection, Row};

const SERVERS: [Child; 3] = [Child::Kafka, Child::Redis, Child::Postgres];

fn is_running(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 120 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn postgres(stack: &Stack) -> PgConnection {
    PgConnection::connect(&stack.endpoints().postgres_url).await.unwrap()
}

#[tokio::test]
async fn a_killed_server_restarts_on_its_port_with_its_data() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    let before = stack.endpoints();
    sqlx::raw_sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
        .execute(&mut postgres(&stack).await)
        .await
        .unwrap();
    for child in SERVERS {
        let old = stack.pid(child).unwrap();
        stack.kill(child).unwrap();
        assert!(!stack.is_running(child));
        stack.restart(child).await.unwrap();
        assert_ne!(stack.pid(child).unwrap(), old);
    }
    let after = stack.endpoints();
    assert_eq!((before.kafka, before.redis_url), (after.kafka, after.redis_url));
    assert_eq!(before.postgres_url, after.postgres_url);
    let row = sqlx::query("SELECT n FROM t").fetch_one(&mut postgres(&stack).await).await.unwrap();
    assert_eq!(row.get::<i32, _>(0), 7);
    stack.stop().await.unwrap();
    assert!(!stack.data_dir().exists());
}

#[tokio::test]
async fn postgres_is_durable_and_does_not_run_as_root() {
    let stack = testing::shared_servers().await.unwrap();
    let mut connection = postgres(&stack).await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("SHOW {setting}")))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(row.get::<String, _>(0), "on", "{setting}");
    }
    let pid = stack.pid(Child::Postgres).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert_ne!(uid.split_whitespace().nth(2), Some("0"), "{uid}");
}

#[tokio::test]
async fn postgres_survives_an_immediate_shutdown_under_open_connections() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    let mut open = postgres(&stack).await;
    stack.stop_postgres_immediately().unwrap();
    stack.wait_exit(Child::Postgres, Duration::from_secs(120)).await.unwrap();
    assert!(sqlx::query("SELECT 1").execute(&mut open).await.is_err());
    stack.restart(Child::Postgres).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut postgres(&stack).await).await.unwrap();
}

#[tokio::test]
async fn a_frozen_server_does_not_respond_until_it_is_resumed_and_can_be_stopped() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    for child in SERVERS {
        stack.freeze(child).unwrap();
        assert!(stack.is_running(child));
        let healthy = tokio::time::timeout(Duration::from_secs(1), stack.wait_healthy(child)).await;
        assert!(healthy.is_err(), "{child} responded: {healthy:?}");
        stack.resume(child).unwrap();
        stack.wait_healthy(child).await.unwrap();
    }
    for child in SERVERS {
        stack.freeze(child).unwrap();
    }
    stack.stop().await.unwrap();
    assert!(!stack.data_dir().exists());
}

#[tokio::test]
async fn a_supervisor_restarts_children_that_exit_but_not_those_that_were_stopped() {
    let (lines, reported) = std::sync::mpsc::channel();
    let report = Reporter::new(move |line| lines.send(line.to_owned()).unwrap_or_default());
    let stack = Stack::start(StackConfig { report, ..StackConfig::servers_only() }).await.unwrap();
    let supervisor = stack.supervise();
    stack.kill(Child::Redis).unwrap();
    stack.wait_healthy(Child::Redis).await.unwrap();
    assert_eq!(stack.restarts(Child::Redis), 1);
    stack.stop_child(Child::Redis).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!stack.is_running(Child::Redis));
    drop(supervisor);
    let messages: Vec<String> = reported.try_iter().collect();
    assert!(
        messages.contains(&"redis was killed by SIGKILL; starting it again (restart 1)".to_owned()),
        "{messages:?}"
    );
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_is_reported_with_its_last_line_and_its_log() {
    let settings = vec![("shared_buffers".to_owned(), "plenty".to_owned())];
    let dir = tempfile::Builder::new().prefix("stampede-test-").tempdir_in("/var/tmp").unwrap();
    let data_dir = Some(dir.path().to_path_buf());
    let config = StackConfig { data_dir, postgres_settings: settings, ..StackConfig::servers_only() };
    let error = Stack::start(config).await.err().unwrap().to_string();
    let log = dir.path().join("logs/postgres.log");
    assert!(
        error.starts_with("postgres did not come up: ended with exit code 1; its last line was "),
        "{error}"
    );
    assert!(error.contains("invalid value for parameter \"shared_buffers\": \"plenty\""), "{error}");
    assert!(error.ends_with(&format!("(log: {})", log.display())), "{error}");
    assert!(!error.contains('\n') && log.exists());
}

#[tokio::test]
async fn data_ports_and_secrets_are_kept_from_run_to_run_unless_fresh_is_set() {
    let dir = tempfile::Builder::new().prefix("stampede-test-").tempdir_in("/var/tmp").unwrap();
    let config = || StackConfig { data_dir: Some(dir.path().to_path_buf()), ..StackConfig::servers_only() };
    let first = Stack::start(config()).await.unwrap();
    let (urls, secret) = (first.endpoints(), first.jwt_secret().to_owned());
    sqlx::raw_sql("CREATE TABLE kept ()").execute(&mut postgres(&first).await).await.unwrap();
    assert!(Stack::start(config()).await.err().unwrap().to_string().contains("in use by another stack"));
    first.stop().await.unwrap();
    drop(first);
    let second = Stack::start(config()).await.unwrap();
    assert_eq!(second.endpoints().postgres_url, urls.postgres_url);
    assert_eq!(second.jwt_secret(), secret);
    sqlx::raw_sql("SELECT FROM kept").execute(&mut postgres(&second).await).await.unwrap();
    drop(second);
    let third = Stack::start(StackConfig { fresh: true, ..config() }).await.unwrap();
    assert_ne!(third.jwt_secret(), secret);
    assert!(sqlx::raw_sql("SELECT FROM kept").execute(&mut postgres(&third).await).await.is_err());
}

/// Not a test: the process that the tests below kill. Prints its children and waits.
#[tokio::test]
#[ignore = "started by another test"]
async fn launcher_to_be_killed() {
    let stack = testing::shared_servers().await.unwrap();
    let pids: Vec<String> = SERVERS.iter().map(|child| stack.pid(*child).unwrap().to_string()).collect();
    if std::env::var_os("STAMPEDE_TEST_FREEZE").is_some() {
        stack.freeze(Child::Postgres).unwrap();
    }
    if std::env::var_os("STAMPEDE_TEST_KILL_POSTGRES").is_some() {
        stack.kill(Child::Postgres).unwrap();
    }
    println!("ready {} {}", stack.data_dir().display(), pids.join(" "));
    if std::env::var_os("STAMPEDE_TEST_LINGER").is_some() {
        std::future::pending::<()>().await;
    }
}

/// The System V segment of a stack's Postgres: key and id.
fn shared_memory(data_dir: &Path) -> String {
    let pid_file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    let words: Vec<&str> = pid_file.lines().nth(6).unwrap().split_whitespace().collect();
    words.join(" ")
}

fn is_allocated(segment: &str) -> bool {
    let all = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    all.lines().any(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ") == segment)
}

#[tokio::test]
async fn shared_memory_of_a_killed_postgres_is_removed() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    let segment = shared_memory(stack.data_dir());
    assert!(is_allocated(&segment), "{segment}");
    stack.kill(Child::Postgres).unwrap();
    stack.wait_exit(Child::Postgres, Duration::from_secs(120)).await.unwrap();
    drop(stack);
    assert!(!is_allocated(&segment), "{segment}");
}

fn leaves_nothing_behind(environment: &[&str], kill: bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "launcher_to_be_killed"]);
    command.envs(environment.iter().map(|name| (*name, "1")));
    let mut launcher = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = std::io::BufReader::new(launcher.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready ") {
        line.clear();
        assert_ne!(
            std::io::BufRead::read_line(&mut output, &mut line).unwrap(),
            0,
            "the launcher ended early"
        );
    }
    let words: Vec<&str> = line.split_once("ready ").unwrap().1.split_whitespace().collect();
    let (dir, pids) = words.split_first().unwrap();
    let segment = kill.then(|| shared_memory(Path::new(dir)));
    if kill {
        launcher.kill().unwrap();
    }
    launcher.wait().unwrap();
    for pid in pids {
        eventually("the child has ended", || !is_running(pid.parse().unwrap()));
    }
    eventually("the directory is removed", || !Path::new(dir).exists());
    assert!(!segment.is_some_and(|segment| is_allocated(&segment)));
}

#[test]
fn a_test_binary_that_ends_leaves_nothing_behind() {
    leaves_nothing_behind(&[], false);
}

#[test]
fn a_killed_launcher_leaves_nothing_behind() {
    leaves_nothing_behind(&["STAMPEDE_TEST_LINGER"], true);
}

#[test]
fn a_killed_launcher_leaves_nothing_behind_even_if_postgres_was_killed_before() {
    leaves_nothing_behind(&["STAMPEDE_TEST_LINGER", "STAMPEDE_TEST_KILL_POSTGRES"], true);
}

#[test]
fn a_killed_launcher_leaves_nothing_behind_even_if_a_child_was_frozen() {
    leaves_nothing_behind(&["STAMPEDE_TEST_LINGER", "STAMPEDE_TEST_FREEZE"], true);
}
