//! The member of the consumer group. Its partitions are paused the moment they are assigned, so it never fetches a
//! record; what it commits is for monitoring and autoscaling, and carries the write number that it belongs to.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, Partition, WriteNo};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr as Code;
use rdkafka::{ClientContext, Offset as KafkaOffset, TopicPartitionList};
use runtime::supervised::{Client as _, SupervisedClient};
use schemas::topics::REQUESTS;
use tokio::sync::mpsc::UnboundedSender;

use super::{Assigned, Command};
use crate::kafka_log;
use crate::log::metadata_of;

/// A member that was told nothing for this long is a spare one: there are more workers than partitions.
const SPARE_AFTER: Duration = Duration::from_secs(10);

/// What the group says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These are ours, beside what we have.
    Assigned(Vec<Partition>),
    /// These are not ours any more.
    Revoked(Vec<Partition>),
}

pub(super) struct Membership {
    consumer: Arc<BaseConsumer<Context>>,
    joining: Option<Instant>,
}

struct Context {
    assignments: UnboundedSender<Assignment>,
    assigned: Arc<Assigned>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka_log::line("membership", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka_log::error("membership", &error, reason);
    }
}

impl ConsumerContext for Context {
    /// Runs on the consumer thread, within a poll. It tells and does not wait: a partition that is taken away while
    /// its owner still writes is the fence's business.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: Code, list: &mut TopicPartitionList) {
        let partitions: Vec<Partition> =
            list.elements_for_topic(REQUESTS).iter().map(|element| Partition(element.partition())).collect();
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = if error == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let done = take(consumer, list, cooperative);
            self.assigned.add(&partitions);
            tracing::info!(?partitions, "assigned by the group");
            drop(self.assignments.send(Assignment::Assigned(partitions)));
            done
        } else {
            self.assigned.remove(&partitions);
            tracing::info!(?partitions, lost = consumer.assignment_lost(), "revoked by the group");
            drop(self.assignments.send(Assignment::Revoked(partitions)));
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        if let Err(error) = done {
            tracing::error!(%error, "the group's assignment cannot be followed");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the group's offsets were not committed; the next ones will be");
        }
    }
}

fn take(
    consumer: &BaseConsumer<Context>,
    list: &mut TopicPartitionList,
    cooperative: bool,
) -> KafkaResult<()> {
    // An explicit offset: this client must not look for a committed one, which may be gone.
    list.set_all_offsets(KafkaOffset::End)?;
    if cooperative {
        consumer.incremental_assign(list)?;
    } else {
        consumer.assign(list)?;
    }
    consumer.pause(list)
}

/// The client of the membership, for whoever watches it.
struct Member {
    consumer: Weak<BaseConsumer<Context>>,
    commands: Sender<Command>,
}

impl SupervisedClient for Member {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn probe(&self, timeout: Duration) -> KafkaResult<()> {
        self.consumer.upgrade().map_or(Ok(()), |consumer| consumer.probe(timeout))
    }

    /// Hands everything over, and ends the process: whoever supervises it starts another.
    fn recreate(&self) -> KafkaResult<()> {
        self.commands.send(Command::Shutdown).map_err(|_| KafkaError::Canceled)
    }
}

impl Membership {
    pub(super) fn join(
        config: &ClientConfig,
        assignments: UnboundedSender<Assignment>,
        assigned: Arc<Assigned>,
    ) -> KafkaResult<Self> {
        let consumer = BaseConsumer::from_config_and_context(config, Context { assignments, assigned })?;
        consumer.subscribe(&[REQUESTS])?;
        Ok(Self { consumer: Arc::new(consumer), joining: Some(Instant::now()) })
    }

    /// The client, to be watched. It cannot be made anew below its owners: `commands` are told to end instead.
    pub(super) fn watched(&self, commands: Sender<Command>) -> Arc<dyn SupervisedClient> {
        Arc::new(Member { consumer: Arc::downgrade(&self.consumer), commands })
    }

    /// Lets the client do its work: rebalances, answers to commits.
    pub(super) fn serve(&mut self, wait: Duration) {
        while let Some(event) = self.consumer.poll(wait) {
            match event {
                Ok(_) => {} // Fetched before the pause took hold: the reader fetches it again.
                Err(error) => kafka_log::error("membership", &error, "while polling"),
            }
        }
        if self.joining.is_some_and(|since| since.elapsed() >= SPARE_AFTER) {
            self.joining = None;
            // Joined with nothing assigned: ready to take over when another goes.
            drop(self.consumer.context().assignments.send(Assignment::Assigned(Vec::new())));
        }
    }

    pub(super) fn commit(&self, commits: &BTreeMap<Partition, (Offset, WriteNo)>) {
        let mut list = TopicPartitionList::with_capacity(commits.len());
        for (partition, (offset, write_no)) in commits {
            if !self.consumer.context().assigned.contains(*partition) {
                continue; // Another member's business by now.
            }
            let mut element = list.add_partition(REQUESTS, partition.0);
            if let Err(error) = element.set_offset(KafkaOffset::Offset(offset.0)) {
                tracing::error!(%error, %partition, %offset, "an offset cannot be committed");
            }
            element.set_metadata(metadata_of(*write_no));
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "the group's offsets were not committed; the next ones will be");
        }
    }

    /// Leaves in an orderly way, so that the others need not wait for a session to time out. Closing the client waits
    /// for the commits that are under way.
    pub(super) fn leave(self) {
        drop(self);
    }
}
