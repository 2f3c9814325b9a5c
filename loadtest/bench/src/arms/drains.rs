//! The arms of the frame [`Drain`]: one worker empties a topic with these contents.

use crate::frames::drain::Drain;
use crate::load::contents::Contents;

/// Enough claims to measure the cost of one.
const FOR_COST: u64 = 200_000;

const fn claims(name: &'static str, about: &'static str, contents: Contents, at_most: u64) -> Drain {
    Drain { name, about, contents, at_most, partitions: 1 }
}

/// One hot coupon.
pub const HOT_DRAIN: Drain = claims(
    "hot-drain",
    "Stampede: one worker empties a full topic of one coupon's claims: each decided in order, durable, and published",
    Contents::Hot,
    u64::MAX,
);
/// One hot coupon with the default number of partitions.
pub const HOT_DRAIN_8: Drain = Drain {
    partitions: 8,
    ..claims(
        "hot-drain-8",
        "as hot-drain, but the worker owns eight partitions, as many as a first start makes: seven are empty",
        Contents::Hot,
        u64::MAX,
    )
};
/// One hot coupon that is sold out at once.
pub const SOLD_OUT_DRAIN: Drain = claims(
    "sold-out-drain",
    "the same with codes for 0.2 % of the claims: every other claim is rejected as sold out, durably",
    Contents::SoldOut,
    u64::MAX,
);
/// No hot coupon.
pub const UNIFORM_DRAIN: Drain = claims(
    "uniform-drain",
    "the same with 10,000 coupons in rotation, in the same partition",
    Contents::InTurn(10_000),
    u64::MAX,
);
/// Redemptions.
pub const REDEEM_DRAIN: Drain = claims(
    "redeem-drain",
    "Stampede: one worker empties a full topic of redemptions of one coupon's claimed codes, each with an order",
    Contents::Redemptions,
    u64::MAX,
);
/// Few days of outcomes.
pub const HISTORY_1: Drain = history("history-1", 1);
/// A month.
pub const HISTORY_30: Drain = history("history-30", 30);
/// A year.
pub const HISTORY_365: Drain = history("history-365", 365);
/// Few coupons.
pub const COUPONS_10: Drain = coupons("coupons-10", 10);
/// Some coupons.
pub const COUPONS_100: Drain = coupons("coupons-100", 100);
/// Many coupons.
pub const COUPONS_1000: Drain = coupons("coupons-1000", 1_000);
/// Little stock.
pub const STOCK_1000: Drain = stock("stock-1000", 1_000);
/// Some stock.
pub const STOCK_10000: Drain = stock("stock-10000", 10_000);
/// Much stock.
pub const STOCK_100000: Drain = stock("stock-100000", 100_000);
/// A great stock.
pub const STOCK_1000000: Drain = stock("stock-1000000", 1_000_000);

const fn history(name: &'static str, days: u32) -> Drain {
    let about = "as hot-drain, with an Idempotency-Key for each claim and this many days of outcomes: the cost of a possible duplicate against what is kept";
    claims(name, about, Contents::Keyed(days), FOR_COST)
}

const fn coupons(name: &'static str, coupons: u64) -> Drain {
    let about =
        "as hot-drain, with this many coupons in rotation: the cost of a claim against the number of coupons";
    claims(name, about, Contents::InTurn(coupons), FOR_COST)
}

const fn stock(name: &'static str, codes: u64) -> Drain {
    let about = "as hot-drain, with coupons of this many codes, one after the other: the cost of a claim against the stock";
    claims(name, about, Contents::Stock(codes), FOR_COST)
}
