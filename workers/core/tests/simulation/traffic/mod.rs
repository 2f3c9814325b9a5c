//! Who appends to the log: users with new requests, the API's retries, the announcer of loads, and strangers.
//!
//! Here: claims of any code, repetitions, rubbish. [`life`]: everything that is done to a code by name.

mod life;

use crate::ledger::{Ledger, LoadState, REFUSED};
use crate::plan::Plan;
use crate::rng::Rng;
use coupon_core::ids::{LoadId, Millis, RequestId};
use coupon_core::record::{DeadLetter, Payload, Request, UnreadableRequest};
use coupon_core::words::Kind;
use life::Target;

/// Never exists, however often it is asked for.
const NOWHERE: &str = "nowhere";

#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Coupons that are there, that will be, and that never are.
    coupons: Vec<Box<str>>,
    users: usize,
    /// Of 1,000 requests, those about one of the first three coupons.
    hot: usize,
    /// Of 1,000 requests, those that name a code.
    life: usize,
    /// How far the clocks of the API's instances are off.
    skews: Vec<i64>,
    /// Every request so far, those of the time before the run included.
    sent: Vec<Request>,
    /// Redeem requests so far, each with its coupon.
    redeems: Vec<(RequestId, Box<str>)>,
    /// The code that was spoken of last: things happen to one code in a row.
    last: Option<Target>,
}

impl Traffic {
    pub(crate) fn new(rng: &mut Rng, plan: &Plan, mut coupons: Vec<Box<str>>) -> Self {
        coupons.push(NOWHERE.into());
        let wide = rng.chance(300);
        let skew = |rng: &mut Rng| match rng.below(4) {
            _ if !wide => rng.between(-300, 300),
            0 => rng.between(-120_000, 120_000),
            1 => rng.between(-15_000, 15_000),
            _ => rng.between(-300, 300),
        };
        let skews = (0..3).map(|_| skew(rng)).collect();
        Self {
            coupons,
            users: 6 + rng.below(60),
            hot: *rng.pick(&[300, 700, 950]),
            life: plan.life,
            skews,
            sent: Vec::new(),
            redeems: Vec::new(),
            last: None,
        }
    }

    pub(crate) fn remember(&mut self, request: Request) {
        if request.kind == Kind::Redeem {
            self.redeems.push((request.id, request.coupon_id.clone()));
        }
        self.sent.push(request);
    }

    /// The next record's payload.
    pub(crate) fn next(&mut self, rng: &mut Rng, plan: &Plan, now: Millis, ledger: &Ledger) -> Payload {
        if !self.sent.is_empty() && rng.chance(plan.repetitions) {
            return self.repetition(rng);
        }
        match rng.below(100) {
            0..5 => {
                let announced = announcement(rng, ledger);
                self.speak_of_the_first_code(&announced);
                return announced;
            }
            5..8 => return Payload::Tick,
            8..11 => {
                let request = self.request(rng, plan, now, ledger);
                let answer = rng.chance(600).then(|| unanswered(&request));
                return unreadable(answer);
            }
            _ => {}
        }
        let request = self.request(rng, plan, now, ledger);
        self.remember(request.clone());
        Payload::Request(request)
    }

    fn request(&mut self, rng: &mut Rng, plan: &Plan, now: Millis, ledger: &Ledger) -> Request {
        let id = self.id(rng, now);
        let mut request = if rng.chance(self.life) {
            self.life(rng, id, ledger)
        } else {
            let kind = if rng.chance(10) { *rng.pick(Kind::ALL) } else { Kind::Claim };
            let (coupon_id, user) = (self.some_coupon(rng), self.some_user(rng));
            Request { id, kind, coupon_id, user, code: None, details: None }
        };
        if rng.chance(plan.refused) {
            request.user = format!("{REFUSED}{}", request.user).into();
        }
        request
    }

    fn id(&self, rng: &mut Rng, now: Millis) -> RequestId {
        let minted = now.0 - rng.between(0, 200) + *rng.pick(&self.skews);
        if rng.chance(400) {
            RequestId { identity: rng.wide(), body: rng.between(1, 1_000_000) }
        } else {
            RequestId { identity: (u128::from(minted.unsigned_abs()) << 80) | (rng.wide() >> 48), body: 0 }
        }
    }

    /// Most of the traffic is about a few coupons.
    fn some_coupon(&self, rng: &mut Rng) -> Box<str> {
        let among = if rng.chance(self.hot) { 3 } else { self.coupons.len() };
        self.coupons[rng.below(among)].clone()
    }

    fn some_user(&self, rng: &mut Rng) -> Box<str> {
        format!("u{}", rng.below(self.users)).into()
    }

    /// The same id once more: a retry, a copy by somebody else, another body under the same key.
    fn repetition(&mut self, rng: &mut Rng) -> Payload {
        let recent = rng.chance(500);
        let from = if recent { self.sent.len().saturating_sub(6) } else { 0 };
        let mut request = self.sent[from + rng.below(self.sent.len() - from)].clone();
        match rng.below(20) {
            0 => {
                if request.id.is_keyed() && rng.chance(400) {
                    request.id.body += 1;
                }
                return unreadable(Some(unanswered(&request)));
            }
            1 => request.user = self.some_user(rng),
            2 => request.coupon_id = rng.pick(&self.coupons).clone(),
            3..8 if request.id.is_keyed() => {
                request.id.body += rng.between(1, 2);
                self.remember(request.clone());
            }
            _ => {}
        }
        Payload::Request(request)
    }
}

fn unanswered(request: &Request) -> UnreadableRequest {
    UnreadableRequest { id: request.id, user: request.user.clone(), coupon_id: request.coupon_id.clone() }
}

fn unreadable(request: Option<UnreadableRequest>) -> Payload {
    let dead_letter =
        DeadLetter { reason: "undecodable", error: "truncated".into(), key: None, value: Some([7].into()) };
    Payload::Unreadable { dead_letter, request }
}

/// A load is announced: most often a sealed one, sometimes one that is applied, open, or somebody's invention.
pub(crate) fn announcement(rng: &mut Rng, ledger: &Ledger) -> Payload {
    let sealed: Vec<_> =
        ledger.loads.iter().filter(|load| matches!(load.state, LoadState::Sealed(_))).collect();
    let stranger = rng.chance(50);
    let load = if !sealed.is_empty() && rng.chance(700) {
        *rng.pick(&sealed)
    } else if !ledger.loads.is_empty() && !stranger {
        rng.pick(&ledger.loads)
    } else {
        return Payload::StockAdded { coupon_id: NOWHERE.into(), load: LoadId(999) };
    };
    let coupon = if stranger { ledger.coupons.first() } else { ledger.coupon(load.coupon) };
    Payload::StockAdded {
        coupon_id: coupon.map_or(NOWHERE.into(), |coupon| coupon.id.clone()),
        load: load.id,
    }
}
