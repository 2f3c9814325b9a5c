//! Clients in a closed loop, for the designs that are called once per claim: each has a connection of its own and sends the
//! next claim as soon as it has the response to the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::{BoxFuture, LocalBoxFuture, try_join_all};
use sqlx::PgConnection;

use crate::BenchError;
use crate::host::environment::Environment;
use crate::load::latencies::Latencies;

/// Work that is ready to start; returns the times of the calls, or none where there are no calls.
pub type Work = LocalBoxFuture<'static, Result<Latencies, BenchError>>;

/// Takes claim number `n` over a connection.
pub type Claim = for<'a> fn(&'a mut PgConnection, u64) -> BoxFuture<'a, Result<(), sqlx::Error>>;

/// So many clients of Postgres, connected and with their statements prepared, that take these claims among themselves.
///
/// # Errors
/// When Postgres does not response.
pub async fn postgres_clients(
    env: &Environment,
    clients: usize,
    requests: u64,
    claim: Claim,
) -> Result<Work, BenchError> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(env.connect().await?);
    }
    let work = async move {
        let next = Arc::new(AtomicU64::new(0));
        let tasks = connections.into_iter().map(|mut connection| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut times = Latencies::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return Ok::<_, sqlx::Error>(times);
                    }
                    let started = Instant::now();
                    claim(&mut connection, n).await?;
                    times.record(started.elapsed());
                }
            })
        });
        let done = try_join_all(tasks).await.map_err(|_| BenchError::Lost)?;
        let mut times = Latencies::default();
        for of_client in done {
            times += of_client?;
        }
        Ok(times)
    };
    Ok(work.boxed_local())
}
