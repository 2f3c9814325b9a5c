use super::*;
use crate::domain::coupon::Status;
use crate::domain::ids::{CodeNumber, CouponNo, RequestId};
use crate::domain::money::{Discount, Rate};
use crate::domain::words::Reason::*;

const NOW: Millis = Millis(1_000_000);

fn claim(state: ClaimState) -> Claim {
    let lock_until = (state == ClaimState::Locked).then_some(Millis(NOW.0 + 1));
    let order = (state == ClaimState::Redeemed).then(|| "o-1".into());
    Claim {
        id: RequestId { identity: 1, body: 0 },
        coupon: CouponNo(1),
        number: CodeNumber(1),
        code: "ABC".into(),
        user: "ann".into(),
        claimed: Millis(0),
        status: ClaimStatus { state, hold_until: None, lock_until, order, lapsed: None },
    }
}

fn definition() -> Definition {
    Definition { lock: 300_000, ..Definition::default() }
}

fn context<'a>(definition: &'a Definition, claim: Option<&'a Claim>, user: &'a str) -> CodeContext<'a> {
    let revoked = claim.is_some_and(|claim| claim.status.state == ClaimState::Revoked);
    CodeContext { definition, claim, flags: CodeFlags { uses: 0, revoked }, user, lapsed: false, now: NOW }
}

fn checkout(order: &str) -> Checkout<'_> {
    let amount = Decimal::ONE_HUNDRED;
    Checkout {
        order,
        amount,
        currency: "EUR",
        order_used: false,
        redemptions_of_user: 0,
        redemptions_total: 0,
    }
}

/// The result of each request of the claim's own user; `Ok` is the state afterwards.
type Row = (ClaimState, [Result<ClaimState, Reason>; 5]);

#[test]
fn every_transition_of_the_table_and_no_other() {
    use ClaimState::{Claimed, Locked, Redeemed, Returned, Revoked};
    let table: [Row; 4] = [
        // lock, unlock, return, redeem, revoke
        (Claimed, [Ok(Locked), Err(NotLocked), Ok(Returned), Ok(Redeemed), Ok(Revoked)]),
        (Locked, [Err(AlreadyLocked), Ok(Claimed), Err(Reason::AlreadyLocked), Ok(Redeemed), Ok(Revoked)]),
        (Redeemed, [Err(AlreadyRedeemed); 5]),
        (Revoked, [Err(CodeRevoked); 5]),
    ];
    for (state, expected) in table {
        let (definition, claim) = (definition(), claim(state));
        let context = context(&definition, Some(&claim), "ann");
        let state_of = |result: Result<ClaimStatus, Reason>| result.map(|status| status.state);
        let found = [
            state_of(context.lock(None)),
            state_of(context.unlock()),
            state_of(context.return_code()),
            state_of(context.redeem(&checkout("o-2")).map(|(status, _)| status.expect("a claim"))),
            state_of(context.revoke().map(|status| status.expect("a claim"))),
        ];
        assert_eq!(found, expected, "{state}");
    }
}

#[test]
fn another_user_is_rejected_with_not_your_code_in_every_state() {
    let definition = Definition { status: Status::Ended, ..definition() };
    for state in ClaimState::ALL.iter().filter(|state| **state != ClaimState::Returned) {
        let claim = claim(*state);
        let context = context(&definition, Some(&claim), "bob");
        assert_eq!(context.lock(None), Err(NotYourCode));
        assert_eq!(context.unlock(), Err(NotYourCode));
        assert_eq!(context.return_code(), Err(NotYourCode));
        assert_eq!(context.redeem(&checkout("o-1")), Err(NotYourCode));
    }
}

#[test]
fn the_user_of_a_lapsed_claim_is_rejected_with_hold_lapsed_while_another_user_has_the_code() {
    let (definition, claim) = (definition(), claim(ClaimState::Claimed));
    let bob = CodeContext { lapsed: true, ..context(&definition, Some(&claim), "bob") };
    assert_eq!(bob.lock(None), Err(HoldLapsed));
    assert_eq!(CodeContext { claim: None, ..bob }.redeem(&checkout("o")), Err(HoldLapsed));
    let ann = CodeContext { lapsed: true, ..context(&definition, Some(&claim), "ann") };
    assert!(ann.lock(None).is_ok(), "claimed again");
}

#[test]
fn a_code_without_a_claim_is_not_claimed_or_revoked() {
    let definition = definition();
    let free = context(&definition, None, "ann");
    assert_eq!(free.redeem(&checkout("o")), Err(NotClaimed));
    assert_eq!(free.revoke(), Ok(None));
    let revoked = CodeContext { flags: CodeFlags { uses: 0, revoked: true }, ..free };
    assert_eq!(revoked.lock(None), Err(CodeRevoked));
    assert_eq!(revoked.revoke(), Err(CodeRevoked));
    assert_eq!(revoked.claim(), Err(CodeRevoked));
}

#[test]
fn a_named_code_is_taken_while_it_has_a_live_claim_and_always_if_it_is_shared() {
    let (definition, claim) = (definition(), claim(ClaimState::Redeemed));
    assert_eq!(context(&definition, Some(&claim), "ann").claim(), Err(CodeTaken));
    assert_eq!(context(&definition, None, "ann").claim(), Ok(()));
    let shared = Definition { redemptions_per_code: None, ..definition };
    assert_eq!(context(&shared, None, "ann").claim(), Err(CodeTaken));
}

#[test]
fn the_window_rejects_locks_and_redemptions_but_not_returns_and_revocations() {
    let claim = claim(ClaimState::Claimed);
    let over = Definition { expires: Some(NOW), ..definition() };
    let late = context(&over, Some(&claim), "ann");
    assert_eq!(late.lock(None), Err(CodeExpired));
    assert_eq!(late.redeem(&checkout("o")), Err(CodeExpired));
    assert!(late.return_code().is_ok() && late.revoke().is_ok());
    let paused = Definition { status: Status::Paused, ..over.clone() };
    assert_eq!(context(&paused, Some(&claim), "ann").redeem(&checkout("o")), Err(Paused));
    let early = Definition { starts: Some(Millis(NOW.0 + 1)), ..over };
    assert_eq!(context(&early, Some(&claim), "ann").lock(None), Err(NotStarted));
}

#[test]
fn a_lapsed_lock_never_lets_a_redeem_through_where_one_is_required() {
    let strict = Definition { requires_lock: true, ..definition() };
    let mut mine = claim(ClaimState::Claimed);
    assert_eq!(context(&strict, Some(&mine), "ann").redeem(&checkout("o")), Err(NotLocked));
    mine.status = context(&strict, Some(&mine), "ann").lock(None).expect("a lock");
    assert!(context(&strict, Some(&mine), "ann").redeem(&checkout("o")).is_ok());
    let end = mine.status.lock_until.expect("a lock has an end");
    assert_eq!(lapse(&mine.status, Millis(end.0 - 1)), None, "nothing lapses early");
    let (lapsed, kind) = lapse(&mine.status, end).expect("it has ended");
    assert_eq!((lapsed.state, kind), (ClaimState::Claimed, EventKind::LockLapsed));
    mine.status = lapsed;
    assert_eq!(context(&strict, Some(&mine), "ann").redeem(&checkout("o")), Err(LockLapsed));
    assert_eq!(context(&strict, Some(&mine), "ann").unlock(), Err(LockLapsed));
    assert!(context(&strict, Some(&mine), "ann").lock(None).is_ok(), "it can be locked again");
}

#[test]
fn a_lock_that_names_an_order_lets_only_that_order_through() {
    let definition = definition();
    let mut mine = claim(ClaimState::Claimed);
    mine.status = context(&definition, Some(&mine), "ann").lock(Some("o-1")).expect("a lock");
    let context = context(&definition, Some(&mine), "ann");
    assert_eq!(context.redeem(&checkout("o-2")), Err(AlreadyLocked));
    let (status, _) = context.redeem(&checkout("o-1")).expect("its order");
    assert_eq!(status.and_then(|status| status.order).as_deref(), Some("o-1"));
}

#[test]
fn a_live_lock_suspends_the_hold_which_lapses_when_the_lock_ends() {
    let definition = definition();
    let mut mine = claim(ClaimState::Claimed);
    mine.status.hold_until = Some(Millis(NOW.0 + 5));
    mine.status = context(&definition, Some(&mine), "ann").lock(None).expect("a lock");
    let end = mine.status.lock_until.expect("a lock has an end");
    assert_eq!(mine.status.deadline(), Some(end));
    let (claimed, first) = lapse(&mine.status, end).expect("the lock has ended");
    let (returned, second) = lapse(&claimed, end).expect("the hold has ended meanwhile");
    assert_eq!((first, second), (EventKind::LockLapsed, EventKind::HoldLapsed));
    assert_eq!((returned.state, returned.lapsed), (ClaimState::Returned, Some(Millis(NOW.0 + 5))));
    let late = CodeContext { now: Millis(NOW.0 + 9), ..context(&definition, Some(&mine), "ann") };
    let released = late.unlock().expect("a release");
    assert_eq!((released.state, released.lapsed), (ClaimState::Returned, Some(Millis(NOW.0 + 5))));
}

#[test]
fn a_rollback_leaves_a_claim_with_a_fresh_hold() {
    let held = Definition { hold: Some(60_000), ..definition() };
    assert_eq!(rolled_back(&held, NOW), ClaimStatus::claimed(Some(Millis(NOW.0 + 60_000))));
    assert_eq!(rolled_back(&definition(), NOW), ClaimStatus::claimed(None));
}

#[test]
fn amounts_are_checked_after_the_code_and_limits_last() {
    let discount = Discount {
        rate: Rate::Fixed(Decimal::TEN),
        currency: Some("EUR".into()),
        minimum_order: Some(Decimal::TEN),
        maximum_discount: None,
    };
    let limited = Definition {
        discount,
        redemptions_per_user: Some(1),
        redemptions_total: Some(5),
        redemptions_per_code: Some(2),
        ..definition()
    };
    let shared = context(&limited, None, "ann");
    let with = |change: fn(&mut Checkout<'_>)| {
        let mut checkout = checkout("o");
        change(&mut checkout);
        shared.redeem(&checkout).map(|(_, price)| price.final_price)
    };
    assert_eq!(with(|_| ()), Ok(Decimal::new(9_000, 2)));
    assert_eq!(with(|checkout| checkout.redemptions_of_user = 1), Err(UsageLimitReached));
    assert_eq!(with(|checkout| checkout.redemptions_total = 5), Err(UsageLimitReached));
    assert_eq!(
        with(|checkout| (checkout.redemptions_of_user, checkout.amount) = (1, Decimal::ONE)),
        Err(MinimumOrderNotMet)
    );
    assert_eq!(
        with(|checkout| (checkout.amount, checkout.currency) = (Decimal::ONE, "USD")),
        Err(CurrencyMismatch)
    );
    assert_eq!(
        with(|checkout| (checkout.order_used, checkout.currency) = (true, "USD")),
        Err(OrderAlreadyUsed)
    );
    let used = CodeContext { flags: CodeFlags { uses: 2, revoked: false }, ..shared };
    assert_eq!(used.redeem(&checkout("o")), Err(UsageLimitReached));
    assert_eq!(used.revoke(), Err(AlreadyRedeemed), "an exhausted code counts as redeemed");
    assert_eq!(shared.revoke(), Ok(None));
}
