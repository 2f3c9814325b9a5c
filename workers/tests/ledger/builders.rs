//! Builders for claims, redemptions and code flags.

use coupon_core::batch::{
    Changed, ClaimChange, CodeFlags, CodeFlagsChange, Decision, Redemption, RolledBack, Verdict,
};
use coupon_core::claim::{Claim, ClaimStatus};
use coupon_core::ids::{CodeNumber, Millis, RequestId};
use coupon_core::interface::{CodeLookup, Lookups, StoredCode};
use coupon_core::words::{ClaimState, Kind};

use crate::fixture::{COUPON, Fixture, NOW, PARTITION, claim, code, of_request};

pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// End of a hold that begins now.
pub(crate) const HOLD: Millis = Millis(NOW.0 + 600_000);
/// End of a lock that begins now.
pub(crate) const LOCK: Millis = Millis(NOW.0 + 300_000);

pub(crate) fn id(identity: u128) -> RequestId {
    RequestId { identity, body: 0 }
}

/// A claim with a hold.
pub(crate) fn claim_with_hold(identity: u128, user: &str, number: i64) -> Decision {
    let verdict = Verdict::Claimed { number: CodeNumber(number), code: code(number), hold_until: Some(HOLD) };
    Decision { verdict, ..claim(identity, user, number) }
}

pub(crate) fn status(
    state: ClaimState,
    hold_until: Option<Millis>,
    lock_until: Option<Millis>,
    order: Option<&str>,
) -> ClaimStatus {
    ClaimStatus { state, hold_until, lock_until, order: order.map(Into::into), lapsed: None }
}

/// A claim as stored in its row.
pub(crate) fn stored_claim(identity: u128, user: &str, number: i64, status: ClaimStatus) -> Claim {
    Claim {
        id: id(identity),
        coupon: COUPON,
        number: CodeNumber(number),
        code: code(number),
        user: user.into(),
        claimed: NOW,
        status,
    }
}

/// The change of an existing claim.
pub(crate) fn change(before: &ClaimStatus, claim: Claim) -> ClaimChange {
    ClaimChange { before: Some((before.state, before.deadline())), claim }
}

pub(crate) fn flags_change(number: i64, before: CodeFlags, after: CodeFlags) -> CodeFlagsChange {
    CodeFlagsChange { coupon: COUPON, number: CodeNumber(number), before, after }
}

/// A redemption that is rolled back.
pub(crate) fn rolled_back(identity: u128, made_here: bool) -> RolledBack {
    RolledBack { id: id(identity), at: NOW, made_here }
}

/// An accepted request that left the claim in this status.
pub(crate) fn changed(identity: u128, kind: Kind, user: &str, number: i64, status: &ClaimStatus) -> Decision {
    let changed = Changed {
        number: CodeNumber(number),
        code: code(number),
        state: Some(status.state),
        claimed: Some(NOW),
        hold_until: status.hold_until,
        lock_until: status.lock_until,
        order: status.order.clone(),
        redemption: None,
    };
    let verdict = Verdict::Changed(Box::new(changed));
    of_request(Decision { verdict, ..claim(identity, user, number) }, |request| request.kind = kind)
}

/// Amounts with trailing zeros, which a float would lose.
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
        changed(identity, Kind::Redeem, user, number, &status(ClaimState::Redeemed, None, None, None));
    with_redemption(decision, redemption(identity, order))
}

/// A rollback that left the claim in this status.
pub(crate) fn rollback(
    identity: u128,
    by: &str,
    number: i64,
    status: &ClaimStatus,
    redemption: Redemption,
) -> Decision {
    with_redemption(changed(identity, Kind::Rollback, by, number, status), redemption)
}

pub(crate) fn with_redemption(mut decision: Decision, redemption: Redemption) -> Decision {
    if let Verdict::Changed(changed) = &mut decision.verdict {
        changed.redemption = Some(redemption);
    }
    decision
}

/// Reads a code from the ledger.
pub(crate) async fn read_code(owner: &Fixture, number: i64) -> StoredCode {
    let codes = vec![CodeLookup { key: code(number), user: "any".into() }];
    let lookups = Lookups { codes, ..Lookups::default() };
    let mut results = owner.ledger.reader().lookup(PARTITION, &lookups).await.unwrap();
    assert_eq!(results.codes.len(), 1);
    results.codes.remove(0)
}
