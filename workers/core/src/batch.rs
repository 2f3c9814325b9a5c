//! What a batch is: decisions in order, and everything that one call of the ledger writes for them.

use crate::ids::{
    Attempt, CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Millis, Nonce, Offset, Partition, RequestId,
    WriteNo,
};
use crate::record::DeadLetter;
use crate::vocabulary::{Kind, Reason};

/// The final outcome of one request; what its row and its response event say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The request.
    pub id: RequestId,
    /// What it asked for.
    pub kind: Kind,
    /// The coupon as the request named it.
    pub coupon_id: Box<str>,
    /// The coupon's number; `None` where no such coupon exists.
    pub coupon: Option<CouponNo>,
    /// Whose request it is.
    pub user: Box<str>,
    /// Where the request stands in the log.
    pub offset: Offset,
    /// The partition's time when it was decided.
    pub decided: Millis,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user has this code now.
    Claimed {
        /// Its number within the coupon.
        number: CodeNumber,
        /// The code itself.
        code: Box<str>,
    },
    /// Nothing changed.
    Rejected(Reason),
}

/// How one coupon's stock row changes: absolute values, written only over the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockChange {
    /// The coupon.
    pub coupon: CouponNo,
    /// What the owner knew before this batch.
    pub was: StockRow,
    /// What it is after this batch.
    pub is: StockRow,
}

/// The counters of one coupon, as a row of `stock` holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockRow {
    /// Highest number that became stock.
    pub top: i64,
    /// Highest number taken in sequence.
    pub cursor: i64,
    /// How many numbers above the cursor are taken already.
    pub ahead: i64,
    /// How many numbers at or below the cursor are free again.
    pub returned: i64,
    /// Live claims.
    pub claimed: i64,
}

impl StockRow {
    /// Codes that can be given: `top − cursor − |ahead| + |returned|`.
    #[must_use]
    pub const fn available(&self) -> i64 {
        self.top - self.cursor - self.ahead + self.returned
    }
}

/// A load that becomes stock with this batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadApplied {
    /// The load.
    pub load: LoadId,
    /// The number before its first code's.
    pub base: i64,
}

/// What no request asked for but others want to know: a record of `coupon.events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which coupon.
    pub coupon_id: Box<str>,
    /// How many codes can be given now.
    pub available: i64,
    /// At which record.
    pub offset: Offset,
    /// When, in the partition's time.
    pub at: Millis,
}

/// What happened to a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The last code was given.
    SoldOut,
    /// A load became stock.
    Restocked,
}

impl EventKind {
    /// The word in `coupon.events`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "sold_out",
            Self::Restocked => "restocked",
        }
    }
}

/// The right to write to a partition, and the place of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The partition.
    pub partition: Partition,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's nonce.
    pub nonce: Nonce,
    /// This write's number: one more than the row's.
    pub write_no: WriteNo,
    /// This attempt at it.
    pub attempt: Attempt,
}

/// Where the partition stands after a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The first record that is not decided yet.
    pub next_offset: Offset,
    /// The record consumed last (−1 when none), and its digest.
    pub last_offset: Offset,
    /// Digest of that record.
    pub last_digest: i64,
    /// The partition's time.
    pub time: Millis,
    /// Ids minted up to here may be repetitions that memory does not know.
    pub suspect_until: Millis,
}

/// Everything one call of the ledger writes, and what is told once it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// By what right.
    pub fence: Fence,
    /// Where the partition stands afterwards.
    pub position: Position,
    /// Outbox entries up to here are acknowledged.
    pub watermark: EmitSeq,
    /// The outbox entry of this batch; `None` when it has nothing to tell.
    pub emit_seq: Option<EmitSeq>,
    /// New decisions, in the order of the log.
    pub decisions: Vec<Decision>,
    /// Decided before; told once more, exactly as then.
    pub repetitions: Vec<Decision>,
    /// Stock rows that change.
    pub stock: Vec<StockChange>,
    /// Returned numbers that were given again.
    pub returned_taken: Vec<(CouponNo, CodeNumber)>,
    /// Loads that become stock.
    pub loads: Vec<LoadApplied>,
    /// Records that could not be decided, with their offsets.
    pub dead_letters: Vec<(Offset, DeadLetter)>,
    /// What others want to know.
    pub events: Vec<Event>,
}

impl Batch {
    /// Whether there is anything to tell once this is written.
    #[must_use]
    pub fn emits(&self) -> bool {
        !(self.decisions.is_empty()
            && self.repetitions.is_empty()
            && self.dead_letters.is_empty()
            && self.events.is_empty())
    }
}
