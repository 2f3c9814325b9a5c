//! Redis in memory: cache lists by name, popped from the head, and the ways in which they can be corrupted.

use super::ledger::Ledger;
use crate::rng::Rng;
use coupon_core::ids::{CodeNumber, CouponNo};
use coupon_core::interface::{CacheListName, CodeEntry, Pop, Popped};
use foldhash::fast::FixedState;
use std::collections::{HashMap, VecDeque};

/// A list entry. It names its coupon, as the adapter writes it; an entry of another coupon cannot be decoded.
#[derive(Clone, Debug)]
struct StoredEntry {
    coupon: CouponNo,
    entry: CodeEntry,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Redis {
    lists: HashMap<CacheListName, VecDeque<StoredEntry>, FixedState>,
    /// List names in the order of creation: a seed picks the same list in every run.
    names: Vec<CacheListName>,
}

impl Redis {
    pub(crate) fn pop(&mut self, pop: Pop) -> Popped {
        let Some(list) = self.lists.get_mut(&pop.list) else { return Popped::Codes(Vec::new()) };
        let count = pop.count.min(list.len());
        let stored: Vec<StoredEntry> = list.drain(..count).collect();
        if stored.iter().any(|stored| stored.coupon != pop.list.coupon) {
            return Popped::Unknown;
        }
        Popped::Codes(stored.into_iter().map(|stored| stored.entry).collect())
    }

    pub(crate) fn push(&mut self, name: CacheListName, entries: impl IntoIterator<Item = CodeEntry>) {
        let list = self.lists.entry(name).or_default();
        list.extend(entries.into_iter().map(|entry| StoredEntry { coupon: name.coupon, entry }));
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    pub(crate) fn flush_all(&mut self) {
        self.lists.clear();
        self.names.clear();
    }

    /// Duplicates, inserts or removes one entry of one list.
    pub(crate) fn corrupt(&mut self, rng: &mut Rng, ledger: &Ledger) {
        let Some(name) = (!self.names.is_empty()).then(|| *rng.pick(&self.names)) else { return };
        let Some(list) = self.lists.get_mut(&name) else { return };
        let at = rng.below(list.len() + 1);
        match rng.below(5) {
            0 => {
                let copy = list.get(at).or(list.front()).cloned();
                list.extend(copy);
            }
            1 => {
                let copy = list.get(at).or(list.back()).cloned();
                if let Some(copy) = copy {
                    list.push_front(copy);
                }
            }
            2 => {
                list.insert(at, random_entry(rng, ledger, name.coupon));
            }
            3 => {
                let other = CouponNo(name.coupon.0 % 10 + 1);
                list.insert(at, random_entry(rng, ledger, other));
            }
            _ => {
                list.remove(at);
            }
        }
    }
}

/// An existing code of a coupon. The text always belongs to the number: the machine does not verify that.
fn random_entry(rng: &mut Rng, ledger: &Ledger, coupon: CouponNo) -> StoredEntry {
    let row = ledger.coupon(coupon);
    let number = rng.between(1, row.map_or(1, |row| row.stock.top.clamp(1, 40)));
    let code = row.map_or("?".into(), |row| row.code_text(number));
    // A number without a code may get one later, with another text: 0 never does.
    let number = if &*code == "?" { 0 } else { number };
    StoredEntry { coupon, entry: CodeEntry { number: CodeNumber(number), code } }
}
