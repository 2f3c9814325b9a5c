//! Postgres, read in one read-only snapshot: everything that the checks need.
//!
//! Reading order: `model.rs` (the rows as the checker keeps them), `codes.rs` and `money.rs` (codes and amounts),
//! `ledger.rs` (all of it with its indexes), `context.rs` (reads partitions, coupons, stock and outbox), `rows.rs`
//! (reads the outcomes), `snapshot.rs` (the transaction).

mod codes;
mod context;
mod ledger;
mod model;
mod money;
mod rows;
mod snapshot;

pub(crate) use codes::Load;
pub(crate) use ledger::Ledger;
pub(crate) use model::{
    CLAIMED, Change, ClaimStatus, CodeFlags, CodeId, Coupon, LOCKED, Operation, OutcomeKind, Position,
    REDEEMED, RETURNED, REVOKED, Redemption, Row, Rules, Stock, state_name, user_key,
};
pub(crate) use money::{decimal, parse_amount};
pub use snapshot::SnapshotError;
pub(crate) use snapshot::{RegisteredSchema, Snapshot};
