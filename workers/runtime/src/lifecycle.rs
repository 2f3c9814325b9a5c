//! Shutdown by signal, and readiness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. Must be called within a Tokio runtime.
#[must_use]
pub fn shutdown_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    // Installed before this function returns: a signal during a slow start must not kill the process.
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    drop(tokio::spawn(async move {
        match signals {
            Ok((mut terminate, mut interrupt)) => {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "shutting down");
            }
            Err(error) => tracing::error!(%error, "signal handlers cannot be installed: shutting down"),
        }
        cancelled.cancel();
    }));
    token
}

/// The state of each component that a program depends on. A program is ready when all of them are.
#[derive(Debug)]
pub struct Readiness {
    components: Mutex<BTreeMap<&'static str, Result<(), String>>>,
}

impl Readiness {
    /// Readiness of these components, each of them not ready.
    #[must_use]
    pub fn new(components: &[&'static str]) -> Arc<Self> {
        let components = components.iter().map(|name| (*name, Err("starting".to_owned()))).collect();
        Arc::new(Self { components: Mutex::new(components) })
    }

    /// Sets the state of a component, with the reason while it is not ready; a change is logged.
    pub fn set(&self, component: &'static str, state: Result<(), String>) {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        if components.get(component) == Some(&state) {
            return;
        }
        match &state {
            Ok(()) => tracing::info!(component, "ready"),
            Err(reason) => tracing::warn!(component, reason, "not ready"),
        }
        components.insert(component, state);
    }

    /// Whether all components are ready.
    ///
    /// # Errors
    /// One line per component that is not ready.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let not_ready: Vec<String> = components
            .iter()
            .filter_map(|(name, state)| state.as_ref().err().map(|reason| format!("{name}: {reason}")))
            .collect();
        if not_ready.is_empty() { Ok(()) } else { Err(not_ready) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ready_when_every_component_is() {
        let readiness = Readiness::new(&["postgres", "kafka"]);
        readiness.set("kafka", Ok(()));
        assert_eq!(readiness.check(), Err(vec!["postgres: starting".to_owned()]));
        readiness.set("postgres", Ok(()));
        assert_eq!(readiness.check(), Ok(()));
        readiness.set("kafka", Err("no broker".to_owned()));
        assert_eq!(readiness.check(), Err(vec!["kafka: no broker".to_owned()]));
    }
}
