//! Coupons, codes and claims: pure values and rules, without the state of an owner.

pub mod batch;
pub mod claim;
pub mod codes;
pub mod coupon;
pub mod decide;
pub mod ids;
pub mod money;
pub mod record;
pub mod transitions;
pub mod words;
