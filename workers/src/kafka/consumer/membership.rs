//! The member of the consumer group. Its partitions are paused when they are assigned, so it never fetches a record. The
//! offsets that it commits serve monitoring and autoscaling, and carry the write number that they belong to.

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
use crate::kafka::client_log;
use crate::kafka::offsets::metadata_of;
use crate::ports::Assignment;

/// A member without an assignment for this long is on standby: there are more workers than partitions.
const STANDBY_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Membership {
    consumer: Arc<BaseConsumer<Context>>,
    /// When the member joined, until its first assignment or standby is reported.
    joining_since: Option<Instant>,
}

struct Context {
    assignments: UnboundedSender<Assignment>,
    assigned: Arc<Assigned>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::line("membership", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error("membership", &error, reason);
    }
}

impl ConsumerContext for Context {
    /// Runs on the consumer thread, within a poll. It sends the change and does not wait: writes of an owner whose
    /// partition was revoked are rejected by the fence.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: Code, list: &mut TopicPartitionList) {
        let partitions: Vec<Partition> =
            list.elements_for_topic(REQUESTS).iter().map(|element| Partition(element.partition())).collect();
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let result = if error == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let result = assign_paused(consumer, list, cooperative);
            self.assigned.add(&partitions);
            tracing::info!(?partitions, "assigned by the group");
            drop(self.assignments.send(Assignment::Assigned(partitions)));
            result
        } else {
            self.assigned.remove(&partitions);
            tracing::info!(?partitions, lost = consumer.assignment_lost(), "revoked by the group");
            drop(self.assignments.send(Assignment::Revoked(partitions)));
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        if let Err(error) = result {
            tracing::error!(%error, "cannot apply the group's assignment");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "group offsets not committed; later commits include them");
        }
    }
}

fn assign_paused(
    consumer: &BaseConsumer<Context>,
    list: &mut TopicPartitionList,
    cooperative: bool,
) -> KafkaResult<()> {
    // An explicit offset: this client must not look up a committed one, which may be gone.
    list.set_all_offsets(KafkaOffset::End)?;
    if cooperative {
        consumer.incremental_assign(list)?;
    } else {
        consumer.assign(list)?;
    }
    consumer.pause(list)
}

/// The client of the membership, for supervision.
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

    /// Hands every partition over and ends the process; its supervisor starts another.
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
        Ok(Self { consumer: Arc::new(consumer), joining_since: Some(Instant::now()) })
    }

    /// The client, for supervision. It cannot be recreated below its owners: `commands` receives a shutdown instead.
    pub(super) fn watched(&self, commands: Sender<Command>) -> Arc<dyn SupervisedClient> {
        Arc::new(Member { consumer: Arc::downgrade(&self.consumer), commands })
    }

    /// Lets the client process rebalances and responses to commits.
    pub(super) fn serve(&mut self, wait: Duration) {
        while let Some(event) = self.consumer.poll(wait) {
            match event {
                Ok(_) => {} // Fetched before the pause took effect: the reader fetches it again.
                Err(error) => client_log::error("membership", &error, "while polling"),
            }
        }
        if self.joining_since.is_some_and(|since| since.elapsed() >= STANDBY_AFTER) {
            self.joining_since = None;
            // Joined without partitions: ready for a takeover.
            drop(self.consumer.context().assignments.send(Assignment::Assigned(Vec::new())));
        }
    }

    pub(super) fn commit(&self, commits: &BTreeMap<Partition, (Offset, WriteNo)>) {
        let mut list = TopicPartitionList::with_capacity(commits.len());
        for (partition, (offset, write_no)) in commits {
            if !self.consumer.context().assigned.contains(*partition) {
                continue; // Another member commits for this partition.
            }
            let mut element = list.add_partition(REQUESTS, partition.0);
            if let Err(error) = element.set_offset(KafkaOffset::Offset(offset.0)) {
                tracing::error!(%error, %partition, %offset, "invalid offset");
            }
            element.set_metadata(metadata_of(*write_no));
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "group offsets not committed; later commits include them");
        }
    }

    /// Leaves the group, so that its other members take over without waiting for the session timeout. Closing the client
    /// waits for commits in flight.
    pub(super) fn leave(self) {
        drop(self);
    }
}
