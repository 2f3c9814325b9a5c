//! What a batch needs to be decided: the facts that its records mention, and what it wants of each coupon.

use super::codes::Named;
use super::gathering::Gathering;
use super::memory::{Coupon, Memory};
use crate::effect::{CodeOf, OrderOf, Wants};
use crate::ids::{CouponNo, RequestId};
use crate::record::{Payload, Record, Request};
use crate::vocabulary::Kind;
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
pub(super) fn facts_wanted(gathering: &Gathering, memory: &Memory) -> Wants {
    let mut wants = Wants::default();
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
            Payload::Unreadable { answer, .. } => {
                wants.decided.extend(answer.iter().map(|answer| answer.id.identity));
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
fn about_a_code(request: &Request, wants: &mut Wants) {
    if let Some(key) = &request.code {
        wants.codes.push(CodeOf { key: key.clone(), user: request.user.clone() });
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
pub(super) fn orders_wanted(gathering: &Gathering, memory: &Memory) -> Vec<OrderOf> {
    let order = |record: &Record| {
        let Payload::Request(request) = &record.payload else { return None };
        let order = request.details.as_ref().filter(|_| request.kind == Kind::Redeem)?.order.clone()?;
        let coupon = memory.get(&request.coupon_id).filter(|coupon| coupon.definition.is_shared())?;
        match gathering.codes.named(request.code.as_deref()?, coupon.no, |_| false) {
            Named::Place((coupon, number)) => Some(OrderOf { coupon, number, order }),
            Named::Unknown | Named::NotYet => None,
        }
    };
    gathering.records.iter().filter_map(order).collect()
}

/// What a batch wants of each coupon: codes for its claims, and the users whose claims or redemptions it counts. A
/// sold-out coupon of which nothing but claims is asked needs neither.
pub(super) fn plan(gathering: &Gathering, memory: &mut Memory, batch: u64) -> Vec<Wanted> {
    let mut plan = Plan::default();
    let others = gathering.records.iter().filter_map(|record| match &record.payload {
        Payload::Request(request) if request.kind != Kind::Claim => memory.get(&request.coupon_id),
        _ => None,
    });
    let stirred: HashSet<CouponNo, FixedState> =
        gathering.codes.coupons().chain(others.map(|coupon| coupon.no)).collect();
    for record in &gathering.records {
        let Payload::Request(request) = &record.payload else { continue };
        let Some(coupon) = memory.get(&request.coupon_id) else { continue };
        let claim = request.kind == Kind::Claim;
        if claim && coupon.stock.row().available() == 0 && !stirred.contains(&coupon.no) {
            continue;
        }
        if claim && request.code.is_none() && !coupon.definition.is_shared() {
            plan.of(coupon).claims += 1;
        }
        if claim || request.kind == Kind::Redeem {
            plan.user(coupon, &request.user);
        }
    }
    let claims = gathering.codes.claims().map(|claim| (claim.coupon, &claim.user));
    let redemptions = gathering.codes.redemptions().map(|stored| (stored.coupon, &stored.user));
    for (no, user) in claims.chain(redemptions) {
        if let Some(coupon) = memory.by_no(no) {
            plan.user(coupon, user);
        }
    }
    for wanted in &plan.wanted {
        if let Some(coupon) = memory.by_no(wanted.coupon) {
            coupon.planned = batch;
            coupon.stock.expect_batches_of(wanted.claims);
        }
    }
    plan.wanted
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

    fn user(&mut self, coupon: &Coupon, user: &str) {
        let lacking = coupon.counts_users() && !coupon.remembers(user);
        let wanted = self.of(coupon);
        if lacking {
            wanted.users.push(user.into());
        }
    }
}
