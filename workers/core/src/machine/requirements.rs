//! What a batch needs to be decided: the facts that its records mention, and what it wants of each coupon.

use super::Head;
use super::cache::{Coupon, Memory};
use super::codes::Named;
use super::prefetch::Gathering;
use crate::domain::ids::{CouponNo, RequestId};
use crate::domain::record::{Payload, Record, Request};
use crate::domain::words::Kind;
use crate::interface::{CodeLookup, Lookups, OrderLookup};
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet};

/// What a batch wants of one coupon.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) coupon: CouponNo,
    pub(super) claims: usize,
    pub(super) users: Vec<Box<str>>,
    /// Whether the users' redemptions are limited, too.
    pub(super) redemptions: bool,
}

/// A claim of any code: all that most records are.
pub(super) fn is_claim_of_any(request: &Request) -> bool {
    request.kind == Kind::Claim && request.code.is_none()
}

/// What must be read before it is known what else a batch needs.
pub(super) fn facts_wanted(gathering: &Gathering, memory: &Memory) -> Lookups {
    let mut wants = Lookups::default();
    let mut missing: HashSet<&str, FixedState> = HashSet::default();
    let mut present = "";
    for (record, suspect) in gathering.records.iter().zip(&gathering.suspects) {
        let coupon_id = match &record.payload {
            Payload::Request(request) => {
                if *suspect {
                    wants.decided.push(request.id.identity);
                }
                if !is_claim_of_any(request) {
                    about_a_code(request, &mut wants);
                }
                &request.coupon_id
            }
            Payload::StockAdded { coupon_id, load } => {
                wants.loads.push(*load);
                coupon_id
            }
            Payload::Unreadable { request, .. } => {
                wants.decided.extend(request.iter().map(|request| request.id.identity));
                continue;
            }
            Payload::Tick => continue,
        };
        if &**coupon_id == present {
            continue;
        }
        if memory.get(coupon_id).is_some() {
            present = coupon_id;
        } else if missing.insert(coupon_id) {
            wants.coupons.push(coupon_id.clone());
        }
    }
    wants
}

/// What is to be read of the code or the redemption that a request names.
fn about_a_code(request: &Request, wants: &mut Lookups) {
    if let Some(key) = &request.code {
        wants.codes.push(CodeLookup { key: key.clone(), user: request.user.clone() });
    }
    wants.redemptions.extend(rollback_of(request));
}

fn rollback_of(request: &Request) -> Option<RequestId> {
    let details = request.details.as_ref().filter(|_| request.kind == Kind::Rollback)?;
    details.redemption
}

pub(super) fn rollbacks(records: &[Record]) -> impl Iterator<Item = RequestId> {
    records.iter().filter_map(|record| match &record.payload {
        Payload::Request(request) => rollback_of(request),
        Payload::StockAdded { .. } | Payload::Tick | Payload::Unreadable { .. } => None,
    })
}

/// The orders of redemptions of shared codes: the claim of any other code says itself what it paid for.
pub(super) fn orders_wanted(gathering: &Gathering, memory: &Memory) -> Vec<OrderLookup> {
    let order = |record: &Record| {
        let Payload::Request(request) = &record.payload else { return None };
        let order = request.details.as_ref().filter(|_| request.kind == Kind::Redeem)?.order.clone()?;
        let coupon = memory.get(&request.coupon_id).filter(|coupon| coupon.definition.is_shared())?;
        match gathering.codes.named(request.code.as_deref()?, coupon.no, |_| false) {
            Named::Place((coupon, number)) => Some(OrderLookup { coupon, number, order }),
            Named::Unknown | Named::NotYet => None,
        }
    };
    gathering.records.iter().filter_map(order).collect()
}

/// What a batch on top of `head` wants of each coupon: codes for its claims, and the users whose claims or redemptions
/// a limit counts. A coupon that is not open needs neither, and one that is sold out only if something else than
/// claims is asked of it.
pub(super) fn plan(gathering: &Gathering, memory: &mut Memory, head: &Head) -> Vec<Wanted> {
    let mut plan = Plan::default();
    let others = gathering.records.iter().filter_map(|record| match &record.payload {
        Payload::Request(request) if request.kind != Kind::Claim => memory.get(&request.coupon_id),
        _ => None,
    });
    let stirred: HashSet<CouponNo, FixedState> =
        gathering.codes.coupons().chain(others.map(|coupon| coupon.no)).collect();
    let mut now = head.position.time;
    for record in &gathering.records {
        now = now.max(record.appended);
        let Payload::Request(request) = &record.payload else { continue };
        let Some(coupon) = memory.get(&request.coupon_id) else { continue };
        match request.kind {
            Kind::Claim => {
                let left = coupon.stock.row().available() > 0 || stirred.contains(&coupon.no);
                if left && coupon.definition.open_at(now).is_ok() {
                    plan.claim(coupon, request);
                }
            }
            Kind::Redeem if coupon.counts_redemptions() => plan.user(coupon, &request.user),
            _ => {}
        }
    }
    plan_endings(gathering, memory, &mut plan);
    for wanted in &plan.wanted {
        if let Some(coupon) = memory.by_no(wanted.coupon) {
            coupon.planned = head.ordinal + 1;
            coupon.stock.expect_batches_of(wanted.claims);
        }
    }
    plan.wanted
}

/// The users who may have a claim less afterwards, or a redemption less: what lapses, is given back or is rolled back.
/// (A claim that was locked may lapse in the same batch.)
fn plan_endings(gathering: &Gathering, memory: &Memory, plan: &mut Plan) {
    let named = gathering.records.iter().filter_map(|record| {
        let Payload::Request(request) = &record.payload else { return None };
        if !matches!(request.kind, Kind::Lock | Kind::Unlock | Kind::Return) {
            return None;
        }
        let (code, coupon) = (request.code.as_deref()?, memory.get(&request.coupon_id)?);
        match gathering.codes.named(code, coupon.no, |_| false) {
            Named::Place(place) => Some(place),
            Named::Unknown | Named::NotYet => None,
        }
    });
    for claim in gathering.codes.due().chain(named).filter_map(|place| gathering.codes.claim(place)) {
        if let Some(coupon) = memory.at(claim.coupon).filter(|coupon| coupon.counts_claims()) {
            plan.user(coupon, &claim.user);
        }
    }
    for stored in gathering.codes.redemptions() {
        let counts = |coupon: &&Coupon| coupon.counts_claims() || coupon.counts_redemptions();
        if let Some(coupon) = memory.at(stored.coupon).filter(counts) {
            plan.user(coupon, &stored.user);
        }
    }
}

/// What a batch wants, in the making.
#[derive(Default)]
struct Plan {
    wanted: Vec<Wanted>,
    places: HashMap<CouponNo, usize, FixedState>,
}

impl Plan {
    fn of(&mut self, coupon: &Coupon) -> &mut Wanted {
        let next = self.wanted.len();
        let place = *self.places.entry(coupon.no).or_insert(next);
        if place == next {
            let redemptions = coupon.definition.redemptions_per_user.is_some();
            self.wanted.push(Wanted { coupon: coupon.no, claims: 0, users: Vec::new(), redemptions });
        }
        &mut self.wanted[place]
    }

    /// A claim of a coupon that may have a code for it.
    fn claim(&mut self, coupon: &Coupon, request: &Request) {
        if is_claim_of_any(request) {
            if coupon.definition.is_shared() {
                return;
            }
            self.of(coupon).claims += 1;
        }
        if coupon.counts_claims() {
            self.user(coupon, &request.user);
        }
    }

    fn user(&mut self, coupon: &Coupon, user: &str) {
        let lacking = coupon.must_read(user);
        let wanted = self.of(coupon);
        if lacking {
            wanted.users.push(user.into());
        }
    }
}
