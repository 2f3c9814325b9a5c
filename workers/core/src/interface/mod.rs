//! The border of the core: what the machine of a partition asks of the world, and what the world answers.
//!
//! The driver performs every effect and feeds the answers back as inputs, in any order and as late as it likes.
//! An answer carries the token of its question; the machine ignores answers to questions it has given up.

use crate::domain::batch::{Batch, CodeFlags, Decision, Position, Redemption, StockRow};
use crate::domain::claim::Claim;
use crate::domain::coupon::Definition;
use crate::domain::ids::{
    Attempt, CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Millis, Nonce, Offset, RequestId, WriteNo,
};
use crate::domain::record::Record;
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
    /// Tell again what outbox entries `from..=to` say; each answered by [`Input::Published`].
    Republish {
        /// First entry.
        from: EmitSeq,
        /// Last entry.
        to: EmitSeq,
    },
    /// Read from the ledger; answered by [`Input::LookedUp`]. Repeated until it succeeds.
    Lookup {
        /// The question's token.
        token: Token,
        /// What is wanted.
        lookups: Lookups,
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
    /// Copy a window of codes from the ledger to the end of a list; answered by [`Input::Refilled`]. Never retried.
    Refill(Refill),
    /// Call the ledger; answered by [`Input::Written`]. `backoff` counts the failures before this call.
    Write {
        /// What to write.
        batch: Arc<Batch>,
        /// How many calls failed in a row: wait longer the more they are.
        backoff: u32,
    },
    /// Read the partition's row, waiting for a write that is still running; answered by [`Input::ReadBack`].
    ReadBack,
    /// Produce a batch's responses, events and dead letters; [`Input::Published`] once all are acknowledged.
    Publish(Arc<Batch>),
    /// Commit the consumer group's offset, for lag monitoring.
    CommitOffset {
        /// The first record not told yet.
        next_offset: Offset,
        /// The write it belongs to, as metadata.
        write_no: WriteNo,
    },
    /// Append a `tick` to the own partition: a deadline seems due and nothing else moves the time. Repeated until
    /// the broker has it; answered by the record itself.
    Tick,
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
pub struct Lookups {
    /// Coupons by id.
    pub coupons: Vec<Box<str>>,
    /// Outcomes of identities that may have been decided before.
    pub decided: Vec<u128>,
    /// Loads that were announced.
    pub loads: Vec<LoadId>,
    /// Live claims of users of a coupon.
    pub users: Vec<UserLookup>,
    /// Returned numbers of a coupon, with their codes, lowest first.
    pub returned: Vec<ReturnedLookup>,
    /// Codes by name.
    pub codes: Vec<CodeLookup>,
    /// Redemptions by id, and the codes that they used.
    pub redemptions: Vec<RequestId>,
    /// Whether orders were paid for with codes that are shared by many.
    pub orders: Vec<OrderLookup>,
    /// Claims of this partition whose deadlines have passed.
    pub due: Option<DueLookup>,
}

impl Lookups {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Users of one coupon whose live claims are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLookup {
    /// The coupon.
    pub coupon: CouponNo,
    /// The users.
    pub users: Vec<Box<str>>,
    /// Whether their redemptions are wanted, too.
    pub redemptions: bool,
}

/// A code that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLookup {
    /// The code, normalised.
    pub key: Box<str>,
    /// Who asks: whether a claim of theirs lapsed is wanted, too.
    pub user: Box<str>,
}

/// An order and the code that it may have been paid with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderLookup {
    /// The coupon.
    pub coupon: CouponNo,
    /// The code.
    pub number: CodeNumber,
    /// The order.
    pub order: Box<str>,
}

/// Deadlines up to a time, earliest first (then by coupon and number).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueLookup {
    /// The last deadline wanted.
    pub until: Millis,
    /// How many at most.
    pub limit: usize,
}

/// Returned numbers of one coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedLookup {
    /// The coupon.
    pub coupon: CouponNo,
    /// How many at most.
    pub limit: usize,
}

/// What the ledger answered; one answer to each want, in the same order where it is a list of lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookupResults {
    /// The coupons that exist.
    pub coupons: Vec<StoredCoupon>,
    /// Every outcome stored under the identities asked for.
    pub decided: Vec<Decision>,
    /// The loads that exist.
    pub loads: Vec<StoredLoad>,
    /// Live claims; users without any may be missing.
    pub users: Vec<UserCounts>,
    /// Returned codes by coupon.
    pub returned: Vec<(CouponNo, Vec<CodeEntry>)>,
    /// The codes that exist, each once; those of the redemptions, too.
    pub codes: Vec<StoredCode>,
    /// Of the codes and users asked for: those where a claim of that user lapsed.
    pub lapsed: Vec<(CouponNo, CodeNumber, Box<str>)>,
    /// The redemptions that exist.
    pub redemptions: Vec<StoredRedemption>,
    /// Of the orders asked for: those with a redemption that was not rolled back.
    pub orders: Vec<OrderLookup>,
    /// The due claims.
    pub due: Option<DueClaims>,
}

/// A code as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCode {
    /// The code, normalised.
    pub key: Box<str>,
    /// The code as shown to people.
    pub code: Box<str>,
    /// The coupon.
    pub coupon: CouponNo,
    /// The load that it came with.
    pub load: LoadId,
    /// Its place in the load, from 1; its number is `base + idx`.
    pub idx: i64,
    /// The number before the load's first code; `None` while the load is not stock.
    pub base: Option<i64>,
    /// Its live claim.
    pub claim: Option<Claim>,
    /// What is known of it beyond its claim.
    pub flags: CodeFlags,
}

/// A redemption as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRedemption {
    /// The redemption.
    pub redemption: Redemption,
    /// The coupon.
    pub coupon: CouponNo,
    /// The code's number.
    pub number: CodeNumber,
    /// Who redeemed.
    pub user: Box<str>,
    /// Whether it was rolled back.
    pub rolled_back: bool,
}

/// Claims whose deadlines have passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueClaims {
    /// The earliest ones, with the ids of their coupons.
    pub claims: Vec<(Box<str>, Claim)>,
    /// The earliest deadline beyond the time asked for; `None`: there is none.
    pub next: Option<Millis>,
}

/// A coupon as the ledger knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCoupon {
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
pub struct StoredLoad {
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
pub struct UserCounts {
    /// The coupon.
    pub coupon: CouponNo,
    /// The user.
    pub user: Box<str>,
    /// Claims that count for the limit of claims per user.
    pub claims: u32,
    /// Redemptions that were not rolled back; 0 unless they were asked for.
    pub redemptions: u32,
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
pub struct CacheListName {
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
    pub list: CacheListName,
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
pub struct Refill {
    /// The list, made if it is not there.
    pub list: CacheListName,
    /// Which codes.
    pub codes: ReadCodes,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefillResult {
    /// The list ends with this number now, and has this many entries more.
    Refilled {
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
    DataRejected(String),
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
    /// The earliest deadline of a live claim; told by a takeover only.
    pub next_deadline: Option<Millis>,
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
    LookedUp {
        /// The question's token.
        token: Token,
        /// The answers.
        results: Box<LookupResults>,
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
    Refilled {
        /// The list.
        list: CacheListName,
        /// What became of it.
        result: RefillResult,
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
    Published(EmitSeq),
    /// Nothing has happened for a while.
    Idle {
        /// Milliseconds since the last record was taken in, by the process' monotonic clock. It decides nothing but
        /// whether to ask the broker for the time.
        since_last_record: Millis,
    },
    /// The assignment is lost, or the process stops: finish what is under way and let go.
    HandOver,
}
