//! A batch: decisions in the order of the log, and every row that one call of Postgres writes for them.
//!
//! A batch is written completely or not at all. Its decisions, events and dead letters are published only after it is
//! written. Changes carry the old value beside the new one: a row is written only over its old value.

mod decision;
mod event;
mod stock;

pub use decision::{Changed, Decision, Redemption, Verdict};
pub use event::{Event, EventKind, Lapsed};
pub use stock::{LoadApplied, StockChange, StockRow};

use crate::domain::claim::Claim;
use crate::domain::ids::{
    Attempt, CodeNumber, CouponNo, EmitSeq, Epoch, Millis, Nonce, Offset, Partition, RequestId, WriteNo,
};
use crate::domain::record::DeadLetter;
use crate::domain::words::ClaimState;

/// The content of one write of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The right to write.
    pub fence: Fence,
    /// Position of the partition after this batch.
    pub position: Position,
    /// Outbox entries up to this one are acknowledged.
    pub watermark: EmitSeq,
    /// The outbox entry of this batch; `None` if it publishes nothing.
    pub emit_seq: Option<EmitSeq>,
    /// New decisions, in the order of the log.
    pub decisions: Vec<Decision>,
    /// Decisions of earlier batches, published again unchanged.
    pub duplicates: Vec<Decision>,
    /// Stock rows that change.
    pub stock: Vec<StockChange>,
    /// Claims whose status changes. A claim made by this batch is included only if it changed again.
    pub claims: Vec<ClaimChange>,
    /// Redemptions that are rolled back.
    pub rolled_back: Vec<RolledBack>,
    /// Codes whose flags were changed. One whose flags are as before is included: the next batch needs it.
    pub code_flags: Vec<CodeFlagsChange>,
    /// Numbers above the cursor that were taken.
    pub ahead_taken: Vec<(CouponNo, CodeNumber)>,
    /// Numbers above the cursor that are free again.
    pub ahead_freed: Vec<(CouponNo, CodeNumber)>,
    /// Numbers at or below the cursor that are free again.
    pub returned_added: Vec<(CouponNo, CodeNumber)>,
    /// Returned numbers that were taken again.
    pub returned_taken: Vec<(CouponNo, CodeNumber)>,
    /// Loads that become stock.
    pub loads: Vec<LoadApplied>,
    /// Records that cannot be decided, with their offsets.
    pub dead_letters: Vec<(Offset, DeadLetter)>,
    /// Records of `coupon.events`.
    pub events: Vec<Event>,
}

impl Batch {
    /// A batch that changes nothing but position and watermark.
    #[must_use]
    pub const fn new(fence: Fence, position: Position, watermark: EmitSeq) -> Self {
        Self {
            fence,
            position,
            watermark,
            emit_seq: None,
            decisions: Vec::new(),
            duplicates: Vec::new(),
            stock: Vec::new(),
            claims: Vec::new(),
            rolled_back: Vec::new(),
            code_flags: Vec::new(),
            ahead_taken: Vec::new(),
            ahead_freed: Vec::new(),
            returned_added: Vec::new(),
            returned_taken: Vec::new(),
            loads: Vec::new(),
            dead_letters: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Whether this batch publishes anything.
    #[must_use]
    pub fn publishes(&self) -> bool {
        !(self.decisions.is_empty()
            && self.duplicates.is_empty()
            && self.dead_letters.is_empty()
            && self.events.is_empty())
    }
}

/// The right to write to a partition, and the identity of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The partition.
    pub partition: Partition,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The owner's nonce.
    pub nonce: Nonce,
    /// Number of this write: one more than the row's.
    pub write_no: WriteNo,
    /// This attempt at the write.
    pub attempt: Attempt,
}

/// Position of a partition after a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The first record that is not decided.
    pub next_offset: Offset,
    /// The last decided record; −1 if there is none.
    pub last_offset: Offset,
    /// Digest of that record.
    pub last_digest: i64,
    /// The partition's time.
    pub time: Millis,
    /// Requests with ids minted up to here may be duplicates that no owner has in memory.
    pub possible_duplicates_until: Millis,
}

/// The change of a claim by one batch, all transitions together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimChange {
    /// State and deadline before the batch; `None` for a claim that this batch made.
    pub before: Option<(ClaimState, Option<Millis>)>,
    /// The claim after the batch.
    pub claim: Claim,
}

/// A redemption that is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The redemption.
    pub id: RequestId,
    /// Time of the rollback.
    pub at: Millis,
    /// Whether this batch also made the redemption.
    pub made_here: bool,
}

/// What is stored about a code beyond its claim. A code without a stored row has the default flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeFlags {
    /// Live redemptions of a shared code; always 0 for any other code.
    pub uses: i64,
    /// Whether the code was withdrawn.
    pub revoked: bool,
}

/// The change of a code's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeFlagsChange {
    /// The coupon.
    pub coupon: CouponNo,
    /// The code.
    pub number: CodeNumber,
    /// Before this batch.
    pub before: CodeFlags,
    /// After this batch.
    pub after: CodeFlags,
}
