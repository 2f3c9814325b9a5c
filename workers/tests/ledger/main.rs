//! The ledger on a real Postgres: its fence, constraints and query plans.
//!
//! [`fixture`] creates a database for each test, [`builders`] the parts of batches. [`fence`], [`writes`], [`reads`],
//! [`transitions`] and [`code_lookups`] test the guarantees of the ledger, [`frozen_backends`] its time limits,
//! [`long_snapshots`] that reads do not walk what has ended,
//! [`query_plans`] that its cost does not grow while an empty database fills, [`retention`] what is dropped, [`upgrades`]
//! that workers of the previous release continue on a newer schema.
#![expect(clippy::unwrap_used, reason = "tests")]

mod builders;
mod code_lookups;
mod fence;
mod fixture;
mod frozen_backends;
mod long_snapshots;
mod query_plans;
mod reads;
mod retention;
mod transitions;
mod upgrades;
mod writes;
