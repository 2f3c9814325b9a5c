//! Queries of Postgres, and their results.

use super::cache_list::CodeEntry;
use crate::domain::batch::{CodeFlags, Decision, Redemption, StockRow};
use crate::domain::claim::Claim;
use crate::domain::coupon::Definition;
use crate::domain::ids::{CodeNumber, CouponNo, LoadId, Millis, RequestId};

/// Queries of one [`Effect::Lookup`](super::Effect::Lookup).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Coupons by id.
    pub coupons: Vec<Box<str>>,
    /// Outcomes by identity, of requests that may have been decided before.
    pub decided: Vec<u128>,
    /// The UTC days (since 1970) among whose outcomes they are looked up, besides claims and redemptions; ascending.
    pub decided_in: Vec<i32>,
    /// Announced loads.
    pub loads: Vec<LoadId>,
    /// Live claims and redemptions of users of a coupon.
    pub users: Vec<UserLookup>,
    /// Returned numbers of a coupon, with their codes, lowest first.
    pub returned: Vec<ReturnedLookup>,
    /// Codes by name.
    pub codes: Vec<CodeLookup>,
    /// Redemptions by id, with the codes that they used.
    pub redemptions: Vec<RequestId>,
    /// Orders that may have been paid with a shared code.
    pub orders: Vec<OrderLookup>,
    /// Claims of this partition whose deadlines have passed.
    pub due: Option<DueLookup>,
}

impl Lookups {
    /// Whether there is no query.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Users of one coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLookup {
    /// The coupon.
    pub coupon: CouponNo,
    /// The users.
    pub users: Vec<Box<str>>,
    /// Whether their redemptions are counted, too.
    pub redemptions: bool,
}

/// A code that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeLookup {
    /// The code, normalised.
    pub key: Box<str>,
    /// The requesting user, whose lapsed claims of this code are read, too.
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
    /// The earliest deadline. Index entries of earlier ones, which may be dead for long, are not read.
    pub from: Millis,
    /// The latest deadline.
    pub until: Millis,
    /// Most claims to return.
    pub limit: usize,
}

/// Returned numbers of one coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnedLookup {
    /// The coupon.
    pub coupon: CouponNo,
    /// The lowest number. Index entries of lower ones, which may be dead for long, are not read.
    pub from: CodeNumber,
    /// Most numbers to return.
    pub limit: usize,
}

/// Results of [`Lookups`], field by field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookupResults {
    /// The coupons that exist.
    pub coupons: Vec<StoredCoupon>,
    /// Every outcome stored under the identities.
    pub decided: Vec<Decision>,
    /// The loads that exist.
    pub loads: Vec<StoredLoad>,
    /// Counts of the users; a user without any may be absent.
    pub users: Vec<UserCounts>,
    /// Returned codes by coupon.
    pub returned: Vec<(CouponNo, Vec<CodeEntry>)>,
    /// The codes that exist, each once, including those of the redemptions.
    pub codes: Vec<StoredCode>,
    /// The pairs of code and user with a lapsed claim.
    pub lapsed: Vec<(CouponNo, CodeNumber, Box<str>)>,
    /// The redemptions that exist.
    pub redemptions: Vec<StoredRedemption>,
    /// The orders with a redemption that was not rolled back.
    pub orders: Vec<OrderLookup>,
    /// The due claims.
    pub due: Option<DueClaims>,
}

/// A coupon as Postgres stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCoupon {
    /// The id by which it was looked up.
    pub coupon_id: Box<str>,
    /// Its number.
    pub coupon: CouponNo,
    /// The rules.
    pub definition: Definition,
    /// The counters.
    pub stock: StockRow,
    /// The taken numbers above the cursor.
    pub ahead: Vec<CodeNumber>,
}

/// A load as Postgres stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredLoad {
    /// The load.
    pub load: LoadId,
    /// The coupon of its codes.
    pub coupon: CouponNo,
    /// Number of its codes.
    pub count: i64,
    /// Whether it is complete and not yet stock.
    pub sealed: bool,
}

/// What limits per user count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCounts {
    /// The coupon.
    pub coupon: CouponNo,
    /// The user.
    pub user: Box<str>,
    /// Claims that count for the limit of claims per user.
    pub claims: u32,
    /// Redemptions that were not rolled back; 0 unless they were looked up.
    pub redemptions: u32,
}

/// A code as Postgres stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCode {
    /// The code, normalised.
    pub key: Box<str>,
    /// The code as shown to people.
    pub code: Box<str>,
    /// The coupon.
    pub coupon: CouponNo,
    /// The load of the code.
    pub load: LoadId,
    /// Index within the load, from 1; the code's number is `base + idx`.
    pub idx: i64,
    /// The number before the load's first code; `None` while the load is not stock.
    pub base: Option<i64>,
    /// Its live claim.
    pub claim: Option<Claim>,
    /// Its flags.
    pub flags: CodeFlags,
}

/// A redemption as Postgres stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRedemption {
    /// The redemption.
    pub redemption: Redemption,
    /// The coupon.
    pub coupon: CouponNo,
    /// The code.
    pub number: CodeNumber,
    /// The user who redeemed.
    pub user: Box<str>,
    /// Whether it was rolled back.
    pub rolled_back: bool,
}

/// Claims whose deadlines have passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueClaims {
    /// The earliest ones, with the ids of their coupons.
    pub claims: Vec<(Box<str>, Claim)>,
    /// The earliest deadline after the requested time; `None` if there is none.
    pub next: Option<Millis>,
}
