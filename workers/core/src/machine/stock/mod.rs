//! The free codes of one coupon, as its owner knows them: counters, returned codes, the hand, and the Redis list.
//!
//! Free are the returned codes, and every number above the cursor that is not ahead. They are given in that
//! order: returned ones first, lowest first, then in sequence. The hand holds the next codes of the sequence with
//! their texts. It is fed from the list, and from the ledger where there is no list. A popped entry counts only if
//! it is exactly the next free number (one that was taken by name meanwhile is passed over); anything else and the
//! list is abandoned, never repaired.

use crate::domain::batch::StockRow;
use crate::domain::ids::{CodeNumber, CouponNo, Millis};
use crate::domain::words::ClaimState;
use crate::interface::{CacheListName, CodeEntry, Popped, ReadCodes, Refill, RefillResult};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Codes read from the ledger at least, where there is no list: more than one batch may need.
const FEWEST_READ: usize = 16;
/// Codes that a list is filled with at least.
const SMALLEST_FILL: usize = 64;
/// So many small batches live on one pop: what the first leaves is at hand for the others, which need not ask Redis.
const BATCHES_A_POP: usize = 16;
/// A list is filled for so many batches like the largest of the latest, up to half of the window: often enough to be
/// cheap, and no more at once than those who wait behind it can bear.
const BATCHES_AHEAD: usize = 32;
/// With each batch, the largest so far counts less by one part in so many.
const FORGETTING: usize = 8;
/// How long a coupon does without a list after Redis failed, in the partition's time.
const WITHOUT_LIST: i64 = 1_000;

/// The free codes of one coupon.
#[derive(Clone, Debug)]
pub struct Stock {
    row: StockRow,
    ahead: BTreeSet<i64>,
    returned: VecDeque<CodeEntry>,
    /// Returned numbers taken (`None`) and added, and by which batch: a read may still show the time before.
    returned_moves: BTreeMap<i64, (u64, Option<CodeEntry>)>,
    /// What the batch that is being decided has moved.
    moves: Moves,
    hand: VecDeque<CodeEntry>,
    list: Option<List>,
    window: usize,
    /// Codes that a batch wants at once: the most of the latest ones.
    wanted: usize,
    /// Whether the coupon is worth a list: it needed the ledger twice, or many codes at once.
    busy: bool,
    read_before: bool,
    without_list_until: Millis,
}

/// How often each number has become free (+1) and been taken (−1) in one batch, on either side of the cursor.
#[derive(Clone, Debug, Default)]
struct Moves {
    ahead: BTreeMap<i64, i8>,
    returned: BTreeMap<i64, i8>,
}

/// Rows of the stock that one batch changes, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Numbers above the cursor that were taken.
    pub ahead_taken: Vec<CodeNumber>,
    /// Numbers above the cursor that are free again.
    pub ahead_freed: Vec<CodeNumber>,
    /// How many numbers that were ahead are not above the cursor any more.
    pub passed: i64,
    /// Numbers at or below the cursor that are free again.
    pub returned_added: Vec<CodeNumber>,
    /// Numbers at or below the cursor that were taken again.
    pub returned_taken: Vec<CodeNumber>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    name: CacheListName,
    /// Confirmed entries not popped yet.
    remaining: usize,
    /// The number of the last confirmed entry.
    last: i64,
    filling: bool,
}

/// What became of an attempt to take a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// From the returned ones.
    Returned(CodeEntry),
    /// From the sequence.
    Sequence(CodeEntry),
    /// No code is free.
    SoldOut,
    /// A code is free, but its text is not at hand.
    Missing,
}

/// Where the codes that a batch needs can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Enough is at hand.
    ReadAhead,
    /// Returned codes, from the ledger.
    Returned {
        /// How many to read.
        limit: usize,
    },
    /// From the head of the list.
    List(CacheListName, usize),
    /// The list is being filled: wait.
    Refilling,
    /// From the ledger, in sequence.
    Ledger(ReadCodes),
}

impl Stock {
    /// The stock as the ledger holds it; a list of it holds about `window` codes when it is busy.
    #[must_use]
    pub fn new(row: StockRow, ahead: impl IntoIterator<Item = CodeNumber>, window: usize) -> Self {
        Self {
            row,
            ahead: ahead.into_iter().map(|number| number.0).collect(),
            returned: VecDeque::new(),
            returned_moves: BTreeMap::new(),
            moves: Moves::default(),
            hand: VecDeque::new(),
            list: None,
            window: window.max(2),
            wanted: 0,
            busy: false,
            read_before: false,
            without_list_until: Millis(0),
        }
    }

    /// The counters.
    #[must_use]
    pub const fn row(&self) -> StockRow {
        self.row
    }

    /// A load becomes stock; answers its base.
    pub const fn add(&mut self, count: i64) -> i64 {
        let base = self.row.top;
        self.row.top += count;
        base
    }

    /// Gives the next free code away to a claim.
    pub fn take(&mut self, batch: u64) -> Take {
        if self.row.available() == 0 {
            return Take::SoldOut;
        }
        if self.row.returned > 0 {
            let Some(entry) = self.returned.pop_front() else { return Take::Missing };
            self.row.returned -= 1;
            self.row.claimed += 1;
            self.move_returned(entry.number.0, batch, None);
            return Take::Returned(entry);
        }
        let Some(entry) = self.hand.pop_front() else { return Take::Missing };
        self.row.cursor = entry.number.0;
        self.row.claimed += 1;
        while let Some(passed) = self.ahead.first().copied().filter(|first| *first <= entry.number.0) {
            self.ahead.pop_first();
            self.row.ahead -= 1;
            *self.moves.ahead.entry(passed).or_default() += 1;
        }
        Take::Sequence(entry)
    }

    /// Takes this very number out of the free ones; the caller says with [`Stock::count`] what it is from now on.
    pub fn take_number(&mut self, number: CodeNumber, batch: u64) {
        let number = number.0;
        if number <= self.row.cursor {
            self.row.returned -= 1;
            self.returned.retain(|entry| entry.number.0 != number);
            return self.move_returned(number, batch, None);
        }
        self.row.ahead += 1;
        self.ahead.insert(number);
        *self.moves.ahead.entry(number).or_default() -= 1;
        if let Ok(place) = self.hand.binary_search_by_key(&number, |entry| entry.number.0) {
            self.hand.remove(place);
        }
    }

    /// A number is free again.
    pub fn put_back(&mut self, entry: CodeEntry, batch: u64) {
        let number = entry.number.0;
        if number <= self.row.cursor {
            self.row.returned += 1;
            if self.returned.len() < self.window {
                self.returned.push_back(entry.clone());
            }
            return self.move_returned(number, batch, Some(entry));
        }
        self.row.ahead -= 1;
        self.ahead.remove(&number);
        *self.moves.ahead.entry(number).or_default() += 1;
        // What follows it in the hand and in the list comes too early now.
        self.hand.truncate(self.hand.partition_point(|held| held.number.0 < number));
        if self.list.as_ref().is_some_and(|list| number <= list.last) {
            self.list = None;
        }
        if self.next_free(self.hand_end()) == number {
            self.hand.push_back(entry);
        }
    }

    /// A code is counted in another state; `None` is free.
    pub const fn count(&mut self, from: Option<ClaimState>, to: Option<ClaimState>) {
        if let Some(counter) = self.counter(from) {
            *counter -= 1;
        }
        if let Some(counter) = self.counter(to) {
            *counter += 1;
        }
    }

    /// One redemption more, or one less.
    pub const fn count_redemption(&mut self, by: i64) {
        self.row.redemptions += by;
    }

    const fn counter(&mut self, state: Option<ClaimState>) -> Option<&mut i64> {
        match state {
            Some(ClaimState::Claimed) => Some(&mut self.row.claimed),
            Some(ClaimState::Locked) => Some(&mut self.row.locked),
            Some(ClaimState::Redeemed) => Some(&mut self.row.redeemed),
            Some(ClaimState::Revoked) => Some(&mut self.row.revoked),
            Some(ClaimState::Returned) | None => None,
        }
    }

    fn move_returned(&mut self, number: i64, batch: u64, free: Option<CodeEntry>) {
        *self.moves.returned.entry(number).or_default() += if free.is_some() { 1 } else { -1 };
        self.returned_moves.insert(number, (batch, free));
    }

    /// What the batch that was just decided has moved, all in all; the next one begins with nothing. Every read
    /// from now on shows the batches up to `shown`.
    pub fn moved(&mut self, shown: u64) -> Moved {
        self.returned_moves.retain(|_, (by, _)| *by > shown);
        let moves = std::mem::take(&mut self.moves);
        let mut moved = Moved::default();
        for (number, by) in moves.ahead.into_iter().filter(|(_, by)| *by != 0) {
            if by < 0 {
                moved.ahead_taken.push(CodeNumber(number));
            } else if number <= self.row.cursor {
                moved.passed += 1;
            } else {
                moved.ahead_freed.push(CodeNumber(number));
            }
        }
        for (number, by) in moves.returned.into_iter().filter(|(_, by)| *by != 0) {
            let list = if by < 0 { &mut moved.returned_taken } else { &mut moved.returned_added };
            list.push(CodeNumber(number));
        }
        moved
    }

    /// Where to get the codes for `want` claims from.
    #[must_use]
    pub fn source(&self, coupon: CouponNo, want: usize) -> Source {
        let returned = usize::try_from(self.row.returned).unwrap_or(0);
        if self.returned.len() < want.min(returned) {
            return Source::Returned { limit: want + self.returned_moves.len() };
        }
        let want = want.min(usize::try_from(self.row.available()).unwrap_or(0)).saturating_sub(returned);
        let Some(missing) = want.checked_sub(self.hand.len()).filter(|missing| *missing > 0) else {
            return Source::ReadAhead;
        };
        match &self.list {
            Some(list) if list.remaining > 0 => {
                let ahead = (BATCHES_A_POP * self.wanted).min(SMALLEST_FILL);
                Source::List(list.name, missing.max(ahead).min(list.remaining))
            }
            Some(list) if list.filling => Source::Refilling,
            _ => {
                let count = missing.max(self.fewest_read());
                Source::Ledger(ReadCodes { coupon, after: CodeNumber(self.hand_end()), count })
            }
        }
    }

    /// Returned codes that were read, lowest first, by a read that shows every batch up to `shown`. What later
    /// batches have taken and added overlays it.
    pub fn returned_read(&mut self, entries: Vec<CodeEntry>, shown: u64) {
        self.returned_moves.retain(|_, (by, _)| *by > shown);
        let moves = &self.returned_moves;
        let read = entries.into_iter().filter(|entry| !moves.contains_key(&entry.number.0));
        self.returned = read.chain(moves.values().filter_map(|(_, free)| free.clone())).collect();
    }

    /// What a pop gave. Entries count as long as each is the next free number and none is missing.
    pub fn popped(&mut self, list: CacheListName, asked: usize, popped: Popped, now: Millis) {
        let Some(known) = self.list.as_mut().filter(|known| known.name == list) else { return };
        known.remaining = known.remaining.saturating_sub(asked);
        let Popped::Codes(entries) = popped else { return self.abandon(now) };
        let taken = self.accept(entries);
        if taken < asked {
            self.abandon(now);
        }
    }

    /// Codes read from the ledger in sequence.
    pub fn read(&mut self, entries: Vec<CodeEntry>) {
        self.busy |= self.read_before;
        self.read_before = true;
        self.accept(entries);
        let end = self.hand_end();
        if let Some(list) = self.list.as_mut() {
            list.last = list.last.max(end);
        }
    }

    /// Believes the popped entries whatever they are: the mistake that verification prevents.
    pub(crate) fn popped_unverified(&mut self, asked: usize, entries: Vec<CodeEntry>) {
        if let Some(list) = self.list.as_mut() {
            list.remaining = list.remaining.saturating_sub(asked);
        }
        self.hand.extend(entries);
    }

    /// What to copy to the list now, ahead of need.
    pub fn fill(
        &mut self,
        coupon: CouponNo,
        now: Millis,
        name: impl FnOnce() -> CacheListName,
    ) -> Option<Refill> {
        if !self.busy || now < self.without_list_until {
            return None;
        }
        let (remaining, last) = match &self.list {
            Some(list) if list.filling || list.remaining >= self.fill_size() => return None,
            Some(list) => (list.remaining, list.last.max(self.hand_end())),
            None => (0, self.hand_end()),
        };
        let ahead = self.ahead.range(last + 1..).count();
        let beyond = usize::try_from(self.row.top - last).unwrap_or(0).saturating_sub(ahead);
        let count = self.fill_size().min(beyond);
        if count == 0 {
            return None;
        }
        let name = self.list.map_or_else(name, |list| list.name);
        self.list = Some(List { name, remaining, last, filling: true });
        Some(Refill { list: name, codes: ReadCodes { coupon, after: CodeNumber(last), count } })
    }

    /// A batch wants so many codes at once: the list is filled for several of its like.
    pub fn expect_batches_of(&mut self, want: usize) {
        self.busy |= want > self.fewest_read();
        self.wanted = want.max(self.wanted - self.wanted / FORGETTING);
    }

    /// What became of a fill.
    pub fn filled(&mut self, name: CacheListName, result: RefillResult, now: Millis) {
        let Some(list) = self.list.as_mut().filter(|list| list.name == name) else { return };
        match result {
            RefillResult::Refilled { count, last } => {
                list.remaining += count;
                list.last = last.0.max(list.last);
                list.filling = false;
            }
            RefillResult::Unknown => self.abandon(now),
        }
    }

    fn fewest_read(&self) -> usize {
        FEWEST_READ.min(self.window / 2)
    }

    fn fill_size(&self) -> usize {
        (BATCHES_AHEAD * self.wanted).max(SMALLEST_FILL).min(self.window / 2)
    }

    fn abandon(&mut self, now: Millis) {
        self.list = None;
        self.without_list_until = Millis(now.0 + WITHOUT_LIST);
    }

    fn accept(&mut self, entries: Vec<CodeEntry>) -> usize {
        let mut accepted = 0;
        let end = self.hand_end();
        let mut next = self.next_free(end);
        for entry in entries {
            if entry.number.0 > end && self.ahead.contains(&entry.number.0) {
                accepted += 1;
                continue;
            }
            if entry.number.0 != next || next > self.row.top {
                break;
            }
            next = self.next_free(next);
            self.hand.push_back(entry);
            accepted += 1;
        }
        accepted
    }

    fn hand_end(&self) -> i64 {
        self.hand.back().map_or(self.row.cursor, |entry| entry.number.0)
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

#[cfg(test)]
mod tests;
