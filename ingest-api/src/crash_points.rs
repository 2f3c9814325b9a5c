//! Places where a test makes the process die, behind the feature `crash-points`: `STAMPEDE_CRASH_AT="name"` or
//! `"name:n"` aborts at the n-th passing (from 1). Without the feature nothing of it is compiled in.

/// Kafka has acknowledged a request, and the client has not heard of it.
pub(crate) const AFTER_PRODUCE_ACKNOWLEDGED: &str = "after-produce-acknowledged";
/// A chunk of codes is committed.
pub(crate) const AFTER_LOAD_CHUNK: &str = "after-load-chunk";
/// A load is sealed, and its owner has not heard of it.
pub(crate) const AFTER_LOAD_SEALED: &str = "after-load-sealed";
/// A sealed load is about to be announced.
pub(crate) const BEFORE_ANNOUNCE: &str = "before-announce";

/// Dies here if the environment says so.
#[cfg(feature = "crash-points")]
pub(crate) fn pass(point: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("STAMPEDE_CRASH_AT").ok()?;
        let (name, n) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), n.parse().unwrap_or(1)))
    });
    if let Some((name, n)) = wanted
        && name == point
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *n
    {
        std::process::abort();
    }
}

/// Nothing, without the feature.
#[cfg(not(feature = "crash-points"))]
pub(crate) const fn pass(_: &str) {}
