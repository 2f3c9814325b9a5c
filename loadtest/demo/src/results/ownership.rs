//! Which users held each code, and when: one after another, never two at the same time.

use std::collections::{HashMap, HashSet};

use coupon_core::ids::RequestId;

use super::snapshot::{ClaimState, Snapshot};
use crate::users::request_flow::StepResult;
use crate::users::user::UserRecord;

/// The time in which a user held a code, in the partition's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ownership<'a> {
    user: &'a str,
    from_ms: i64,
    /// `None`: it has not ended.
    until_ms: Option<i64>,
}

/// All owners of every code.
pub struct OwnershipHistory<'a> {
    codes: HashMap<&'a str, Vec<Ownership<'a>>>,
    redeemed_twice: HashSet<&'a str>,
}

impl<'a> OwnershipHistory<'a> {
    /// From the rows of Postgres and from the responses to users. A user with a response that names a code without a
    /// row counts as its owner for all time: nothing proves that the ownership began later, or ended.
    #[must_use]
    pub fn new(users: &'a [UserRecord], snapshot: &'a Snapshot) -> Self {
        let mut codes: HashMap<&str, Vec<Ownership<'_>>> = HashMap::new();
        let mut stored: HashMap<RequestId, Vec<&str>> = HashMap::new();
        for claim in &snapshot.claims {
            let until_ms = match claim.state {
                ClaimState::Lapsed(at) => Some(at),
                ClaimState::Held | ClaimState::Redeemed | ClaimState::Ended => None,
            };
            let ownership = Ownership { user: &claim.user, from_ms: claim.claimed_ms, until_ms };
            codes.entry(&claim.code).or_default().push(ownership);
            stored.entry(claim.request).or_default().push(&claim.code);
        }
        let mut redeemed: HashMap<&str, HashSet<RequestId>> = HashMap::new();
        for (user, step) in users.iter().flat_map(|user| user.steps.iter().map(|step| (&*user.user, step))) {
            let StepResult::Accepted { request, code, payment } = &step.result else { continue };
            if payment.is_some() {
                redeemed.entry(code).or_default().insert(*request);
            } else if step.kind == schemas::kinds::CLAIM
                && !stored.get(request).is_some_and(|codes| codes.contains(&&**code))
            {
                let ownership = Ownership { user, from_ms: i64::MIN, until_ms: None };
                codes.entry(code).or_default().push(ownership);
            }
        }
        codes.values_mut().for_each(|owners| owners.sort_by_key(|owner| owner.from_ms));
        let twice = redeemed.into_iter().filter(|(_, requests)| requests.len() > 1);
        Self { codes, redeemed_twice: twice.map(|(code, _)| code).collect() }
    }

    /// Codes that two claims held at the same time, or that were redeemed twice.
    #[must_use]
    pub fn given_twice(&self) -> u64 {
        let overlap = |owners: &[Ownership<'_>]| {
            owners.windows(2).any(|pair| pair[0].until_ms.is_none_or(|until| until > pair[1].from_ms))
        };
        let twice = |(code, owners): &(&&str, &Vec<Ownership<'_>>)| {
            overlap(owners) || self.redeemed_twice.contains(**code)
        };
        self.codes.iter().filter(twice).count() as u64
    }

    /// Codes that lapsed and went to another user.
    #[must_use]
    pub fn handed_on(&self) -> u64 {
        let moved = |owners: &&Vec<Ownership<'_>>| owners.windows(2).any(|pair| pair[0].user != pair[1].user);
        self.codes.values().filter(moved).count() as u64
    }
}
