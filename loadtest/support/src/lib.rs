//! What the load tools share.
//!
//! Reading order: [`progress`] (lines and bars on a terminal), [`tokens`] (access tokens for the local stack),
//! [`coupons`] (a coupon with codes in stock), [`orders`] (an order for tests in which its amount does not matter),
//! [`recorder`] (requests and responses for the checker's history).

pub mod coupons;
pub mod orders;
pub mod progress;
pub mod recorder;
pub mod tokens;
