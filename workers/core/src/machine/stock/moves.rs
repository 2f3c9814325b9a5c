//! The rows of the stock that a batch changes: numbers above the cursor, and returned numbers.

use crate::domain::ids::CodeNumber;
use crate::interface::CodeEntry;
use std::collections::BTreeMap;

/// For each number, how often it became free (+1) and was taken (−1) in one batch, on either side of the cursor.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    ahead: BTreeMap<i64, i8>,
    returned: BTreeMap<i64, i8>,
}

/// The net changes of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Numbers above the cursor that were taken.
    pub ahead_taken: Vec<CodeNumber>,
    /// Numbers above the cursor that are free again.
    pub ahead_freed: Vec<CodeNumber>,
    /// Count of the numbers that were ahead and that the cursor has passed.
    pub passed: i64,
    /// Numbers at or below the cursor that are free again.
    pub returned_added: Vec<CodeNumber>,
    /// Numbers at or below the cursor that were taken again.
    pub returned_taken: Vec<CodeNumber>,
}

impl Moves {
    pub(super) fn take_ahead(&mut self, number: i64) {
        *self.ahead.entry(number).or_default() -= 1;
    }

    pub(super) fn free_ahead(&mut self, number: i64) {
        *self.ahead.entry(number).or_default() += 1;
    }

    pub(super) fn take_returned(&mut self, number: i64) {
        *self.returned.entry(number).or_default() -= 1;
    }

    pub(super) fn free_returned(&mut self, number: i64) {
        *self.returned.entry(number).or_default() += 1;
    }

    pub(super) fn into_moved(self, cursor: i64) -> Moved {
        let mut moved = Moved::default();
        for (number, by) in self.ahead.into_iter().filter(|(_, by)| *by != 0) {
            if by < 0 {
                moved.ahead_taken.push(CodeNumber(number));
            } else if number <= cursor {
                moved.passed += 1;
            } else {
                moved.ahead_freed.push(CodeNumber(number));
            }
        }
        for (number, by) in self.returned.into_iter().filter(|(_, by)| *by != 0) {
            let numbers = if by < 0 { &mut moved.returned_taken } else { &mut moved.returned_added };
            numbers.push(CodeNumber(number));
        }
        moved
    }
}

/// Returned numbers that unsettled batches took and freed. They overlay reads, which may show the state before.
#[derive(Clone, Debug, Default)]
pub(super) struct ReturnedMoves {
    /// For each number the batch, and its code if it is free.
    moves: BTreeMap<i64, (u64, Option<CodeEntry>)>,
}

impl ReturnedMoves {
    /// `free` is the code of a number that became free, `None` for one that was taken.
    pub(super) fn insert(&mut self, number: i64, batch: u64, free: Option<CodeEntry>) {
        self.moves.insert(number, (batch, free));
    }

    /// Drops the moves of the batches that every read shows.
    pub(super) fn drop_shown(&mut self, shown: u64) {
        self.moves.retain(|_, (batch, _)| *batch > shown);
    }

    pub(super) fn len(&self) -> usize {
        self.moves.len()
    }

    /// The lowest number that became free.
    pub(super) fn lowest_freed(&self) -> Option<i64> {
        self.moves.iter().find(|(_, (_, free))| free.is_some()).map(|(number, _)| *number)
    }

    /// The free returned codes: the read ones that were not moved, then the ones that became free.
    pub(super) fn overlay(&self, read: Vec<CodeEntry>) -> impl Iterator<Item = CodeEntry> {
        let unmoved = read.into_iter().filter(|entry| !self.moves.contains_key(&entry.number.0));
        unmoved.chain(self.moves.values().filter_map(|(_, free)| free.clone()))
    }
}
