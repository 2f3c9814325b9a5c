//! The demonstration: the whole stack, a new coupon, many users who want its codes, and figures that are counted from
//! Postgres and from the responses, never assumed.
//!
//! Reading order: [`args`] (options), [`sale`] (the order of events), [`users`] (what users do), [`results`] (what is
//! counted and printed); beside it [`k6`] (a k6 script in place of the users).

pub mod args;
pub mod error;
pub mod k6;
pub mod results;
pub mod sale;
pub mod users;
