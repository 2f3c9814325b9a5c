//! The parts of readiness.

use std::sync::Arc;

use runtime::lifecycle::Readiness;
use runtime::postgres::SCHEMA;

/// Postgres responds.
pub(crate) const POSTGRES: &str = "postgres";
/// Kafka accepts records.
pub(crate) const KAFKA: &str = "kafka";
/// The consumer of `coupon.responses` has its position.
pub(crate) const RESPONSES: &str = "responses";
/// The process accepts requests: it has started and is not stopping.
pub(crate) const SERVING: &str = "serving";

/// The readiness of an instance; it can be served before the instance has started.
#[must_use]
pub fn readiness() -> Arc<Readiness> {
    Readiness::new(&[SCHEMA, POSTGRES, KAFKA, RESPONSES, SERVING])
}
