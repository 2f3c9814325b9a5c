//! Looks things up in Kafka: for takeovers, whether the log is the one that Postgres knows; for the lag, where it ends.
//!
//! One client, used by one at a time; its calls block, so they belong on a blocking thread. Whoever takes several
//! partitions over at once asks about all of them at once: what is asked while a question is under way is the next
//! question, together.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Millis, Offset, Partition, WriteNo};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset as KafkaOffset, Timestamp, TopicPartitionList};
use runtime::supervised::{Supervised, SupervisedClient};
use schemas::topics::REQUESTS;

use crate::decode::Raw;
use crate::log::{Found, Last, write_no_of};

/// How long one question to Kafka may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a question about several partitions may take before each is asked about by itself: one without a leader
/// must not keep the others waiting.
const TOGETHER: Duration = Duration::from_secs(1);
/// Between two questions to a group that no broker answers for yet.
const COORDINATOR_PAUSE: Duration = Duration::from_millis(50);

/// Looks things up in Kafka.
pub struct Inspector {
    client: Arc<Supervised<BaseConsumer>>,
    /// Held while the client is asked.
    turn: Mutex<()>,
    waiting: Mutex<Vec<Question>>,
}

/// What somebody waits to know about a partition.
struct Question {
    partition: Partition,
    /// The record that Postgres consumed last.
    last: Offset,
    answer: SyncSender<Result<Found, InspectError>>,
}

/// Kafka could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error("Kafka does not answer: {0}")]
    Kafka(#[from] KafkaError),
    #[error("the record at offset {0} was not delivered in time")]
    Slow(Offset),
    #[error("Kafka does not say where partition {0} of {REQUESTS} begins and ends")]
    NoBounds(Partition),
}

impl Inspector {
    /// `config` is a reader's, with the group's id: it reads the group's offsets, and never joins.
    ///
    /// # Errors
    /// What librdkafka has against the settings.
    pub fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let mut config = config.clone();
        // One record of each partition is all that it ever reads.
        config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
        let client = Supervised::new("inspector", move || config.create())?;
        Ok(Self { client, turn: Mutex::default(), waiting: Mutex::default() })
    }

    /// The client, to be watched.
    #[must_use]
    pub fn watched(&self) -> Arc<dyn SupervisedClient> {
        self.client.as_supervised()
    }

    /// The offsets that the next records of partitions will get; those that Kafka does not know now are missing.
    /// Also keeps the client ready for a takeover: it knows where the leaders are, and is connected to them.
    ///
    /// # Errors
    /// What Kafka says.
    pub fn ends(&self, partitions: &[Partition]) -> KafkaResult<BTreeMap<Partition, Offset>> {
        let _turn = self.turn();
        bounds(&**self.client.current(), partitions, KafkaOffset::End, TOGETHER)
    }

    /// Asks whatever a takeover asks once, and forgets the answers: the first question to a group, and to each leader,
    /// takes many times as long as the next ones.
    pub fn warm_up(&self, partitions: i32) {
        let partitions: BTreeMap<Partition, Offset> =
            (0..partitions).map(|partition| (Partition(partition), Offset(-1))).collect();
        let _turn = self.turn();
        if let Err(error) = look(&self.client.current(), &partitions, PATIENCE) {
            tracing::debug!(%error, "Kafka was not asked ahead: the first takeover is slower");
        }
    }

    /// What is there of a partition. Blocks.
    pub(crate) fn look(&self, partition: Partition, last: Offset) -> Result<Found, InspectError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.lock_waiting().push(Question { partition, last, answer });
        let turn = self.turn();
        // Whoever had the client before may have asked this, too.
        if let Ok(answer) = answered.try_recv() {
            return answer;
        }
        self.answer_all(&self.client.current_owned());
        drop(turn);
        answered.try_recv().unwrap_or(Err(InspectError::NoBounds(partition)))
    }

    /// Answers everything that was asked until the client was free.
    fn answer_all(&self, client: &BaseConsumer) {
        let questions = std::mem::take(&mut *self.lock_waiting());
        let wanted: BTreeMap<Partition, Offset> =
            questions.iter().map(|question| (question.partition, question.last)).collect();
        let mut found = match wanted.len() {
            0 | 1 => BTreeMap::new(),
            _ => look(client, &wanted, TOGETHER).unwrap_or_else(|error| {
                tracing::debug!(%error, "asking about each partition by itself");
                BTreeMap::new()
            }),
        };
        for Question { partition, last, answer } in questions {
            // Asked about twice, and differently: each by itself.
            let together = found.remove(&partition).filter(|_| wanted.get(&partition) == Some(&last));
            let one = together.map_or_else(
                || {
                    let found = look(client, &BTreeMap::from([(partition, last)]), PATIENCE)?;
                    found.into_values().next().ok_or(InspectError::NoBounds(partition))
                },
                Ok,
            );
            // There is room for one answer, and this is it.
            drop(answer.try_send(one));
        }
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, Vec<Question>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where partitions begin or end: one request to each leader. A partition about which its leader says nothing is
/// missing.
pub(crate) fn bounds<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    which: KafkaOffset,
    patience: Duration,
) -> KafkaResult<BTreeMap<Partition, Offset>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(REQUESTS, partition.0, which)?;
    }
    let list = client.offsets_for_times(list, patience)?;
    let known = list.elements().into_iter().filter_map(|element| match (element.error(), element.offset()) {
        (Ok(()), KafkaOffset::Offset(offset)) => Some((Partition(element.partition()), Offset(offset))),
        _ => None,
    });
    Ok(known.collect())
}

/// What is there of partitions: three questions at once, then their last records, all together.
fn look(
    client: &BaseConsumer,
    wanted: &BTreeMap<Partition, Offset>,
    patience: Duration,
) -> Result<BTreeMap<Partition, Found>, InspectError> {
    let partitions: Vec<Partition> = wanted.keys().copied().collect();
    let ask = || ask(client, &partitions, patience);
    let asked = ask().or_else(|error| {
        if !is_about_leaders(&error) {
            return Err(error);
        }
        // What the client believes of the leaders is older than what has happened to them.
        tracing::debug!(%error, "asking for the leaders anew");
        client.fetch_metadata(Some(REQUESTS), patience)?;
        ask()
    })?;
    let Asked { low, high, committed } = asked;
    let mut found = BTreeMap::new();
    let mut to_read = BTreeMap::new();
    for (partition, last) in wanted {
        let (Some(low), Some(high)) = (low.get(partition), high.get(partition)) else {
            return Err(InspectError::NoBounds(*partition));
        };
        if last.0 >= 0 && *last >= *low && *last < *high {
            to_read.insert(*partition, *last);
        }
        let committed = committed.get(partition).copied();
        found.insert(*partition, Found { low: *low, high: *high, last: Last::NotThere, committed });
    }
    for (partition, last) in read_again(client, to_read, patience)? {
        if let Some(found) = found.get_mut(&partition) {
            found.last = last;
        }
    }
    Ok(found)
}

struct Asked {
    low: BTreeMap<Partition, Offset>,
    high: BTreeMap<Partition, Offset>,
    committed: BTreeMap<Partition, WriteNo>,
}

fn ask(client: &BaseConsumer, partitions: &[Partition], patience: Duration) -> Result<Asked, InspectError> {
    let (low, high, committed) = std::thread::scope(|scope| {
        let low = scope.spawn(|| bounds(client, partitions, KafkaOffset::Beginning, patience));
        let high = scope.spawn(|| bounds(client, partitions, KafkaOffset::End, patience));
        let committed = committed(client, partitions, patience);
        let gone = |_| Err(KafkaError::Canceled);
        (low.join().unwrap_or_else(gone), high.join().unwrap_or_else(gone), committed)
    });
    let asked = Asked { low: low?, high: high?, committed: committed? };
    let silent = partitions
        .iter()
        .find(|partition| !asked.low.contains_key(*partition) || !asked.high.contains_key(*partition));
    silent.map_or(Ok(()), |partition| Err(InspectError::NoBounds(*partition)))?;
    Ok(asked)
}

/// The write numbers in the group's committed metadata. A broker that has just begun is reachable before it knows that it
/// is to answer for the group.
fn committed(
    client: &BaseConsumer,
    partitions: &[Partition],
    patience: Duration,
) -> KafkaResult<BTreeMap<Partition, WriteNo>> {
    let until = Instant::now() + patience;
    loop {
        match committed_now(client, partitions, patience) {
            Err(error) if is_about_the_coordinator(&error) && Instant::now() < until => {
                std::thread::sleep(COORDINATOR_PAUSE);
            }
            answer => return answer,
        }
    }
}

fn committed_now(
    client: &BaseConsumer,
    partitions: &[Partition],
    patience: Duration,
) -> KafkaResult<BTreeMap<Partition, WriteNo>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(REQUESTS, partition.0);
    }
    let list = client.committed_offsets(list, patience)?;
    let mut committed = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Some(write_no) = write_no_of(element.metadata()) {
            committed.insert(Partition(element.partition()), write_no);
        }
    }
    Ok(committed)
}

/// Reads these records of these partitions.
fn read_again(
    client: &BaseConsumer,
    mut wanted: BTreeMap<Partition, Offset>,
    patience: Duration,
) -> Result<BTreeMap<Partition, Last>, InspectError> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    for (partition, last) in &wanted {
        list.add_partition_offset(REQUESTS, partition.0, KafkaOffset::Offset(last.0))?;
    }
    client.assign(&list)?;
    let found = read_assigned(client, &mut wanted, patience);
    client.unassign()?;
    found
}

fn read_assigned(
    client: &BaseConsumer,
    wanted: &mut BTreeMap<Partition, Offset>,
    patience: Duration,
) -> Result<BTreeMap<Partition, Last>, InspectError> {
    let until = Instant::now() + patience;
    let mut found = BTreeMap::new();
    let mut missed = None;
    while let Some(slow) = wanted.values().next().copied() {
        if Instant::now() >= until {
            return Err(missed.map_or(InspectError::Slow(slow), InspectError::Kafka));
        }
        match client.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let partition = Partition(message.partition());
                if let Some(last) = wanted.remove(&partition) {
                    found.insert(partition, as_expected(&message, last));
                }
            }
            // One for every attempt to connect during an outage, queued since then: taken as the answer, each
            // would cost a pause, and the takeover would wait long after the broker is back.
            Some(Err(error)) if is_about_the_connection(&error) => missed = Some(error),
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn as_expected(message: &BorrowedMessage<'_>, last: Offset) -> Last {
    if message.offset() == last.0 { Last::Digest(digest(message, last)) } else { Last::Missing }
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

/// librdkafka connects again by itself.
fn is_about_the_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let code = error.rdkafka_error_code();
    matches!(code, Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve))
}

fn digest(message: &BorrowedMessage<'_>, offset: Offset) -> i64 {
    let appended = match message.timestamp() {
        Timestamp::LogAppendTime(millis) | Timestamp::CreateTime(millis) => millis,
        Timestamp::NotAvailable => 0,
    };
    Raw { offset, appended: Millis(appended), key: message.key(), value: message.payload() }.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    #[test]
    fn a_broker_that_does_not_know_yet_that_it_answers_for_the_group_is_asked_again() {
        let cluster = MockCluster::new(1).expect("a broker");
        cluster.create_topic(REQUESTS, 1, 1).expect("a topic");
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "workers")
            .create()
            .expect("settings");
        let not_yet = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 3];
        cluster.request_errors(RDKafkaApiKey::OffsetFetch, &not_yet);
        let now = committed_now(&client, &[Partition(0)], PATIENCE);
        assert!(now.as_ref().is_err_and(is_about_the_coordinator), "{now:?}");
        let committed = committed(&client, &[Partition(0)], PATIENCE).expect("an answer in the end");
        assert!(committed.is_empty(), "nothing was ever committed: {committed:?}");
    }
}
