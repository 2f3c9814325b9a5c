//! Requests onto Kafka. A request counts as accepted once every in-sync replica has it.
//!
//! Guarantees: the fate of a record is told exactly once, also when nobody listens any more: a handler that was
//! dropped because its client went away loses nothing, and gives no place back too early or never.

use std::sync::Arc;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use runtime::lifecycle::Readiness;
use runtime::renewable::{Renewable, Watched};
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, EncodeError, Encoder};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use coupon_core::ids::RequestId;

use crate::herald::Herald;
use crate::undecided::Undecided;

/// The part of readiness that says whether Kafka takes records.
pub(crate) const PART: &str = "kafka";

/// Most records are smaller; made as large at once, they are not copied while they grow.
const ROOM_OF_A_RECORD: usize = 256;

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

/// Told by the producer, once, whatever becomes of the record.
pub(crate) struct Delivery {
    /// The request that gives its place back if the record fails.
    request: Option<RequestId>,
    told: oneshot::Sender<Result<(), KafkaError>>,
}

#[derive(Clone)]
struct Deliveries {
    undecided: Arc<Undecided>,
    herald: Arc<Herald<Result<(), KafkaError>>>,
    readiness: Arc<Readiness>,
    fatal: CancellationToken,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            // An idempotent producer that has lost its sequence can never send again: a new process can.
            tracing::error!(reason, "the producer is broken for good");
            self.readiness.set(PART, Err("the producer is broken for good".to_owned()));
            self.fatal.cancel();
        } else {
            tracing::debug!(%error, reason, "Kafka, sending requests");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        if result.is_err()
            && let Some(request) = delivery.request
        {
            self.undecided.send_failed(request);
        }
        // A handler that has gone needs no answer; the request goes its way.
        if !delivery.told.is_closed() {
            self.herald.tell(delivery.told, result);
        }
    }
}

/// Sends requests.
pub(crate) struct RequestSink {
    producer: Arc<Renewable<ThreadedProducer<Deliveries>>>,
    encoder: Encoder<CouponRequest>,
    undecided: Arc<Undecided>,
    /// Tells handlers of acknowledgements.
    pub(crate) herald: Arc<Herald<Result<(), KafkaError>>>,
    /// The producer can never send again.
    pub(crate) fatal: CancellationToken,
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
    /// A producer with these settings. It connects by itself, and again.
    ///
    /// # Errors
    /// When librdkafka refuses the settings.
    pub(crate) fn new(
        config: &ClientConfig,
        encoder: Encoder<CouponRequest>,
        undecided: Arc<Undecided>,
        readiness: Arc<Readiness>,
    ) -> KafkaResult<Self> {
        let fatal = CancellationToken::new();
        let herald = Herald::new();
        let context = Deliveries {
            undecided: Arc::clone(&undecided),
            herald: Arc::clone(&herald),
            readiness,
            fatal: fatal.clone(),
        };
        let config = config.clone();
        let producer = Renewable::new("producer", move || {
            ThreadedProducer::from_config_and_context(&config, context.clone())
        })?;
        Ok(Self { producer, encoder, undecided, herald, fatal })
    }

    /// The producer, to be watched.
    pub(crate) fn watched(&self) -> Arc<dyn Watched> {
        self.producer.watched()
    }

    /// Sends a user's request, which has its place among the undecided; on failure, at once or later, the place is
    /// given back.
    ///
    /// # Errors
    /// [`SinkError`]; nothing was sent.
    pub(crate) fn send_request(
        &self,
        request: &CouponRequest,
        id: RequestId,
        partition: i32,
    ) -> Result<Acknowledgement, SinkError> {
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: HEADER_REQUEST_ID, value: Some(request.request_id.as_bytes()) })
            .insert(Header { key: HEADER_USER_ID, value: Some(request.user_id.as_bytes()) });
        let sent = self.send(request, Some(id), partition, Some(headers));
        if sent.is_err() {
            self.undecided.send_failed(id);
        }
        sent
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
        self.send(record, None, partition, None)
    }

    fn send(
        &self,
        request: &CouponRequest,
        id: Option<RequestId>,
        partition: i32,
        headers: Option<OwnedHeaders>,
    ) -> Result<Acknowledgement, SinkError> {
        let mut value = Vec::with_capacity(ROOM_OF_A_RECORD);
        self.encoder.encode(request, &mut value)?;
        let (told, acknowledged) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(REQUESTS, Box::new(Delivery { request: id, told }))
            .partition(partition)
            .key(request.coupon_id.as_bytes())
            .payload(&value);
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        self.producer.now().send(record).map_err(|(error, _)| match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => SinkError::QueueFull,
            other => SinkError::Unacknowledged(other),
        })?;
        Ok(Acknowledgement(acknowledged))
    }

    /// Whether a broker answers and knows the topic. Blocks.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn ask_broker(&self, patience: std::time::Duration) -> Result<(), String> {
        if self.fatal.is_cancelled() {
            return Err("the producer is broken for good".to_owned());
        }
        let metadata = self
            .producer
            .keep()
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
    pub(crate) fn flush(&self, patience: std::time::Duration) {
        if let Err(error) = self.producer.now().flush(patience) {
            tracing::warn!(%error, "some requests were not acknowledged before the end");
        }
    }
}
