//! Places between two effects where a test may crash or hold the process.
//!
//! With the feature `crash-points`, `STAMPEDE_CRASH_AT=name` or `name:n` aborts the process when it passes that
//! place for the n-th time, and `STAMPEDE_PAUSE_AT=name:millis` or `name:millis:n` holds whoever passes it for the
//! n-th time (and nobody else) that long. Without the feature nothing of this is compiled.

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A place between two effects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $variant),+ }

        impl Point {
            /// Every place, so that a test can crash at each.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as it stands in the environment.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

points! {
    /// The takeover is about to be sent to the ledger.
    BeforeTakeover = "before-takeover",
    /// The partition's row is ours, and nothing else has happened.
    AfterTakeover = "after-takeover",
    /// The log is the one that the ledger knows.
    AfterCheckLog = "after-check-log",
    /// What a batch needs was read.
    AfterLoad = "after-load",
    /// Codes were popped, and nobody has them.
    AfterPop = "after-pop",
    /// A window of codes was read, and nothing of it is in its list.
    BeforeFill = "before-fill",
    /// A part of a window of codes was appended to a list.
    AmidFill = "amid-fill",
    /// A window of codes was appended to a list.
    AfterFill = "after-fill",
    /// Lists were thrown away.
    AfterThrowAway = "after-throw-away",
    /// A batch is about to be sent to the ledger.
    BeforeWrite = "before-write",
    /// A batch is durable, and nobody knows.
    AfterWrite = "after-write",
    /// Some of a batch's messages were handed to the producer, not all.
    AmidEmit = "amid-emit",
    /// All of a batch's responses were handed to the producer, and nothing of its events and dead letters.
    BeforeLetters = "before-letters",
    /// All of a batch's messages were handed to the producer.
    AfterEmitSent = "after-emit-sent",
    /// All of a batch's messages are acknowledged, and the watermark does not say so.
    AfterEmitAcknowledged = "after-emit-acknowledged",
    /// A write that moves the watermark is about to be sent.
    BeforeWatermark = "before-watermark",
    /// The watermark has moved, and the group's offset has not.
    BeforeCommitOffset = "before-commit-offset",
    /// The group's offset was handed to Kafka's client: it may or may not be committed.
    AfterCommitOffset = "after-commit-offset",
    /// An outbox entry of an earlier owner was read, and nothing of it was told.
    BeforeReemit = "before-reemit",
    /// An outbox entry of an earlier owner was told again, and the watermark does not say so.
    AfterReemit = "after-reemit",
    /// A deadline seems due, and no tick was appended.
    BeforeTick = "before-tick",
    /// A tick was appended to the own partition, and was not consumed.
    AfterTick = "after-tick",
    /// The row was read back after a write without an answer.
    AfterReadBack = "after-read-back",
    /// Everything is told, and the partition is about to be let go.
    BeforeRelease = "before-release",
}

/// Passes a place: returns at once, unless a test wants something to happen here.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn pass(_point: Point) -> std::future::Ready<()> {
    std::future::ready(())
}

/// Passes a place: returns at once, unless a test wants something to happen here.
#[cfg(feature = "crash-points")]
pub async fn pass(point: Point) {
    if let Some(length) = armed::arrive(point) {
        tokio::time::sleep(length).await;
    }
}

/// Passes a place on a thread that runs no tasks; held here, it does nothing else either.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn pass_by(_point: Point) {}

/// Passes a place on a thread that runs no tasks; held here, it does nothing else either.
#[cfg(feature = "crash-points")]
pub fn pass_by(point: Point) {
    if let Some(length) = armed::arrive(point) {
        std::thread::sleep(length);
    }
}

#[cfg(feature = "crash-points")]
mod armed {
    use super::Point;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    struct Armed {
        crash: Option<(String, u64)>,
        pause: Option<(String, Duration, u64)>,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();
    static PASSED: [AtomicU64; Point::ALL.len()] = [const { AtomicU64::new(0) }; Point::ALL.len()];

    /// Crashes, or answers how long to stay here, if this passing is the one that was named.
    pub(super) fn arrive(point: Point) -> Option<Duration> {
        let passing = PASSED[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let Armed { crash, pause } = armed();
        if crash.as_ref().is_some_and(|(name, n)| name == point.name() && *n == passing) {
            tracing::error!(point = point.name(), passing, "crashing here, as STAMPEDE_CRASH_AT says");
            std::process::abort();
        }
        let (_, length, _) = pause.as_ref().filter(|(name, _, n)| name == point.name() && *n == passing)?;
        tracing::warn!(point = point.name(), passing, ?length, "pausing here, as STAMPEDE_PAUSE_AT says");
        Some(*length)
    }

    fn armed() -> &'static Armed {
        ARMED.get_or_init(|| Armed {
            crash: std::env::var("STAMPEDE_CRASH_AT").ok().and_then(|text| parse_crash(&text)),
            pause: std::env::var("STAMPEDE_PAUSE_AT").ok().and_then(|text| parse_pause(&text)),
        })
    }

    pub(super) fn parse_crash(text: &str) -> Option<(String, u64)> {
        let (name, n) = text.split_once(':').unwrap_or((text, "1"));
        Some((name.to_owned(), n.parse().ok()?))
    }

    pub(super) fn parse_pause(text: &str) -> Option<(String, Duration, u64)> {
        let (name, rest) = text.split_once(':')?;
        let (millis, n) = rest.split_once(':').unwrap_or((rest, "1"));
        Some((name.to_owned(), Duration::from_millis(millis.parse().ok()?), n.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_have_the_same_name() {
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[cfg(feature = "crash-points")]
    #[test]
    fn the_environment_names_a_place_and_which_passing_of_it() {
        use std::time::Duration;
        assert_eq!(armed::parse_crash("after-pop"), Some(("after-pop".to_owned(), 1)));
        assert_eq!(armed::parse_crash("after-pop:7"), Some(("after-pop".to_owned(), 7)));
        assert_eq!(armed::parse_crash("after-pop:x"), None);
        assert_eq!(
            armed::parse_pause("before-write:250"),
            Some(("before-write".to_owned(), Duration::from_millis(250), 1))
        );
        assert_eq!(
            armed::parse_pause("before-write:250:3"),
            Some(("before-write".to_owned(), Duration::from_millis(250), 3))
        );
        assert_eq!(armed::parse_pause("before-write"), None);
    }
}
