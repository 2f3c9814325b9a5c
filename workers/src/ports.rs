//! The ports of the driver: what the owner of a partition needs from the log, the stock, the ledger and the publisher,
//! and no more. The adapters are in `kafka`, `redis` and `postgres`; tests use scripted ones.
//!
//! Every method documents who retries it. A [`PortError`] is never final: final results (a truncated log, a rejected
//! write) are values.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coupon_core::batch::{Decision, Position};
use coupon_core::ids::{EmitSeq, Millis, Nonce, Offset, Partition, WriteNo};
use coupon_core::interface::{
    CacheListName, CodeEntry, Input, LookupResults, Lookups, PartitionRow, Pop, Popped, ReadCodes,
    RefillResult, WriteResult,
};
use coupon_core::record::Record;
use futures::future::BoxFuture;
use schemas::SchemaId;
use tokio::sync::mpsc::UnboundedSender;

use crate::codec::decode::OwnedRawRecord;
use crate::codec::messages::{EncodedBatch, Message};

/// Why a call has no result yet. The driver retries it with back-off.
pub type PortError = Box<dyn std::error::Error + Send + Sync>;

/// `coupon.requests`, and the consumer group that assigns its partitions.
pub trait Log: Send + Sync {
    /// Compares the log with the partition's row in the ledger. The inner error is final: it names what is wrong with
    /// the log, and what an operator can do.
    fn check(
        &self,
        partition: Partition,
        position: Position,
        write_no: WriteNo,
    ) -> BoxFuture<'_, Result<Result<(), String>, PortError>>;

    /// Sends a command to the consumer thread. Never waits and never fails: a thread that has ended ignores it.
    fn send_command(&self, partition: Partition, command: ConsumerCommand);

    /// Whether the group assigns this partition to this worker, by the last rebalance that was received.
    fn is_assigned(&self, partition: Partition) -> bool;
}

/// A command to the consumer thread about one partition.
#[derive(Debug)]
pub enum ConsumerCommand {
    /// Deliver records from an offset on.
    Start {
        /// The first record to deliver.
        from: Offset,
        /// Where to deliver.
        delivery: Delivery,
    },
    /// Resume after the last delivered record: librdkafka has stopped fetching the partition.
    Restart(Ownership),
    /// Stop delivering.
    Stop(Ownership),
    /// Deliver nothing for now.
    Pause(Ownership),
    /// Deliver again.
    Resume(Ownership),
    /// Commit the group's offset, for lag monitoring.
    Commit {
        /// The first record whose outcome is not published yet.
        next_offset: Offset,
        /// The write that the offset belongs to; committed as metadata.
        write_no: WriteNo,
    },
}

/// One ownership of one partition by this process. Commands of an earlier ownership are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ownership(pub u64);

/// Where the consumer thread delivers the records of one ownership.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The ownership that receives them.
    pub ownership: Ownership,
    /// The driver's channel.
    pub events: UnboundedSender<DriverEvent>,
    /// Records sent to the channel and not yet received from it.
    pub in_flight: Arc<InFlight>,
}

/// Counts records between the consumer thread and a driver.
#[derive(Debug, Default)]
pub struct InFlight(AtomicUsize);

impl InFlight {
    /// `records` were sent.
    pub fn add(&self, records: usize) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }

    /// `records` were received.
    pub fn remove(&self, records: usize) {
        self.0.fetch_sub(records, Ordering::Relaxed);
    }

    /// The number in flight.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// An event for a driver.
#[derive(Debug)]
pub enum DriverEvent {
    /// The result of an effect, for the machine.
    Input(Input),
    /// A delivery of the consumer thread.
    Fetched(Fetched),
    /// A record whose schema had to be fetched first.
    Resolved(Box<Record>),
}

/// A delivery of the consumer thread.
#[derive(Debug)]
pub enum Fetched {
    /// Records in log order.
    Records(Vec<Record>),
    /// The next record; its writer's schema is unknown to the consumer thread.
    Undecoded(Box<OwnedRawRecord>),
    /// The log may have changed: check it again. The text is the cause.
    Revalidate(String),
    /// This partition must stop. The text names the cause and what an operator can do.
    Stop(String),
}

/// A change of the group's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These partitions are added.
    Assigned(Vec<Partition>),
    /// These partitions are removed.
    Revoked(Vec<Partition>),
}

/// The cache lists of codes in Redis. No call is retried: one that failed may have taken effect.
pub trait Stock: Send + Sync {
    /// Pops from lists in one round trip; one result per pop, in order.
    fn pop(&self, pops: Vec<Pop>) -> BoxFuture<'_, Vec<Popped>>;

    /// Appends codes to a list.
    fn append(&self, list: CacheListName, codes: Vec<CodeEntry>) -> BoxFuture<'_, RefillResult>;

    /// Deletes lists that are not popped from again. Never waits; a list that is not deleted expires.
    fn delete_lists(&self, lists: Vec<CacheListName>);
}

/// Reads of one partition from the ledger. The driver retries what fails.
pub trait Ledger: Send + Sync {
    /// Coupons, users, outcomes, loads, codes, redemptions, due claims.
    fn lookup(&self, lookups: Arc<Lookups>) -> BoxFuture<'_, Result<LookupResults, PortError>>;

    /// Codes of coupons, ordered by number; one list per read, in order.
    fn read_codes(&self, reads: Vec<ReadCodes>) -> BoxFuture<'_, Result<Vec<Vec<CodeEntry>>, PortError>>;

    /// Postgres' clock, and the last record that an operator has had rejected, if the record at `offset` is one.
    fn clock(&self, offset: Offset) -> BoxFuture<'_, Result<(Millis, Option<Offset>), PortError>>;

    /// Outbox entries, in order, rebuilt from the stored outcomes.
    fn outbox_entries(
        &self,
        from: EmitSeq,
        to: EmitSeq,
    ) -> BoxFuture<'_, Result<Vec<OutboxEntry>, PortError>>;

    /// The definition of a writer's schema; `None` if no schema is registered under this id.
    fn schema_definition(&self, id: SchemaId) -> BoxFuture<'_, Result<Option<String>, PortError>>;
}

/// A batch of an earlier owner, read back from the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its sequence number.
    pub seq: EmitSeq,
    /// The first record after it.
    pub next_offset: Offset,
    /// Its decisions, and the earlier decisions that it published again for duplicates.
    pub decisions: Vec<Decision>,
    /// Its events and dead letters.
    pub messages: Vec<Message>,
}

/// Writes of one ownership: one call at a time, on a connection of its own.
pub trait Writer: Send + Sync {
    /// Becomes the owner. Retried by the driver.
    fn take_over(&self, nonce: Nonce) -> BoxFuture<'_, Result<PartitionRow, PortError>>;

    /// One call, sent once. Retried only when the machine requests it.
    fn write(&self, batch: Arc<EncodedBatch>) -> BoxFuture<'_, WriteResult>;

    /// The partition's row, once no write is in flight on it. Retried by the driver.
    fn read_back(&self) -> BoxFuture<'_, Result<PartitionRow, PortError>>;
}

/// Opens the ledger for one ownership of a partition.
pub trait Ledgers: Send + Sync {
    /// The reading and the writing side. Connects on first use.
    fn open(&self, partition: Partition) -> (Arc<dyn Ledger>, Arc<dyn Writer>);
}

/// Publishes outcomes.
pub trait Publisher: Send + Sync {
    /// Publishes the responses, events and dead letters of a batch. Completes when the broker has acknowledged all of
    /// them; retries identically until then.
    fn publish_batch(&self, batch: Arc<EncodedBatch>) -> BoxFuture<'_, ()>;

    /// The same for an outbox entry of an earlier owner.
    fn publish_entry(&self, partition: Partition, entry: OutboxEntry) -> BoxFuture<'_, ()>;

    /// Appends a `tick` to a partition of `coupon.requests`, which advances its time. Completes when the broker has
    /// acknowledged it; retries until then (a duplicate tick is harmless).
    fn tick(&self, partition: Partition) -> BoxFuture<'_, ()>;
}

/// All ports of one worker process.
#[derive(Clone)]
pub struct Ports {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The stock.
    pub stock: Arc<dyn Stock>,
    /// The ledger.
    pub ledgers: Arc<dyn Ledgers>,
    /// The publisher.
    pub publisher: Arc<dyn Publisher>,
}
