//! Known mistakes, switched on by the simulation to prove that it would find them.
//!
//! Without the feature `planted-bugs` there is nothing to switch: [`Planted::has`] is constantly false.

/// A mistake that an owner could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Repetitions are decided as if they were new.
    DeduplicationSkipped,
    /// A pop whose answer is unknown is sent again, and whatever comes is believed.
    UnknownPopRetried,
    /// The offset of the next batch is written with this one.
    OffsetEarly,
    /// The watermark moves when a batch is sent to the broker, not when it is acknowledged.
    WatermarkEarly,
    /// When batch n must be decided again, batch n+1 stays as it was decided on top of it.
    NextBatchNotUndone,
    /// What an unsettled batch changed is forgotten before it is settled.
    OverlayDroppedEarly,
    /// A deadline passes by the process' own clock.
    LapseByWallClock,
    /// Deadlines from before a takeover are never looked for.
    LapseLostAtTakeover,
    /// What lapses in the batch that is being written is fired by the next one again.
    LapsedTwice,
    /// A code that lapsed or was given back does not become free again.
    ReturnedCodeLost,
    /// Who has claims of a coupon is forgotten, and who is not remembered is taken to have none.
    ClaimantsForgotten,
}

/// Which mistakes are switched on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// One mistake.
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
