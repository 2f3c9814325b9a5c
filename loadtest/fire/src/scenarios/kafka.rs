//! The broker dies or sleeps, and somebody meddles with the group's offsets.

use std::time::Duration;

use local_stack::{Admin, Child};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::topics::REQUESTS;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::field::{Field, Trouble};

const GROUP: &str = "stampede-workers";
/// Killed workers are members until their sessions end.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

fn brokers(field: &Field) -> Vec<Child> {
    let all = field.stack.children().into_iter();
    all.filter(|child| matches!(child, Child::Kafka | Child::Broker(_))).collect()
}

/// One of them, where there are several.
pub(super) async fn kill(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let broker = *dice.pick(&brokers(field)).ok_or("there is no broker")?;
    field.stack.kill_permanently(broker)?;
    sleep(Duration::from_millis(dice.between(0, 1_500))).await;
    field.revive(&[broker]).await?;
    Ok(())
}

/// Nothing is acknowledged, and producers' queues fill; then everything is, when nobody may wait for it any more. Up to
/// longer than an API waits for an acknowledgement.
pub(super) async fn freeze(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    freeze_for(field, Duration::from_millis(dice.between(1_500, 6_500))).await
}

/// All of them fall asleep.
pub(super) async fn freeze_for(field: &Field, length: Duration) -> Result<(), Trouble> {
    for broker in brokers(field) {
        field.stack.freeze(broker)?;
    }
    sleep(length).await;
    for broker in brokers(field) {
        field.stack.resume(broker)?;
    }
    Ok(())
}

/// The group is gone, with all that it has committed.
pub(super) async fn delete_group(field: &Field, _: &mut Dice) -> Result<(), Trouble> {
    without_workers(field, Meddling::Delete).await
}

/// Somebody has committed more than there is.
pub(super) async fn commit_ahead(field: &Field, _: &mut Dice) -> Result<(), Trouble> {
    without_workers(field, Meddling::CommitAhead).await
}

#[derive(Clone, Copy)]
enum Meddling {
    Delete,
    CommitAhead,
}

/// Kills all workers, tries until the broker takes it (it refuses while the group has members), and lets them come back.
async fn without_workers(field: &Field, meddling: Meddling) -> Result<(), Trouble> {
    let workers = field.workers();
    for worker in &workers {
        // One that does not run yet cannot be killed.
        field.stack.kill_permanently(*worker).ok();
    }
    let until = Instant::now() + LEAVES_WITHIN;
    let done = loop {
        let done = meddle(field, meddling).await;
        if done.is_ok() || Instant::now() > until {
            break done;
        }
        sleep(Duration::from_millis(200)).await;
    };
    for worker in workers {
        field.revive_meanwhile(worker);
    }
    done
}

async fn meddle(field: &Field, meddling: Meddling) -> Result<(), Trouble> {
    match meddling {
        Meddling::Delete => Ok(Admin::new(&field.endpoints.kafka)?.delete_group(GROUP).await?),
        Meddling::CommitAhead => {
            let (brokers, partitions) = (field.endpoints.kafka.clone(), field.partitions);
            spawn_blocking(move || commit_far_ahead(&brokers, partitions)).await?
        }
    }
}

fn commit_far_ahead(brokers: &str, partitions: i32) -> Result<(), Trouble> {
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
