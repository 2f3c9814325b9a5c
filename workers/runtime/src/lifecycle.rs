//! When a program stops, and whether it is ready to serve.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. Call it within a Tokio runtime.
#[must_use]
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    // Installed before this returns: a signal that comes during a slow start must not kill the process outright.
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    drop(tokio::spawn(async move {
        match signals {
            Ok((mut terminate, mut interrupt)) => {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "stopping in order");
            }
            Err(error) => tracing::error!(%error, "signals cannot be received: stopping"),
        }
        cancelled.cancel();
    }));
    token
}

/// Whether every part that a program needs for its work is there. Each begins as not ready.
#[derive(Debug)]
pub struct Readiness {
    parts: Mutex<BTreeMap<&'static str, Result<(), String>>>,
}

impl Readiness {
    /// Waits for these parts.
    #[must_use]
    pub fn new(parts: &[&'static str]) -> Arc<Self> {
        let parts = parts.iter().map(|part| (*part, Err("starting".to_owned()))).collect();
        Arc::new(Self { parts: Mutex::new(parts) })
    }

    /// Says how a part is; a change is logged.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.get(part) == Some(&state) {
            return;
        }
        match &state {
            Ok(()) => tracing::info!(part, "ready"),
            Err(why) => tracing::warn!(part, why, "not ready"),
        }
        parts.insert(part, state);
    }

    /// Whether all parts are ready.
    ///
    /// # Errors
    /// One line for each part that is not.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<String> = parts
            .iter()
            .filter_map(|(part, state)| state.as_ref().err().map(|why| format!("{part}: {why}")))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_part_is() {
        let readiness = Readiness::new(&["postgres", "kafka"]);
        readiness.set("kafka", Ok(()));
        assert_eq!(readiness.check(), Err(vec!["postgres: starting".to_owned()]));
        readiness.set("postgres", Ok(()));
        assert_eq!(readiness.check(), Ok(()));
        readiness.set("kafka", Err("no broker".to_owned()));
        assert_eq!(readiness.check(), Err(vec!["kafka: no broker".to_owned()]));
    }
}
