//! Points at which a test aborts the process, behind the feature `crash-points`: `STAMPEDE_CRASH_AT="name"` or `"name:n"`
//! aborts at the n-th passing (from 1). Without the feature no code is compiled in.

/// Kafka has acknowledged a request, and the client has no response yet.
pub(crate) const AFTER_PRODUCE_ACKNOWLEDGED: &str = "after-produce-acknowledged";
/// A chunk of codes is committed.
pub(crate) const AFTER_LOAD_CHUNK: &str = "after-load-chunk";
/// A load is sealed and not announced yet.
pub(crate) const AFTER_LOAD_SEALED: &str = "after-load-sealed";
/// A sealed load is about to be announced.
pub(crate) const BEFORE_ANNOUNCE: &str = "before-announce";

/// Aborts the process if the environment names this point.
#[cfg(feature = "crash-points")]
pub(crate) fn pass(point: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CRASH_AT: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let crash_at = CRASH_AT.get_or_init(|| {
        let text = std::env::var("STAMPEDE_CRASH_AT").ok()?;
        let (name, n) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), n.parse().unwrap_or(1)))
    });
    if let Some((name, n)) = crash_at
        && name == point
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *n
    {
        std::process::abort();
    }
}

/// Does nothing without the feature.
#[cfg(not(feature = "crash-points"))]
pub(crate) const fn pass(_: &str) {}
