use super::super::snapshot::Claim;
use super::*;
use crate::users::request_flow::Payment;

fn id(identity: u128) -> RequestId {
    RequestId { identity, body: 1 }
}

fn step(kind: &'static str, result: StepResult) -> Step {
    Step { kind, result, took: Duration::from_millis(4), retries: 1 }
}

fn user(name: &str, steps: Vec<Step>) -> UserRecord {
    UserRecord { user: name.to_owned(), steps, let_lapse: false, waited: false }
}

fn claimed(identity: u128, code: &str) -> Step {
    step(kinds::CLAIM, StepResult::Accepted { request: id(identity), code: code.to_owned(), payment: None })
}

fn rejected(kind: &'static str, identity: u128, reason: &str) -> Step {
    step(kind, StepResult::Rejected { request: id(identity), reason: reason.to_owned() })
}

fn payment(discount: &str) -> Box<Payment> {
    let text = str::to_owned;
    let (order_id, currency) = (text("o"), text("EUR"));
    let (order_amount, final_price) = (text("10.00"), text("8.00"));
    Box::new(Payment { order_id, order_amount, discount: text(discount), final_price, currency })
}

fn redeemed(identity: u128, code: &str, discount: &str) -> Step {
    let (request, code) = (id(identity), code.to_owned());
    step(kinds::REDEEM, StepResult::Accepted { request, code, payment: Some(payment(discount)) })
}

fn claim(identity: u128, user: &str, code: &str, claimed_ms: i64, state: ClaimState) -> Claim {
    Claim { request: id(identity), user: user.to_owned(), code: code.to_owned(), claimed_ms, state }
}

fn counted(
    users: Vec<UserRecord>,
    claims: Vec<Claim>,
    others: &[(u128, &str, &str, StoredOutcome)],
) -> (Figures, Details) {
    let mut snapshot = Snapshot::default();
    claims.into_iter().for_each(|claim| snapshot.add_claim(claim));
    for (identity, user, kind, stored) in others {
        snapshot.add(id(*identity), user, kind, stored.clone());
    }
    let (rush, total) = (Duration::from_millis(500), Duration::from_millis(1500));
    count(&Records { users, rush, total, killed_at: Some(2) }, &snapshot)
}

fn no(reason: &str) -> StoredOutcome {
    StoredOutcome::Rejected(reason.to_owned())
}

#[test]
fn every_user_counts_once_and_the_sum_is_the_attempts() {
    let claims = vec![claim(1, "ann", "A", 5, ClaimState::Held)];
    let others =
        [(2, "bob", kinds::CLAIM, no("sold_out")), (3, "cid", kinds::CLAIM, no("user_limit_reached"))];
    let users = vec![
        user("ann", vec![claimed(1, "A")]),
        user("bob", vec![rejected(kinds::CLAIM, 2, "sold_out")]),
        user("cid", vec![rejected(kinds::CLAIM, 3, "user_limit_reached")]),
        user("dan", vec![step(kinds::CLAIM, StepResult::SoldOutGate)]),
        user("eve", vec![step(kinds::CLAIM, StepResult::Unresolved { accepted: true })]),
        user("fay", vec![step(kinds::CLAIM, StepResult::HttpError { status: 401 })]),
    ];
    let (figures, details) = counted(users, claims, &others);
    let Figures { attempts, won, sold_out, unresolved, given_twice, .. } = figures;
    assert_eq!((attempts, won, sold_out, unresolved, given_twice), (6, 1, 2, 1, 0));
    assert_eq!(details.rejected.values().sum::<u64>(), attempts - won - sold_out - unresolved);
    assert_eq!((details.gate, details.retries, figures.killed_at), (1, 6, Some(2)));
    assert!((figures.p50_ms - 4.0).abs() < 1e-9 && (figures.seconds - 1.5).abs() < 1e-9);
}

#[test]
fn a_code_that_lapsed_counts_for_its_last_owner() {
    let claims = vec![
        claim(1, "ann", "A", 5, ClaimState::Lapsed(9)),
        claim(3, "bob", "A", 9, ClaimState::Redeemed),
        claim(6, "cid", "B", 5, ClaimState::Held),
    ];
    let yes = StoredOutcome::Accepted { code: "A".to_owned(), payment: Some(payment("2.00")) };
    let others = [
        (2, "bob", kinds::CLAIM, no("sold_out")),
        (4, "ann", kinds::REDEEM, no("hold_lapsed")),
        (5, "ann", kinds::CLAIM, no("sold_out")),
        (7, "cid", kinds::LOCK, no("already_locked")),
        (8, "bob", kinds::REDEEM, yes),
    ];
    let late = rejected(kinds::REDEEM, 4, "hold_lapsed");
    let ann = vec![claimed(1, "A"), late, rejected(kinds::CLAIM, 5, "sold_out")];
    let bob = vec![rejected(kinds::CLAIM, 2, "sold_out"), claimed(3, "A"), redeemed(8, "A", "2.00")];
    let users = vec![
        UserRecord { let_lapse: true, ..user("ann", ann) },
        UserRecord { waited: true, ..user("bob", bob) },
        user("cid", vec![claimed(6, "B"), rejected(kinds::LOCK, 7, "already_locked")]),
    ];
    let (figures, details) = counted(users, claims, &others);
    let Figures { won, sold_out, redeemed, lapsed, handed_on, unresolved, given_twice, .. } = figures;
    assert_eq!((won, sold_out, redeemed, lapsed, handed_on), (2, 1, 1, 1, 1));
    assert_eq!((unresolved, given_twice), (0, 0), "{details:?}");
    assert_eq!((details.let_lapse, details.waited, details.waited_and_won), (1, 1, 1));
    assert_eq!(details.not_redeemed, BTreeMap::from([("already_locked".to_owned(), 1)]));
}

#[test]
fn a_response_that_postgres_does_not_confirm_is_unresolved() {
    let yes = StoredOutcome::Accepted { code: "D".to_owned(), payment: Some(payment("2.01")) };
    let others = [(5, "dan", kinds::REDEEM, yes), (6, "eve", kinds::LOCK, no("not_claimed"))];
    let claims =
        vec![claim(2, "bob", "B", 5, ClaimState::Held), claim(4, "dan", "D", 5, ClaimState::Redeemed)];
    let users = vec![
        user("ann", vec![claimed(1, "A")]),
        user("bob", vec![claimed(2, "C")]),
        user("cid", vec![rejected(kinds::CLAIM, 3, "sold_out")]),
        user("dan", vec![claimed(4, "D"), redeemed(5, "D", "2.00")]),
        user("eve", vec![rejected(kinds::CLAIM, 6, "not_claimed")]),
    ];
    let (figures, details) = counted(users, claims, &others);
    assert_eq!((figures.won, figures.sold_out, figures.redeemed, figures.unresolved), (0, 0, 0, 5));
    assert_eq!(details.contradicted, 5, "one cent makes a difference, and so does the kind of request");
}

#[test]
fn a_code_with_two_owners_at_the_same_time_is_given_twice() {
    let twice = |users, claims| counted(users, claims, &[]).0.given_twice;
    let (ann, bob) = (user("ann", vec![claimed(1, "A")]), user("bob", vec![claimed(2, "A")]));
    assert_eq!(twice(vec![ann.clone(), bob], vec![]), 1, "in two responses");
    let held = |user, identity| claim(identity, user, "A", 5, ClaimState::Held);
    assert_eq!(twice(vec![ann.clone()], vec![held("bob", 2)]), 1, "in a response, and in the row of another");
    assert_eq!(twice(Vec::new(), vec![held("ann", 1), held("ann", 2)]), 1, "in two rows");
    assert_eq!(twice(vec![ann.clone()], vec![held("ann", 1)]), 0);
    let lapsed = |at| claim(1, "ann", "A", 5, ClaimState::Lapsed(at));
    let later = |from| claim(2, "bob", "A", from, ClaimState::Redeemed);
    assert_eq!(twice(vec![ann.clone()], vec![later(9), lapsed(9)]), 0, "one after the other");
    assert_eq!(twice(vec![ann], vec![later(8), lapsed(9)]), 1, "before the hold had ended");
}

#[test]
fn a_code_that_is_redeemed_twice_is_given_twice() {
    let ann = user("ann", vec![claimed(1, "A"), redeemed(2, "A", "2.00"), redeemed(3, "A", "2.00")]);
    let claims = vec![claim(1, "ann", "A", 5, ClaimState::Redeemed)];
    assert_eq!(counted(vec![ann], claims, &[]).0.given_twice, 1);
}

#[test]
fn a_quantile_is_one_of_the_values() {
    let values: Vec<_> = (1..=10).map(Duration::from_millis).collect();
    let of = |percent| quantile(&values, percent).as_millis();
    assert_eq!((of(50), of(95), of(99)), (5, 10, 10));
    assert_eq!(quantile(&[], 50), Duration::ZERO);
}
