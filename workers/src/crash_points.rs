//! The crash points of the workers, between two effects each; see [`runtime::crash_points`].

pub use runtime::crash_points::{CrashPoint, pass, pass_blocking};

runtime::crash_points! {
    pub enum Point {
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
}
