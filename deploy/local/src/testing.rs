//! One stack shared by all tests of a test binary.
//!
//! A test binary runs its tests in threads, each with its own runtime; the stack belongs to none of them. It is never
//! dropped, because it is a static: when the process ends, the kernel kills the children, and the watchdog removes the
//! directory.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::config::StackConfig;
use crate::error::StackError;
use crate::programs::{Profile, Programs};
use crate::stack::Stack;

/// The features with which tests build our programs. `deploy/test` uses the same ones, so nothing is built twice.
pub const FEATURES: &[&str] =
    &["workers/crash-points", "ingest-api/crash-points", "coupon-core/planted-bugs"];

type Shared = OnceCell<Result<Arc<Stack>, Arc<StackError>>>;

/// Kafka, Redis, Postgres, one `ingest-api` and two workers, with the test features.
///
/// # Errors
/// When it did not come up; all tests get the same error, without another attempt.
pub async fn shared() -> Result<Arc<Stack>, Arc<StackError>> {
    static STACK: Shared = OnceCell::const_new();
    let start = || async { start(StackConfig::full(programs().await?)).await };
    STACK.get_or_init(|| async { start().await.map_err(Arc::new) }).await.clone()
}

/// Kafka, Redis and Postgres alone.
///
/// # Errors
/// As [`shared`].
pub async fn shared_servers() -> Result<Arc<Stack>, Arc<StackError>> {
    static STACK: Shared = OnceCell::const_new();
    STACK.get_or_init(|| async { start(StackConfig::servers_only()).await.map_err(Arc::new) }).await.clone()
}

/// Our programs with the test features, built at most once per process.
///
/// # Errors
/// When the build fails.
pub async fn programs() -> Result<Programs, StackError> {
    Programs::build(FEATURES, Profile::Dev).await
}

async fn start(config: StackConfig) -> Result<Arc<Stack>, StackError> {
    Stack::start(config).await.map(Arc::new)
}
