//! Which stack a test gets.
//!
//! A test that injures a stack has it to itself. At most [`SLOTS`] stacks exist at a time, however many threads run
//! tests. A stack whose test passed is kept for the next test of the same kind; after a failure its logs are kept and
//! the stack is dropped.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use local_stack::{Child, ProxiedLink, Stack, StackConfig, testing};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::wait::TIMEOUT;

/// How many stacks run at a time. Each needs about a gigabyte.
const SLOTS: usize = 2;

/// What a stack is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackKind {
    /// Two APIs and two workers.
    Plain,
    /// The same with a session timeout of one second, so that the group notices a dead worker soon.
    ShortSessions,
    /// As `ShortSessions`, for tests that leave no hold, lock or other deadline: a takeover of its partitions writes nothing
    /// but the takeover.
    WithoutDeadlines,
    /// As `ShortSessions`, with a proxy between our programs and each server.
    Proxied,
    /// As `ShortSessions`, with three brokers.
    ThreeBrokers,
    /// As `ShortSessions`, with the tables of Postgres on a small disk.
    SmallDisk,
    /// As `Plain`, never used again: the test loses a part of the log or of Postgres, and no check is possible.
    Disposable,
}

static SLOT: Semaphore = Semaphore::const_new(SLOTS);
/// Healthy stacks that no test uses.
static IDLE: Mutex<Vec<(StackKind, Arc<Stack>)>> = Mutex::new(Vec::new());

/// The right to run a stack, for a test that starts its own.
pub async fn slot() -> SemaphorePermit<'static> {
    let slot = SLOT.acquire().await.unwrap();
    if let Some(idle) = take_idle(|_| true) {
        idle.stop().await.unwrap();
    }
    slot
}

/// A stack that belongs to one test.
pub(crate) struct Lease {
    kind: StackKind,
    pub(crate) stack: Arc<Stack>,
    _slot: SemaphorePermit<'static>,
}

impl Lease {
    pub(crate) async fn of(kind: StackKind) -> Self {
        let slot = SLOT.acquire().await.unwrap();
        let stack = match take_idle(|idle| idle == kind) {
            Some(stack) => stack,
            None => {
                if let Some(other) = take_idle(|_| true) {
                    other.stop().await.unwrap();
                }
                start(kind).await
            }
        };
        Self { kind, stack, _slot: slot }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if std::thread::panicking() {
            keep_logs(&self.stack);
        } else if self.kind != StackKind::Disposable {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.kind, Arc::clone(&self.stack)));
        }
    }
}

fn take_idle(wanted: impl Fn(StackKind) -> bool) -> Option<Arc<Stack>> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let found = idle.iter().position(|(kind, _)| wanted(*kind))?;
    Some(idle.swap_remove(found).1)
}

pub(crate) async fn start(kind: StackKind) -> Arc<Stack> {
    let config = StackConfig { api_instances: 2, ..StackConfig::full(testing::programs().await.unwrap()) };
    let short_sessions = |config| StackConfig {
        group_session_timeout: Duration::from_secs(1),
        group_heartbeat: Duration::from_millis(100),
        ..config
    };
    let config = match kind {
        StackKind::Plain | StackKind::Disposable => config,
        StackKind::ShortSessions | StackKind::WithoutDeadlines => short_sessions(config),
        StackKind::Proxied => {
            // Few connections, so that a test can take all of them.
            let postgres_settings = vec![("max_connections".to_owned(), "100".to_owned())];
            StackConfig {
                proxied_links: ProxiedLink::ALL.to_vec(),
                postgres_settings,
                ..short_sessions(config)
            }
        }
        StackKind::ThreeBrokers => {
            StackConfig { brokers: 3, kafka_heap_mb: 256, startup_timeout: TIMEOUT, ..short_sessions(config) }
        }
        StackKind::SmallDisk => StackConfig { postgres_disk_mb: Some(96), ..short_sessions(config) },
    };
    Arc::new(Stack::start(config).await.unwrap())
}

/// Everything runs, nothing is frozen, no connection is disturbed.
pub(crate) async fn heal(stack: &Stack) {
    for link in ProxiedLink::ALL {
        if let Some(proxy) = stack.proxy(link) {
            proxy.clear_faults();
        }
    }
    for child in stack.children() {
        if stack.is_running(child) {
            stack.resume(child).unwrap();
        }
    }
    // Servers first: our own programs wait for them when they start.
    let (ours, servers): (Vec<Child>, Vec<Child>) =
        stack.children().into_iter().partition(|child| matches!(child, Child::Api(_) | Child::Worker(_)));
    for children in [servers, ours] {
        let restarted = children.into_iter().map(|child| stack.restart(child));
        futures::future::join_all(restarted).await.into_iter().for_each(Result::unwrap);
    }
}

/// Copies the logs of a failed test, because the stack's directory is removed.
pub(crate) fn keep_logs(stack: &Stack) {
    let name = format!("logs-{}-{:x}", std::process::id(), rand::random::<u32>());
    // target/tmp: the test is target/debug/deps/NAME.
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap_or(Path::new("."));
    let kept = target.join("tmp").join(name);
    std::fs::create_dir_all(&kept).unwrap();
    for child in stack.children() {
        let log = stack.log_file(child);
        if let Some(name) = log.file_name() {
            std::fs::copy(&log, kept.join(name)).ok();
        }
    }
    eprintln!("the stack's logs: {}", kept.display());
}
