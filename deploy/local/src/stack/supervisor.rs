//! Starts children that die again, and says so.
//!
//! A child that was asked to stop stays down. One that dies again and again is given ever longer pauses, up to ten
//! seconds, and a clean slate once it has lived for half a minute.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use crate::process::{describe, lock};
use crate::stack::Inner;
use crate::{Child, Stack};

const LOOKS_EVERY: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Who lives this long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// Watches a stack's children until it is dropped.
#[must_use = "nobody is started again once the supervisor is dropped"]
pub struct Supervisor {
    watching: AbortHandle,
    inner: Arc<Inner>,
}

impl Stack {
    /// Starts children that die again from now on, and reports that. Must be called within a tokio runtime.
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

/// One task per child: while one is being started again, the others are watched all the same.
async fn watch(inner: Arc<Inner>) {
    let mut watched: Vec<Child> = Vec::new();
    let mut tasks = JoinSet::new();
    while !inner.closing.load(Ordering::SeqCst) {
        let known: Vec<Child> = lock(&inner.members).keys().copied().collect();
        for child in known {
            if !watched.contains(&child) {
                watched.push(child);
                tasks.spawn(watch_one(Arc::clone(&inner), child));
            }
        }
        tokio::time::sleep(LOOKS_EVERY).await;
    }
}

async fn watch_one(inner: Arc<Inner>, child: Child) {
    let mut pause = FIRST_PAUSE;
    while !inner.closing.load(Ordering::SeqCst) {
        let Some(death) = died(&inner, child) else {
            tokio::time::sleep(LOOKS_EVERY).await;
            continue;
        };
        if death.age > RECOVERED_AFTER {
            pause = FIRST_PAUSE;
        }
        let restart = count_restart(&inner, child);
        let say = |line: String| inner.site.config.report.say(&line);
        say(format!("{child} {}; starting it again (restart {restart})", death.how));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let begun = std::time::Instant::now();
        let outcome = match inner.start_process(child).await {
            Ok(()) => inner.wait_healthy(child, true).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => say(format!("{child} is up again after {:.1} s", begun.elapsed().as_secs_f32())),
            Err(crate::StackError::Stopped) => return,
            Err(error) => say(error.to_string()),
        }
    }
}

struct Death {
    how: String,
    age: Duration,
}

/// Set when the child has ended although it should run.
fn died(inner: &Inner, child: Child) -> Option<Death> {
    let members = lock(&inner.members);
    let member = members.get(&child).filter(|member| member.wanted)?;
    let process = member.process.as_ref()?;
    Some(Death { how: describe(process.exit()?), age: process.age() })
}

fn count_restart(inner: &Inner, child: Child) -> u32 {
    let mut members = lock(&inner.members);
    members.get_mut(&child).map_or(0, |member| {
        member.restarts += 1;
        member.restarts
    })
}
