//! The batches in flight. At most one is written, and at most one more is prefetched or executed on top of it.
//!
//! A batch moves from `Prefetching` to `Executed` to `Writing`. When a write is not confirmed exactly as executed, the
//! whole pipeline is undone. After a hand-over was requested nothing new enters the pipeline.

use super::executed::Executed;
use super::prefetch::Prefetch;

/// The batches in flight.
#[derive(Debug, Default)]
pub(super) enum Pipeline {
    /// No batch is in flight.
    #[default]
    Idle,
    /// The next batch is prefetched; nothing is written.
    Prefetching(Box<Prefetch>),
    /// A batch is written.
    Writing {
        /// The write.
        write: Box<Write>,
        /// The batch on top of it.
        next: Next,
    },
    /// Everything was undone, twice in a row. The partition stops, unless its row shows another cause.
    Revalidating {
        /// Why the partition would stop.
        reason: String,
    },
    /// A hand-over was requested.
    HandingOver(Drain),
}

/// The batch on top of the one that is written.
#[derive(Debug)]
pub(super) enum Next {
    /// There is none.
    None,
    /// It is prefetched.
    Prefetching(Box<Prefetch>),
    /// It is executed, and written next.
    Executed(Box<Executed>),
    /// No record can be executed before the current write is settled.
    Blocked,
}

/// What a hand-over waits for.
#[derive(Debug)]
pub(super) enum Drain {
    /// The acknowledgements of published entries.
    Acknowledgements,
    /// The current write.
    Write(Box<Write>),
    /// The partition's row, as in [`Pipeline::Revalidating`].
    Revalidation {
        /// Why the partition would stop.
        reason: String,
    },
}

/// A batch that is written.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) executed: Executed,
    /// Consecutive failed calls.
    pub(super) failures: u32,
    /// Whether a call of this attempt may have happened, or may still happen.
    pub(super) uncertain: bool,
    pub(super) state: WriteState,
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteState {
    /// The result of a call.
    Called,
    /// The partition's row.
    ReadingBack,
}

impl Write {
    fn of(executed: Executed) -> Box<Self> {
        Box::new(Self { executed, failures: 0, uncertain: false, state: WriteState::Called })
    }
}

impl Pipeline {
    /// Whether no batch is in flight and none is blocked by a revalidation.
    pub(super) const fn is_free(&self) -> bool {
        matches!(self, Self::Idle | Self::HandingOver(Drain::Acknowledgements))
    }

    pub(super) const fn is_handing_over(&self) -> bool {
        matches!(self, Self::HandingOver(_))
    }

    /// Whether a batch is prefetched, or can be.
    pub(super) const fn accepts_records(&self) -> bool {
        match self {
            Self::Idle | Self::Prefetching(_) => true,
            Self::Writing { next, .. } => matches!(next, Next::None | Next::Prefetching(_)),
            Self::Revalidating { .. } | Self::HandingOver(_) => false,
        }
    }

    /// Number of executed batches that are not settled.
    pub(super) fn unsettled(&self) -> usize {
        let next = matches!(self, Self::Writing { next: Next::Executed(_), .. });
        usize::from(self.write().is_some()) + usize::from(next)
    }

    pub(super) fn write(&self) -> Option<&Write> {
        match self {
            Self::Writing { write, .. } | Self::HandingOver(Drain::Write(write)) => Some(write),
            _ => None,
        }
    }

    pub(super) fn write_mut(&mut self) -> Option<&mut Write> {
        match self {
            Self::Writing { write, .. } | Self::HandingOver(Drain::Write(write)) => Some(write),
            _ => None,
        }
    }

    pub(super) fn prefetch_mut(&mut self) -> Option<&mut Prefetch> {
        match self {
            Self::Prefetching(prefetch) | Self::Writing { next: Next::Prefetching(prefetch), .. } => {
                Some(prefetch)
            }
            _ => None,
        }
    }

    pub(super) fn is_prefetching(&self) -> bool {
        matches!(self, Self::Prefetching(_) | Self::Writing { next: Next::Prefetching(_), .. })
    }

    /// Removes the batch that is prefetched.
    pub(super) fn take_prefetch(&mut self) -> Option<Box<Prefetch>> {
        match std::mem::take(self) {
            Self::Prefetching(prefetch) => Some(prefetch),
            Self::Writing { write, next: Next::Prefetching(prefetch) } => {
                *self = Self::Writing { write, next: Next::None };
                Some(prefetch)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Inserts a batch that is prefetched, in place of none.
    pub(super) fn put_prefetch(&mut self, prefetch: Box<Prefetch>) {
        match self {
            Self::Writing { next, .. } => *next = Next::Prefetching(prefetch),
            _ => *self = Self::Prefetching(prefetch),
        }
    }

    /// No record can be executed before the current write is settled. Returns false if nothing is written.
    pub(super) fn block(&mut self) -> bool {
        let Self::Writing { next, .. } = self else { return false };
        *next = Next::Blocked;
        true
    }

    /// Queues an executed batch behind the current write; returns it if nothing is written.
    pub(super) fn queue(&mut self, executed: Executed) -> Option<Executed> {
        let Self::Writing { next, .. } = self else { return Some(executed) };
        *next = Next::Executed(Box::new(executed));
        None
    }

    /// Starts a write. Nothing else is written.
    pub(super) fn start(&mut self, executed: Executed, next: Next) {
        let write = Write::of(executed);
        *self = match self {
            Self::HandingOver(_) => Self::HandingOver(Drain::Write(write)),
            _ => Self::Writing { write, next },
        };
    }

    /// Removes the current write, which is settled. Returns the executed batch that is written next, too.
    pub(super) fn finish_write(&mut self) -> Option<(Box<Write>, Option<Executed>)> {
        let (rest, finished) = match std::mem::take(self) {
            Self::Writing { write, next: Next::None | Next::Blocked } => (Self::Idle, Some((write, None))),
            Self::Writing { write, next: Next::Prefetching(prefetch) } => {
                (Self::Prefetching(prefetch), Some((write, None)))
            }
            Self::Writing { write, next: Next::Executed(next) } => (Self::Idle, Some((write, Some(*next)))),
            Self::HandingOver(Drain::Write(write)) => {
                (Self::HandingOver(Drain::Acknowledgements), Some((write, None)))
            }
            other => (other, None),
        };
        *self = rest;
        finished
    }

    /// Removes everything in flight.
    pub(super) fn undo(&mut self) -> (Option<Box<Write>>, Next) {
        let (rest, undone) = match std::mem::take(self) {
            Self::Prefetching(prefetch) => (Self::Idle, (None, Next::Prefetching(prefetch))),
            Self::Writing { write, next } => (Self::Idle, (Some(write), next)),
            Self::HandingOver(Drain::Write(write)) => {
                (Self::HandingOver(Drain::Acknowledgements), (Some(write), Next::None))
            }
            other => (other, (None, Next::None)),
        };
        *self = rest;
        undone
    }

    /// Waits for the partition's row. Everything was undone before.
    pub(super) fn revalidate(&mut self, reason: String) {
        *self = match self {
            Self::HandingOver(_) => Self::HandingOver(Drain::Revalidation { reason }),
            _ => Self::Revalidating { reason },
        };
    }

    /// Ends a revalidation; returns its reason.
    pub(super) fn take_revalidation(&mut self) -> Option<String> {
        let (rest, reason) = match std::mem::take(self) {
            Self::Revalidating { reason } => (Self::Idle, Some(reason)),
            Self::HandingOver(Drain::Revalidation { reason }) => {
                (Self::HandingOver(Drain::Acknowledgements), Some(reason))
            }
            other => (other, None),
        };
        *self = rest;
        reason
    }

    /// Begins a hand-over: keeps the current write, drops the batch on top of it.
    pub(super) fn hand_over(&mut self) {
        *self = Self::HandingOver(match std::mem::take(self) {
            Self::Idle | Self::Prefetching(_) => Drain::Acknowledgements,
            Self::Writing { write, .. } => Drain::Write(write),
            Self::Revalidating { reason } => Drain::Revalidation { reason },
            Self::HandingOver(drain) => drain,
        });
    }
}
