//! Faults of the broker, and foreign changes of the group's offsets.

use std::time::Duration;

use local_stack::{Admin, Child};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::topics::REQUESTS;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::environment::{Environment, FaultError};
use crate::rng::Rng;

const GROUP: &str = "stampede-workers";
/// Bound on the time until killed workers leave the group, which they do when their sessions end.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

fn brokers(env: &Environment) -> Vec<Child> {
    let all = env.stack.children().into_iter();
    all.filter(|child| matches!(child, Child::Kafka | Child::Broker(_))).collect()
}

/// Kills one broker.
pub(super) async fn kill(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let broker = *rng.pick(&brokers(env)).ok_or("there is no broker")?;
    env.stack.kill_permanently(broker)?;
    sleep(Duration::from_millis(rng.between(0, 1_500))).await;
    env.restart_children(&[broker]).await?;
    Ok(())
}

/// Nothing is acknowledged, and the queues of producers fill; then everything is, some of it later than the API's produce
/// timeout.
pub(super) async fn freeze(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    freeze_for(env, Duration::from_millis(rng.between(1_500, 6_500))).await
}

/// Freezes all brokers.
pub(super) async fn freeze_for(env: &Environment, length: Duration) -> Result<(), FaultError> {
    for broker in brokers(env) {
        env.stack.freeze(broker)?;
    }
    sleep(length).await;
    for broker in brokers(env) {
        env.stack.resume(broker)?;
    }
    Ok(())
}

/// Deletes the group with its committed offsets.
pub(super) async fn delete_group(env: &Environment, _: &mut Rng) -> Result<(), FaultError> {
    without_workers(env, GroupFault::Delete).await
}

/// Commits offsets beyond the end of the log.
pub(super) async fn commit_ahead(env: &Environment, _: &mut Rng) -> Result<(), FaultError> {
    without_workers(env, GroupFault::CommitAhead).await
}

#[derive(Clone, Copy)]
enum GroupFault {
    Delete,
    CommitAhead,
}

/// Kills all workers, applies the fault as soon as the broker allows it (the group must be empty), and restarts them.
async fn without_workers(env: &Environment, fault: GroupFault) -> Result<(), FaultError> {
    let workers = env.workers();
    for worker in &workers {
        // Fails for a worker that is not running.
        env.stack.kill_permanently(*worker).ok();
    }
    let until = Instant::now() + LEAVES_WITHIN;
    let done = loop {
        let done = apply_to_group(env, fault).await;
        if done.is_ok() || Instant::now() > until {
            break done;
        }
        sleep(Duration::from_millis(200)).await;
    };
    for worker in workers {
        env.restart_in_background(worker);
    }
    done
}

async fn apply_to_group(env: &Environment, fault: GroupFault) -> Result<(), FaultError> {
    match fault {
        GroupFault::Delete => Ok(Admin::new(&env.endpoints.kafka)?.delete_group(GROUP).await?),
        GroupFault::CommitAhead => {
            let (brokers, partitions) = (env.endpoints.kafka.clone(), env.partitions);
            spawn_blocking(move || commit_far_ahead(&brokers, partitions)).await?
        }
    }
}

fn commit_far_ahead(brokers: &str, partitions: i32) -> Result<(), FaultError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", GROUP).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut ahead = TopicPartitionList::new();
    for partition in 0..partitions {
        let (_, end) = consumer.fetch_watermarks(REQUESTS, partition, Duration::from_secs(5))?;
        ahead.add_partition_offset(REQUESTS, partition, Offset::Offset(end + 1_000))?;
    }
    Ok(consumer.commit(&ahead, CommitMode::Sync)?)
}
