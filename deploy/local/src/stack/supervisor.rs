//! Restarts children that exit, and reports it.
//!
//! A child that was stopped on purpose stays down. The pause before a restart doubles from exit to exit, up to ten
//! seconds, and starts over once the child has run for half a minute.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::{Inner, Stack};
use crate::child::Child;
use crate::error::StackError;
use crate::process::{describe, lock};

const CHECK_INTERVAL: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A child that has run this long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// Restarts the children of a stack until it is dropped.
#[must_use = "children are restarted only while the supervisor exists"]
pub struct Supervisor {
    watching: AbortHandle,
    inner: Arc<Inner>,
}

impl Stack {
    /// Restarts children that exit from now on, and reports it. Must be called within a tokio runtime.
    pub fn supervise(&self) -> Supervisor {
        let inner = Arc::clone(&self.inner);
        inner.supervisors.fetch_add(1, Ordering::SeqCst);
        let watching = tokio::spawn(watch(Arc::clone(&inner))).abort_handle();
        Supervisor { watching, inner }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.watching.abort();
        self.inner.supervisors.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One task per child, so that the restart of one does not delay that of another.
async fn watch(inner: Arc<Inner>) {
    let mut watched: Vec<Child> = Vec::new();
    let mut tasks = JoinSet::new();
    while !inner.closing.load(Ordering::SeqCst) {
        let known: Vec<Child> = lock(&inner.children).keys().copied().collect();
        for child in known {
            if !watched.contains(&child) {
                watched.push(child);
                tasks.spawn(watch_one(Arc::clone(&inner), child));
            }
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn watch_one(inner: Arc<Inner>, child: Child) {
    let mut pause = FIRST_PAUSE;
    while !inner.closing.load(Ordering::SeqCst) {
        let Some(exit) = unexpected_exit(&inner, child) else {
            tokio::time::sleep(CHECK_INTERVAL).await;
            continue;
        };
        if exit.age > RECOVERED_AFTER {
            pause = FIRST_PAUSE;
        }
        let restart = count_restart(&inner, child);
        let report = |line: String| inner.context.config.report.report(&line);
        report(format!("{child} {}; starting it again (restart {restart})", exit.how));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let begun = std::time::Instant::now();
        let outcome = match inner.start_process(child).await {
            Ok(()) => inner.wait_healthy(child, true).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => report(format!("{child} is up again after {:.1} s", begun.elapsed().as_secs_f32())),
            Err(StackError::Stopped) => return,
            Err(error) => report(error.to_string()),
        }
    }
}

struct Exit {
    how: String,
    age: Duration,
}

/// The exit of a child that should be running; otherwise `None`.
fn unexpected_exit(inner: &Inner, child: Child) -> Option<Exit> {
    let children = lock(&inner.children);
    let entry = children.get(&child).filter(|entry| entry.wanted)?;
    let process = entry.process.as_ref()?;
    Some(Exit { how: describe(process.exit()?), age: process.age() })
}

fn count_restart(inner: &Inner, child: Child) -> u32 {
    let mut children = lock(&inner.children);
    children.get_mut(&child).map_or(0, |entry| {
        entry.restarts += 1;
        entry.restarts
    })
}
