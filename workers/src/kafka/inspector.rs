//! Read-only inspection of `coupon.requests`: bounds, last records and committed metadata for takeovers, end offsets for
//! the lag.
//!
//! There is one client, and its calls block: call them on a blocking thread. Requests that arrive while the client is in
//! use are combined into the next one, so a worker that takes over several partitions inspects them together.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Millis, Offset, Partition, WriteNo};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset as KafkaOffset, Timestamp, TopicPartitionList};
use runtime::supervised::{Client as _, Supervised};
use schemas::topics::REQUESTS;

use crate::codec::decode::RawRecord;
use crate::kafka::log_state::{LastRecord, LogState};
use crate::kafka::offsets::{bounds, write_no_of};

/// Timeout of one request to Kafka.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout of a request about several partitions. After it each partition is inspected alone: one without a leader must
/// not delay the others.
const COMBINED_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two requests for committed offsets while no broker is the group's coordinator.
const COORDINATOR_PAUSE: Duration = Duration::from_millis(50);

/// Inspects the log.
pub struct Inspector {
    client: Arc<Supervised<BaseConsumer>>,
    /// Held while the client is in use.
    in_use: Mutex<()>,
    waiting: Mutex<Vec<Request>>,
}

/// A request for the state of one partition.
struct Request {
    partition: Partition,
    /// The record that Postgres has consumed last.
    last: Offset,
    response: SyncSender<Result<LogState, InspectError>>,
}

/// The log cannot be inspected now.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the record at offset {0} was not delivered in time")]
    Slow(Offset),
    #[error("Kafka returns no bounds for partition {0} of {REQUESTS}")]
    NoBounds(Partition),
}

impl Inspector {
    /// `config` is a reader's, with the group's id: the inspector reads the group's offsets and never joins.
    ///
    /// # Errors
    /// Settings that librdkafka rejects.
    pub fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let mut config = config.clone();
        // It reads one record of each partition.
        config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
        let client = Supervised::new("inspector", move || config.create())?;
        Ok(Self { client, in_use: Mutex::default(), waiting: Mutex::default() })
    }

    /// The offsets that the next records of partitions will get; partitions without a leader are missing. Blocks.
    /// Also keeps the client ready for a takeover: its metadata is fresh, and it is connected to the leaders.
    ///
    /// # Errors
    /// What Kafka reports.
    pub fn end_offsets(&self, partitions: &[Partition]) -> KafkaResult<BTreeMap<Partition, Offset>> {
        let _in_use = self.lock_client();
        bounds(&**self.client.current(), partitions, KafkaOffset::End, COMBINED_TIMEOUT)
    }

    /// Whether a broker responds. Blocks.
    pub(crate) fn responds(&self) -> bool {
        self.client.current_owned().probe().is_ok()
    }

    /// Sends every request of a takeover once and discards the results: the first request to a group, and to each
    /// leader, takes many times as long as later ones. Blocks.
    pub fn warm_up(&self, partitions: i32) {
        let partitions: BTreeMap<Partition, Offset> =
            (0..partitions).map(|partition| (Partition(partition), Offset(-1))).collect();
        let _in_use = self.lock_client();
        if let Err(error) = inspect(&self.client.current(), &partitions, TIMEOUT) {
            tracing::debug!(%error, "inspector not warmed up: the first takeover is slower");
        }
    }

    /// The state of a partition. Blocks.
    pub(crate) fn inspect(&self, partition: Partition, last: Offset) -> Result<LogState, InspectError> {
        let (response, receiver) = std::sync::mpsc::sync_channel(1);
        self.lock_waiting().push(Request { partition, last, response });
        let in_use = self.lock_client();
        // The thread that had the client before may have processed this request, too.
        if let Ok(result) = receiver.try_recv() {
            return result;
        }
        self.process_waiting(&self.client.current_owned());
        drop(in_use);
        receiver.try_recv().unwrap_or(Err(InspectError::NoBounds(partition)))
    }

    /// Processes every request that arrived until the client was free.
    fn process_waiting(&self, client: &BaseConsumer) {
        let requests = std::mem::take(&mut *self.lock_waiting());
        let wanted: BTreeMap<Partition, Offset> =
            requests.iter().map(|request| (request.partition, request.last)).collect();
        let mut combined = match wanted.len() {
            0 | 1 => BTreeMap::new(),
            _ => inspect(client, &wanted, COMBINED_TIMEOUT).unwrap_or_else(|error| {
                tracing::debug!(%error, "inspecting each partition alone");
                BTreeMap::new()
            }),
        };
        for Request { partition, last, response } in requests {
            // Two requests for one partition with different last records are processed one by one.
            let state = combined.remove(&partition).filter(|_| wanted.get(&partition) == Some(&last));
            let result = state.map_or_else(
                || {
                    let states = inspect(client, &BTreeMap::from([(partition, last)]), TIMEOUT)?;
                    states.into_values().next().ok_or(InspectError::NoBounds(partition))
                },
                Ok,
            );
            // The channel has room for one result, and this is the only one.
            drop(response.try_send(result));
        }
    }

    fn lock_client(&self) -> std::sync::MutexGuard<'_, ()> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of partitions: three requests at the same time, then their last records, all together.
fn inspect(
    client: &BaseConsumer,
    wanted: &BTreeMap<Partition, Offset>,
    timeout: Duration,
) -> Result<BTreeMap<Partition, LogState>, InspectError> {
    let partitions: Vec<Partition> = wanted.keys().copied().collect();
    let query = || query(client, &partitions, timeout);
    let Metadata { low, high, committed } = query().or_else(|error| {
        if !is_about_leaders(&error) {
            return Err(error);
        }
        // The client's metadata is stale.
        tracing::debug!(%error, "refreshing the metadata");
        client.fetch_metadata(Some(REQUESTS), timeout)?;
        query()
    })?;
    let mut states = BTreeMap::new();
    let mut to_read = BTreeMap::new();
    for (partition, last) in wanted {
        let (Some(low), Some(high)) = (low.get(partition), high.get(partition)) else {
            return Err(InspectError::NoBounds(*partition));
        };
        if last.0 >= 0 && *last >= *low && *last < *high {
            to_read.insert(*partition, *last);
        }
        let committed = committed.get(partition).copied();
        let state = LogState { low: *low, high: *high, last: LastRecord::OutOfBounds, committed };
        states.insert(*partition, state);
    }
    for (partition, last) in read_records(client, to_read, timeout)? {
        if let Some(state) = states.get_mut(&partition) {
            state.last = last;
        }
    }
    Ok(states)
}

struct Metadata {
    low: BTreeMap<Partition, Offset>,
    high: BTreeMap<Partition, Offset>,
    committed: BTreeMap<Partition, WriteNo>,
}

fn query(
    client: &BaseConsumer,
    partitions: &[Partition],
    timeout: Duration,
) -> Result<Metadata, InspectError> {
    let (low, high, committed) = std::thread::scope(|scope| {
        let low = scope.spawn(|| bounds(client, partitions, KafkaOffset::Beginning, timeout));
        let high = scope.spawn(|| bounds(client, partitions, KafkaOffset::End, timeout));
        let committed = committed(client, partitions, timeout);
        let panicked = |_| Err(KafkaError::Canceled);
        (low.join().unwrap_or_else(panicked), high.join().unwrap_or_else(panicked), committed)
    });
    let metadata = Metadata { low: low?, high: high?, committed: committed? };
    let unbounded = partitions
        .iter()
        .find(|partition| !metadata.low.contains_key(*partition) || !metadata.high.contains_key(*partition));
    unbounded.map_or(Ok(()), |partition| Err(InspectError::NoBounds(*partition)))?;
    Ok(metadata)
}

/// The write numbers in the group's committed metadata. Retries while the group has no coordinator: a broker that has
/// just started accepts connections before it has loaded the group.
fn committed(
    client: &BaseConsumer,
    partitions: &[Partition],
    timeout: Duration,
) -> KafkaResult<BTreeMap<Partition, WriteNo>> {
    let until = Instant::now() + timeout;
    loop {
        match committed_once(client, partitions, timeout) {
            Err(error) if is_about_the_coordinator(&error) && Instant::now() < until => {
                std::thread::sleep(COORDINATOR_PAUSE);
            }
            result => return result,
        }
    }
}

fn committed_once(
    client: &BaseConsumer,
    partitions: &[Partition],
    timeout: Duration,
) -> KafkaResult<BTreeMap<Partition, WriteNo>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(REQUESTS, partition.0);
    }
    let list = client.committed_offsets(list, timeout)?;
    let mut committed = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Some(write_no) = write_no_of(element.metadata()) {
            committed.insert(Partition(element.partition()), write_no);
        }
    }
    Ok(committed)
}

/// Reads one record of each partition.
fn read_records(
    client: &BaseConsumer,
    mut wanted: BTreeMap<Partition, Offset>,
    timeout: Duration,
) -> Result<BTreeMap<Partition, LastRecord>, InspectError> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    for (partition, last) in &wanted {
        list.add_partition_offset(REQUESTS, partition.0, KafkaOffset::Offset(last.0))?;
    }
    client.assign(&list)?;
    let records = poll_assigned(client, &mut wanted, timeout);
    client.unassign()?;
    records
}

fn poll_assigned(
    client: &BaseConsumer,
    wanted: &mut BTreeMap<Partition, Offset>,
    timeout: Duration,
) -> Result<BTreeMap<Partition, LastRecord>, InspectError> {
    let until = Instant::now() + timeout;
    let mut records = BTreeMap::new();
    let mut connection_error = None;
    while let Some(missing) = wanted.values().next().copied() {
        if Instant::now() >= until {
            return Err(connection_error.map_or(InspectError::Slow(missing), InspectError::Kafka));
        }
        match client.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let partition = Partition(message.partition());
                if let Some(last) = wanted.remove(&partition) {
                    records.insert(partition, last_record(&message, last));
                }
            }
            // An outage leaves one error per connection attempt in the queue. Returning each of them would cost a
            // pause, and the takeover would wait long after the broker is back.
            Some(Err(error)) if is_about_the_connection(&error) => connection_error = Some(error),
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(records)
}

fn last_record(message: &BorrowedMessage<'_>, last: Offset) -> LastRecord {
    if message.offset() == last.0 { LastRecord::Digest(digest(message, last)) } else { LastRecord::Missing }
}

fn digest(message: &BorrowedMessage<'_>, offset: Offset) -> i64 {
    let appended = match message.timestamp() {
        Timestamp::LogAppendTime(millis) | Timestamp::CreateTime(millis) => millis,
        Timestamp::NotAvailable => 0,
    };
    RawRecord { offset, appended: Millis(appended), key: message.key(), value: message.payload() }.digest()
}

fn is_about_leaders(error: &InspectError) -> bool {
    use RDKafkaErrorCode::{
        LeaderNotAvailable, NotLeaderForPartition, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    match error {
        InspectError::Kafka(error) => matches!(
            error.rdkafka_error_code(),
            Some(
                LeaderNotAvailable
                    | NotLeaderForPartition
                    | UnknownPartition
                    | UnknownTopic
                    | UnknownTopicOrPartition
            )
        ),
        InspectError::NoBounds(_) => true,
        InspectError::Slow(_) => false,
    }
}

fn is_about_the_coordinator(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    let code = error.rdkafka_error_code();
    matches!(code, Some(CoordinatorLoadInProgress | CoordinatorNotAvailable | NotCoordinator))
}

/// librdkafka reconnects by itself after these.
fn is_about_the_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let code = error.rdkafka_error_code();
    matches!(code, Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    #[test]
    fn committed_offsets_are_requested_again_while_the_broker_is_not_yet_the_coordinator() {
        let cluster = MockCluster::new(1).expect("a broker");
        cluster.create_topic(REQUESTS, 1, 1).expect("a topic");
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "workers")
            .create()
            .expect("settings");
        let not_coordinator = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 3];
        cluster.request_errors(RDKafkaApiKey::OffsetFetch, &not_coordinator);
        let once = committed_once(&client, &[Partition(0)], TIMEOUT);
        assert!(once.as_ref().is_err_and(is_about_the_coordinator), "{once:?}");
        let committed = committed(&client, &[Partition(0)], TIMEOUT).expect("a result in the end");
        assert!(committed.is_empty(), "nothing was committed: {committed:?}");
    }
}
