//! Bounded waiting for a server that is not up yet, with back-off and log lines that name it.

use std::fmt::Display;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// How long a start waits for a server. After that the process ends, and its supervisor starts it again.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(120);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Why an attempt failed.
#[derive(Debug)]
pub enum Failure<E> {
    /// A later attempt may succeed.
    Transient(E),
    /// No later attempt can succeed: waiting ends at once.
    Permanent(E),
}

impl<E> Failure<E> {
    /// The same failure of another error.
    pub fn map<T>(self, change: impl FnOnce(E) -> T) -> Failure<T> {
        match self {
            Self::Transient(error) => Failure::Transient(change(error)),
            Self::Permanent(error) => Failure::Permanent(change(error)),
        }
    }

    /// The error.
    pub const fn error(&self) -> &E {
        match self {
            Self::Transient(error) | Self::Permanent(error) => error,
        }
    }
}

/// The wait ended without success.
#[derive(Debug, Error)]
#[error("{what} not available after {seconds} s: {error}", seconds = waited.as_secs())]
pub struct TimedOut<E: Display> {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub waited: Duration,
    /// The error of the last attempt.
    pub error: E,
}

/// Repeats `attempt` until it succeeds, fails permanently, or `timeout` has passed.
///
/// # Errors
/// [`TimedOut`] with the error of the last attempt.
pub async fn wait_for<T, E: Display>(
    what: &str,
    timeout: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure<E>>,
) -> Result<T, TimedOut<E>> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut logged = None;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(Failure::Permanent(error)) => {
                return Err(TimedOut { what: what.to_owned(), waited: started.elapsed(), error });
            }
            Err(Failure::Transient(error)) => error,
        };
        let waited = started.elapsed();
        if waited >= timeout {
            return Err(TimedOut { what: what.to_owned(), waited, error });
        }
        if logged.is_none_or(|logged: Instant| logged.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(%error, waited_s = waited.as_secs(), "waiting for {what}");
            logged = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_a_success_a_permanent_failure_or_the_timeout() {
        let mut attempts = 0;
        let succeeds = wait_for("Kafka", STARTUP_TIMEOUT, async || {
            attempts += 1;
            if attempts == 4 { Ok(attempts) } else { Err(Failure::Transient("not yet")) }
        });
        assert_eq!(succeeds.await.ok(), Some(4));

        let never =
            wait_for("Kafka", STARTUP_TIMEOUT, async || Err::<(), _>(Failure::Transient("down"))).await;
        assert!(never.is_err_and(|error| error.waited >= STARTUP_TIMEOUT));

        let rejected =
            wait_for("Kafka", STARTUP_TIMEOUT, async || Err::<(), _>(Failure::Permanent("no"))).await;
        assert_eq!(rejected.map_err(|e| e.to_string()), Err("Kafka not available after 0 s: no".to_owned()));
    }
}
