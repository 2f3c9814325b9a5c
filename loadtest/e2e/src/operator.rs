//! The commands of the program `workers`, and what the readiness of workers states.

use std::process::Output;
use std::time::Duration;

use local_stack::testing;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::environment::PARTITIONS;
use crate::{Environment, request};

/// How long a worker may take to notice. It inspects the log every 15 s at least.
const TIMEOUT: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(50);

/// The output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// The lines of `--json`.
    pub fn objects(&self) -> Vec<Value> {
        assert!(self.succeeded, "{self:?}");
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs `workers` with these arguments, for the servers of the stack.
pub async fn workers(env: &Environment, args: &[&str]) -> CommandOutput {
    let endpoints = env.stack.endpoints();
    let program = testing::programs().await.unwrap().workers;
    let mut command = tokio::process::Command::new(program);
    command.args(args).kill_on_drop(true).env("USER", "olga");
    command.env("STAMPEDE_KAFKA_BROKERS", &endpoints.kafka);
    command.env("STAMPEDE_POSTGRES_URL", &endpoints.postgres_url);
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandOutput { succeeded: status.success(), stdout: text(stdout), stderr: text(stderr) }
}

/// All partitions as `workers partitions` shows them.
pub async fn partitions(env: &Environment) -> Vec<Value> {
    let all = workers(env, &["partitions", "--json"]).await.objects();
    assert_eq!(all.len(), usize::try_from(PARTITIONS).unwrap());
    all
}

/// One partition as `workers partitions` shows it.
pub async fn partition(env: &Environment, partition: i32) -> Value {
    partitions(env).await.swap_remove(usize::try_from(partition).unwrap())
}

/// Repairs a partition, so that it is consumed from this offset on.
pub async fn repair(env: &Environment, partition: i32, from: &str) -> CommandOutput {
    let partition = partition.to_string();
    let args =
        ["repair", "--partition", &partition, "--resume-from", from, "--reason", "a test", "--confirm"];
    workers(env, &args).await
}

/// Waits until the readiness of a worker that is not ready contains these texts, and returns it.
pub async fn until_stopped(env: &Environment, texts: &[&str]) -> String {
    until_readiness(env, texts, |not_ready| {
        not_ready.iter().find(|readiness| texts.iter().all(|text| readiness.contains(text))).cloned()
    })
    .await
}

/// Waits until every worker is ready.
pub async fn until_ready(env: &Environment) {
    until_readiness(env, &["ready"], |not_ready| not_ready.is_empty().then(String::new)).await;
}

async fn until_readiness(
    env: &Environment,
    what: &[&str],
    found: impl Fn(&[String]) -> Option<String>,
) -> String {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let mut not_ready = Vec::new();
        for probe in env.stack.endpoints().worker_probes {
            match request::get_probe(&probe, "/readyz").await {
                Ok(readiness) if readiness.status == 200 => {}
                Ok(readiness) => not_ready.push(readiness.body),
                Err(error) => not_ready.push(error.to_string()),
            }
        }
        if let Some(found) = found(&not_ready) {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out before {what:?}: {not_ready:?}");
        sleep(INTERVAL).await;
    }
}

/// Repairs of a partition as they are recorded: who, reason, finding, from and to which offset.
pub async fn repairs(env: &Environment, partition: i32) -> Vec<(String, String, String, i64, i64)> {
    let sql = "select who, reason, finding, from_offset, to_offset from stampede.repairs
                where partition = $1 order by repair_id";
    sqlx::query_as(sql).bind(partition).fetch_all(&mut env.postgres().await).await.unwrap()
}
