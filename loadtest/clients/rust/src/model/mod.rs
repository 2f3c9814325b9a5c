//! The JSON types of the interface: [`outcome`] (requests and what they lead to), [`coupon`] (definitions, stock, jobs).
//!
//! Times are RFC 3339 texts in UTC, amounts of money exact decimal texts. Fields that a newer server adds are ignored.

mod coupon;
mod outcome;

pub use coupon::{Counts, Coupon, Discount, GenerateCodes, Job, JobState, Limit, Limits, NewCoupon, Pattern};
pub use outcome::{Claim, Outcome, OwnedCode, Page, PageQuery, Redemption, Status, Validation};
