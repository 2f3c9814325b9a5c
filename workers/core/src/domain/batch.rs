//! What a batch is: decisions in order, and everything that one call of the ledger writes for them.

use crate::domain::claim::Claim;
use crate::domain::ids::{
    Attempt, CodeNumber, CouponNo, EmitSeq, Epoch, LoadId, Millis, Nonce, Offset, Partition, RequestId,
    WriteNo,
};
use crate::domain::record::DeadLetter;
use crate::domain::words::{ClaimState, Kind, Reason};
use rust_decimal::Decimal;

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
        /// When the claim lapses, if the coupon has a hold.
        hold_until: Option<Millis>,
    },
    /// Something was done to a code that exists already: every accepted request but a claim.
    Changed(Box<Changed>),
    /// Nothing changed.
    Rejected(Reason),
}

/// How a request left a code: what its row and its response say. Never changes, whatever becomes of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The code's number within the coupon.
    pub number: CodeNumber,
    /// The code as shown to people.
    pub code: Box<str>,
    /// The state of its claim; REVOKED also of a code that nobody had; `None` for a code shared by many.
    pub state: Option<ClaimState>,
    /// When it was claimed.
    pub claimed: Option<Millis>,
    /// When its hold ends.
    pub hold_until: Option<Millis>,
    /// When its lock ends.
    pub lock_until: Option<Millis>,
    /// lock: the order that it named.
    pub order: Option<Box<str>>,
    /// redeem, rollback: the redemption.
    pub redemption: Option<Redemption>,
}

/// A redemption. Its id is that of the request that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// The redeem request, by which it is known.
    pub id: RequestId,
    /// The order that it was for.
    pub order: Box<str>,
    /// The order's amount.
    pub amount: Decimal,
    /// What was taken off.
    pub discount: Decimal,
    /// What was left to pay.
    pub final_price: Decimal,
    /// Of all three (ISO 4217).
    pub currency: Box<str>,
    /// When, in the partition's time.
    pub redeemed: Millis,
}

/// A claim whose terms changed, after all that one batch did to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimChange {
    /// State and deadline before the batch; `None` for a claim that the same batch made.
    pub before: Option<(ClaimState, Option<Millis>)>,
    /// The claim afterwards.
    pub claim: Claim,
}

/// A redemption that was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Which one.
    pub id: RequestId,
    /// When.
    pub at: Millis,
    /// Whether the same batch made it.
    pub made_here: bool,
}

/// What is known of a code itself, beyond its claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeFlags {
    /// Live redemptions of a code that is shared by many; always 0 for any other.
    pub uses: i64,
    /// Whether it was withdrawn.
    pub revoked: bool,
}

/// How the mark of a code changes: written only over the old one. A code without a row has the default mark.
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

/// How one coupon's stock row changes: absolute values, written only over the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockChange {
    /// The coupon.
    pub coupon: CouponNo,
    /// What the owner knew before this batch.
    pub before: StockRow,
    /// What it is after this batch.
    pub after: StockRow,
    /// How many of the numbers that were ahead before this batch the cursor has passed.
    pub passed: i64,
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
    /// Claims in the state CLAIMED.
    pub claimed: i64,
    /// Claims in the state LOCKED.
    pub locked: i64,
    /// Claims in the state REDEEMED; codes shared by many whose uses are exhausted.
    pub redeemed: i64,
    /// Codes that were withdrawn.
    pub revoked: i64,
    /// Redemptions that were not rolled back: for the limit of the whole coupon.
    pub redemptions: i64,
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
    /// Lapses: whose claim of which code.
    pub lapsed: Option<Lapsed>,
    /// At which record.
    pub offset: Offset,
    /// When, in the partition's time.
    pub at: Millis,
}

/// What lapsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapsed {
    /// The code as shown to people.
    pub code: Box<str>,
    /// Who had it.
    pub user: Box<str>,
}

/// What happened to a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The last code was given.
    SoldOut,
    /// A load became stock, or the first code of a coupon that had none came back.
    Restocked,
    /// A hold's time was over: the code went back to stock.
    HoldLapsed,
    /// A lock's time was over.
    LockLapsed,
}

impl EventKind {
    /// The word in `coupon.events`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "sold_out",
            Self::Restocked => "restocked",
            Self::HoldLapsed => "hold_lapsed",
            Self::LockLapsed => "lock_lapsed",
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
    pub possible_duplicates_until: Millis,
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
    pub duplicates: Vec<Decision>,
    /// Stock rows that change.
    pub stock: Vec<StockChange>,
    /// Claims whose terms changed; of those that this batch made, only those that did not stay as they were made.
    pub claims: Vec<ClaimChange>,
    /// Redemptions that were rolled back.
    pub rolled_back: Vec<RolledBack>,
    /// Codes whose marks were changed; one may be as it was again, and says so to the batch on top of this one.
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
    /// Records that could not be decided, with their offsets.
    pub dead_letters: Vec<(Offset, DeadLetter)>,
    /// What others want to know.
    pub events: Vec<Event>,
}

impl Batch {
    /// Whether there is anything to tell once this is written.
    #[must_use]
    pub fn publishes(&self) -> bool {
        !(self.decisions.is_empty()
            && self.duplicates.is_empty()
            && self.dead_letters.is_empty()
            && self.events.is_empty())
    }
}
