//! Where the codes of a coupon come from: the read-ahead buffer, returned codes, the Redis list, Postgres.
//!
//! A popped entry counts only if it is exactly the next free number; one that was taken by name meanwhile is skipped. On
//! anything else, and on an empty, failed or unknown pop, the list is invalidated, never repaired.

use super::Stock;
use crate::domain::ids::{CodeNumber, CouponNo, Millis};
use crate::interface::{CacheListName, CodeEntry, Popped, ReadCodes, Refill, RefillResult};

/// Fewest codes per read from Postgres: more than one small batch needs.
const MIN_READ: usize = 16;
/// Fewest codes per refill of a list.
pub(super) const MIN_REFILL: usize = 64;
/// Small batches per pop: the later ones find their codes in the read-ahead buffer and need no round trip to Redis.
pub(super) const BATCHES_PER_POP: usize = 16;
/// Batches of the current demand per refill, up to half of the window: refills are rare enough to be cheap, and small
/// enough not to delay the claims that wait for one.
pub(super) const BATCHES_PER_REFILL: usize = 32;
/// The demand decays by one part in so many with each batch.
const DEMAND_DECAY: usize = 8;
/// Time without a list after Redis failed, in milliseconds of the partition's time.
pub(super) const LIST_RETRY_MS: i64 = 1_000;

/// The Redis list of a coupon.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    name: CacheListName,
    /// Confirmed entries that were not popped.
    remaining: usize,
    /// Number of the last confirmed entry.
    last: i64,
    /// Whether a refill is in flight.
    refilling: bool,
}

/// Source of the codes that a batch needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The read-ahead buffer, which has enough.
    ReadAhead,
    /// Returned codes, from Postgres.
    Returned {
        /// The lowest number that may be free.
        from: CodeNumber,
        /// Number of codes to read.
        limit: usize,
    },
    /// The head of the list.
    List(CacheListName, usize),
    /// The list, after the refill in flight.
    Refilling,
    /// The sequence, from Postgres.
    Ledger(ReadCodes),
}

impl Stock {
    /// The source of the codes for `want` claims.
    #[must_use]
    pub fn source(&self, coupon: CouponNo, want: usize) -> Source {
        let returned = usize::try_from(self.row.returned).unwrap_or(0);
        if self.returned.len() < want.min(returned) {
            let from = CodeNumber(self.returned_from);
            return Source::Returned { from, limit: want + self.returned_moves.len() };
        }
        let want = want.min(usize::try_from(self.row.available()).unwrap_or(0)).saturating_sub(returned);
        let Some(missing) = want.checked_sub(self.read_ahead.len()).filter(|missing| *missing > 0) else {
            return Source::ReadAhead;
        };
        match &self.list {
            Some(list) if list.remaining > 0 => {
                let ahead = (BATCHES_PER_POP * self.demand).min(MIN_REFILL);
                Source::List(list.name, missing.max(ahead).min(list.remaining))
            }
            Some(list) if list.refilling => Source::Refilling,
            _ => {
                let count = missing.max(self.min_read());
                Source::Ledger(ReadCodes { coupon, after: CodeNumber(self.read_ahead_end()), count })
            }
        }
    }

    /// Inserts returned codes, lowest first, from a read that shows every batch up to `shown`. No lower number is free,
    /// except those that unsettled batches freed. (The first entry counts even if an unsettled batch took it: entries
    /// after the last one were not read.)
    pub fn returned_read(&mut self, entries: Vec<CodeEntry>, shown: u64) {
        self.returned_moves.drop_shown(shown);
        if let Some(first) = entries.first() {
            let freed = self.returned_moves.lowest_freed().unwrap_or(i64::MAX);
            self.returned_from = first.number.0.min(freed);
        }
        self.returned = self.returned_moves.overlay(entries).collect();
    }

    /// Inserts the result of a pop. Entries count as long as each is the next free number.
    pub fn popped(&mut self, list: CacheListName, requested: usize, popped: Popped, now: Millis) {
        let Some(current) = self.list.as_mut().filter(|current| current.name == list) else { return };
        current.remaining = current.remaining.saturating_sub(requested);
        let Popped::Codes(entries) = popped else { return self.invalidate_list(now) };
        if self.append(entries) < requested {
            self.invalidate_list(now);
        }
    }

    /// Inserts codes of the sequence from Postgres.
    pub fn read(&mut self, entries: Vec<CodeEntry>) {
        self.busy |= self.read_before;
        self.read_before = true;
        self.append(entries);
        let end = self.read_ahead_end();
        if let Some(list) = self.list.as_mut() {
            list.last = list.last.max(end);
        }
    }

    /// Inserts popped entries without verification: a planted mistake.
    pub(crate) fn popped_unverified(&mut self, requested: usize, entries: Vec<CodeEntry>) {
        if let Some(list) = self.list.as_mut() {
            list.remaining = list.remaining.saturating_sub(requested);
        }
        self.read_ahead.extend(entries);
    }

    /// The refill that the list needs now, ahead of need.
    pub fn refill(
        &mut self,
        coupon: CouponNo,
        now: Millis,
        name: impl FnOnce() -> CacheListName,
    ) -> Option<Refill> {
        if !self.busy || now < self.no_list_until {
            return None;
        }
        let (remaining, last) = match &self.list {
            Some(list) if list.refilling || list.remaining >= self.refill_size() => return None,
            Some(list) => (list.remaining, list.last.max(self.read_ahead_end())),
            None => (0, self.read_ahead_end()),
        };
        let ahead = self.ahead.range(last + 1..).count();
        let free_after = usize::try_from(self.row.top - last).unwrap_or(0).saturating_sub(ahead);
        let count = self.refill_size().min(free_after);
        if count == 0 {
            return None;
        }
        let name = self.list.map_or_else(name, |list| list.name);
        self.list = Some(List { name, remaining, last, refilling: true });
        Some(Refill { list: name, codes: ReadCodes { coupon, after: CodeNumber(last), count } })
    }

    /// Records the number of codes that a batch needs: the list is refilled for several such batches.
    pub fn record_demand(&mut self, want: usize) {
        self.busy |= want > self.min_read();
        self.demand = want.max(self.demand - self.demand / DEMAND_DECAY);
    }

    /// Inserts the result of a refill.
    pub fn refilled(&mut self, name: CacheListName, result: RefillResult, now: Millis) {
        let Some(list) = self.list.as_mut().filter(|list| list.name == name) else { return };
        match result {
            RefillResult::Refilled { count, last } => {
                list.remaining += count;
                list.last = last.0.max(list.last);
                list.refilling = false;
            }
            RefillResult::Unknown => self.invalidate_list(now),
        }
    }

    /// Inserts a freed number above the cursor. The numbers above it, in the buffer and in the list, come too early now.
    pub(super) fn insert_into_sequence(&mut self, entry: CodeEntry) {
        let number = entry.number.0;
        self.read_ahead.truncate(self.read_ahead.partition_point(|ahead| ahead.number.0 < number));
        if self.list.as_ref().is_some_and(|list| number <= list.last) {
            self.list = None;
        }
        if self.next_free(self.read_ahead_end()) == number {
            self.read_ahead.push_back(entry);
        }
    }

    fn min_read(&self) -> usize {
        MIN_READ.min(self.window / 2)
    }

    fn refill_size(&self) -> usize {
        (BATCHES_PER_REFILL * self.demand).max(MIN_REFILL).min(self.window / 2)
    }

    fn invalidate_list(&mut self, now: Millis) {
        self.list = None;
        self.no_list_until = Millis(now.0 + LIST_RETRY_MS);
    }

    /// Appends entries to the read-ahead buffer; returns how many are valid.
    fn append(&mut self, entries: Vec<CodeEntry>) -> usize {
        let mut valid = 0;
        let end = self.read_ahead_end();
        let mut next = self.next_free(end);
        for entry in entries {
            if entry.number.0 > end && self.ahead.contains(&entry.number.0) {
                valid += 1;
                continue;
            }
            if entry.number.0 != next || next > self.row.top {
                break;
            }
            next = self.next_free(next);
            self.read_ahead.push_back(entry);
            valid += 1;
        }
        valid
    }

    /// The last number in the read-ahead buffer, or the cursor.
    fn read_ahead_end(&self) -> i64 {
        self.read_ahead.back().map_or(self.row.cursor, |entry| entry.number.0)
    }

    fn next_free(&self, after: i64) -> i64 {
        let mut next = after + 1;
        for taken in self.ahead.range(next..) {
            if *taken != next {
                break;
            }
            next += 1;
        }
        next
    }
}
