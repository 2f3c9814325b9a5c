//! Who had which code, and when: a code may go from hand to hand, and is never in two at once.

use std::collections::{HashMap, HashSet};

use coupon_core::ids::RequestId;

use super::errand::Answer;
use super::truth::{Standing, Truth};
use super::user::Told;

/// Somebody's time with a code, in the partition's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder<'a> {
    user: &'a str,
    from_ms: i64,
    /// `None`: it has not ended.
    until_ms: Option<i64>,
}

/// The hands that every code went through.
pub struct Holders<'a> {
    codes: HashMap<&'a str, Vec<Holder<'a>>>,
    redeemed_twice: HashSet<&'a str>,
}

impl<'a> Holders<'a> {
    /// By the rows of Postgres and by what users were told. Who was told a code that Postgres does not know of has it
    /// for ever: nothing is known that could have ended it.
    #[must_use]
    pub fn of(told: &'a [Told], truth: &'a Truth) -> Self {
        let mut codes: HashMap<&str, Vec<Holder<'_>>> = HashMap::new();
        let mut known: HashMap<RequestId, Vec<&str>> = HashMap::new();
        for claim in &truth.claims {
            let until_ms = match claim.standing {
                Standing::Lapsed(at) => Some(at),
                Standing::Held | Standing::Redeemed | Standing::Gone => None,
            };
            let holder = Holder { user: &claim.user, from_ms: claim.claimed_ms, until_ms };
            codes.entry(&claim.code).or_default().push(holder);
            known.entry(claim.request).or_default().push(&claim.code);
        }
        let mut redeemed: HashMap<&str, HashSet<RequestId>> = HashMap::new();
        for (user, step) in told.iter().flat_map(|told| told.steps.iter().map(|step| (&*told.user, step))) {
            let Answer::Accepted { request, code, paid } = &step.answer else { continue };
            if paid.is_some() {
                redeemed.entry(code).or_default().insert(*request);
            } else if step.kind == schemas::kinds::CLAIM
                && !known.get(request).is_some_and(|codes| codes.contains(&&**code))
            {
                codes.entry(code).or_default().push(Holder { user, from_ms: i64::MIN, until_ms: None });
            }
        }
        codes.values_mut().for_each(|holders| holders.sort_by_key(|holder| holder.from_ms));
        let twice = redeemed.into_iter().filter(|(_, requests)| requests.len() > 1);
        Self { codes, redeemed_twice: twice.map(|(code, _)| code).collect() }
    }

    /// Codes that two claims held at the same time, or that were redeemed twice.
    #[must_use]
    pub fn given_twice(&self) -> u64 {
        let overlap = |holders: &[Holder<'_>]| {
            holders.windows(2).any(|pair| pair[0].until_ms.is_none_or(|until| until > pair[1].from_ms))
        };
        let twice = |(code, holders): &(&&str, &Vec<Holder<'_>>)| {
            overlap(holders) || self.redeemed_twice.contains(**code)
        };
        self.codes.iter().filter(twice).count() as u64
    }

    /// Codes that went on to somebody else.
    #[must_use]
    pub fn handed_on(&self) -> u64 {
        let moved = |holders: &&Vec<Holder<'_>>| holders.windows(2).any(|pair| pair[0].user != pair[1].user);
        self.codes.values().filter(moved).count() as u64
    }
}
