//! The reference's state of one coupon: which numbers are free, and the history of each code. Every count is computed
//! from this state when it is needed, so no counter can be wrong.

use crate::environment::ledger::{Ledger, display_code};
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
    /// Codes that were used at least once.
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
    /// Users whose claims of it have lapsed.
    pub(super) lapsed: BTreeSet<Box<str>>,
}

#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) id: RequestId,
    pub(super) user: Box<str>,
    pub(super) order: Box<str>,
}

impl Coupon {
    /// The state of a coupon from the ledger's rows.
    pub(super) fn from_ledger(no: CouponNo, ledger: &Ledger) -> Self {
        let row = ledger.coupon(no).expect("the coupon exists");
        let mut codes = BTreeMap::<i64, Code>::new();
        for (number, identity) in &row.live_claims {
            codes.entry(*number).or_default().claim = Some(ledger.claims[identity].claim.clone());
        }
        for (number, flags) in &row.flags {
            codes.entry(*number).or_default().revoked = flags.revoked;
        }
        for (number, ids) in &row.redemptions_by_code {
            let uses = ids.iter().map(|id| {
                let stored = ledger.redemption(*id).expect("an indexed redemption exists");
                Use { id: *id, user: stored.user, order: stored.redemption.order }
            });
            codes.entry(*number).or_default().uses.extend(uses);
        }
        for (_, number, user) in ledger.lapsed.iter().filter(|(coupon, ..)| *coupon == no) {
            codes.entry(number.0).or_default().lapsed.insert(user.clone());
        }
        let last_number = |base: i64, load| base + ledger.load(load).map_or(0, |load| load.count);
        Self {
            id: row.id.clone(),
            definition: row.definition.clone(),
            top: row.stock.top,
            cursor: row.stock.cursor,
            ahead: row.ahead.clone(),
            returned: row.returned.clone(),
            codes,
            loads: row.loads.iter().map(|(base, load)| (*base, *load, last_number(*base, *load))).collect(),
        }
    }

    /// Adds a load to the stock and returns its base.
    pub(super) fn add_load(&mut self, load: LoadId, count: i64) -> i64 {
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

    /// A code as displayed.
    pub(super) fn code_text(&self, number: i64) -> Box<str> {
        let (base, load, _) =
            self.loads.iter().rfind(|(base, ..)| *base < number).expect("a number of stock");
        display_code(*load, number - base)
    }

    pub(super) fn code_mut(&mut self, number: i64) -> &mut Code {
        self.codes.entry(number).or_default()
    }

    pub(super) fn code(&self, number: i64) -> Option<&Code> {
        self.codes.get(&number)
    }

    pub(super) fn available(&self) -> i64 {
        self.top - self.cursor - self.ahead.len() as i64 + self.returned.len() as i64
    }

    /// The next free number of the sequence.
    pub(super) fn next_in_sequence(&self) -> Option<i64> {
        (self.cursor + 1..=self.top).find(|number| !self.ahead.contains(number))
    }

    /// Takes the next free number of the sequence.
    pub(super) fn take_next(&mut self, number: i64) {
        self.cursor = number;
        self.ahead = self.ahead.split_off(&(number + 1));
    }

    /// Takes a free number out of sequence.
    pub(super) fn take(&mut self, number: i64) {
        let changed =
            if number > self.cursor { self.ahead.insert(number) } else { self.returned.remove(&number) };
        assert!(changed, "number {number} of {} was not free", self.id);
    }

    /// Makes a number free again.
    pub(super) fn put_back(&mut self, number: i64) {
        let changed =
            if number > self.cursor { self.ahead.remove(&number) } else { self.returned.insert(number) };
        assert!(changed, "number {number} of {} was free", self.id);
    }

    /// How often one of its codes may be redeemed.
    fn redemptions_per_code(&self) -> usize {
        self.definition.redemptions_per_code.map_or(usize::MAX, |limit| limit as usize)
    }

    pub(super) fn is_used_up(&self, number: i64) -> bool {
        self.code(number).is_some_and(|code| code.uses.len() >= self.redemptions_per_code())
    }

    /// The number of live claims of a user.
    pub(super) fn claims_of(&self, user: &str) -> usize {
        let claims = self.codes.values().filter_map(|code| code.claim.as_ref());
        claims.filter(|claim| &*claim.user == user).count()
    }

    pub(super) fn redemptions_of(&self, user: &str) -> usize {
        self.codes.values().flat_map(|code| &code.uses).filter(|used| &*used.user == user).count()
    }

    pub(super) fn redemptions(&self) -> usize {
        self.codes.values().map(|code| code.uses.len()).sum()
    }

    pub(super) fn flags(&self, number: i64) -> CodeFlags {
        let Some(code) = self.code(number) else { return CodeFlags::default() };
        let uses = if self.definition.is_shared() { code.uses.len() as i64 } else { 0 };
        CodeFlags { uses, revoked: code.revoked }
    }

    pub(super) fn stock_row(&self) -> StockRow {
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
                None if self.definition.is_shared() && self.is_used_up(*number) => row.redeemed += 1,
                _ => {}
            }
        }
        row
    }
}
