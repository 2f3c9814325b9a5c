//! The rules of Stampede, without I/O: no clock, no waiting, no metrics. Inputs are records, query results and
//! numbers; outputs are outcomes and effects. Every decision that matters for correctness is made in this crate.
//!
//! Reading order:
//! 1. [`ids`] and [`words`]: newtypes for ids and numbers, and the stable words of the contract.
//! 2. [`record`]: what the owner of a partition consumes. [`batch`]: what it decides and writes.
//! 3. [`coupon`], [`claim`], [`decide`], [`transitions`], [`money`]: the rules of coupons and claims.
//!    [`codes`]: patterns, check characters and the one normalisation of codes.
//! 4. [`interface`]: the effects that the machine requests, and the inputs that it receives.
//! 5. [`machine`]: the owner of one partition, from takeover to hand-over.

mod domain;
pub mod interface;
pub mod machine;
pub mod planted;

pub use domain::{batch, claim, codes, coupon, decide, ids, money, record, transitions, words};
