//! Tells outcomes: response events, events, dead letters; and appends ticks.
//!
//! Guarantees: [`Outlet::emit_batch`] is done only when the broker has acknowledged every message of the entry; a
//! delivery that fails means that the whole entry is produced again, identically; nothing here waits for a full
//! queue on the runtime's threads, and nothing calls `flush` (it comes back in steps of 100 ms only). Entries have no
//! order among each other in a topic.
//!
//! Somebody waits for what a small entry tells, and it leaves at once. A large one is handed over for so long that
//! librdkafka would begin to send it in pieces; it is sent by a client that lingers. That takes a client of its own, as
//! `linger.ms` is one for all times; and where nothing comes after a message, less than a millisecond of it is no less:
//! librdkafka sleeps in whole ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use coupon_core::batch::{Batch, Decision};
use coupon_core::ids::Partition;
use futures::future::{BoxFuture, FutureExt as _};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use runtime::registry::Registry;
use runtime::supervised::{Supervised, SupervisedClient};
use runtime::topics::Topics;
use schemas::{
    CouponRequest, CouponResponse, Encoder, Subject, kinds, partition_for, response_partition, topics,
};
use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::crash_points::{Point, pass};
use crate::kafka_log;
use crate::ledger::OutboxEntry;
use crate::messages::{Message, Messages};
use crate::metrics;
use crate::response;
use crate::seams::Outlet;

/// How long to wait before a full queue is tried again: about what it takes to send a part of it.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);
/// Messages that are handed over before librdkafka's thread has woken, or little later: an entry of no more leaves at once.
const FEW: usize = 32;
/// Messages between two chances for others on the same thread.
const MESSAGES_BETWEEN_YIELDS: usize = 256;

/// Counts the deliveries of one entry. Shared with librdkafka as the opaque of each of its messages.
#[derive(Debug)]
pub struct Tracker {
    /// Messages under way, and one more as long as messages are added.
    pending: AtomicUsize,
    failed: AtomicBool,
    done: Notify,
}

impl Tracker {
    fn new() -> Arc<Self> {
        Arc::new(Self { pending: AtomicUsize::new(1), failed: AtomicBool::new(false), done: Notify::new() })
    }

    fn add(self: &Arc<Self>) -> Arc<Self> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Arc::clone(self)
    }

    fn settle(&self, delivered: bool) {
        if !delivered {
            self.failed.store(true, Ordering::Relaxed);
        }
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    /// No message is added any more. Answers whether every one was delivered.
    async fn all_delivered(&self) -> bool {
        self.settle(true);
        self.done.notified().await;
        !self.failed.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka_log::line("producer", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka_log::error("producer", &error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Tracker>;

    fn delivery(&self, result: &DeliveryResult<'_>, tracker: Arc<Tracker>) {
        if let Err((error, _)) = result {
            tracing::debug!(%error, "a message was not delivered");
        }
        tracker.settle(result.is_ok());
    }
}

type Producer = Supervised<ThreadedProducer<Deliveries>>;

/// The producers of a worker process, shared by its partitions.
#[derive(Clone)]
pub struct Emitter {
    at_once: Arc<Producer>,
    together: Arc<Producer>,
    responses: Encoder<CouponResponse>,
    requests: Encoder<CouponRequest>,
    messages: Messages,
    topics: Topics,
}

impl Emitter {
    /// Producers with these settings.
    ///
    /// # Errors
    /// What librdkafka has against the settings.
    pub fn new(config: &ClientConfig, topics: Topics, registry: &Registry) -> KafkaResult<Self> {
        let mut without_linger = config.clone();
        without_linger.set("linger.ms", "0");
        Ok(Self {
            at_once: Producer::producer("producer", without_linger, Deliveries)?,
            together: Producer::producer("producer-of-batches", config.clone(), Deliveries)?,
            topics,
            responses: Encoder::new(registry.id_of(Subject::Response)),
            requests: Encoder::new(registry.id_of(Subject::Request)),
            messages: Messages::new(registry.id_of(Subject::Event)),
        })
    }

    /// Produces until everything is acknowledged.
    async fn emit(&self, partition: Partition, decisions: [&[Decision]; 2], messages: &[Message]) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !self.emit_once(partition, decisions, messages).await {
            ::metrics::counter!(metrics::EMIT_REPEATED).increment(1);
            tracing::warn!(%partition, "not everything was delivered: telling it all again");
            backoff.pause().await;
        }
    }

    async fn emit_once(
        &self,
        partition: Partition,
        decisions: [&[Decision]; 2],
        messages: &[Message],
    ) -> bool {
        let tracker = Tracker::new();
        let count = decisions.map(<[Decision]>::len).iter().sum::<usize>() + messages.len();
        let producer = if count <= FEW { &self.at_once } else { &self.together };
        let mut scratch = CouponResponse::default();
        let mut value = Vec::with_capacity(256);
        let to = response_partition(partition.0, self.topics.responses);
        for (n, decision) in decisions.into_iter().flatten().enumerate() {
            response::fill(&mut scratch, decision, partition);
            value.clear();
            if let Err(error) = self.responses.encode(&scratch, &mut value) {
                // Every field is bounded when it is decoded, so this is a bug; the outcome itself is durable.
                tracing::error!(%partition, id = %decision.id, %error, "a response cannot be encoded");
                continue;
            }
            let record = BaseRecord::with_opaque_to(topics::RESPONSES, tracker.add())
                .partition(to)
                .key(decision.user.as_bytes())
                .payload(value.as_slice());
            send(producer, record).await;
            if n == 0 {
                pass(Point::AmidEmit).await;
            } else if n % MESSAGES_BETWEEN_YIELDS == 0 {
                tokio::task::yield_now().await;
            }
        }
        if !messages.is_empty() {
            pass(Point::BeforeLetters).await;
        }
        for message in messages {
            send(producer, self.record_of(message, tracker.add())).await;
        }
        pass(Point::AfterEmitSent).await;
        tracker.all_delivered().await
    }

    fn record_of<'a>(
        &self,
        message: &'a Message,
        tracker: Arc<Tracker>,
    ) -> BaseRecord<'a, [u8], [u8], Arc<Tracker>> {
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

    /// Appends a tick once; answers whether the broker has it.
    async fn tick_once(&self, partition: Partition) -> bool {
        let tracker = Tracker::new();
        let tick = CouponRequest { kind: kinds::TICK.to_owned(), ..CouponRequest::default() };
        let value = match self.requests.encode_to_vec(&tick) {
            Ok(value) => value,
            Err(error) => {
                // A record of one word: this is a bug, and sending it again would not mend it.
                tracing::error!(%partition, %error, "a tick cannot be encoded");
                return true;
            }
        };
        // No key: it is about a partition, not about a coupon.
        let record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topics::REQUESTS, tracker.add())
            .partition(partition.0)
            .payload(value.as_slice());
        send(&self.at_once, record).await;
        tracker.all_delivered().await
    }

    /// The producers, to be watched.
    #[must_use]
    pub fn watched(&self) -> [Arc<dyn SupervisedClient>; 2] {
        [self.at_once.as_supervised(), self.together.as_supervised()]
    }
}

/// Hands one message to a producer; waits while its queue is full.
async fn send(producer: &Producer, record: BaseRecord<'_, [u8], [u8], Arc<Tracker>>) {
    let mut next = Some(record);
    while let Some(record) = next.take() {
        match producer.current().send(record) {
            Ok(()) => {}
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                next = Some(record);
            }
            Err((error, record)) => {
                tracing::error!(%error, topic = record.topic, "a message was refused by the producer");
                record.delivery_opaque.settle(false);
            }
        }
    }
}

impl Outlet for Emitter {
    fn emit_batch(&self, batch: Arc<Batch>) -> BoxFuture<'_, ()> {
        async move {
            let messages = self.messages.of(&batch);
            self.emit(batch.fence.partition, [&batch.decisions, &batch.duplicates], &messages).await;
        }
        .boxed()
    }

    fn emit_entry(&self, partition: Partition, entry: OutboxEntry) -> BoxFuture<'_, ()> {
        async move { self.emit(partition, [&entry.decisions, &[]], &entry.messages).await }.boxed()
    }

    fn tick(&self, partition: Partition) -> BoxFuture<'_, ()> {
        async move {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
            while !self.tick_once(partition).await {
                tracing::warn!(%partition, "a tick was not delivered: sending it again");
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
    async fn an_entry_is_told_when_its_last_message_is_acknowledged_and_not_before() {
        let tracker = Tracker::new();
        let (one, two) = (tracker.add(), tracker.add());
        one.settle(true);
        let mut told = std::pin::pin!(tracker.all_delivered());
        assert_eq!(told.as_mut().now_or_never(), None);
        two.settle(true);
        assert_eq!(told.now_or_never(), Some(true));
    }

    #[tokio::test]
    async fn one_failed_delivery_fails_the_entry_but_only_once_all_have_settled() {
        let tracker = Tracker::new();
        let (one, two) = (tracker.add(), tracker.add());
        one.settle(false);
        let mut told = std::pin::pin!(tracker.all_delivered());
        assert_eq!(told.as_mut().now_or_never(), None);
        two.settle(true);
        assert_eq!(told.now_or_never(), Some(false));
    }

    #[tokio::test]
    async fn an_entry_whose_messages_are_acknowledged_before_all_are_sent_is_told_at_once() {
        let tracker = Tracker::new();
        tracker.add().settle(true);
        assert!(tracker.all_delivered().await);
        assert!(Tracker::new().all_delivered().await, "an entry without messages");
    }
}
