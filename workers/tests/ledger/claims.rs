//! Claims, redemptions and changes of codes for batches made by hand.

use coupon_core::batch::{
    Changed, ClaimChange, CodeFlags, CodeFlagsChange, Decision, Redemption, RolledBack, Verdict,
};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, Millis, RequestId};
use coupon_core::interface::{CodeLookup, Lookups, StoredCode};
use coupon_core::words::{ClaimState, Kind};

use crate::fixture::{COUPON, Fixture, NOW, PARTITION, claim, code};

pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// When holds end that begin now.
pub(crate) const HOLD: Millis = Millis(NOW.0 + 600_000);
/// When locks end that begin now.
pub(crate) const LOCK: Millis = Millis(NOW.0 + 300_000);

pub(crate) fn id(identity: u128) -> RequestId {
    RequestId { identity, body: 0 }
}

/// A claim with a hold.
pub(crate) fn holding(identity: u128, user: &str, number: i64) -> Decision {
    let verdict = Verdict::Claimed { number: CodeNumber(number), code: code(number), hold_until: Some(HOLD) };
    Decision { verdict, ..claim(identity, user, number) }
}

pub(crate) fn terms(
    state: ClaimState,
    hold_until: Option<Millis>,
    lock_until: Option<Millis>,
    order: Option<&str>,
) -> ClaimStatus {
    ClaimStatus { state, hold_until, lock_until, order: order.map(Into::into), lapsed: None }
}

/// A claim as its row says it.
pub(crate) fn folded(identity: u128, user: &str, number: i64, terms: ClaimStatus) -> Claim {
    Claim {
        id: id(identity),
        coupon: COUPON,
        number: CodeNumber(number),
        code: code(number),
        user: user.into(),
        claimed: NOW,
        status: terms,
    }
}

/// A claim that was there before changes.
pub(crate) fn change(was: &ClaimStatus, claim: Claim) -> ClaimChange {
    ClaimChange { before: Some((was.state, was.deadline())), claim }
}

pub(crate) fn mark(number: i64, was: CodeFlags, is: CodeFlags) -> CodeFlagsChange {
    CodeFlagsChange { coupon: COUPON, number: CodeNumber(number), before: was, after: is }
}

/// A redemption that is rolled back.
pub(crate) fn returned(identity: u128, made_here: bool) -> RolledBack {
    RolledBack { id: id(identity), at: NOW, made_here }
}

/// An accepted request that left the claim like this.
pub(crate) fn changed(identity: u128, kind: Kind, user: &str, number: i64, terms: &ClaimStatus) -> Decision {
    let changed = Changed {
        number: CodeNumber(number),
        code: code(number),
        state: Some(terms.state),
        claimed: Some(NOW),
        hold_until: terms.hold_until,
        lock_until: terms.lock_until,
        order: terms.order.clone(),
        redemption: None,
    };
    Decision { kind, verdict: Verdict::Changed(Box::new(changed)), ..claim(identity, user, number) }
}

/// Amounts whose last digits are zeros, which numbers would lose.
pub(crate) fn redemption(identity: u128, order: &str) -> Redemption {
    Redemption {
        id: id(identity),
        order: order.into(),
        amount: "129.90".parse().unwrap(),
        discount: "10.00".parse().unwrap(),
        final_price: "119.90".parse().unwrap(),
        currency: "EUR".into(),
        redeemed: NOW,
    }
}

pub(crate) fn redeem(identity: u128, user: &str, number: i64, order: &str) -> Decision {
    let decision =
        changed(identity, Kind::Redeem, user, number, &terms(ClaimState::Redeemed, None, None, None));
    with_redemption(decision, redemption(identity, order))
}

/// The redemption is undone, and the claim is like this.
pub(crate) fn rollback(
    identity: u128,
    by: &str,
    number: i64,
    now: &ClaimStatus,
    undone: Redemption,
) -> Decision {
    with_redemption(changed(identity, Kind::Rollback, by, number, now), undone)
}

pub(crate) fn with_redemption(mut decision: Decision, redemption: Redemption) -> Decision {
    if let Verdict::Changed(changed) = &mut decision.verdict {
        changed.redemption = Some(redemption);
    }
    decision
}

/// What the ledger knows of a code.
pub(crate) async fn code_as_read(owner: &Fixture, number: i64) -> StoredCode {
    let codes = vec![CodeLookup { key: code(number), user: "somebody".into() }];
    let wants = Lookups { codes, ..Lookups::default() };
    let mut answers = owner.ledger.reader().load(PARTITION, &wants).await.unwrap();
    assert_eq!(answers.codes.len(), 1);
    answers.codes.remove(0)
}
