//! What a run has come to: how often each rejection, each transition and each corner was seen.

use coupon_core::vocabulary::{Kind, Reason};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    /// Rejections by what was asked for.
    pub(crate) reasons: BTreeMap<(Kind, Reason), u64>,
    /// Everything else, by a name of its own.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn rejected(&mut self, kind: Kind, reason: Reason) {
        *self.reasons.entry((kind, reason)).or_default() += 1;
    }

    pub(crate) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(crate) fn saw_if(&mut self, seen: bool, what: &'static str) {
        if seen {
            self.saw(what);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (key, times) in &other.reasons {
            *self.reasons.entry(*key).or_default() += times;
        }
        for (key, times) in &other.seen {
            *self.seen.entry(key).or_default() += times;
        }
    }
}
