//! The border of the core: what the machine of a partition asks of the world, and what the world answers.
//!
//! The driver performs every effect and feeds the answers back as inputs, in any order and as late as it likes.
//! An answer carries the token of its question; the machine ignores answers to questions it has given up.

use crate::batch::{Batch, Decision, Position, StockRow};
use crate::coupon::Definition;
use crate::ids::{Attempt, CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Nonce, Offset, WriteNo};
use crate::record::Record;
use std::sync::Arc;

/// Names one question, so that a late answer is known to be late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the machine asks for. The driver has one arm for each, so a new one does not compile until it is handled.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Become the owner in the ledger; answered by [`Input::TakenOver`]. Repeated until it succeeds.
    TakeOver {
        /// The nonce of this ownership.
        nonce: Nonce,
    },
    /// Compare the log with what the ledger knows of it; answered by [`Input::LogChecked`].
    CheckLog {
        /// What the ledger knows.
        position: Position,
    },
    /// Deliver records from here on, in order, as [`Input::Records`].
    Consume {
        /// The first record wanted.
        from: Offset,
    },
    /// Tell again what outbox entries `from..=to` say; each answered by [`Input::Emitted`].
    Reemit {
        /// First entry.
        from: EmitSeq,
        /// Last entry.
        to: EmitSeq,
    },
    /// Read from the ledger; answered by [`Input::Loaded`]. Repeated until it succeeds.
    Load {
        /// The question's token.
        token: Token,
        /// What is wanted.
        wants: Wants,
    },
    /// Get codes: pops from Redis lists, reads from the ledger; answered by [`Input::Reserved`].
    Reserve {
        /// The question's token.
        token: Token,
        /// From lists, all at once. Never retried.
        pops: Vec<Pop>,
        /// From the ledger. Repeated until it succeeds.
        reads: Vec<ReadCodes>,
    },
    /// Copy a window of codes from the ledger to the end of a list; answered by [`Input::Filled`]. Never retried.
    Fill(Fill),
    /// Call the ledger; answered by [`Input::Written`]. `backoff` counts the failures before this call.
    Write {
        /// What to write.
        batch: Arc<Batch>,
        /// How many calls failed in a row: wait longer the more they are.
        backoff: u32,
    },
    /// Read the partition's row, waiting for a write that is still running; answered by [`Input::ReadBack`].
    ReadBack,
    /// Produce a batch's responses, events and dead letters; [`Input::Emitted`] once all are acknowledged.
    Emit(Arc<Batch>),
    /// Commit the consumer group's offset, for lag monitoring.
    CommitOffset {
        /// The first record not told yet.
        next_offset: Offset,
        /// The write it belongs to, as metadata.
        write_no: WriteNo,
    },
    /// Stop delivering records for now.
    Pause,
    /// Deliver records again.
    Resume,
    /// The machine is done with this partition and wants nothing more.
    Released(Release),
}

/// Why a machine let its partition go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// It was asked to, and everything written has been told.
    HandedOver,
    /// Another owner has taken the partition over. Still assigned? Then take over again, with back-off.
    Fenced,
    /// It must not go on without an operator. The text says what happened and what to do.
    Stopped(String),
}

/// What the ledger is asked to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Coupons by id.
    pub coupons: Vec<Box<str>>,
    /// Outcomes of identities that may have been decided before.
    pub decided: Vec<u128>,
    /// Loads that were announced.
    pub loads: Vec<LoadId>,
    /// Live claims of users of a coupon.
    pub users: Vec<UsersOf>,
    /// Returned numbers of a coupon, with their codes, lowest first.
    pub returned: Vec<ReturnedOf>,
}

impl Wants {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Users of one coupon whose live claims are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersOf {
    /// The coupon.
    pub coupon: CouponNo,
    /// The users.
    pub users: Vec<Box<str>>,
}

/// Returned numbers of one coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedOf {
    /// The coupon.
    pub coupon: CouponNo,
    /// How many at most.
    pub limit: usize,
}

/// What the ledger answered; one answer to each want, in the same order where it is a list of lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// The coupons that exist.
    pub coupons: Vec<LoadedCoupon>,
    /// Every outcome stored under the identities asked for.
    pub decided: Vec<Decision>,
    /// The loads that exist.
    pub loads: Vec<LoadedLoad>,
    /// Live claims; users without any may be missing.
    pub users: Vec<LiveClaims>,
    /// Returned codes by coupon.
    pub returned: Vec<(CouponNo, Vec<CodeEntry>)>,
}

/// A coupon as the ledger knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedCoupon {
    /// The id that was asked for.
    pub coupon_id: Box<str>,
    /// Its number.
    pub coupon: CouponNo,
    /// The rules.
    pub definition: Definition,
    /// The counters.
    pub stock: StockRow,
    /// The numbers above the cursor that are taken already.
    pub ahead: Vec<CodeNumber>,
}

/// A load as the ledger knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedLoad {
    /// The load.
    pub load: LoadId,
    /// Whose codes they are.
    pub coupon: CouponNo,
    /// How many.
    pub count: i64,
    /// Whether it is complete and not stock yet.
    pub sealed: bool,
}

/// How many live claims a user has of a coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveClaims {
    /// The coupon.
    pub coupon: CouponNo,
    /// The user.
    pub user: Box<str>,
    /// Claims that count for the limit of claims per user.
    pub count: u32,
}

/// A code with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// Its number within the coupon.
    pub number: CodeNumber,
    /// The code as shown to users.
    pub code: Box<str>,
}

/// A Redis list of one coupon: its name is unique to one filling by one ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListName {
    /// The coupon.
    pub coupon: CouponNo,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's nonce.
    pub nonce: Nonce,
    /// Counts the lists of this ownership.
    pub generation: u64,
}

/// Pop from the head of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pop {
    /// The list.
    pub list: ListName,
    /// How many.
    pub count: usize,
}

/// What became of a pop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Popped {
    /// What the list gave, in order; maybe fewer than asked.
    Codes(Vec<CodeEntry>),
    /// Failed, or the answer is unknown: codes may or may not be gone. Also for entries that cannot be read.
    Unknown,
}

/// Read codes from the ledger: the first `count` numbers above `after` that are not ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadCodes {
    /// The coupon.
    pub coupon: CouponNo,
    /// Numbers above this one.
    pub after: CodeNumber,
    /// How many at most.
    pub count: usize,
}

/// Copy codes from the ledger to a list: as [`ReadCodes`], then append in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The list, made if it is not there.
    pub list: ListName,
    /// Which codes.
    pub codes: ReadCodes,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillResult {
    /// The list ends with this number now, and has this many entries more.
    Filled {
        /// Entries appended.
        count: usize,
        /// Number of the last one.
        last: CodeNumber,
    },
    /// Failed or unknown: the list may hold anything.
    Unknown,
}

/// What became of a call to the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// Everything is written.
    Written,
    /// No answer: it may have happened, or may still happen.
    Unknown,
    /// Refused by the fence.
    Fenced,
    /// Nothing written; the identical call may succeed (serialization, lock timeout, shutdown, full disk …).
    Retry,
    /// Nothing written: Postgres refuses a value as data.
    DataRefused(String),
    /// Nothing written: an identity was decided before.
    AlreadyDecided,
    /// Nothing written: a row is not as the owner knew it.
    Mismatch(String),
}

/// The partition's row, as read back or as returned by a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's nonce.
    pub nonce: Nonce,
    /// The last write.
    pub write_no: WriteNo,
    /// The attempt that made it, if this epoch wrote.
    pub attempt: Option<Attempt>,
    /// Where the partition stands.
    pub position: Position,
    /// The next outbox entry.
    pub next_emit_seq: EmitSeq,
    /// The acknowledged watermark.
    pub emitted_seq: EmitSeq,
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Begin: take the partition over.
    Begin,
    /// The takeover's row.
    TakenOver(PartitionRow),
    /// Whether the log is the one that the ledger knows; else what is wrong with it and what to do.
    LogChecked(Result<(), String>),
    /// Records in the order of the log.
    Records(Vec<Record>),
    /// Answers of the ledger.
    Loaded {
        /// The question's token.
        token: Token,
        /// The answers.
        answers: Box<Answers>,
    },
    /// Codes; one result for each pop and each read, in order.
    Reserved {
        /// The question's token.
        token: Token,
        /// Results of the pops.
        popped: Vec<Popped>,
        /// Results of the reads.
        read: Vec<Vec<CodeEntry>>,
    },
    /// A list was filled, or not.
    Filled {
        /// The list.
        list: ListName,
        /// What became of it.
        result: FillResult,
    },
    /// The ledger's answer to a write.
    Written {
        /// Which write.
        write_no: WriteNo,
        /// Which attempt at it.
        attempt: Attempt,
        /// What became of it.
        result: WriteResult,
    },
    /// The partition's row as it is.
    ReadBack(PartitionRow),
    /// Every message of this outbox entry is acknowledged by the broker.
    Emitted(EmitSeq),
    /// Nothing has happened for a while.
    Idle,
    /// The assignment is lost, or the process stops: finish what is under way and let go.
    LetGo,
}
