//! What every partition depends on: Postgres and Kafka. Redis is not among it, because losing it costs speed and nothing
//! else.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::kafka::inspector::Inspector;

/// Time limit of a check.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checks whether Postgres and Kafka respond.
#[derive(Clone)]
pub(crate) struct Dependencies {
    /// A pool of its own: the connections of the owners may be the ones that do not respond.
    postgres: PgPool,
    kafka: Arc<Inspector>,
}

impl Dependencies {
    pub(crate) fn new(postgres: &PgConnectOptions, kafka: &Arc<Inspector>) -> Self {
        Self { postgres: runtime::postgres::pool(postgres.clone(), 1), kafka: Arc::clone(kafka) }
    }

    /// Whether both respond in time.
    pub(crate) fn respond(&self) -> BoxFuture<'static, bool> {
        let Self { postgres, kafka } = self.clone();
        async move {
            let query = timeout(TIMEOUT, sqlx::query("select 1").execute(&postgres));
            let kafka = tokio::task::spawn_blocking(move || kafka.responds());
            let (postgres, kafka) = tokio::join!(query, kafka);
            matches!(postgres, Ok(Ok(_))) && kafka.unwrap_or(false)
        }
        .boxed()
    }
}
