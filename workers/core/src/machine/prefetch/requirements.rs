//! What a batch requires: the lookups that its records name, and the resources of each coupon.

use super::Prefetch;
use crate::domain::ids::{CouponNo, RequestId};
use crate::domain::record::{Payload, Record, Request};
use crate::domain::words::Kind;
use crate::interface::{CodeLookup, Lookups, OrderLookup};
use crate::machine::Head;
use crate::machine::cache::{Cache, Coupon};
use crate::machine::codes::{CodeId, NamedCode};
use foldhash::fast::FixedState;
use std::collections::{HashMap, HashSet};

/// What a batch requires of one coupon.
#[derive(Debug)]
pub(in crate::machine) struct Requirement {
    pub(in crate::machine) coupon: CouponNo,
    /// Claims that need a code.
    pub(super) claims: usize,
    /// Users whose counts must be looked up.
    pub(super) users: Vec<Box<str>>,
    /// Whether their redemptions are limited, too.
    pub(super) redemptions: bool,
}

/// Whether a request is a claim of any code, as most are.
const fn is_claim_of_any_code(request: &Request) -> bool {
    matches!(request.kind, Kind::Claim) && request.code.is_none()
}

/// The lookups on which all further requirements depend.
pub(super) fn lookups(prefetch: &Prefetch, cache: &mut Cache) -> Lookups {
    let mut lookups = Lookups::default();
    let mut missing: HashSet<&str, FixedState> = HashSet::default();
    let mut cached = "";
    for (record, possible_duplicate) in prefetch.records.iter().zip(&prefetch.possible_duplicates) {
        let coupon_id = match &record.payload {
            Payload::Request(request) => {
                if *possible_duplicate {
                    lookups.decided.push(request.id.identity);
                }
                if !is_claim_of_any_code(request) {
                    look_up_code(request, &mut lookups);
                }
                &request.coupon_id
            }
            Payload::StockAdded { coupon_id, load } => {
                lookups.loads.push(*load);
                coupon_id
            }
            Payload::Unreadable { request, .. } => {
                lookups.decided.extend(request.iter().map(|request| request.id.identity));
                continue;
            }
            Payload::Tick => continue,
        };
        // Most neighbours are requests about the same coupon.
        if &**coupon_id == cached {
            continue;
        }
        if cache.touch(coupon_id) {
            cached = coupon_id;
        } else if missing.insert(coupon_id) {
            lookups.coupons.push(coupon_id.clone());
        }
    }
    lookups
}

/// Looks up the code or the redemption that a request names.
fn look_up_code(request: &Request, lookups: &mut Lookups) {
    if let Some(key) = &request.code {
        lookups.codes.push(CodeLookup { key: key.clone(), user: request.user.clone() });
    }
    lookups.redemptions.extend(rollback_of(request));
}

fn rollback_of(request: &Request) -> Option<RequestId> {
    let details = request.details.as_ref().filter(|_| request.kind == Kind::Rollback)?;
    details.redemption
}

fn requests(records: &[Record]) -> impl Iterator<Item = &Request> {
    records.iter().filter_map(|record| match &record.payload {
        Payload::Request(request) => Some(request),
        Payload::StockAdded { .. } | Payload::Tick | Payload::Unreadable { .. } => None,
    })
}

/// The redemptions that these records roll back.
pub(super) fn rollbacks(records: &[Record]) -> impl Iterator<Item = RequestId> {
    requests(records).filter_map(rollback_of)
}

/// The orders of redemptions of shared codes. For any other code, the claim stores the order that was paid.
pub(super) fn orders(prefetch: &Prefetch, cache: &Cache) -> Vec<OrderLookup> {
    let order = |request: &Request| {
        let order = request.details.as_ref().filter(|_| request.kind == Kind::Redeem)?.order.clone()?;
        let coupon = cache.by_id(&request.coupon_id).filter(|coupon| coupon.definition.is_shared())?;
        let (coupon, number) = named(prefetch, request, coupon)?;
        Some(OrderLookup { coupon, number, order })
    };
    requests(&prefetch.records).filter_map(order).collect()
}

fn named(prefetch: &Prefetch, request: &Request, coupon: &Coupon) -> Option<CodeId> {
    match prefetch.codes.named(request.code.as_deref()?, coupon.no, |_| false) {
        NamedCode::Found(id) => Some(id),
        NamedCode::Unknown | NamedCode::BecomesStock => None,
    }
}

/// The requirements of a batch on top of `head`: codes for its claims, and the users whose claims or redemptions a limit
/// counts. A coupon that is not open requires neither. A sold-out coupon requires them only if requests other than
/// claims, or lapses, may return a code.
pub(super) fn of(prefetch: &Prefetch, cache: &mut Cache, head: &Head) -> Vec<Requirement> {
    let mut requirements = Requirements::default();
    let may_return_codes = coupons_that_may_return_codes(prefetch, cache);
    let mut now = head.position.time;
    for record in &prefetch.records {
        now = now.max(record.appended);
        let Payload::Request(request) = &record.payload else { continue };
        let Some(coupon) = cache.by_id(&request.coupon_id) else { continue };
        match request.kind {
            Kind::Claim => {
                let has_code = coupon.stock.row().available() > 0 || may_return_codes.contains(&coupon.no);
                if has_code && coupon.definition.open_at(now).is_ok() {
                    requirements.add_claim(coupon, request);
                }
            }
            Kind::Redeem if coupon.counts_redemptions() => requirements.add_user(coupon, &request.user),
            _ => {}
        }
    }
    add_users_of_ending_claims(prefetch, cache, &mut requirements);
    for requirement in &requirements.list {
        if let Some(coupon) = cache.by_no_mut(requirement.coupon) {
            coupon.users_read_for = head.ordinal + 1;
            coupon.stock.record_demand(requirement.claims);
        }
    }
    requirements.list
}

fn coupons_that_may_return_codes(prefetch: &Prefetch, cache: &Cache) -> HashSet<CouponNo, FixedState> {
    let others = requests(&prefetch.records).filter(|request| request.kind != Kind::Claim);
    let others = others.filter_map(|request| cache.by_id(&request.coupon_id)).map(|coupon| coupon.no);
    prefetch.codes.coupons().chain(others).collect()
}

/// Adds the users who may lose a claim or a redemption: by a lapse, a return or a rollback. A claim that is locked by
/// this batch may lapse in it, too.
fn add_users_of_ending_claims(prefetch: &Prefetch, cache: &Cache, requirements: &mut Requirements) {
    let named = requests(&prefetch.records).filter_map(|request| {
        if !matches!(request.kind, Kind::Lock | Kind::Unlock | Kind::Return) {
            return None;
        }
        named(prefetch, request, cache.by_id(&request.coupon_id)?)
    });
    for claim in prefetch.codes.due.codes().chain(named).filter_map(|id| prefetch.codes.claim(id)) {
        if let Some(coupon) = cache.by_no(claim.coupon).filter(|coupon| coupon.counts_claims()) {
            requirements.add_user(coupon, &claim.user);
        }
    }
    for stored in prefetch.codes.redemptions() {
        let counts = |coupon: &&Coupon| coupon.counts_claims() || coupon.counts_redemptions();
        if let Some(coupon) = cache.by_no(stored.coupon).filter(counts) {
            requirements.add_user(coupon, &stored.user);
        }
    }
}

/// The requirements of a batch while they are collected.
#[derive(Default)]
struct Requirements {
    list: Vec<Requirement>,
    index: HashMap<CouponNo, usize, FixedState>,
}

impl Requirements {
    fn of(&mut self, coupon: &Coupon) -> &mut Requirement {
        let next = self.list.len();
        let index = *self.index.entry(coupon.no).or_insert(next);
        if index == next {
            let redemptions = coupon.counts_redemptions();
            self.list.push(Requirement { coupon: coupon.no, claims: 0, users: Vec::new(), redemptions });
        }
        &mut self.list[index]
    }

    fn add_claim(&mut self, coupon: &Coupon, request: &Request) {
        if is_claim_of_any_code(request) {
            if coupon.definition.is_shared() {
                return;
            }
            self.of(coupon).claims += 1;
        }
        if coupon.counts_claims() {
            self.add_user(coupon, &request.user);
        }
    }

    fn add_user(&mut self, coupon: &Coupon, user: &str) {
        let must_look_up = coupon.must_look_up(user);
        let requirement = self.of(coupon);
        if must_look_up {
            requirement.users.push(user.into());
        }
    }
}
