//! Requests onto Kafka. A request counts as accepted once every in-sync replica has it.
//!
//! Guarantees: the fate of a record is told exactly once, also when nobody listens any more: a handler that was
//! dropped because its client went away loses nothing, and gives no place back too early or never.
//!
//! What Kafka, and its client here, do for a batch costs as much as what they do for dozens of records in it; but a
//! record that waits for company is late. The client has one `linger.ms` for all times, so there are two clients: by
//! one of them records leave at once, which is what a few do; a crowd leaves by the other, together, until nobody is
//! under way any more. Records need no order among each other before they are in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use metrics::{Counter, Histogram, counter, histogram};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use runtime::supervised::{Supervised, SupervisedClient};
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, EncodeError, Encoder};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::crash_points;
use crate::herald::Herald;
use crate::metrics as names;
use crate::undecided::{Ticket, Undecided};

/// The part of readiness that says whether Kafka takes records.
pub(crate) const PART: &str = "kafka";

/// Most records are smaller; made as large at once, they are not copied while they grow.
const ROOM_OF_A_RECORD: usize = 256;

/// So many that are not acknowledged are a crowd: more would make each other wait if everyone left at once.
const CROWD: usize = 8;
/// How long the first of a crowd waits for the others: milliseconds. Longer, and fewer are accepted; shorter, and each
/// costs everybody more.
const CROWD_LINGER_MS: &str = "2";

/// The records whose fate is not told yet, by both clients together.
#[derive(Debug)]
struct UnderWay {
    records: AtomicUsize,
    /// So many may be.
    bound: usize,
    /// They came to be a crowd, and are one until the last of them is told: when a batch is acknowledged, the next few
    /// would otherwise leave one by one ahead of the next batch.
    crowd: AtomicBool,
}

impl UnderWay {
    fn within(bound: usize) -> Arc<Self> {
        Arc::new(Self { records: AtomicUsize::default(), bound, crowd: AtomicBool::default() })
    }

    /// One more, and whether it is one of a crowd; `None` if there is no room.
    fn add(&self) -> Option<bool> {
        let before = self.records.fetch_add(1, Relaxed);
        if before >= self.bound {
            self.remove();
            return None;
        }
        if before >= CROWD {
            self.crowd.store(true, Relaxed);
        }
        Some(self.crowd.load(Relaxed))
    }

    /// One less.
    fn remove(&self) {
        if self.records.fetch_sub(1, Relaxed) == 1 {
            self.crowd.store(false, Relaxed);
        }
    }
}

/// Why a record was not taken.
#[derive(Debug, Error)]
pub(crate) enum SinkError {
    /// The producer's queue is full: nothing was sent.
    #[error("the queue to Kafka is full")]
    QueueFull,
    /// Kafka did not acknowledge in time, or refused. The record may be in the log or not.
    #[error("Kafka did not acknowledge: {0}")]
    Unacknowledged(KafkaError),
    /// The record is larger than a record may be.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A user's request that is sent.
pub(crate) struct Sent {
    /// It gives its place back if the record fails.
    pub(crate) id: RequestId,
    /// Since when it is under way.
    pub(crate) since: Instant,
    /// Who waits for its outcome, and asks for the acknowledgement only if that does not come.
    pub(crate) waiter: Option<Ticket>,
}

/// Told by the producer, once, whatever becomes of the record.
pub(crate) struct Delivery {
    request: Option<Sent>,
    told: oneshot::Sender<Result<(), KafkaError>>,
}

/// What is told of records, and to whom.
#[derive(Clone)]
struct Deliveries {
    undecided: Arc<Undecided>,
    herald: Arc<Herald<Result<(), KafkaError>>>,
    under_way: Arc<UnderWay>,
    accepted: Counter,
    acknowledged_seconds: Histogram,
}

impl Deliveries {
    fn note_fate(&self, request: &Sent, is_acknowledged: bool) {
        if is_acknowledged {
            crash_points::pass(crash_points::AFTER_PRODUCE_ACKNOWLEDGED);
            self.accepted.increment(1);
            self.acknowledged_seconds.record(request.since.elapsed().as_secs_f64());
        } else {
            self.undecided.send_failed(request.id);
        }
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka, sending requests");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        self.under_way.remove();
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        if let Some(request) = &delivery.request {
            self.note_fate(request, result.is_ok());
        }
        // A handler that has gone needs no answer; the request goes its way.
        if delivery.told.is_closed() {
            return;
        }
        match delivery.request.and_then(|request| Some((request.id, request.waiter?))) {
            None => self.herald.tell(delivery.told, result),
            // Left where it is found: nobody is woken but by the outcome, or because there will be none.
            Some((id, waiter)) => {
                let failed = result.is_err();
                drop(delivery.told.send(result));
                if failed {
                    self.undecided.send_away(id, waiter);
                }
            }
        }
    }
}

type Producer = Supervised<ThreadedProducer<Deliveries>>;

/// Sends requests.
pub(crate) struct RequestSink {
    at_once: Arc<Producer>,
    together: Arc<Producer>,
    encoder: Encoder<CouponRequest>,
    deliveries: Deliveries,
}

/// The acknowledgement of a record that was sent.
#[must_use = "a record counts only once it is acknowledged"]
#[derive(Debug)]
pub(crate) struct Acknowledgement(oneshot::Receiver<Result<(), KafkaError>>);

impl Acknowledgement {
    /// Waits for it.
    ///
    /// # Errors
    /// [`SinkError::Unacknowledged`]: nobody can say whether the record is in the log.
    pub(crate) async fn received(self) -> Result<(), SinkError> {
        self.0.await.unwrap_or(Err(KafkaError::Canceled)).map_err(SinkError::Unacknowledged)
    }
}

impl RequestSink {
    /// Producers with these settings, which have at most `bound` records under way together. They connect by
    /// themselves, and again.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub(crate) fn new(
        config: &ClientConfig,
        bound: usize,
        encoder: Encoder<CouponRequest>,
        undecided: Arc<Undecided>,
    ) -> KafkaResult<Self> {
        let deliveries = Deliveries {
            undecided,
            herald: Herald::new(),
            under_way: UnderWay::within(bound),
            accepted: counter!(names::ACCEPTED),
            acknowledged_seconds: histogram!(names::ACKNOWLEDGED_SECONDS),
        };
        let lingering = |milliseconds| {
            let mut config = config.clone();
            config.set("linger.ms", milliseconds);
            config
        };
        let at_once = Producer::producer("producer", lingering("0"), deliveries.clone())?;
        let together =
            Producer::producer("producer-of-crowds", lingering(CROWD_LINGER_MS), deliveries.clone())?;
        Ok(Self { at_once, together, encoder, deliveries })
    }

    /// Tells handlers of acknowledgements; to be run.
    pub(crate) fn herald(&self) -> Arc<Herald<Result<(), KafkaError>>> {
        Arc::clone(&self.deliveries.herald)
    }

    /// The producers, to be watched.
    pub(crate) fn watched(&self) -> [Arc<dyn SupervisedClient>; 2] {
        [self.at_once.as_supervised(), self.together.as_supervised()]
    }

    /// Sends a user's request, which has its place among the undecided; on failure, at once or later, the place is
    /// given back, and the waiter, who waits for the outcome in place of the acknowledgement, is sent away.
    ///
    /// # Errors
    /// [`SinkError`]; nothing was sent.
    pub(crate) fn send_request(
        &self,
        request: &CouponRequest,
        partition: i32,
        sent: Sent,
    ) -> Result<Acknowledgement, SinkError> {
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: HEADER_REQUEST_ID, value: Some(request.request_id.as_bytes()) })
            .insert(Header { key: HEADER_USER_ID, value: Some(request.user_id.as_bytes()) });
        let id = sent.id;
        let acknowledgement = self.send(request, partition, Some(headers), Some(sent));
        if acknowledgement.is_err() {
            self.deliveries.undecided.send_failed(id);
        }
        acknowledgement
    }

    /// Sends a record that is no user's request.
    ///
    /// # Errors
    /// [`SinkError`]; nothing was sent.
    pub(crate) fn send_internal(
        &self,
        record: &CouponRequest,
        partition: i32,
    ) -> Result<Acknowledgement, SinkError> {
        self.send(record, partition, None, None)
    }

    fn send(
        &self,
        request: &CouponRequest,
        partition: i32,
        headers: Option<OwnedHeaders>,
        sent: Option<Sent>,
    ) -> Result<Acknowledgement, SinkError> {
        let mut value = Vec::with_capacity(ROOM_OF_A_RECORD);
        self.encoder.encode(request, &mut value)?;
        let (told, acknowledged) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(REQUESTS, Box::new(Delivery { request: sent, told }))
            .partition(partition)
            .key(request.coupon_id.as_bytes())
            .payload(&value);
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        let under_way = &self.deliveries.under_way;
        let in_crowd = under_way.add().ok_or(SinkError::QueueFull)?;
        let producer = if in_crowd { &self.together } else { &self.at_once };
        producer.current().send(record).map_err(|(error, _)| {
            under_way.remove();
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => SinkError::QueueFull,
                other => SinkError::Unacknowledged(other),
            }
        })?;
        Ok(Acknowledgement(acknowledged))
    }

    /// Whether a broker answers and knows the topic. Blocks.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn ask_broker(&self, patience: Duration) -> Result<(), String> {
        let metadata = self
            .at_once
            .current_owned()
            .client()
            .fetch_metadata(Some(REQUESTS), patience)
            .map_err(|error| error.to_string())?;
        match metadata.topics().first().filter(|topic| topic.error().is_none()) {
            Some(topic) if topic.partitions().iter().all(|partition| partition.leader() >= 0) => Ok(()),
            Some(_) => Err("a partition of coupon.requests has no leader".to_owned()),
            None => Err("coupon.requests is not there".to_owned()),
        }
    }

    /// Waits until everything sent has its fate. Blocks, in steps of 100 ms: for the end only.
    pub(crate) fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        for producer in [&self.at_once, &self.together] {
            if let Err(error) = producer.current().flush(end.saturating_duration_since(Instant::now())) {
                tracing::warn!(%error, "some requests were not acknowledged before the end");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::SchemaId;

    /// Nobody listens there, so nothing is ever acknowledged.
    fn sink(bound: usize) -> RequestSink {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let undecided = Undecided::new(1, 100, 100);
        RequestSink::new(&config, bound, Encoder::new(SchemaId(1)), undecided).expect("settings")
    }

    #[test]
    fn many_are_a_crowd_until_the_last_of_them_is_told() {
        let under_way = UnderWay::within(100);
        let few: Vec<_> = (0..CROWD).map(|_| under_way.add()).collect();
        assert_eq!(few, [Some(false); CROWD]);
        assert_eq!(under_way.add(), Some(true));
        (0..CROWD).for_each(|_| under_way.remove());
        assert_eq!(under_way.add(), Some(true), "one of the crowd is still under way");
        (0..2).for_each(|_| under_way.remove());
        assert_eq!(under_way.add(), Some(false));
    }

    #[test]
    fn both_producers_together_have_no_more_under_way_than_the_bound() {
        let sink = sink(10);
        let record = CouponRequest::default();
        let sent: Vec<_> = (0..10).map(|_| sink.send_internal(&record, 0)).collect();
        assert!(sent.iter().all(Result::is_ok));
        assert!(matches!(sink.send_internal(&record, 0), Err(SinkError::QueueFull)));
        assert_eq!(sink.deliveries.under_way.records.load(Relaxed), 10);
    }

    #[tokio::test]
    async fn records_that_fail_are_told_and_under_way_no_more() {
        let sink = sink(100);
        tokio::spawn(sink.herald().run());
        let sent = sink.send_internal(&CouponRequest::default(), 0).expect("room");
        drop((sink.at_once, sink.together));
        assert!(matches!(sent.received().await, Err(SinkError::Unacknowledged(_))));
        assert_eq!(sink.deliveries.under_way.records.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn who_waits_for_an_outcome_is_sent_away_when_the_record_fails() {
        let sink = sink(100);
        let (undecided, id) = (Arc::clone(&sink.deliveries.undecided), RequestId { identity: 1, body: 0 });
        assert_eq!(undecided.admit(id, 0, Instant::now()), Ok(()));
        let waiter = undecided.wait_for(id, Instant::now());
        let sent = Sent { id, since: Instant::now(), waiter: Some(waiter.ticket) };
        let sent = sink.send_request(&CouponRequest::default(), 0, sent).expect("room");
        drop((sink.at_once, sink.together));
        let told = tokio::time::timeout(Duration::from_secs(10), waiter).await;
        assert!(matches!(told, Ok(None)), "{told:?}");
        assert!(matches!(sent.received().await, Err(SinkError::Unacknowledged(_))));
        assert_eq!(undecided.len(), 0);
    }
}
