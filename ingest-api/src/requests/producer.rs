//! Sends requests to Kafka. A request counts as accepted once every in-sync replica has it.
//!
//! Guarantees: the result of each record is handled exactly once, whether or not its handler still runs: a handler that
//! is dropped because its client disconnected loses nothing, and releases no place too early or never.
//!
//! librdkafka has one `linger.ms` per client, so there are two producers: one sends records immediately, the other in
//! batches; see [`super::in_flight`] for which is used when. Records need no order before they are in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use metrics::{Counter, Histogram, counter, histogram};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use runtime::supervised::Supervised;
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, EncodeError, Encoder};
use thiserror::Error;
use tokio::sync::oneshot;

use super::in_flight::InFlight;
use crate::crash_points::{Point, pass_blocking};
use crate::outcomes::pending::{PendingRequests, WaiterId};
use crate::outcomes::wake_batcher::WakeBatcher;
use crate::telemetry::metrics as names;

/// Larger than most records, so that their buffer is not reallocated.
const RECORD_CAPACITY: usize = 256;

/// How long the first record of a batch waits for others, in milliseconds. Longer lowers the number of accepted
/// requests; shorter raises the cost of each.
const BATCH_LINGER_MS: &str = "2";

/// Why a record was not accepted.
#[derive(Debug, Error)]
pub(crate) enum ProduceError {
    /// The producer's queue is full; the record was not sent.
    #[error("the producer queue is full")]
    QueueFull,
    /// Kafka did not acknowledge in time, or returned an error. The record may be in the log or not.
    #[error("not acknowledged by Kafka: {0}")]
    Unacknowledged(KafkaError),
    /// The record exceeds the maximum size.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

type KafkaAck = Result<(), KafkaError>;

/// A user's request in flight.
struct SentRequest {
    /// Its place is released if the record fails.
    id: RequestId,
    since: Instant,
    /// The waiter for the outcome; the acknowledgement is used only if the outcome does not come.
    waiter: Option<WaiterId>,
}

/// The context of one record, which the producer returns with its result, exactly once.
pub(crate) struct Delivery {
    request: Option<SentRequest>,
    acknowledgement: oneshot::Sender<KafkaAck>,
}

/// Handles the results of records.
#[derive(Clone)]
struct DeliveryHandler {
    pending: Arc<PendingRequests>,
    wake_batcher: Arc<WakeBatcher<KafkaAck>>,
    in_flight: Arc<InFlight>,
    accepted: Counter,
    acknowledged_seconds: Histogram,
}

impl DeliveryHandler {
    fn record_result(&self, request: &SentRequest, is_acknowledged: bool) {
        if is_acknowledged {
            pass_blocking(Point::AfterProduceAcknowledged);
            self.accepted.increment(1);
            self.acknowledged_seconds.record(request.since.elapsed().as_secs_f64());
        } else {
            self.pending.send_failed(request.id);
        }
    }
}

impl ClientContext for DeliveryHandler {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka producer of requests");
    }
}

impl ProducerContext for DeliveryHandler {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        self.in_flight.remove();
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        if let Some(request) = &delivery.request {
            self.record_result(request, result.is_ok());
        }
        // The handler is gone; the request is decided without it.
        if delivery.acknowledgement.is_closed() {
            return;
        }
        match delivery.request.and_then(|request| Some((request.id, request.waiter?))) {
            None => self.wake_batcher.send(delivery.acknowledgement, result),
            // Sent without a wake-up: the handler waits for the outcome, and is woken here only if none will come.
            Some((id, waiter)) => {
                let failed = result.is_err();
                drop(delivery.acknowledgement.send(result));
                if failed {
                    self.pending.cancel_wait(id, waiter);
                }
            }
        }
    }
}

type Producer = Supervised<ThreadedProducer<DeliveryHandler>>;

/// Sends requests.
pub(crate) struct RequestProducer {
    immediate: Arc<Producer>,
    batching: Arc<Producer>,
    encoder: Encoder<CouponRequest>,
    handler: DeliveryHandler,
}

/// The acknowledgement of a record that was sent.
#[must_use = "a record counts only once it is acknowledged"]
#[derive(Debug)]
pub(crate) struct Acknowledgement(oneshot::Receiver<KafkaAck>);

impl Acknowledgement {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// [`ProduceError::Unacknowledged`]: the record may be in the log or not.
    pub(crate) async fn received(self) -> Result<(), ProduceError> {
        self.0.await.unwrap_or(Err(KafkaError::Canceled)).map_err(ProduceError::Unacknowledged)
    }
}

impl RequestProducer {
    /// Producers with this configuration and at most `bound` records in flight together. They connect and reconnect by
    /// themselves. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// librdkafka rejects the configuration.
    pub(crate) fn new(
        config: &ClientConfig,
        bound: usize,
        encoder: Encoder<CouponRequest>,
        pending: Arc<PendingRequests>,
    ) -> KafkaResult<Self> {
        let handler = DeliveryHandler {
            pending,
            wake_batcher: WakeBatcher::new(),
            in_flight: InFlight::new(bound),
            accepted: counter!(names::ACCEPTED),
            acknowledged_seconds: histogram!(names::ACKNOWLEDGED_SECONDS),
        };
        let with_linger = |milliseconds| {
            let mut config = config.clone();
            config.set("linger.ms", milliseconds);
            config
        };
        let immediate = Producer::producer("producer", with_linger("0"), handler.clone())?;
        let batching =
            Producer::producer("producer-batching", with_linger(BATCH_LINGER_MS), handler.clone())?;
        Ok(Self { immediate, batching, encoder, handler })
    }

    /// Wakes the handlers of acknowledged records; must be run.
    pub(crate) fn wake_batcher(&self) -> Arc<WakeBatcher<KafkaAck>> {
        Arc::clone(&self.handler.wake_batcher)
    }

    /// Sends a request that has its place among the pending requests. On failure, now or later, the place is released
    /// and the waiter for the outcome is cancelled.
    ///
    /// # Errors
    /// [`ProduceError`]; the record was not sent.
    pub(crate) fn send_request(
        &self,
        record: &CouponRequest,
        partition: i32,
        id: RequestId,
        since: Instant,
        waiter: Option<WaiterId>,
    ) -> Result<Acknowledgement, ProduceError> {
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: HEADER_REQUEST_ID, value: Some(record.request_id.as_bytes()) })
            .insert(Header { key: HEADER_USER_ID, value: Some(record.user_id.as_bytes()) });
        let request = SentRequest { id, since, waiter };
        let acknowledgement = self.send(record, partition, Some(headers), Some(request));
        if acknowledgement.is_err() {
            self.handler.pending.send_failed(id);
        }
        acknowledgement
    }

    /// Sends a record that is not a user's request.
    ///
    /// # Errors
    /// [`ProduceError`]; the record was not sent.
    pub(crate) fn send_internal(
        &self,
        record: &CouponRequest,
        partition: i32,
    ) -> Result<Acknowledgement, ProduceError> {
        self.send(record, partition, None, None)
    }

    fn send(
        &self,
        record: &CouponRequest,
        partition: i32,
        headers: Option<OwnedHeaders>,
        request: Option<SentRequest>,
    ) -> Result<Acknowledgement, ProduceError> {
        let mut value = Vec::with_capacity(RECORD_CAPACITY);
        self.encoder.encode(record, &mut value)?;
        let (acknowledgement, acknowledged) = oneshot::channel();
        let delivery = Box::new(Delivery { request, acknowledgement });
        let mut message = BaseRecord::with_opaque_to(REQUESTS, delivery)
            .partition(partition)
            .key(record.coupon_id.as_bytes())
            .payload(&value);
        if let Some(headers) = headers {
            message = message.headers(headers);
        }
        let in_flight = &self.handler.in_flight;
        let in_batch = in_flight.add().ok_or(ProduceError::QueueFull)?;
        let producer = if in_batch { &self.batching } else { &self.immediate };
        producer.current().send(message).map_err(|(error, _)| {
            in_flight.remove();
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => ProduceError::QueueFull,
                other => ProduceError::Unacknowledged(other),
            }
        })?;
        Ok(Acknowledgement(acknowledged))
    }

    /// Whether a broker responds and every partition of the topic has a leader. Blocks.
    ///
    /// # Errors
    /// The reason, as text.
    pub(crate) fn check_broker(&self, limit: Duration) -> Result<(), String> {
        let metadata = self
            .immediate
            .current_owned()
            .client()
            .fetch_metadata(Some(REQUESTS), limit)
            .map_err(|error| error.to_string())?;
        match metadata.topics().first().filter(|topic| topic.error().is_none()) {
            Some(topic) if topic.partitions().iter().all(|partition| partition.leader() >= 0) => Ok(()),
            Some(_) => Err("a partition of coupon.requests has no leader".to_owned()),
            None => Err("topic coupon.requests does not exist".to_owned()),
        }
    }

    /// Waits until every record has its result. Blocks, in steps of 100 ms: for shutdown only.
    pub(crate) fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        for producer in [&self.immediate, &self.batching] {
            if let Err(error) = producer.current().flush(end.saturating_duration_since(Instant::now())) {
                tracing::warn!(%error, "some requests were not acknowledged before shutdown");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::SchemaId;

    /// A producer without a broker: no record is ever acknowledged.
    fn producer(bound: usize) -> RequestProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let pending = PendingRequests::new(1, 100, 100);
        RequestProducer::new(&config, bound, Encoder::new(SchemaId(1)), pending).expect("a configuration")
    }

    #[tokio::test]
    async fn both_producers_together_have_at_most_the_bound_in_flight() {
        let producer = producer(10);
        let record = CouponRequest::default();
        let sent: Vec<_> = (0..10).map(|_| producer.send_internal(&record, 0)).collect();
        assert!(sent.iter().all(Result::is_ok));
        assert!(matches!(producer.send_internal(&record, 0), Err(ProduceError::QueueFull)));
        assert_eq!(producer.handler.in_flight.len(), 10);
    }

    #[tokio::test]
    async fn a_failed_record_has_a_result_and_is_no_longer_in_flight() {
        let producer = producer(100);
        tokio::spawn(producer.wake_batcher().run());
        let sent = producer.send_internal(&CouponRequest::default(), 0).expect("below the bound");
        drop((producer.immediate, producer.batching));
        assert!(matches!(sent.received().await, Err(ProduceError::Unacknowledged(_))));
        assert_eq!(producer.handler.in_flight.len(), 0);
    }

    #[tokio::test]
    async fn the_waiter_for_an_outcome_is_cancelled_when_the_record_fails() {
        let producer = producer(100);
        let (pending, id) = (Arc::clone(&producer.handler.pending), RequestId { identity: 1, body: 0 });
        let now = Instant::now();
        assert_eq!(pending.admit(id, 0, now), Ok(()));
        let waiter = pending.wait_for(id, now);
        let sent = producer.send_request(&CouponRequest::default(), 0, id, now, Some(waiter.id));
        let sent = sent.expect("below the bound");
        drop((producer.immediate, producer.batching));
        let woken = tokio::time::timeout(Duration::from_secs(10), waiter).await;
        assert!(matches!(woken, Ok(None)), "{woken:?}");
        assert!(matches!(sent.received().await, Err(ProduceError::Unacknowledged(_))));
        assert_eq!(pending.len(), 0);
    }
}
