//! Metrics and readiness.

pub mod metrics;

pub(crate) mod probes;
