//! Publishes batches (responses, events and dead letters) and appends ticks.
//!
//! Guarantees: [`Publisher::publish_batch`] completes only when the broker has acknowledged every message of the entry;
//! if one delivery fails, the whole entry is produced again, identically; a full queue never blocks a thread of the
//! runtime, and `flush` is never called (it returns in steps of 100 ms only). Entries have no order among each other in a
//! topic.
//!
//! A small entry is produced without linger: clients wait for its outcomes. Handing over a large one takes so long that
//! librdkafka would begin to send it in pieces, so it is produced by a client with linger. Two clients are needed because
//! `linger.ms` belongs to the client; and a linger below a millisecond does not help a message that stays alone, because
//! librdkafka sleeps in whole milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coupon_core::batch::Decision;
use coupon_core::ids::Partition;
use futures::future::{BoxFuture, FutureExt as _};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use runtime::registry::Registry;
use runtime::supervised::Supervised;
use runtime::topics::Topics;
use schemas::{
    CouponRequest, CouponResponse, Encoder, Subject, kinds, partition_for, response_partition, topics,
};
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::codec::messages::{EncodedBatch, Message};
use crate::codec::response;
use crate::crash_points::{Point, pass};
use crate::kafka::client_log;
use crate::metrics;
use crate::ports::{OutboxEntry, Publisher};

/// Pause before a full queue is tried again: about what it takes to send a part of it.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);
/// Entries of at most this many messages are produced without linger. They are handed over before librdkafka's thread
/// has woken, or little later.
const SMALL_ENTRY: usize = 32;
/// Messages after which other tasks on the same thread get a turn.
const MESSAGES_BETWEEN_YIELDS: usize = 256;

/// Counts the deliveries of one entry. It is the opaque of each of its messages in librdkafka.
#[derive(Debug)]
pub struct DeliveryTracker {
    /// Messages in flight, plus one while messages are being added.
    pending: AtomicUsize,
    failed: AtomicBool,
    completed: Notify,
}

impl DeliveryTracker {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
            completed: Notify::new(),
        })
    }

    fn add(self: &Arc<Self>) -> Arc<Self> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Arc::clone(self)
    }

    fn complete_one(&self, delivered: bool) {
        if !delivered {
            self.failed.store(true, Ordering::Relaxed);
        }
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.completed.notify_one();
        }
    }

    /// Call after the last message was added. Returns whether every message was delivered.
    async fn all_delivered(&self) -> bool {
        self.complete_one(true);
        self.completed.notified().await;
        !self.failed.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_log::line("producer", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error("producer", &error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<DeliveryTracker>;

    fn delivery(&self, result: &DeliveryResult<'_>, tracker: Arc<DeliveryTracker>) {
        if let Err((error, _)) = result {
            tracing::debug!(%error, "message not delivered");
        }
        tracker.complete_one(result.is_ok());
    }
}

type Producer = Supervised<ThreadedProducer<Context>>;

/// The producers of a worker process, shared by its partitions.
#[derive(Clone)]
pub struct KafkaPublisher {
    without_linger: Arc<Producer>,
    with_linger: Arc<Producer>,
    responses: Encoder<CouponResponse>,
    requests: Encoder<CouponRequest>,
    topics: Topics,
}

impl KafkaPublisher {
    /// Producers with these settings.
    ///
    /// # Errors
    /// Settings that librdkafka rejects.
    pub fn new(config: &ClientConfig, topics: Topics, registry: &Registry) -> KafkaResult<Self> {
        let mut without_linger = config.clone();
        without_linger.set("linger.ms", "0");
        Ok(Self {
            without_linger: Producer::producer("producer", without_linger, Context)?,
            with_linger: Producer::producer("producer-of-batches", config.clone(), Context)?,
            topics,
            responses: Encoder::new(registry.id_of(Subject::Response)),
            requests: Encoder::new(registry.id_of(Subject::Request)),
        })
    }

    /// Produces an entry until everything is acknowledged.
    async fn publish(&self, partition: Partition, decisions: [&[Decision]; 2], messages: &[Message]) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !self.publish_once(partition, decisions, messages).await {
            ::metrics::counter!(metrics::PUBLISH_RETRIES).increment(1);
            tracing::warn!(%partition, "not all messages were delivered: publishing the entry again");
            backoff.pause().await;
        }
    }

    /// Produces an entry. Returns whether every message was acknowledged.
    async fn publish_once(
        &self,
        partition: Partition,
        decisions: [&[Decision]; 2],
        messages: &[Message],
    ) -> bool {
        let tracker = DeliveryTracker::new();
        let count = decisions.map(<[Decision]>::len).iter().sum::<usize>() + messages.len();
        let producer = if count <= SMALL_ENTRY { &self.without_linger } else { &self.with_linger };
        self.send_responses(producer, partition, decisions, &tracker).await;
        if !messages.is_empty() {
            pass(Point::BeforeEvents).await;
        }
        for message in messages {
            send(producer, self.record_of(message, tracker.add())).await;
        }
        pass(Point::AfterPublishSent).await;
        tracker.all_delivered().await
    }

    async fn send_responses(
        &self,
        producer: &Producer,
        partition: Partition,
        decisions: [&[Decision]; 2],
        tracker: &Arc<DeliveryTracker>,
    ) {
        let mut response = CouponResponse::default();
        let mut value = Vec::with_capacity(256);
        let to = response_partition(partition.0, self.topics.responses);
        for (n, decision) in decisions.into_iter().flatten().enumerate() {
            response::fill(&mut response, decision, partition);
            value.clear();
            if let Err(error) = self.responses.encode(&response, &mut value) {
                // Decoding bounds every field, so this is a bug; the outcome itself is durable.
                tracing::error!(%partition, id = %decision.request.id, %error, "cannot encode a response");
                continue;
            }
            let record = BaseRecord::with_opaque_to(topics::RESPONSES, tracker.add())
                .partition(to)
                .key(decision.request.user.as_bytes())
                .payload(value.as_slice());
            send(producer, record).await;
            if n == 0 {
                pass(Point::AmidPublish).await;
            } else if n % MESSAGES_BETWEEN_YIELDS == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn record_of<'a>(
        &self,
        message: &'a Message,
        tracker: Arc<DeliveryTracker>,
    ) -> BaseRecord<'a, [u8], [u8], Arc<DeliveryTracker>> {
        let key = message.key.as_deref();
        let to = partition_for(key.unwrap_or_default(), self.partitions(message.topic));
        let mut record = BaseRecord::with_opaque_to(message.topic, tracker).partition(to);
        record.key = key;
        record.payload = message.value.as_deref();
        if !message.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (name, value) in &message.headers {
                headers = headers.insert(Header { key: name, value: Some(value) });
            }
            record = record.headers(headers);
        }
        record
    }

    fn partitions(&self, topic: &str) -> i32 {
        match topic {
            topics::EVENTS => self.topics.events,
            topics::DEAD_LETTERS => self.topics.dead_letters,
            _ => self.topics.responses,
        }
    }

    /// Appends a tick. Returns whether the broker has acknowledged it.
    async fn tick_once(&self, partition: Partition) -> bool {
        let tracker = DeliveryTracker::new();
        let tick = CouponRequest { kind: kinds::TICK.to_owned(), ..CouponRequest::default() };
        let value = match self.requests.encode_to_vec(&tick) {
            Ok(value) => value,
            Err(error) => {
                // A record of one word: this is a bug, and a retry would fail as well.
                tracing::error!(%partition, %error, "cannot encode a tick");
                return true;
            }
        };
        // No key: a tick belongs to a partition, not to a coupon.
        let record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topics::REQUESTS, tracker.add())
            .partition(partition.0)
            .payload(value.as_slice());
        send(&self.without_linger, record).await;
        tracker.all_delivered().await
    }
}

/// Hands one message to a producer; waits while its queue is full.
async fn send(producer: &Producer, record: BaseRecord<'_, [u8], [u8], Arc<DeliveryTracker>>) {
    let mut next = Some(record);
    while let Some(record) = next.take() {
        match producer.current().send(record) {
            Ok(()) => {}
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                next = Some(record);
            }
            Err((error, record)) => {
                tracing::error!(%error, topic = record.topic, "the producer rejected a message");
                record.delivery_opaque.complete_one(false);
            }
        }
    }
}

impl Publisher for KafkaPublisher {
    fn publish_batch(&self, encoded: Arc<EncodedBatch>) -> BoxFuture<'_, ()> {
        async move {
            let batch = encoded.batch();
            let decisions: [&[Decision]; 2] = [&batch.decisions, &batch.duplicates];
            self.publish(batch.fence.partition, decisions, encoded.messages()).await;
        }
        .boxed()
    }

    fn publish_entry(&self, partition: Partition, entry: OutboxEntry) -> BoxFuture<'_, ()> {
        async move { self.publish(partition, [&entry.decisions, &[]], &entry.messages).await }.boxed()
    }

    fn tick(&self, partition: Partition) -> BoxFuture<'_, ()> {
        async move {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            while !self.tick_once(partition).await {
                tracing::warn!(%partition, "tick not delivered: sending it again");
                backoff.pause().await;
            }
            ::metrics::counter!(metrics::TICKS).increment(1);
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_entry_is_published_when_its_last_message_is_acknowledged_and_not_before() {
        let tracker = DeliveryTracker::new();
        let (one, two) = (tracker.add(), tracker.add());
        one.complete_one(true);
        let mut published = std::pin::pin!(tracker.all_delivered());
        assert_eq!(published.as_mut().now_or_never(), None);
        two.complete_one(true);
        assert_eq!(published.now_or_never(), Some(true));
    }

    #[tokio::test]
    async fn one_failed_delivery_fails_the_entry_but_only_once_all_have_completed() {
        let tracker = DeliveryTracker::new();
        let (one, two) = (tracker.add(), tracker.add());
        one.complete_one(false);
        let mut published = std::pin::pin!(tracker.all_delivered());
        assert_eq!(published.as_mut().now_or_never(), None);
        two.complete_one(true);
        assert_eq!(published.now_or_never(), Some(false));
    }

    #[tokio::test]
    async fn an_entry_whose_messages_are_acknowledged_before_all_are_sent_is_published() {
        let tracker = DeliveryTracker::new();
        tracker.add().complete_one(true);
        assert!(tracker.all_delivered().await);
        assert!(DeliveryTracker::new().all_delivered().await, "an entry without messages");
    }
}
