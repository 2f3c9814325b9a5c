//! What the children of a stack are launched from.

use std::sync::Mutex;

use crate::config::StackConfig;
use crate::data::{DataDir, Ports, Secrets};
use crate::process::lock;
use crate::programs::ServerPrograms;

/// Directory, configuration, server executables, secrets and ports of one stack.
pub(crate) struct StackContext {
    pub(crate) dir: DataDir,
    pub(crate) config: StackConfig,
    pub(crate) servers: ServerPrograms,
    pub(crate) secrets: Secrets,
    pub(crate) ports: Mutex<Ports>,
}

impl StackContext {
    /// The port of this name; 0 if it was not reserved in this run.
    pub(crate) fn port(&self, name: &str) -> u16 {
        lock(&self.ports).get(name)
    }
}
