//! The attempts: each by another user, without an Idempotency-Key, so that the sold-out gate may reject it.
//!
//! An attempt ends with 202 (accepted, it will be decided) or with the gate's 409. Other retryable results are retried
//! until it has one of the two. A request without a response may have been accepted all the same; it is counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::HeadlineError;
use load_support::tokens::Tokens;
use stampede_client::transport::StatusCode;
use stampede_client::{Client, Operation, Polling, RequestBuilder};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// An attempt is given up after this time.
const MAX_DELAY: Duration = Duration::from_secs(180);
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Counts of attempts so far.
#[derive(Debug, Default)]
pub struct Score {
    next: AtomicU64,
    /// 202.
    pub accepted: AtomicU64,
    /// 409 by the sold-out gate.
    pub gated: AtomicU64,
    /// Requests that were sent again.
    pub repeated: AtomicU64,
    /// Requests whose acceptance is unknown.
    pub lost: AtomicU64,
    /// Attempts without a response, or with an unexpected one.
    pub unanswered: AtomicU64,
}

impl Score {
    /// Attempts that have ended.
    #[must_use]
    pub fn done(&self) -> u64 {
        [&self.accepted, &self.gated, &self.unanswered]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

/// The attempts and their target.
pub struct Rush {
    /// Base URL of the API.
    pub api: String,
    /// Signs the users' tokens.
    pub tokens: Tokens,
    /// The coupon.
    pub coupon: String,
    /// Number of attempts.
    pub attempts: u64,
    /// Their counts.
    pub score: Score,
}

/// Makes all attempts over a number of parallel connections.
///
/// # Errors
/// A token cannot be signed, or a task has panicked.
pub async fn all(rush: &Arc<Rush>, connections: usize) -> Result<(), HeadlineError> {
    let client = Client::builder(&rush.api)
        .polling(Polling::short(Duration::ZERO))
        .response_timeout(RESPONSE_TIMEOUT)
        .max_idle_connections(connections)
        .build();
    let one = |_| tokio::spawn(one_after_another(Arc::clone(rush), client.clone()));
    let tasks: Vec<_> = (0..connections).map(one).collect();
    for task in tasks {
        task.await.map_err(|_| HeadlineError::CutShort)??;
    }
    Ok(())
}

async fn one_after_another(rush: Arc<Rush>, client: Client) -> Result<(), HeadlineError> {
    loop {
        let n = rush.score.next.fetch_add(1, Ordering::Relaxed);
        if n >= rush.attempts {
            return Ok(());
        }
        let token = rush.tokens.issue(&format!("user-{n:08}"), "user")?;
        let user = client.with_token(&token);
        attempt(user.request(Operation::claim(&rush.coupon)).without_idempotency_key(), &rush.score).await;
    }
}

async fn attempt(claim: RequestBuilder<'_>, score: &Score) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let started = Instant::now();
    while started.elapsed() < MAX_DELAY {
        let pause = match claim.clone().attempt().await {
            Ok(response) if response.status == StatusCode::ACCEPTED => {
                count(&score.accepted);
                return;
            }
            Ok(response) if response.status == StatusCode::CONFLICT => {
                count(&score.gated);
                return;
            }
            Ok(response) if may_be_repeated(response.status) => {
                // After a 5xx it is unknown whether the request was accepted.
                if response.status.is_server_error() {
                    count(&score.lost);
                }
                response.retry_after().unwrap_or(RETRY_PAUSE)
            }
            Ok(_) => break,
            Err(_) => {
                count(&score.lost);
                RETRY_PAUSE
            }
        };
        count(&score.repeated);
        tokio::time::sleep(pause).await;
    }
    count(&score.unanswered);
}

/// Results that a client retries: overload, an outage behind the API, too many requests.
fn may_be_repeated(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}
