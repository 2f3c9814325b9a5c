//! Waiting for a server that is not up yet: with back-off, with a line that says what is waited for, not for ever.

use std::fmt::Display;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// How long a start waits for a server before it gives up; whoever supervises the process starts it again.
pub const PATIENCE: Duration = Duration::from_secs(120);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// What an attempt says when it fails.
#[derive(Debug)]
pub enum Failure<E> {
    /// May work later.
    Transient(E),
    /// Will never work: give up at once.
    Lasting(E),
}

/// What was waited for did not come.
#[derive(Debug, Error)]
#[error("gave up waiting for {what} after {seconds} s: {error}", seconds = waited.as_secs())]
pub struct GaveUp<E: Display> {
    /// What it was.
    pub what: String,
    /// For how long.
    pub waited: Duration,
    /// The last attempt's error.
    pub error: E,
}

/// Repeats `attempt` until it succeeds, fails for good, or `patience` is over.
///
/// # Errors
/// [`GaveUp`] with the last attempt's error.
pub async fn wait_for<T, E: Display>(
    what: &str,
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure<E>>,
) -> Result<T, GaveUp<E>> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut told = None;
    loop {
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(Failure::Lasting(error)) => {
                return Err(GaveUp { what: what.to_owned(), waited: started.elapsed(), error });
            }
            Err(Failure::Transient(error)) => error,
        };
        let waited = started.elapsed();
        if waited >= patience {
            return Err(GaveUp { what: what.to_owned(), waited, error });
        }
        if told.is_none_or(|told: Instant| told.elapsed() >= BETWEEN_LINES) {
            tracing::warn!(%error, waited_s = waited.as_secs(), "waiting for {what}");
            told = Some(Instant::now());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_success_with_a_lasting_failure_or_with_patience() {
        let mut tries = 0;
        let answer = wait_for("it", PATIENCE, async || {
            tries += 1;
            if tries == 4 { Ok(tries) } else { Err(Failure::Transient("not yet")) }
        });
        assert_eq!(answer.await.ok(), Some(4));

        let never = wait_for("it", PATIENCE, async || Err::<(), _>(Failure::Transient("down"))).await;
        assert!(never.is_err_and(|error| error.waited >= PATIENCE));

        let refused = wait_for("it", PATIENCE, async || Err::<(), _>(Failure::Lasting("no"))).await;
        assert_eq!(
            refused.map_err(|e| e.to_string()),
            Err("gave up waiting for it after 0 s: no".to_owned())
        );
    }
}
