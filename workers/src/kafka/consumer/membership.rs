//! The member of the consumer group. Its partitions are paused when they are assigned, so it never fetches a record. The
//! offsets that it commits serve monitoring and autoscaling, and carry the write number that they belong to.
//!
//! A client that no longer works is replaced, and the process joins again as another member: it never sets
//! `group.instance.id`, so it cannot fence off a member that has replaced it. All partitions of the previous member are
//! lost, as after an expired session: their owners end before the new member is assigned any, and whatever they still
//! write is subject to the fence in Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, Partition, WriteNo};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr as Code;
use rdkafka::{ClientContext, Offset as KafkaOffset, TopicPartitionList};
use runtime::supervised::Supervised;
use schemas::topics::REQUESTS;
use tokio::sync::mpsc::UnboundedSender;

use super::Assigned;
use crate::kafka::client_log;
use crate::kafka::offsets::metadata_of;
use crate::ports::Assignment;

/// A member without an assignment for this long is on standby: there are more workers than partitions.
const STANDBY_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Membership {
    clients: Arc<Supervised<BaseConsumer<Context>>>,
    consumer: Arc<BaseConsumer<Context>>,
    /// When the member joined, until its first assignment or standby is reported.
    joining_since: Option<Instant>,
}

struct Context {
    assignments: UnboundedSender<Assignment>,
    assigned: Arc<Assigned>,
    /// Whether the client was replaced: its changes no longer concern this process.
    is_replaced: AtomicBool,
}

impl Context {
    /// Publishes a change of the assignment.
    fn publish(&self, change: Assignment) {
        if self.is_replaced.load(Ordering::Relaxed) {
            return;
        }
        match &change {
            Assignment::Assigned(partitions) => self.assigned.add(partitions),
            Assignment::Revoked(partitions) => self.assigned.remove(partitions),
        }
        drop(self.assignments.send(change));
    }
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
            tracing::info!(?partitions, "assigned by the group");
            self.publish(Assignment::Assigned(partitions));
            result
        } else {
            tracing::info!(?partitions, lost = consumer.assignment_lost(), "revoked by the group");
            self.publish(Assignment::Revoked(partitions));
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

impl Membership {
    pub(super) fn join(
        config: ClientConfig,
        assignments: UnboundedSender<Assignment>,
        assigned: Arc<Assigned>,
    ) -> KafkaResult<Self> {
        let clients = Supervised::new("membership", move || {
            let (assignments, assigned) = (assignments.clone(), Arc::clone(&assigned));
            let context = Context { assignments, assigned, is_replaced: AtomicBool::new(false) };
            BaseConsumer::from_config_and_context(&config, context)
        })?;
        let consumer = clients.current_owned();
        consumer.subscribe(&[REQUESTS])?;
        Ok(Self { clients, consumer, joining_since: Some(Instant::now()) })
    }

    /// Joins again with the client that replaced the previous one. Only here does a new client subscribe: supervision also
    /// creates clients that it does not keep.
    fn switch_to_current_client(&mut self) {
        if self.clients.is_current(&self.consumer) {
            return;
        }
        let previous = std::mem::replace(&mut self.consumer, self.clients.current_owned());
        let context = previous.context();
        context.publish(Assignment::Revoked(context.assigned.all()));
        context.is_replaced.store(true, Ordering::Relaxed);
        // Closing a client that no longer works may take as long as its requests take to time out.
        drop(std::thread::Builder::new().name("leave group".to_owned()).spawn(move || drop(previous)));
        if let Err(error) = self.consumer.subscribe(&[REQUESTS]) {
            tracing::error!(%error, "cannot join the group again");
        }
    }

    /// Lets the client process rebalances and responses to commits.
    pub(super) fn serve(&mut self, wait: Duration) {
        self.switch_to_current_client();
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
