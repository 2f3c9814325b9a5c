//! Points between two effects where a test may crash or pause the process.
//!
//! With the feature `crash-points`, `STAMPEDE_CRASH_AT=name` or `name:n` aborts the process when it passes that point for
//! the n-th time, and `STAMPEDE_PAUSE_AT=name:millis` or `name:millis:n` pauses the task or thread that passes it for the
//! n-th time. Without the feature the points compile to nothing.

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A point between two effects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $variant),+ }

        impl Point {
            /// Every point, so that a test can crash at each.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in the environment variables.
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
    /// The partition's row has the new owner; nothing else has happened.
    AfterTakeover = "after-takeover",
    /// The log matches the ledger.
    AfterCheckLog = "after-check-log",
    /// The lookups of a batch have returned.
    AfterLookup = "after-lookup",
    /// Codes were popped and are not given yet.
    AfterPop = "after-pop",
    /// A window of codes was read and is not in its list yet.
    BeforeRefill = "before-refill",
    /// A part of a window of codes was appended to its list.
    AmidRefill = "amid-refill",
    /// A window of codes was appended to its list.
    AfterRefill = "after-refill",
    /// Lists were deleted.
    AfterDeleteLists = "after-delete-lists",
    /// A batch is about to be sent to the ledger.
    BeforeWrite = "before-write",
    /// A batch is durable; its owner has not processed the result.
    AfterWrite = "after-write",
    /// Some but not all messages of a batch were handed to the producer.
    AmidPublish = "amid-publish",
    /// All responses of a batch were handed to the producer, and none of its events and dead letters.
    BeforeEvents = "before-events",
    /// All messages of a batch were handed to the producer.
    AfterPublishSent = "after-publish-sent",
    /// All messages of a batch are acknowledged; the watermark has not moved.
    AfterPublishAcknowledged = "after-publish-acknowledged",
    /// A write that moves the watermark is about to be sent.
    BeforeWatermark = "before-watermark",
    /// The watermark has moved; the group's offset has not.
    BeforeCommitOffset = "before-commit-offset",
    /// The group's offset was handed to the Kafka client: it may or may not be committed.
    AfterCommitOffset = "after-commit-offset",
    /// Outbox entries of an earlier owner were read; none is published yet.
    BeforeRepublish = "before-republish",
    /// An outbox entry of an earlier owner was published; the watermark has not moved.
    AfterRepublish = "after-republish",
    /// A deadline is due by monotonic time; no tick was appended.
    BeforeTick = "before-tick",
    /// A tick was appended to the own partition and is not consumed yet.
    AfterTick = "after-tick",
    /// The row was read back after a write without a result.
    AfterReadBack = "after-read-back",
    /// Everything is published; the partition is about to be released.
    BeforeRelease = "before-release",
}

/// Passes a point: returns immediately, unless a test has armed it.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn pass(_point: Point) -> std::future::Ready<()> {
    std::future::ready(())
}

/// Passes a point: returns immediately, unless a test has armed it.
#[cfg(feature = "crash-points")]
pub async fn pass(point: Point) {
    if let Some(length) = armed::arrive(point) {
        tokio::time::sleep(length).await;
    }
}

/// Passes a point on a thread that runs no tasks; a pause blocks the thread.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub const fn pass_by(_point: Point) {}

/// Passes a point on a thread that runs no tasks; a pause blocks the thread.
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
    static PASSES: [AtomicU64; Point::ALL.len()] = [const { AtomicU64::new(0) }; Point::ALL.len()];

    /// Crashes or returns the length of the pause, if this pass is the one that was named.
    pub(super) fn arrive(point: Point) -> Option<Duration> {
        let pass_no = PASSES[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let Armed { crash, pause } = armed();
        if crash.as_ref().is_some_and(|(name, n)| name == point.name() && *n == pass_no) {
            tracing::error!(point = point.name(), pass_no, "crashing, as set by STAMPEDE_CRASH_AT");
            std::process::abort();
        }
        let (_, length, _) = pause.as_ref().filter(|(name, _, n)| name == point.name() && *n == pass_no)?;
        tracing::warn!(point = point.name(), pass_no, ?length, "pausing, as set by STAMPEDE_PAUSE_AT");
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
    fn no_two_points_have_the_same_name() {
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[cfg(feature = "crash-points")]
    #[test]
    fn the_environment_names_a_point_and_one_of_its_passes() {
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
