//! The effects that the machine requests.

use super::cache_list::{Pop, ReadCodes, Refill};
use super::lookup::Lookups;
use crate::domain::batch::{Batch, Position};
use crate::domain::ids::{EmitSeq, Nonce, Offset, WriteNo};
use std::sync::Arc;

/// Identifies one request, so that a late result is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// An effect for the driver to perform. The driver matches exhaustively: a new effect does not compile until it is
/// handled.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Become the owner in Postgres; the result is [`Input::TakenOver`](super::Input::TakenOver). Retried until it
    /// succeeds.
    TakeOver {
        /// The nonce of this ownership.
        nonce: Nonce,
    },
    /// Compare the log with the position that Postgres stores; the result is
    /// [`Input::LogChecked`](super::Input::LogChecked).
    CheckLog {
        /// The stored position.
        position: Position,
    },
    /// Deliver records from this offset, in order, as [`Input::Records`](super::Input::Records).
    Consume {
        /// The first record.
        from: Offset,
    },
    /// Publish the outbox entries `from..=to` again; one [`Input::Published`](super::Input::Published) for each.
    Republish {
        /// First entry.
        from: EmitSeq,
        /// Last entry.
        to: EmitSeq,
    },
    /// Query Postgres; the result is [`Input::LookedUp`](super::Input::LookedUp). Retried until it succeeds.
    Lookup {
        /// Token of this request.
        token: Token,
        /// The queries.
        lookups: Lookups,
    },
    /// Obtain codes for claims; the result is [`Input::Reserved`](super::Input::Reserved).
    Reserve {
        /// Token of this request.
        token: Token,
        /// Pops from Redis lists, all concurrently. Never retried.
        pops: Vec<Pop>,
        /// Reads from Postgres. Retried until they succeed.
        reads: Vec<ReadCodes>,
    },
    /// Copy a range of codes from Postgres to the end of a Redis list; the result is
    /// [`Input::Refilled`](super::Input::Refilled). Never retried.
    Refill(Refill),
    /// Write a batch to Postgres; the result is [`Input::Written`](super::Input::Written).
    Write {
        /// The batch.
        batch: Arc<Batch>,
        /// Number of consecutive failed calls before this one, for the back-off.
        backoff: u32,
    },
    /// Read the partition's row, after any write that is still in flight; the result is
    /// [`Input::ReadBack`](super::Input::ReadBack).
    ReadBack,
    /// Read Postgres' clock, and whether an operator has had the record at this offset rejected; the result is
    /// [`Input::ClockRead`](super::Input::ClockRead). Retried until it succeeds.
    ReadClock {
        /// The record whose append time is ahead of the last reading.
        offset: Offset,
        /// Whether the record was compared before: the driver waits a moment.
        again: bool,
    },
    /// Publish a batch's responses, events and dead letters; [`Input::Published`](super::Input::Published) when all are
    /// acknowledged.
    Publish(Arc<Batch>),
    /// Commit the consumer group's offset, for lag monitoring.
    CommitOffset {
        /// The first record whose outcome is not published.
        next_offset: Offset,
        /// The write that it belongs to, as metadata.
        write_no: WriteNo,
    },
    /// Append a `tick` to the partition: a deadline is probably due, and no other record moves the time. Retried until
    /// the broker has acknowledged it. The result is the record itself.
    Tick,
    /// Pause the delivery of records.
    Pause,
    /// Resume the delivery of records.
    Resume,
    /// The machine has finished with this partition. No effect follows.
    Released(Release),
}

/// Why a machine released its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// A hand-over was requested, and every written outcome is published.
    HandedOver,
    /// Another owner has taken the partition over. If the partition is still assigned, take over again with back-off.
    Fenced,
    /// An operator must act before the partition continues. The text states the fault and the remedy.
    Stopped(String),
}
