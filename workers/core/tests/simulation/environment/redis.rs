//! The stock in memory: lists by name, popped from the head, and everything that can go wrong with them.

use crate::ledger::Ledger;
use crate::rng::Rng;
use coupon_core::ids::{CodeNumber, CouponNo};
use coupon_core::interface::{CacheListName, CodeEntry, Pop, Popped};
use foldhash::fast::FixedState;
use std::collections::{HashMap, VecDeque};

/// An entry names its coupon, as the adapter writes it; one of another coupon cannot be read.
#[derive(Clone, Debug)]
struct Stored {
    coupon: CouponNo,
    entry: CodeEntry,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Redis {
    lists: HashMap<CacheListName, VecDeque<Stored>, FixedState>,
    /// The names in the order in which they came, so that chance picks the same one every time.
    names: Vec<CacheListName>,
}

impl Redis {
    pub(crate) fn pop(&mut self, pop: Pop) -> Popped {
        let Some(list) = self.lists.get_mut(&pop.list) else { return Popped::Codes(Vec::new()) };
        let count = pop.count.min(list.len());
        let stored: Vec<Stored> = list.drain(..count).collect();
        if stored.iter().any(|stored| stored.coupon != pop.list.coupon) {
            return Popped::Unknown;
        }
        Popped::Codes(stored.into_iter().map(|stored| stored.entry).collect())
    }

    pub(crate) fn push(&mut self, name: CacheListName, entries: impl IntoIterator<Item = CodeEntry>) {
        let list = self.lists.entry(name).or_default();
        list.extend(entries.into_iter().map(|entry| Stored { coupon: name.coupon, entry }));
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    pub(crate) fn flush_all(&mut self) {
        self.lists.clear();
        self.names.clear();
    }

    /// One list gets entries that do not belong there, or loses some that do.
    pub(crate) fn corrupt(&mut self, rng: &mut Rng, ledger: &Ledger) {
        let Some(name) = (!self.names.is_empty()).then(|| *rng.pick(&self.names)) else { return };
        let Some(list) = self.lists.get_mut(&name) else { return };
        let at = rng.below(list.len() + 1);
        match rng.below(5) {
            0 => {
                let twice = list.get(at).or(list.front()).cloned();
                list.extend(twice);
            }
            1 => {
                let twice = list.get(at).or(list.back()).cloned();
                if let Some(twice) = twice {
                    list.push_front(twice);
                }
            }
            2 => {
                list.insert(at, some_code(rng, ledger, name.coupon));
            }
            3 => {
                let coupon = CouponNo(name.coupon.0 % 10 + 1);
                list.insert(at, some_code(rng, ledger, coupon));
            }
            _ => {
                list.remove(at);
            }
        }
    }
}

/// Numbers are trusted where they stand, so texts are those of their numbers.
fn some_code(rng: &mut Rng, ledger: &Ledger, coupon: CouponNo) -> Stored {
    let known = ledger.coupon(coupon);
    let number = rng.between(1, known.map_or(1, |known| known.stock.top.clamp(1, 40)));
    let code = known.map_or("?".into(), |known| known.text(number));
    // A number that does not exist now may exist later, under another text.
    let number = if &*code == "?" { 0 } else { number };
    Stored { coupon, entry: CodeEntry { number: CodeNumber(number), code } }
}
