//! The ledger on a real Postgres: what the fence, the constraints and the plans really do.
//!
//! [`fixture`] makes a database for each test, [`claims`] what batches are made of; [`fence`], [`writes`], [`reads`],
//! [`life`] and [`named`] test what the ledger promises, [`plans`] that it keeps its speed while an empty database
//! fills.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod claims;
mod fence;
mod fixture;
mod life;
mod named;
mod plans;
mod reads;
mod writes;
