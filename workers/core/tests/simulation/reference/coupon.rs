//! What the reference knows of one coupon: which numbers are free, and what happened to each code. Whatever can be
//! counted is counted when it is asked for, so that no counter can be wrong.

use crate::ledger::{self, Ledger};
use coupon_core::batch::{CodeFlags, StockRow};
use coupon_core::claim::Claim;
use coupon_core::coupon::Definition;
use coupon_core::ids::{CouponNo, LoadId, RequestId};
use coupon_core::words::ClaimState;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(super) struct Coupon {
    pub(super) id: Box<str>,
    pub(super) definition: Definition,
    pub(super) top: i64,
    /// Numbers up to here were taken in sequence.
    pub(super) cursor: i64,
    /// Numbers above the cursor that are not free.
    pub(super) ahead: BTreeSet<i64>,
    /// Numbers at or below the cursor that are free.
    pub(super) returned: BTreeSet<i64>,
    /// Codes that have a story.
    pub(super) codes: BTreeMap<i64, Code>,
    /// Its loads, each with its base and the number of its last code.
    loads: Vec<(i64, LoadId, i64)>,
}

/// One code.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    /// Its live claim.
    pub(super) claim: Option<Claim>,
    pub(super) revoked: bool,
    /// Redemptions that were not rolled back.
    pub(super) uses: Vec<Use>,
    /// Whose claims of it have lapsed.
    pub(super) lapsed: BTreeSet<Box<str>>,
}

#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) id: RequestId,
    pub(super) user: Box<str>,
    pub(super) order: Box<str>,
}

impl Coupon {
    /// A coupon as the ledger holds it.
    pub(super) fn read(no: CouponNo, ledger: &Ledger) -> Self {
        let row = ledger.coupon(no).expect("a coupon that was found");
        let mut codes = BTreeMap::<i64, Code>::new();
        for (number, identity) in &row.live {
            codes.entry(*number).or_default().claim = Some(ledger.claims[identity].claim.clone());
        }
        for (number, mark) in &row.code_flags {
            codes.entry(*number).or_default().revoked = mark.revoked;
        }
        for (number, id) in row.paid.iter().flat_map(|(number, ids)| ids.iter().map(move |id| (number, id))) {
            let stored = ledger.redemption(*id).expect("a redemption that an index has");
            let (user, order) = (stored.user, stored.redemption.order);
            codes.entry(*number).or_default().uses.push(Use { id: *id, user, order });
        }
        for (_, number, user) in ledger.lapsed.iter().filter(|(coupon, ..)| *coupon == no) {
            codes.entry(number.0).or_default().lapsed.insert(user.clone());
        }
        Self {
            id: row.id.clone(),
            definition: row.definition.clone(),
            top: row.stock.top,
            cursor: row.stock.cursor,
            ahead: row.ahead.clone(),
            returned: row.returned.clone(),
            codes,
            loads: row
                .loads
                .iter()
                .map(|(base, load)| (*base, *load, *base + ledger.load(*load).map_or(0, |load| load.count)))
                .collect(),
        }
    }

    pub(super) fn add(&mut self, load: LoadId, count: i64) -> i64 {
        let base = self.top;
        self.top += count;
        self.loads.push((base, load, self.top));
        base
    }

    /// The number of a code of this coupon; `None` while its load is not stock.
    pub(super) fn number_of(&self, load: LoadId, idx: i64) -> Option<i64> {
        let (base, _, last) = self.loads.iter().find(|(_, applied, _)| *applied == load)?;
        Some(base + idx).filter(|number| (base + 1..=*last).contains(number))
    }

    pub(super) fn text(&self, number: i64) -> Box<str> {
        let (base, load, _) =
            self.loads.iter().rfind(|(base, ..)| *base < number).expect("a number of stock");
        ledger::shown(*load, number - base)
    }

    pub(super) fn code(&mut self, number: i64) -> &mut Code {
        self.codes.entry(number).or_default()
    }

    pub(super) fn known(&self, number: i64) -> Option<&Code> {
        self.codes.get(&number)
    }

    pub(super) fn available(&self) -> i64 {
        self.top - self.cursor - self.ahead.len() as i64 + self.returned.len() as i64
    }

    /// The next free number of the sequence.
    pub(super) fn next_in_sequence(&self) -> Option<i64> {
        (self.cursor + 1..=self.top).find(|number| !self.ahead.contains(number))
    }

    /// The next number of the sequence is given.
    pub(super) fn take_next(&mut self, number: i64) {
        self.cursor = number;
        self.ahead = self.ahead.split_off(&(number + 1));
    }

    /// A number is not free any more, wherever it stands.
    pub(super) fn take_out(&mut self, number: i64) {
        let changed =
            if number > self.cursor { self.ahead.insert(number) } else { self.returned.remove(&number) };
        assert!(changed, "number {number} of {} was not free", self.id);
    }

    /// A number is free again.
    pub(super) fn put_back(&mut self, number: i64) {
        let changed =
            if number > self.cursor { self.ahead.remove(&number) } else { self.returned.insert(number) };
        assert!(changed, "number {number} of {} was free", self.id);
    }

    /// How often one of its codes may be redeemed.
    pub(super) fn per_code(&self) -> usize {
        self.definition.redemptions_per_code.map_or(usize::MAX, |limit| limit as usize)
    }

    pub(super) fn is_exhausted(&self, number: i64) -> bool {
        self.known(number).is_some_and(|code| code.uses.len() >= self.per_code())
    }

    /// Live claims of a user.
    pub(super) fn claims_of(&self, user: &str) -> usize {
        self.codes
            .values()
            .filter(|code| code.claim.as_ref().is_some_and(|claim| &*claim.user == user))
            .count()
    }

    pub(super) fn redemptions_of(&self, user: &str) -> usize {
        self.codes.values().flat_map(|code| &code.uses).filter(|used| &*used.user == user).count()
    }

    pub(super) fn redemptions(&self) -> usize {
        self.codes.values().map(|code| code.uses.len()).sum()
    }

    pub(super) fn mark(&self, number: i64) -> CodeFlags {
        let Some(code) = self.known(number) else { return CodeFlags::default() };
        let uses = if self.definition.is_shared() { code.uses.len() as i64 } else { 0 };
        CodeFlags { uses, revoked: code.revoked }
    }

    pub(super) fn row(&self) -> StockRow {
        let mut row = StockRow {
            top: self.top,
            cursor: self.cursor,
            ahead: self.ahead.len() as i64,
            returned: self.returned.len() as i64,
            redemptions: self.redemptions() as i64,
            ..StockRow::default()
        };
        for (number, code) in &self.codes {
            match code.claim.as_ref().map(|claim| claim.status.state) {
                _ if code.revoked => row.revoked += 1,
                Some(ClaimState::Claimed) => row.claimed += 1,
                Some(ClaimState::Locked) => row.locked += 1,
                Some(ClaimState::Redeemed) => row.redeemed += 1,
                None if self.definition.is_shared() && self.is_exhausted(*number) => row.redeemed += 1,
                _ => {}
            }
        }
        row
    }
}
