//! Gathering a batch: what its decisions can depend on is read, and the codes it can give away are reserved.
//!
//! First the facts (coupons, loads, earlier outcomes of possible repetitions, codes by name, claims that lapse), then
//! the means (users' claims, returned codes, codes of the sequence). Only what a decision can depend on: a sold-out coupon needs no users.
//! Whatever turns out to be lacking all the same cuts the batch short, and the rest is gathered anew.

use super::codes::Codes;
use super::requirements::{Wanted, facts_wanted, orders_wanted, plan, rollbacks};
use super::{Effect, Machine, Token};
use crate::domain::batch::{Batch, Decision};
use crate::domain::ids::{LoadId, Millis, RequestId};
use crate::domain::record::{Payload, Record};
use crate::interface::{
    CodeEntry, DueLookup, LookupResults, Lookups, Pop, Popped, ReadCodes, ReturnedLookup, StoredLoad,
    UserLookup,
};
use crate::machine::stock::Source;
use crate::planted::Bug;
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Rounds of reserving after which a batch is decided with what it has.
const MOST_ROUNDS: u32 = 16;
/// Rounds after which the batch that is being written is awaited: codes of a load that it applies are found only
/// once it is durable.
const ROUNDS_WITHOUT_WAITING: u32 = 3;

/// A batch on its way to its decisions.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) records: Vec<Record>,
    /// Which records may be repetitions.
    pub(super) suspects: Vec<bool>,
    pub(super) facts: Facts,
    pub(super) codes: Codes,
    /// How many due claims are asked for at most.
    due: usize,
    /// What this batch wants of each coupon; empty until the facts are known.
    pub(super) plan: Vec<Wanted>,
    stage: Stage,
    /// Every read of this batch shows the batches up to this one.
    shown: u64,
    load: Option<Token>,
    reserve: Option<Reserving>,
    rounds: u32,
}

/// What is known about the world for one batch, beyond what memory holds.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) loads: HashMap<LoadId, StoredLoad, FixedState>,
    /// Outcomes that the ledger holds under suspect identities.
    pub(super) decided: Earlier,
    /// The batch that was being written when this one began: no read is sure to show it.
    pub(super) unsettled: Option<Arc<Batch>>,
    /// The ids that it decides; made only if there are suspects.
    pub(super) unsettled_index: Ids,
}

/// Stored decisions by identity.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    exact: HashMap<RequestId, Decision, FixedState>,
    identities: HashSet<u128, FixedState>,
}

/// What is decided already and on its way: only that it is matters, not how.
#[derive(Debug, Default)]
pub(super) struct Ids {
    exact: HashSet<RequestId, FixedState>,
    identities: HashSet<u128, FixedState>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Begun,
    Facts,
    /// The coupons of claims that lapse were lacking.
    Coupons,
    Means,
}

#[derive(Debug)]
struct Reserving {
    token: Token,
    pops: Vec<Pop>,
    reads: Vec<ReadCodes>,
}

impl Earlier {
    pub(super) fn add(&mut self, decision: Decision) {
        self.identities.insert(decision.id.identity);
        self.exact.insert(decision.id, decision);
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Decision> {
        self.exact.get(&id)
    }

    pub(super) fn knows(&self, identity: u128) -> bool {
        self.identities.contains(&identity)
    }
}

impl Ids {
    pub(super) fn add(&mut self, decisions: &[Decision]) {
        self.exact.extend(decisions.iter().map(|decision| decision.id));
        self.identities.extend(decisions.iter().map(|decision| decision.id.identity));
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.exact.contains(&id)
    }

    pub(super) fn knows(&self, identity: u128) -> bool {
        self.identities.contains(&identity)
    }
}

impl Gathering {
    fn awaits_nothing(&self) -> bool {
        self.load.is_none() && self.reserve.is_none()
    }
}

impl Machine {
    /// Goes on with gathering as far as it can; answers whether a batch is ready to be decided.
    pub(super) fn gather(&mut self, effects: &mut Vec<Effect>) -> bool {
        if self.gathering.is_none() {
            self.gathering = self.begin_gathering();
        }
        let Some(mut gathering) = self.gathering.take() else { return false };
        let ready = self.step(&mut gathering, effects);
        self.gathering = Some(gathering);
        ready
    }

    fn begin_gathering(&mut self) -> Option<Gathering> {
        self.awaits_write &= self.writing.is_some();
        let untold = self.head.next_emit_seq.0 - 1 - self.outbox.watermark().0;
        if self.backlog.is_empty()
            || self.awaits_write
            || untold >= i64::try_from(self.config.unacknowledged).unwrap_or(i64::MAX)
        {
            return None;
        }
        let early = self.config.planted.has(Bug::OverlayDroppedEarly);
        let shown = if early { u64::MAX } else { self.settled.ordinal };
        self.memory.forget(shown, &self.config);
        let records = self.next_records();
        let mut now = self.head.position.time;
        let suspects: Vec<bool> = records
            .iter()
            .map(|record| {
                now = now.max(record.appended);
                self.may_be_repetition(record, now)
            })
            .collect();
        let mut facts = Facts::default();
        if let Some(writing) = &self.writing {
            let batch = Arc::clone(&writing.unsettled.batch);
            if suspects.contains(&true) {
                facts.unsettled_index.add(&batch.decisions);
            }
            facts.unsettled = Some(batch);
        }
        let codes = Codes::new(self.time_for_lapses(now), rollbacks(&records));
        let due = self.config.batch_records + facts.unsettled.as_ref().map_or(0, |batch| batch.claims.len());
        let plan = Vec::new();
        let (load, reserve, stage) = (None, None, Stage::Begun);
        Some(Gathering { records, suspects, facts, codes, due, plan, stage, shown, load, reserve, rounds: 0 })
    }

    fn may_be_repetition(&mut self, record: &Record, now: Millis) -> bool {
        match &record.payload {
            Payload::Request(request) => {
                let suspect = self.recent.is_possible_duplicate(request.id, now);
                suspect || record.offset < self.suspect_below
            }
            Payload::Unreadable { request, .. } => request.is_some(),
            Payload::StockAdded { .. } | Payload::Tick => false,
        }
    }

    fn next_records(&mut self) -> Vec<Record> {
        let mut bytes = 0;
        let mut count = 0;
        for record in self.backlog.iter().take(if self.lapsing { 1 } else { self.limit }) {
            bytes += record.bytes;
            if count > 0 && bytes > self.config.batch_bytes {
                break;
            }
            count += 1;
        }
        let records: Vec<_> = self.backlog.drain(..count).collect();
        self.backlog_bytes -= records.iter().map(|record| record.bytes).sum::<usize>();
        records
    }

    fn step(&mut self, gathering: &mut Gathering, effects: &mut Vec<Effect>) -> bool {
        if !gathering.awaits_nothing() {
            return false;
        }
        if gathering.stage == Stage::Begun {
            gathering.stage = Stage::Facts;
            let mut wants = facts_wanted(gathering, &self.memory);
            if gathering.codes.until() >= self.memory.none_lapse_before {
                wants.due = Some(DueLookup { until: gathering.codes.until(), limit: gathering.due });
            }
            if self.ask(gathering, wants, effects) {
                return false;
            }
        }
        if gathering.stage == Stage::Facts {
            gathering.stage = Stage::Coupons;
            let lacking = gathering.codes.coupon_ids().filter(|id| self.memory.get(id).is_none());
            let wants = Lookups { coupons: lacking.cloned().collect(), ..Lookups::default() };
            if self.ask(gathering, wants, effects) {
                return false;
            }
        }
        let first = gathering.stage == Stage::Coupons;
        if first {
            gathering.stage = Stage::Means;
            if let Some(batch) = &gathering.facts.unsettled {
                gathering.codes.overlay(batch, self.config.planted);
            }
            gathering.plan = plan(gathering, &mut self.memory, &self.head);
        }
        self.reserve(gathering, first, effects)
    }

    /// Asks the ledger, if there is anything to ask for.
    fn ask(&mut self, gathering: &mut Gathering, wants: Lookups, effects: &mut Vec<Effect>) -> bool {
        let asks = !wants.is_empty();
        if asks {
            let token = self.token();
            gathering.load = Some(token);
            effects.push(Effect::Lookup { token, lookups: wants });
        }
        asks
    }

    /// Asks for what is lacking; answers whether nothing is.
    fn reserve(&mut self, gathering: &mut Gathering, first: bool, effects: &mut Vec<Effect>) -> bool {
        let mut wants = Lookups::default();
        if first && !gathering.codes.is_empty() {
            wants.orders = orders_wanted(gathering, &self.memory);
        }
        let (mut pops, mut reads, mut filling) = (Vec::new(), Vec::new(), false);
        for wanted in &mut gathering.plan {
            if first && !wanted.users.is_empty() {
                let (coupon, redemptions) = (wanted.coupon, wanted.redemptions);
                wants.users.push(UserLookup {
                    coupon,
                    users: std::mem::take(&mut wanted.users),
                    redemptions,
                });
            }
            let Some(coupon) = self.memory.by_no(wanted.coupon) else { continue };
            match coupon.stock.source(wanted.coupon, wanted.claims) {
                Source::ReadAhead => {}
                Source::Returned { limit } => {
                    wants.returned.push(ReturnedLookup { coupon: wanted.coupon, limit })
                }
                Source::List(list, count) => pops.push(Pop { list, count }),
                Source::Refilling => filling = true,
                Source::Ledger(read) => reads.push(read),
            }
        }
        let asks = !(wants.is_empty() && pops.is_empty() && reads.is_empty());
        if !asks || gathering.rounds >= MOST_ROUNDS {
            return !filling || gathering.rounds >= MOST_ROUNDS;
        }
        if gathering.rounds >= ROUNDS_WITHOUT_WAITING && self.writing.is_some() {
            return false;
        }
        gathering.rounds += 1;
        self.ask(gathering, wants, effects);
        if !(pops.is_empty() && reads.is_empty()) {
            let token = self.token();
            gathering.reserve = Some(Reserving { token, pops: pops.clone(), reads: reads.clone() });
            effects.push(Effect::Reserve { token, pops, reads });
        }
        false
    }

    pub(super) fn loaded(&mut self, token: Token, mut answers: LookupResults) {
        let Some(gathering) = self.gathering.as_mut().filter(|gathering| gathering.load == Some(token))
        else {
            return;
        };
        gathering.load = None;
        self.memory.learn(&mut answers, gathering.shown);
        gathering.codes.learn(&mut answers, gathering.due);
        answers.decided.into_iter().for_each(|decision| gathering.facts.decided.add(decision));
        gathering.facts.loads.extend(answers.loads.into_iter().map(|load| (load.load, load)));
    }

    pub(super) fn reserved(
        &mut self,
        token: Token,
        popped: Vec<Popped>,
        read: Vec<Vec<CodeEntry>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(gathering) = self.gathering.as_mut() else { return };
        let Some(reserving) = gathering.reserve.take_if(|reserving| reserving.token == token) else { return };
        let now = self.head.position.time;
        let mut again = Vec::new();
        for (pop, popped) in reserving.pops.into_iter().zip(popped) {
            let Some(coupon) = self.memory.by_no(pop.list.coupon) else { continue };
            if self.config.planted.has(Bug::UnknownPopRetried) {
                match popped {
                    Popped::Unknown => again.push(pop),
                    Popped::Codes(entries) => coupon.stock.popped_unverified(pop.count, entries),
                }
                continue;
            }
            coupon.stock.popped(pop.list, pop.count, popped, now);
        }
        for (asked, entries) in reserving.reads.into_iter().zip(read) {
            if let Some(coupon) = self.memory.by_no(asked.coupon) {
                coupon.stock.read(entries);
            }
        }
        if !again.is_empty() {
            self.tokens += 1;
            let token = Token(self.tokens);
            gathering.reserve = Some(Reserving { token, pops: again.clone(), reads: Vec::new() });
            effects.push(Effect::Reserve { token, pops: again, reads: Vec::new() });
        }
    }
}
