//! The inputs that the machine receives.

use super::cache_list::{CacheListName, CodeEntry, Popped, RefillResult};
use super::effect::Token;
use super::lookup::LookupResults;
use crate::domain::batch::Position;
use crate::domain::ids::{Attempt, EmitSeq, Epoch, Millis, Nonce, Offset, WriteNo};
use crate::domain::record::Record;

/// A record, the result of an effect, or a command for the machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Take the partition over.
    Begin,
    /// The partition's row after the takeover.
    TakenOver(PartitionRow),
    /// `Ok` if the log is the one that Postgres stores the position of; else a text with the fault and its remedy.
    LogChecked(Result<(), String>),
    /// Records in the order of the log.
    Records(Vec<Record>),
    /// Results of queries.
    LookedUp {
        /// Token of the request.
        token: Token,
        /// The results.
        results: Box<LookupResults>,
    },
    /// Codes: one result for each pop and each read, in order.
    Reserved {
        /// Token of the request.
        token: Token,
        /// Results of the pops.
        popped: Vec<Popped>,
        /// Results of the reads.
        read: Vec<Vec<CodeEntry>>,
    },
    /// Result of a refill.
    Refilled {
        /// The list.
        list: CacheListName,
        /// The result.
        result: RefillResult,
    },
    /// Result of a write.
    Written {
        /// Number of the write.
        write_no: WriteNo,
        /// The attempt.
        attempt: Attempt,
        /// The result.
        result: WriteResult,
    },
    /// The partition's current row.
    ReadBack(PartitionRow),
    /// Postgres' clock, read after it was requested.
    ClockRead {
        /// The clock.
        now: Millis,
        /// The last of the records from the requested one on that an operator has had rejected; `None`: not this one.
        rejected_through: Option<Offset>,
    },
    /// The broker has acknowledged every message of this outbox entry.
    Published(EmitSeq),
    /// No input has arrived for some time.
    Idle {
        /// Milliseconds since the last record was received, by the process' monotonic clock. It only decides whether to
        /// append a tick, never what has lapsed.
        since_last_record: Millis,
    },
    /// The assignment is lost, or the process stops: finish the current write and release the partition.
    HandOver,
}

/// Result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// The batch is written.
    Written,
    /// No response: the write may have happened, or may still happen.
    Unknown,
    /// The fence does not match.
    Fenced,
    /// Nothing is written; the identical call may succeed (serialization, lock timeout, shutdown, full disk …).
    Retry,
    /// Nothing is written: the statement exceeded its time limit, as the identical call probably would again.
    StatementTimedOut,
    /// Nothing is written: Postgres rejects a value as data.
    DataRejected(String),
    /// Nothing is written: an identity was decided before.
    AlreadyDecided,
    /// Nothing is written: a row differs from the owner's cached state.
    Mismatch(String),
}

/// The partition's row, as a takeover or a read-back returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's nonce.
    pub nonce: Nonce,
    /// The last write.
    pub write_no: WriteNo,
    /// The attempt that made it, if it was made in this epoch.
    pub attempt: Option<Attempt>,
    /// Position of the partition.
    pub position: Position,
    /// The next outbox entry.
    pub next_emit_seq: EmitSeq,
    /// The acknowledged watermark.
    pub emitted_seq: EmitSeq,
    /// The earliest deadline of a live claim; set by a takeover only.
    pub next_deadline: Option<Millis>,
}
