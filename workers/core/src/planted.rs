//! Known mistakes that the simulation switches on, to prove that it finds them.
//!
//! Without the feature `planted-bugs` none can be switched on: [`Planted::has`] is constantly false.

/// A mistake that an owner could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Duplicates are decided as new requests.
    DeduplicationSkipped,
    /// A pop with an unknown result is retried, and its entries are not verified.
    UnknownPopRetried,
    /// The offset of the next batch is written with this one.
    OffsetEarly,
    /// The watermark moves when a batch is sent to the broker, not when it is acknowledged.
    WatermarkEarly,
    /// When batch n must be decided again, batch n+1 is not undone.
    NextBatchNotUndone,
    /// The changes of an unsettled batch are evicted before it is settled.
    OverlayDroppedEarly,
    /// An append time far ahead of Postgres' clock moves the partition's time.
    AppendTimeTrusted,
    /// A deadline passes by the process' own clock.
    LapseByWallClock,
    /// Deadlines from before a takeover are never read.
    LapseLostAtTakeover,
    /// Claims that lapse in the batch that is being written lapse again in the next one.
    LapsedTwice,
    /// A lapsed or returned code does not become free again.
    ReturnedCodeLost,
    /// The users with claims of a coupon are evicted, and a user who is not tracked counts as one without claims.
    ClaimantsEvicted,
    /// Outcomes of duplicates are looked up among those of the current day only.
    OnlyTodayLookedUp,
    /// A batch that takes too long to write is written again as it is.
    SlowBatchRepeated,
}

/// The planted mistake, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// Switches one mistake on.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn one(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Whether this mistake is switched on.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether this mistake is switched on.
    #[cfg(not(feature = "planted-bugs"))]
    #[must_use]
    pub const fn has(self, _bug: Bug) -> bool {
        false
    }
}
