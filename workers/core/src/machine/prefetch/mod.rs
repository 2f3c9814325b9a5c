//! Prefetch of a batch: reads what its decisions can depend on, and reserves the codes that it can give.
//!
//! First the lookups that the records name (coupons, loads, outcomes of possible duplicates, codes, due claims), then the
//! resources (counts of users, returned codes, codes of the sequence). Only what a decision can depend on is read: a
//! sold-out coupon requires no users. If something is missing all the same, the batch ends before that record, and the
//! next one prefetches it again.

mod requirements;

use super::codes::Codes;
use super::duplicates::{DecidedIds, DuplicateDays, StoredDecisions};
use super::stock::Source;
use super::{Effect, Owner};
use crate::domain::batch::Batch;
use crate::domain::ids::{LoadId, Millis, RequestId};
use crate::domain::record::{Payload, Record};
use crate::interface::{
    CodeEntry, DueLookup, LookupResults, Lookups, Pop, Popped, ReadCodes, ReturnedLookup, StoredLoad, Token,
    UserLookup,
};
use crate::planted::Bug;
use foldhash::fast::FixedState;
pub(super) use requirements::Requirement;
use std::collections::HashMap;
use std::sync::Arc;

/// Rounds of reservations after which the batch is executed with what it has.
const MAX_ROUNDS: u32 = 16;
/// Rounds after which the current write is awaited: the codes of a load that it applies can be read only once it is
/// durable.
const MAX_ROUNDS_DURING_WRITE: u32 = 3;

/// A batch that is prefetched.
#[derive(Debug)]
pub(super) struct Prefetch {
    pub(super) records: Vec<Record>,
    /// For each record, whether it may be a duplicate.
    pub(super) possible_duplicates: Vec<bool>,
    /// The days on which their outcomes may have been stored.
    duplicate_days: DuplicateDays,
    pub(super) fetched: Fetched,
    pub(super) codes: Codes,
    /// What the batch requires of each coupon; empty before the stage `Resources`.
    pub(super) requirements: Vec<Requirement>,
    /// Limit of the due lookup.
    due_limit: usize,
    /// Every read of this batch shows the batches up to this one.
    shown: u64,
    stage: Stage,
    /// The lookup in flight.
    lookup: Option<Token>,
    /// The reservation in flight.
    reservation: Option<Reservation>,
    rounds: u32,
}

/// What was read for one batch and is not cached.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) loads: HashMap<LoadId, StoredLoad, FixedState>,
    /// Stored outcomes of possible duplicates.
    pub(super) decided: StoredDecisions,
    /// The batch that was written when this one began: a read may show the state before it.
    pub(super) in_flight: Option<Arc<Batch>>,
    /// The ids that it decides; filled only if there are possible duplicates.
    pub(super) in_flight_ids: DecidedIds,
}

/// Progress of a prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is requested.
    Begun,
    /// What the records name is looked up.
    Lookups,
    /// Missing coupons of due claims are looked up.
    DueCoupons,
    /// Users are looked up, and codes reserved.
    Resources,
}

#[derive(Debug)]
struct Reservation {
    token: Token,
    pops: Vec<Pop>,
    reads: Vec<ReadCodes>,
}

impl Prefetch {
    const fn is_waiting(&self) -> bool {
        self.lookup.is_some() || self.reservation.is_some()
    }
}

impl Owner {
    /// Advances the prefetch of the next batch; returns it when it is ready to be executed.
    pub(super) fn prefetch(&mut self, effects: &mut Vec<Effect>) -> Option<Prefetch> {
        let mut prefetch = match self.pipeline.take_prefetch() {
            Some(prefetch) => prefetch,
            None => Box::new(self.begin_prefetch(effects)?),
        };
        if self.advance_prefetch(&mut prefetch, effects) {
            return Some(*prefetch);
        }
        self.pipeline.put_prefetch(prefetch);
        None
    }

    fn begin_prefetch(&mut self, effects: &mut Vec<Effect>) -> Option<Prefetch> {
        let unacknowledged = self.head.next_emit_seq.0 - 1 - self.outbox.watermark().0;
        let limit = i64::try_from(self.config.unacknowledged).unwrap_or(i64::MAX);
        if self.backlog.is_empty() || unacknowledged >= limit {
            return None;
        }
        let max_records = self.deadlines.limit_records(self.recovery.max_records);
        let max_records = self.admit(max_records, effects);
        if max_records == 0 {
            return None;
        }
        let early = self.config.planted.has(Bug::OverlayDroppedEarly);
        let shown = if early { u64::MAX } else { self.settled.ordinal };
        self.cache.evict(shown, &self.config);
        let mut now = self.head.position.time;
        let records = self.backlog.take(max_records, self.config.batch_bytes, now);
        let mut duplicate_days = DuplicateDays::default();
        let is_possible_duplicate = |record: &Record| {
            now = now.max(record.appended);
            let duplicate_of = self.possible_duplicate_of(record, now);
            duplicate_of.iter().for_each(|id| duplicate_days.add(*id, now, &self.config));
            duplicate_of.is_some()
        };
        let possible_duplicates: Vec<bool> = records.iter().map(is_possible_duplicate).collect();
        let fetched = self.with_batch_in_flight(&possible_duplicates);
        let changed_claims = fetched.in_flight.as_ref().map_or(0, |batch| batch.claims.len());
        let codes = Codes::new(self.deadlines.time(now, &self.config), requirements::rollbacks(&records));
        Some(Prefetch {
            records,
            possible_duplicates,
            duplicate_days,
            fetched,
            codes,
            requirements: Vec::new(),
            due_limit: self.config.batch_records + changed_claims,
            shown,
            stage: Stage::Begun,
            lookup: None,
            reservation: None,
            rounds: 0,
        })
    }

    /// The batch that is being written, with its ids if a record may be a duplicate; nothing is read yet.
    fn with_batch_in_flight(&self, possible_duplicates: &[bool]) -> Fetched {
        let mut fetched = Fetched::default();
        if let Some(write) = self.pipeline.write() {
            let batch = Arc::clone(&write.executed.batch);
            if possible_duplicates.contains(&true) {
                fetched.in_flight_ids.extend(&batch.decisions);
            }
            fetched.in_flight = Some(batch);
        }
        fetched
    }

    /// The id of a record that may be a duplicate.
    fn possible_duplicate_of(&mut self, record: &Record, now: Millis) -> Option<RequestId> {
        match &record.payload {
            Payload::Request(request) => {
                let possible = self.recent.is_possible_duplicate(request.id, now);
                (possible || record.offset < self.recovery.look_up_below).then_some(request.id)
            }
            Payload::Unreadable { request, .. } => request.as_ref().map(|request| request.id),
            Payload::StockAdded { .. } | Payload::Tick => None,
        }
    }

    /// Requests what the current stage needs; returns whether the batch is ready.
    fn advance_prefetch(&mut self, prefetch: &mut Prefetch, effects: &mut Vec<Effect>) -> bool {
        if prefetch.is_waiting() {
            return false;
        }
        if prefetch.stage == Stage::Begun {
            prefetch.stage = Stage::Lookups;
            let mut lookups = requirements::lookups(prefetch, &mut self.cache);
            lookups.decided_in = std::mem::take(&mut prefetch.duplicate_days).into_days();
            let until = prefetch.codes.due.until();
            let from = self.deadlines.none_before;
            if until >= from {
                lookups.due = Some(DueLookup { from, until, limit: prefetch.due_limit });
            }
            if self.look_up(prefetch, lookups, effects) {
                return false;
            }
        }
        if prefetch.stage == Stage::Lookups {
            prefetch.stage = Stage::DueCoupons;
            let missing = prefetch.codes.coupon_ids().filter(|id| self.cache.by_id(id).is_none());
            let lookups = Lookups { coupons: missing.cloned().collect(), ..Lookups::default() };
            if self.look_up(prefetch, lookups, effects) {
                return false;
            }
        }
        let mut lookups = Lookups::default();
        if prefetch.stage == Stage::DueCoupons {
            prefetch.stage = Stage::Resources;
            if let Some(batch) = &prefetch.fetched.in_flight {
                prefetch.codes.overlay(batch, self.config.planted);
            }
            prefetch.requirements = requirements::of(prefetch, &mut self.cache, &self.head);
            lookups.users = user_lookups(&mut prefetch.requirements);
            if !prefetch.codes.is_empty() {
                lookups.orders = requirements::orders(prefetch, &self.cache);
            }
        }
        self.reserve(prefetch, lookups, effects)
    }

    /// Requests lookups; returns whether there are any.
    fn look_up(&mut self, prefetch: &mut Prefetch, lookups: Lookups, effects: &mut Vec<Effect>) -> bool {
        let any = !lookups.is_empty();
        if any {
            let token = self.ids.token();
            prefetch.lookup = Some(token);
            effects.push(Effect::Lookup { token, lookups });
        }
        any
    }

    /// Requests the missing codes, with these lookups; returns whether the batch is ready.
    fn reserve(&mut self, prefetch: &mut Prefetch, mut lookups: Lookups, effects: &mut Vec<Effect>) -> bool {
        let (mut pops, mut reads, mut refilling) = (Vec::new(), Vec::new(), false);
        for requirement in &prefetch.requirements {
            let Some(coupon) = self.cache.by_no(requirement.coupon) else { continue };
            match coupon.stock.source(requirement.coupon, requirement.claims) {
                Source::ReadAhead => {}
                Source::Returned { from, limit } => {
                    lookups.returned.push(ReturnedLookup { coupon: requirement.coupon, from, limit });
                }
                Source::List(list, count) => pops.push(Pop { list, count }),
                Source::Refilling => refilling = true,
                Source::Ledger(read) => reads.push(read),
            }
        }
        let any = !(lookups.is_empty() && pops.is_empty() && reads.is_empty());
        if !any || prefetch.rounds >= MAX_ROUNDS {
            return !refilling || prefetch.rounds >= MAX_ROUNDS;
        }
        if prefetch.rounds >= MAX_ROUNDS_DURING_WRITE && self.pipeline.write().is_some() {
            return false;
        }
        prefetch.rounds += 1;
        self.look_up(prefetch, lookups, effects);
        if !(pops.is_empty() && reads.is_empty()) {
            let token = self.ids.token();
            prefetch.reservation = Some(Reservation { token, pops: pops.clone(), reads: reads.clone() });
            effects.push(Effect::Reserve { token, pops, reads });
        }
        false
    }

    pub(super) fn looked_up(&mut self, token: Token, mut results: LookupResults) {
        let Some(prefetch) = self.pipeline.prefetch_mut() else { return };
        if prefetch.lookup.take_if(|lookup| *lookup == token).is_none() {
            return;
        }
        self.cache.insert(&mut results, prefetch.shown);
        prefetch.codes.insert(&mut results, prefetch.due_limit);
        results.decided.into_iter().for_each(|decision| prefetch.fetched.decided.insert(decision));
        prefetch.fetched.loads.extend(results.loads.into_iter().map(|load| (load.load, load)));
    }

    pub(super) fn reserved(
        &mut self,
        token: Token,
        popped: Vec<Popped>,
        read: Vec<Vec<CodeEntry>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(prefetch) = self.pipeline.prefetch_mut() else { return };
        let Some(reservation) = prefetch.reservation.take_if(|reservation| reservation.token == token) else {
            return;
        };
        let now = self.head.position.time;
        let mut retried = Vec::new();
        for (pop, popped) in reservation.pops.into_iter().zip(popped) {
            let Some(coupon) = self.cache.by_no_mut(pop.list.coupon) else { continue };
            if self.config.planted.has(Bug::UnknownPopRetried) {
                match popped {
                    Popped::Unknown => retried.push(pop),
                    Popped::Codes(entries) => coupon.stock.popped_unverified(pop.count, entries),
                }
                continue;
            }
            coupon.stock.popped(pop.list, pop.count, popped, now);
        }
        for (requested, entries) in reservation.reads.into_iter().zip(read) {
            if let Some(coupon) = self.cache.by_no_mut(requested.coupon) {
                coupon.stock.read(entries);
            }
        }
        if !retried.is_empty() {
            let token = self.ids.token();
            let (pops, reads) = (retried.clone(), Vec::new());
            prefetch.reservation = Some(Reservation { token, pops, reads });
            effects.push(Effect::Reserve { token, pops: retried, reads: Vec::new() });
        }
    }
}

fn user_lookups(requirements: &mut [Requirement]) -> Vec<UserLookup> {
    let lookup = |requirement: &mut Requirement| UserLookup {
        coupon: requirement.coupon,
        users: std::mem::take(&mut requirement.users),
        redemptions: requirement.redemptions,
    };
    requirements.iter_mut().filter(|requirement| !requirement.users.is_empty()).map(lookup).collect()
}
