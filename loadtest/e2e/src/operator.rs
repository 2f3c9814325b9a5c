//! An operator at the keyboard: the commands of `workers`, and what readiness says.

use std::process::Output;
use std::time::Duration;

use local_stack::testing;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Field;

/// A bound, not an expectation: a worker looks again every 15 s at most.
const NOTICED_WITHIN: Duration = Duration::from_secs(180);

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) done: bool,
    pub(crate) text: String,
    pub(crate) complaint: String,
}

impl Said {
    /// The lines of `--json`.
    pub(crate) fn objects(&self) -> Vec<Value> {
        assert!(self.done, "{self:?}");
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs `workers` with these arguments, in the stack's environment.
pub(crate) async fn workers(field: &Field, args: &[&str]) -> Said {
    let endpoints = field.stack.endpoints();
    let program = testing::programs().await.unwrap().workers;
    let mut command = tokio::process::Command::new(program);
    command.args(args).kill_on_drop(true).env("USER", "olga");
    command.env("STAMPEDE_KAFKA_BROKERS", &endpoints.kafka);
    command.env("STAMPEDE_POSTGRES_URL", &endpoints.postgres_url);
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { done: status.success(), text: text(stdout), complaint: text(stderr) }
}

/// What `workers partitions` says of one partition.
pub(crate) async fn partition(field: &Field, partition: i32) -> Value {
    let mut all = workers(field, &["partitions", "--json"]).await.objects();
    all.swap_remove(usize::try_from(partition).unwrap())
}

/// Lets a partition go on.
pub(crate) async fn repair(field: &Field, partition: i32, from: &str) -> Said {
    let partition = partition.to_string();
    let args =
        ["repair", "--partition", &partition, "--resume-from", from, "--reason", "a test", "--confirm"];
    workers(field, &args).await
}

/// Waits until a worker that is not ready says these words.
pub(crate) async fn stops_with(field: &Field, words: &[&str]) -> String {
    wait_for(field, words, |texts| {
        texts.iter().find(|text| words.iter().all(|words| text.contains(words))).cloned()
    })
    .await
}

/// Waits until every worker is ready.
pub(crate) async fn goes_on(field: &Field) {
    wait_for(field, &["ready"], |texts| texts.is_empty().then(String::new)).await;
}

async fn wait_for(field: &Field, what: &[&str], found: impl Fn(&[String]) -> Option<String>) -> String {
    let until = Instant::now() + NOTICED_WITHIN;
    loop {
        let mut texts = Vec::new();
        for probe in field.stack.endpoints().worker_probes {
            let readiness = reqwest::get(format!("{probe}/readyz")).await;
            match readiness {
                Ok(readiness) if readiness.status().is_success() => {}
                Ok(readiness) => texts.push(readiness.text().await.unwrap_or_default()),
                Err(error) => texts.push(error.to_string()),
            }
        }
        if let Some(found) = found(&texts) {
            return found;
        }
        assert!(Instant::now() < until, "{what:?} is not said: {texts:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Repairs of a partition as they are recorded: who, why, what was found, from where and to where.
pub(crate) async fn repairs(field: &Field, partition: i32) -> Vec<(String, String, String, i64, i64)> {
    let sql = "select who, reason, finding, from_offset, to_offset from stampede.repairs
                where partition = $1 order by repair_id";
    sqlx::query_as(sql).bind(partition).fetch_all(&mut field.postgres().await).await.unwrap()
}
