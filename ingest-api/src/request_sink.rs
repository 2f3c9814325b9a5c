//! Requests onto Kafka. A request counts as accepted once every in-sync replica has it.
//!
//! Guarantees: the fate of a record is told exactly once, also when nobody listens any more: a handler that was
//! dropped because its client went away loses nothing, and gives no place back too early or never.
//!
//! Records are not handed to librdkafka one by one, but by one task, all that have come since it ran last: under load
//! that is what one turn of the runtime has accepted, and at rest it is the only one, at once. So bunches form by
//! themselves and no timer makes anybody wait. (`linger.ms` would be that timer. Below a millisecond librdkafka does
//! not sleep until it is over but asks the clock again and again: a quarter of this program's CPU went into that.)

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use runtime::lifecycle::Readiness;
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, EncodeError, Encoder};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
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

/// A record that waits for its bunch.
struct Ready {
    partition: i32,
    key: Box<str>,
    value: Vec<u8>,
    headers: Option<OwnedHeaders>,
    delivery: Box<Delivery>,
}

/// Told by the producer, once, whatever becomes of the record.
pub(crate) struct Delivery {
    /// The request that gives its place back if the record fails.
    request: Option<RequestId>,
    told: oneshot::Sender<Result<(), KafkaError>>,
}

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
        self.tell(*delivery, result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}

impl Deliveries {
    fn tell(&self, delivery: Delivery, result: Result<(), KafkaError>) {
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
    producer: ThreadedProducer<Deliveries>,
    encoder: Encoder<CouponRequest>,
    undecided: Arc<Undecided>,
    /// The next bunch. Requests have their place among the undecided before they come here: it is bounded.
    bunch: Mutex<Vec<Ready>>,
    bunch_began: Notify,
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
    /// [`SinkError::QueueFull`]; or [`SinkError::Unacknowledged`]: nobody can say whether the record is in the log.
    pub(crate) async fn received(self) -> Result<(), SinkError> {
        self.0.await.unwrap_or(Err(KafkaError::Canceled)).map_err(|error| match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => SinkError::QueueFull,
            other => SinkError::Unacknowledged(other),
        })
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
        let producer = ThreadedProducer::from_config_and_context(config, context)?;
        let (bunch, bunch_began) = (Mutex::default(), Notify::new());
        Ok(Self { producer, encoder, undecided, bunch, bunch_began, herald, fatal })
    }

    /// Sends a user's request, which has its place among the undecided; on failure, at once or later, the place is
    /// given back.
    ///
    /// # Errors
    /// [`SinkError::Encode`]; nothing was sent.
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
    /// [`SinkError::Encode`]; nothing was sent.
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
        let (key, delivery) = (request.coupon_id.as_str().into(), Box::new(Delivery { request: id, told }));
        let mut bunch = self.bunch();
        bunch.push(Ready { partition, key, value, headers, delivery });
        let is_first = bunch.len() == 1;
        drop(bunch);
        if is_first {
            self.bunch_began.notify_one();
        }
        Ok(Acknowledgement(acknowledged))
    }

    fn bunch(&self) -> MutexGuard<'_, Vec<Ready>> {
        self.bunch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over one bunch after another. Ends with the runtime only.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut ready = Vec::new();
        loop {
            self.bunch_began.notified().await;
            // Swapped, so that both sides keep the room that they have grown to.
            mem::swap(&mut *self.bunch(), &mut ready);
            self.hand_over(ready.drain(..));
        }
    }

    fn hand_over(&self, bunch: impl Iterator<Item = Ready>) {
        for Ready { partition, key, value, headers, delivery } in bunch {
            let mut record = BaseRecord::with_opaque_to(REQUESTS, delivery)
                .partition(partition)
                .key(key.as_bytes())
                .payload(&value);
            if let Some(headers) = headers {
                record = record.headers(headers);
            }
            if let Err((error, unsent)) = self.producer.send(record) {
                self.producer.context().tell(*unsent.delivery_opaque, Err(error));
            }
        }
    }

    /// Whether a broker answers and knows the topic. Blocks.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn ask_broker(&self, patience: Duration) -> Result<(), String> {
        if self.fatal.is_cancelled() {
            return Err("the producer is broken for good".to_owned());
        }
        let metadata = self
            .producer
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
        let last = mem::take(&mut *self.bunch());
        self.hand_over(last.into_iter());
        if let Err(error) = self.producer.flush(patience) {
            tracing::warn!(%error, "some requests were not acknowledged before the end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::SchemaId;
    use std::time::Instant;

    #[tokio::test]
    async fn the_fate_of_every_record_is_told_and_a_full_queue_takes_nothing() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("message.timeout.ms", "500");
        config.set("queue.buffering.max.messages", "1");
        let undecided = Undecided::new(1, 10, 10);
        let readiness = Readiness::new(&[PART]);
        let sink = RequestSink::new(&config, Encoder::new(SchemaId(1)), Arc::clone(&undecided), readiness);
        let sink = Arc::new(sink.expect("a producer"));
        drop(tokio::spawn(Arc::clone(&sink).run()));
        drop(tokio::spawn(Arc::clone(&sink.herald).run()));
        let request = CouponRequest { kind: "claim".to_owned(), ..CouponRequest::default() };
        let sent = (1..=3).map(|identity| {
            let id = RequestId { identity, body: 0 };
            undecided.admit(id, 0, Instant::now()).expect("there is room");
            sink.send_request(&request, id, 0).expect("it is queued")
        });
        let told = futures::future::join_all(sent.map(Acknowledgement::received)).await;
        let full = told.iter().filter(|told| matches!(told, Err(SinkError::QueueFull))).count();
        let late = told.iter().filter(|told| matches!(told, Err(SinkError::Unacknowledged(_)))).count();
        assert_eq!((full, late, undecided.len()), (2, 1, 0), "{told:?}");
    }
}
