//! All SQL of the API, one file for each kind of row, and the pool with bounded waiting on which requests query.
//!
//! Reads that a response depends on always go to the primary: a replica may lack an outcome that was already published.

pub(crate) mod query_pool;

pub(crate) mod codes;
pub(crate) mod coupons;
pub(crate) mod days;
pub(crate) mod history;
pub(crate) mod loads;
pub(crate) mod outcomes;
pub(crate) mod validation;
pub(crate) mod wallet;
