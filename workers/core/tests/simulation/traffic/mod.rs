//! What is appended to the log: new requests of users, retries of the API, announcements of loads, and records that no
//! client of the system writes.
//!
//! Here: claims without a code, duplicates, announcements and unreadable records. [`code_requests`]: requests that name a
//! code.

mod code_requests;

use crate::environment::ledger::tables::LoadState;
use crate::environment::ledger::{Ledger, UNSTORABLE_USER_PREFIX};
use crate::plan::Plan;
use crate::rng::Rng;
use code_requests::Target;
use coupon_core::ids::{LoadId, Millis, RequestId};
use coupon_core::record::{DeadLetter, Payload, Request, UnreadableRequest};
use coupon_core::words::Kind;

/// A coupon that never exists.
const UNKNOWN_COUPON: &str = "no-such-coupon";
/// The most requested coupons are the first ones.
const HOT_COUPONS: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Coupons that exist, that will exist, and one that never does.
    coupons: Vec<Box<str>>,
    users: usize,
    /// Requests for a hot coupon, per thousand.
    hot: usize,
    /// Requests that name a code, per thousand.
    code_requests: usize,
    /// Clock errors of the API's instances.
    clock_errors: Vec<i64>,
    /// Every request so far, with those from before the run.
    sent: Vec<Request>,
    /// Every redeem request so far, with its coupon.
    redeems: Vec<(RequestId, Box<str>)>,
    /// The code of the last code request: several requests in a row concern the same code.
    last: Option<Target>,
}

impl Traffic {
    pub(crate) fn new(rng: &mut Rng, plan: &Plan, mut coupons: Vec<Box<str>>) -> Self {
        coupons.push(UNKNOWN_COUPON.into());
        let large_errors = rng.chance(300);
        let clock_error = |rng: &mut Rng| match rng.below(4) {
            _ if !large_errors => rng.between(-300, 300),
            0 => rng.between(-120_000, 120_000),
            1 => rng.between(-15_000, 15_000),
            _ => rng.between(-300, 300),
        };
        let clock_errors = (0..3).map(|_| clock_error(rng)).collect();
        // With few users, each of them claims again and again.
        let few_users = rng.chance(300);
        Self {
            coupons,
            users: if few_users { 2 + rng.below(6) } else { 6 + rng.below(60) },
            hot: *rng.pick(&[300, 700, 950]),
            code_requests: plan.code_requests,
            clock_errors,
            sent: Vec::new(),
            redeems: Vec::new(),
            last: None,
        }
    }

    /// Records a request, so that it can be sent again.
    pub(crate) fn record_sent(&mut self, request: Request) {
        if request.kind == Kind::Redeem {
            self.redeems.push((request.id, request.coupon_id.clone()));
        }
        self.sent.push(request);
    }

    /// The payload of the next record.
    pub(crate) fn next(&mut self, rng: &mut Rng, plan: &Plan, now: Millis, ledger: &Ledger) -> Payload {
        if !self.sent.is_empty() && rng.chance(plan.duplicates) {
            return self.duplicate(rng);
        }
        match rng.below(100) {
            0..5 => {
                let announced = announcement(rng, ledger);
                self.target_first_code(&announced);
                return announced;
            }
            5..8 => return Payload::Tick,
            8..11 => {
                let request = self.request(rng, plan, now, ledger);
                let headers = rng.chance(600).then(|| headers_of(&request));
                return unreadable(headers);
            }
            _ => {}
        }
        let request = self.request(rng, plan, now, ledger);
        self.record_sent(request.clone());
        Payload::Request(request)
    }

    fn request(&mut self, rng: &mut Rng, plan: &Plan, now: Millis, ledger: &Ledger) -> Request {
        let id = self.id(rng, now);
        let mut request = if rng.chance(self.code_requests) {
            self.code_request(rng, id, ledger)
        } else {
            let kind = if rng.chance(10) { *rng.pick(Kind::ALL) } else { Kind::Claim };
            let (coupon_id, user) = (self.random_coupon(rng), self.random_user(rng));
            Request { id, kind, coupon_id, user, code: None, details: None }
        };
        if rng.chance(plan.unstorable) {
            request.user = format!("{UNSTORABLE_USER_PREFIX}{}", request.user).into();
        }
        request
    }

    fn id(&self, rng: &mut Rng, now: Millis) -> RequestId {
        let minted = now.0 - rng.between(0, 200) + *rng.pick(&self.clock_errors);
        if rng.chance(400) {
            RequestId { identity: rng.wide(), body: rng.between(1, 1_000_000) }
        } else {
            RequestId { identity: (u128::from(minted.unsigned_abs()) << 80) | (rng.wide() >> 48), body: 0 }
        }
    }

    fn random_coupon(&self, rng: &mut Rng) -> Box<str> {
        let among = if rng.chance(self.hot) { HOT_COUPONS } else { self.coupons.len() };
        self.coupons[rng.below(among)].clone()
    }

    fn random_user(&self, rng: &mut Rng) -> Box<str> {
        format!("u{}", rng.below(self.users)).into()
    }

    /// The id of an earlier request again: a retry, a forged copy, or another body with the same key.
    fn duplicate(&mut self, rng: &mut Rng) -> Payload {
        let recent = rng.chance(500);
        let from = if recent { self.sent.len().saturating_sub(6) } else { 0 };
        let mut request = self.sent[from + rng.below(self.sent.len() - from)].clone();
        match rng.below(20) {
            0 => {
                if request.id.is_keyed() && rng.chance(400) {
                    request.id.body += 1;
                }
                return unreadable(Some(headers_of(&request)));
            }
            1 => request.user = self.random_user(rng),
            2 => request.coupon_id = rng.pick(&self.coupons).clone(),
            3..8 if request.id.is_keyed() => {
                request.id.body += rng.between(1, 2);
                self.record_sent(request.clone());
            }
            _ => {}
        }
        Payload::Request(request)
    }
}

fn headers_of(request: &Request) -> UnreadableRequest {
    UnreadableRequest { id: request.id, user: request.user.clone(), coupon_id: request.coupon_id.clone() }
}

fn unreadable(request: Option<UnreadableRequest>) -> Payload {
    let dead_letter =
        DeadLetter { reason: "undecodable", error: "truncated".into(), key: None, value: Some([7].into()) };
    Payload::Unreadable { dead_letter, request }
}

/// The announcement of a load: usually of a sealed one, sometimes of an open, an applied or a nonexistent one, or with
/// the wrong coupon.
fn announcement(rng: &mut Rng, ledger: &Ledger) -> Payload {
    let sealed: Vec<_> =
        ledger.loads.iter().filter(|load| matches!(load.state, LoadState::Sealed(_))).collect();
    let forged = rng.chance(50);
    let load = if !sealed.is_empty() && rng.chance(700) {
        *rng.pick(&sealed)
    } else if !ledger.loads.is_empty() && !forged {
        rng.pick(&ledger.loads)
    } else {
        return Payload::StockAdded { coupon_id: UNKNOWN_COUPON.into(), load: LoadId(999) };
    };
    let coupon = if forged { ledger.coupons.first() } else { ledger.coupon(load.coupon) };
    Payload::StockAdded {
        coupon_id: coupon.map_or(UNKNOWN_COUPON.into(), |coupon| coupon.id.clone()),
        load: load.id,
    }
}
