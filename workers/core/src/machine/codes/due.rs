//! The deadlines that pass within one batch.

use super::CodeId;
use crate::domain::ids::Millis;
use crate::interface::DueClaims;
use std::collections::BTreeSet;

type Deadline = (Millis, CodeId);

/// The deadlines of one batch, earliest first.
#[derive(Debug)]
pub(in crate::machine) struct Due {
    /// Deadlines up to `until` that have not fired.
    queue: BTreeSet<Deadline>,
    /// Time of the last record of the batch.
    until: Millis,
    /// The last deadline that was read, if there are more: later ones may be missing.
    complete_to: Option<Deadline>,
    /// The earliest deadline after `until`.
    later: Option<Millis>,
    /// Whether deadlines were read.
    read: bool,
}

impl Due {
    pub(super) const fn new(until: Millis) -> Self {
        Self { queue: BTreeSet::new(), until, complete_to: None, later: None, read: false }
    }

    /// Time of the last record of the batch.
    pub(in crate::machine) const fn until(&self) -> Millis {
        self.until
    }

    /// Whether deadlines were read.
    pub(super) const fn was_read(&self) -> bool {
        self.read
    }

    /// The codes whose claims lapse in this batch, as far as it is known before execution.
    pub(in crate::machine) fn codes(&self) -> impl Iterator<Item = CodeId> {
        self.queue.iter().map(|(_, code)| *code)
    }

    /// Inserts the deadlines of a read of at most `limit` claims.
    pub(super) fn insert_read(&mut self, due: &DueClaims, limit: usize) {
        self.read = true;
        self.later = due.next;
        let deadlines = due.claims.iter().map(|(_, claim)| {
            claim.status.deadline().map(|deadline| (deadline, (claim.coupon, claim.number)))
        });
        if due.claims.len() >= limit {
            self.complete_to = deadlines.clone().next_back().flatten();
        }
        self.queue.extend(deadlines.flatten());
    }

    /// A claim of this code has this deadline now.
    pub(super) fn expect(&mut self, code: CodeId, deadline: Option<Millis>) {
        match deadline {
            Some(deadline) if deadline <= self.until => {
                self.queue.insert((deadline, code));
            }
            deadline => self.expect_later(deadline),
        }
    }

    /// Some claim has this deadline, after `until`.
    pub(super) fn expect_later(&mut self, deadline: Option<Millis>) {
        self.later = earlier(self.later, deadline);
    }

    /// Removes the deadlines of codes that the batch in flight changes.
    pub(super) fn retain(&mut self, keep: impl Fn(CodeId) -> bool) {
        self.queue.retain(|(_, code)| keep(*code));
    }

    /// Removes the next deadline up to `now`.
    pub(in crate::machine) fn pop(&mut self, now: Millis) -> Option<Deadline> {
        let complete_to = self.complete_to;
        let is_complete = |due: &&Deadline| complete_to.is_none_or(|last| **due <= last);
        self.queue.first().filter(|due| due.0 <= now).filter(is_complete)?;
        self.queue.pop_first()
    }

    /// Returns a deadline that could not fire.
    pub(in crate::machine) fn put_back(&mut self, deadline: Millis, code: CodeId) {
        self.queue.insert((deadline, code));
    }

    /// Whether every deadline up to `now` is known and has fired.
    pub(in crate::machine) fn all_fired(&self, now: Millis) -> bool {
        let left = self.queue.first().is_some_and(|(deadline, _)| *deadline <= now);
        !left && self.complete_to.is_none_or(|(deadline, _)| now < deadline)
    }

    /// No live claim lapses before the returned time; `known` is the same time as known before this batch.
    pub(in crate::machine) fn none_before(&self, known: Millis) -> Millis {
        let left = self.queue.first().map(|(deadline, _)| *deadline);
        let unread = self.complete_to.map(|(deadline, _)| deadline);
        let found = earlier(earlier(left, unread), self.later).unwrap_or(Millis(i64::MAX));
        if self.read { found } else { found.min(known) }
    }
}

fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
