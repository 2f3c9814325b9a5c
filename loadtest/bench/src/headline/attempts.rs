//! The attempts: each by another user, without an Idempotency-Key, so that the sold-out gate may response.
//!
//! An attempt is received by 202 (it will be decided) or by the gate's 409. Whatever may be repeated is, until it is one
//! of the two; a request whose response was lost may have been accepted all the same, and is counted as that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};

use super::HeadlineError;
use load_support::tokens::Tokens;
use stampede_client::http::{Call, Connection};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A user whose attempt is not received for so long goes away.
const MAX_DELAY: Duration = Duration::from_secs(180);
const BREATH: Duration = Duration::from_millis(20);

/// What has been received so far.
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
    /// Attempts that were received, or given up.
    #[must_use]
    pub fn done(&self) -> u64 {
        [&self.accepted, &self.gated, &self.unanswered]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

/// Where the attempts go.
pub struct Rush {
    /// Base URL of the API.
    pub api: String,
    /// What signs the users' tokens.
    pub tokens: Tokens,
    /// The coupon.
    pub coupon: String,
    /// How many attempts there are.
    pub attempts: u64,
    /// How it goes.
    pub score: Score,
}

/// Makes all attempts, over so many connections at the same time.
///
/// # Errors
/// When a token cannot be signed, or a task is lost.
pub async fn all(rush: &Arc<Rush>, connections: usize) -> Result<(), HeadlineError> {
    let tasks: Vec<_> = (0..connections).map(|_| tokio::spawn(one_after_another(Arc::clone(rush)))).collect();
    for task in tasks {
        task.await.map_err(|_| HeadlineError::CutShort)??;
    }
    Ok(())
}

async fn one_after_another(rush: Arc<Rush>) -> Result<(), HeadlineError> {
    let mut connection = Connection::to(&rush.api);
    let path = format!("/v1/coupons/{}/claims", rush.coupon);
    loop {
        let n = rush.score.next.fetch_add(1, Ordering::Relaxed);
        if n >= rush.attempts {
            return Ok(());
        }
        let token = rush.tokens.issue(&format!("user-{n:08}"), "user")?;
        let body = Some(Bytes::from_static(b"{}"));
        let call = Call { method: Method::POST, path: &path, token: &token, key: None, body };
        attempt(&mut connection, &call, &rush.score).await;
    }
}

async fn attempt(connection: &mut Connection, call: &Call<'_>, score: &Score) {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let started = Instant::now();
    while started.elapsed() < MAX_DELAY {
        let pause = match connection.send(call, RESPONSE_TIMEOUT).await {
            Ok(reply) if reply.status == StatusCode::ACCEPTED => {
                count(&score.accepted);
                return;
            }
            Ok(reply) if reply.status == StatusCode::CONFLICT => {
                count(&score.gated);
                return;
            }
            Ok(reply) if reply.may_be_repeated() => {
                // 503 leaves the result open.
                if reply.status.is_server_error() {
                    count(&score.lost);
                }
                reply.retry_after.unwrap_or(BREATH)
            }
            Ok(_) => break,
            Err(_) => {
                count(&score.lost);
                BREATH
            }
        };
        count(&score.repeated);
        tokio::time::sleep(pause).await;
    }
    count(&score.unanswered);
}
