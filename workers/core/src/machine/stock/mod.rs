//! The free codes of one coupon: counters, returned codes, the read-ahead buffer, and the Redis list.
//!
//! Free are the returned codes, and every number above the cursor that is not ahead. They are given in this order:
//! returned codes first, lowest first, then the sequence. The read-ahead buffer holds the next codes of the sequence. It
//! is filled from the Redis list, and from Postgres where there is no list. Sold out is decided by the counters alone.
//!
//! Files: `mod` (the counters and what changes them), `moves` (the rows that a batch changes), `supply` (where codes come
//! from).

mod moves;
mod supply;

pub use moves::Moved;
pub use supply::Source;

use crate::domain::batch::StockRow;
use crate::domain::ids::{CodeNumber, Millis};
use crate::domain::words::ClaimState;
use crate::interface::CodeEntry;
use moves::{Moves, ReturnedMoves};
use std::collections::{BTreeSet, VecDeque};
use supply::List;

/// The free codes of one coupon.
#[derive(Clone, Debug)]
pub struct Stock {
    row: StockRow,
    ahead: BTreeSet<i64>,
    returned: VecDeque<CodeEntry>,
    returned_moves: ReturnedMoves,
    /// No lower number is a free returned one, unsettled batches included.
    returned_from: i64,
    /// Moves of the current batch.
    moves: Moves,
    read_ahead: VecDeque<CodeEntry>,
    list: Option<List>,
    window: usize,
    /// Codes that a batch needs, as a maximum that decays.
    demand: usize,
    /// Whether the coupon is worth a list: it read from Postgres twice, or needed many codes at once.
    busy: bool,
    read_before: bool,
    no_list_until: Millis,
}

/// Result of taking a code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// A returned code.
    Returned(CodeEntry),
    /// The next code of the sequence.
    Sequence(CodeEntry),
    /// No code is free.
    SoldOut,
    /// A code is free, but was not read.
    Missing,
}

impl Stock {
    /// The stock as Postgres stores it; its list holds about `window` codes when the coupon is busy.
    #[must_use]
    pub fn new(row: StockRow, ahead: impl IntoIterator<Item = CodeNumber>, window: usize) -> Self {
        Self {
            row,
            ahead: ahead.into_iter().map(|number| number.0).collect(),
            returned: VecDeque::new(),
            returned_moves: ReturnedMoves::default(),
            returned_from: 0,
            moves: Moves::default(),
            read_ahead: VecDeque::new(),
            list: None,
            window: window.max(2),
            demand: 0,
            busy: false,
            read_before: false,
            no_list_until: Millis(0),
        }
    }

    /// The counters.
    #[must_use]
    pub const fn row(&self) -> StockRow {
        self.row
    }

    /// Applies a load; returns its base.
    pub const fn add(&mut self, count: i64) -> i64 {
        let base = self.row.top;
        self.row.top += count;
        base
    }

    /// Takes the next free code for a claim.
    pub fn take(&mut self, batch: u64) -> Take {
        if self.row.available() == 0 {
            return Take::SoldOut;
        }
        if self.row.returned > 0 {
            let Some(entry) = self.returned.pop_front() else { return Take::Missing };
            self.row.returned -= 1;
            self.row.claimed += 1;
            self.moves.take_returned(entry.number.0);
            self.returned_moves.insert(entry.number.0, batch, None);
            return Take::Returned(entry);
        }
        let Some(entry) = self.read_ahead.pop_front() else { return Take::Missing };
        self.row.cursor = entry.number.0;
        self.row.claimed += 1;
        while let Some(passed) = self.ahead.first().copied().filter(|first| *first <= entry.number.0) {
            self.ahead.pop_first();
            self.row.ahead -= 1;
            self.moves.free_ahead(passed);
        }
        Take::Sequence(entry)
    }

    /// Takes this number. The caller counts its new state with [`Stock::count`].
    pub fn take_number(&mut self, number: CodeNumber, batch: u64) {
        let number = number.0;
        if number <= self.row.cursor {
            self.row.returned -= 1;
            self.returned.retain(|entry| entry.number.0 != number);
            self.moves.take_returned(number);
            return self.returned_moves.insert(number, batch, None);
        }
        self.row.ahead += 1;
        self.ahead.insert(number);
        self.moves.take_ahead(number);
        if let Ok(index) = self.read_ahead.binary_search_by_key(&number, |entry| entry.number.0) {
            self.read_ahead.remove(index);
        }
    }

    /// Makes a number free again.
    pub fn put_back(&mut self, entry: CodeEntry, batch: u64) {
        let number = entry.number.0;
        if number <= self.row.cursor {
            self.row.returned += 1;
            self.returned_from = self.returned_from.min(number);
            if self.returned.len() < self.window {
                self.returned.push_back(entry.clone());
            }
            self.moves.free_returned(number);
            return self.returned_moves.insert(number, batch, Some(entry));
        }
        self.row.ahead -= 1;
        self.ahead.remove(&number);
        self.moves.free_ahead(number);
        self.insert_into_sequence(entry);
    }

    /// Counts a code in another state; `None` is free.
    pub const fn count(&mut self, from: Option<ClaimState>, to: Option<ClaimState>) {
        if let Some(counter) = self.counter(from) {
            *counter -= 1;
        }
        if let Some(counter) = self.counter(to) {
            *counter += 1;
        }
    }

    /// Adds (1) or removes (−1) a redemption.
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

    /// The moves of the batch that was just executed; the next one starts without any. Every read from now on shows the
    /// batches up to `shown`.
    pub fn take_moved(&mut self, shown: u64) -> Moved {
        self.returned_moves.drop_shown(shown);
        std::mem::take(&mut self.moves).into_moved(self.row.cursor)
    }
}

#[cfg(test)]
mod tests;
