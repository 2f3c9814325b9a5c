//! The seams between the driver and the world: what a partition's owner needs from the log, the stock, the ledger
//! and the outlet, and no more. The adapters are `log`, `stock`, `ledger` and `emitter`; tests play scripted ones.
//!
//! Every method says who repeats it. Failures here are never final: what is final (a cut log, a refused write) is
//! an answer, not an error.

use std::sync::Arc;

use coupon_core::batch::{Batch, Position};
use coupon_core::ids::{EmitSeq, Nonce, Offset, Partition, WriteNo};
use coupon_core::interface::{
    CacheListName, CodeEntry, LookupResults, Lookups, PartitionRow, Pop, Popped, ReadCodes, RefillResult,
    WriteResult,
};
use futures::future::BoxFuture;
use schemas::SchemaId;

use crate::consumer::Delivery;
use crate::ledger::OutboxEntry;

/// Why a question has no answer yet. The driver asks again, with back-off.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// `coupon.requests`, and the consumer group that spreads its partitions.
pub trait Log: Send + Sync {
    /// Compares the log with what the ledger's row says of it. The inner error is final: it says what is wrong with
    /// the log, and what to do.
    fn check(
        &self,
        partition: Partition,
        position: Position,
        write_no: WriteNo,
    ) -> BoxFuture<'_, Result<Result<(), String>, Failure>>;

    /// Tells the consumer thread what to do. Never waits, never fails: a thread that is gone does nothing any more.
    fn tell(&self, partition: Partition, order: Order);

    /// Whether the group assigns this partition to us, as far as we know now.
    fn is_assigned(&self, partition: Partition) -> bool;
}

/// What the consumer thread is told about one partition.
#[derive(Debug)]
pub enum Order {
    /// Deliver records from here on.
    Start {
        /// The first record wanted.
        from: Offset,
        /// Where they go.
        delivery: Delivery,
    },
    /// Deliver again from the record after the last one that was delivered: librdkafka has given the partition up.
    Restart(Ownership),
    /// Deliver nothing more.
    Stop(Ownership),
    /// Deliver nothing for now.
    Pause(Ownership),
    /// Deliver again.
    Resume(Ownership),
    /// Commit the group's offset, for lag monitoring.
    Commit {
        /// The first record not told yet.
        next_offset: Offset,
        /// The write it belongs to, as metadata.
        write_no: WriteNo,
    },
}

/// One ownership of one partition by this process; an order of an earlier one changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ownership(pub u64);

/// The lists of codes in Redis. Nothing here is ever tried twice: a call that failed may have happened.
pub trait Stock: Send + Sync {
    /// Pops from lists, all in one round trip; one result for each pop, in order.
    fn pop(&self, pops: Vec<Pop>) -> BoxFuture<'_, Vec<Popped>>;

    /// Appends codes to a list.
    fn append(&self, list: CacheListName, codes: Vec<CodeEntry>) -> BoxFuture<'_, RefillResult>;

    /// Lists that nobody will pop from again. Never waits, and nothing hangs on it: they would expire by themselves.
    fn throw_away(&self, lists: Vec<CacheListName>);
}

/// What is read from Postgres about one partition. The driver repeats what fails.
pub trait Ledger: Send + Sync {
    /// Coupons, users, outcomes, loads, codes, redemptions, what is due.
    fn load(&self, wants: Arc<Lookups>) -> BoxFuture<'_, Result<LookupResults, Failure>>;

    /// Codes of coupons, in the order of their numbers; one list for each read, in order.
    fn codes(&self, reads: Vec<ReadCodes>) -> BoxFuture<'_, Result<Vec<Vec<CodeEntry>>, Failure>>;

    /// What outbox entries say, rebuilt from the truth, in order.
    fn entries(&self, from: EmitSeq, to: EmitSeq) -> BoxFuture<'_, Result<Vec<OutboxEntry>, Failure>>;

    /// A writer's schema; `None` is the proof that nobody registered it.
    fn definition(&self, id: SchemaId) -> BoxFuture<'_, Result<Option<String>, Failure>>;
}

/// How one ownership writes: one call at a time, on a connection of its own.
pub trait Writer: Send + Sync {
    /// Becomes the owner. Repeated by the driver.
    fn take_over(&self, nonce: Nonce) -> BoxFuture<'_, Result<PartitionRow, Failure>>;

    /// One call, once. Repeated only when the machine says so.
    fn write(&self, batch: Arc<Batch>) -> BoxFuture<'_, WriteResult>;

    /// The partition's row, once no write is running on it. Repeated by the driver.
    fn read_back(&self) -> BoxFuture<'_, Result<PartitionRow, Failure>>;
}

/// Opens the ledger for one ownership of a partition.
pub trait Ledgers: Send + Sync {
    /// Both sides of it. Connects when first used.
    fn open(&self, partition: Partition) -> (Arc<dyn Ledger>, Arc<dyn Writer>);
}

/// Where outcomes are told.
pub trait Outlet: Send + Sync {
    /// Produces everything that a batch has to tell; done when the broker has acknowledged all of it. Repeats what
    /// fails, identically, until it succeeds.
    fn emit_batch(&self, batch: Arc<Batch>) -> BoxFuture<'_, ()>;

    /// The same for an entry of an earlier owner.
    fn emit_entry(&self, partition: Partition, entry: OutboxEntry) -> BoxFuture<'_, ()>;

    /// Appends a `tick` to a partition of `coupon.requests`, so that its time moves; done when the broker has it.
    /// Repeats what fails until it succeeds: a tick that came twice does no harm.
    fn tick(&self, partition: Partition) -> BoxFuture<'_, ()>;
}

/// The world as one worker process has it.
#[derive(Clone)]
pub struct World {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The stock.
    pub stock: Arc<dyn Stock>,
    /// The ledger.
    pub ledgers: Arc<dyn Ledgers>,
    /// The outlet.
    pub outlet: Arc<dyn Outlet>,
}
