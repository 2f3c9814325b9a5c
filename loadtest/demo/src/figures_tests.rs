use super::super::errand::Paid;
use super::super::truth::Claim;
use super::*;

fn id(identity: u128) -> RequestId {
    RequestId { identity, body: 1 }
}

fn step(kind: &'static str, answer: Answer) -> Step {
    Step { kind, answer, took: Duration::from_millis(4), retries: 1 }
}

fn told(user: &str, steps: Vec<Step>) -> Told {
    Told { user: user.to_owned(), steps, let_lapse: false, waited: false }
}

fn given(identity: u128, code: &str) -> Step {
    step(kinds::CLAIM, Answer::Accepted { request: id(identity), code: code.to_owned(), paid: None })
}

fn refused(kind: &'static str, identity: u128, reason: &str) -> Step {
    step(kind, Answer::Rejected { request: id(identity), reason: reason.to_owned() })
}

fn paid(discount: &str) -> Box<Paid> {
    let text = str::to_owned;
    let (order_id, currency) = (text("o"), text("EUR"));
    let (order_amount, final_price) = (text("10.00"), text("8.00"));
    Box::new(Paid { order_id, order_amount, discount: text(discount), final_price, currency })
}

fn redeemed(identity: u128, code: &str, discount: &str) -> Step {
    let (request, code) = (id(identity), code.to_owned());
    step(kinds::REDEEM, Answer::Accepted { request, code, paid: Some(paid(discount)) })
}

fn claim(identity: u128, user: &str, code: &str, claimed_ms: i64, standing: Standing) -> Claim {
    Claim { request: id(identity), user: user.to_owned(), code: code.to_owned(), claimed_ms, standing }
}

fn counted(told: Vec<Told>, claims: Vec<Claim>, others: &[(u128, &str, &str, Said)]) -> (Figures, Details) {
    let mut truth = Truth::default();
    claims.into_iter().for_each(|claim| truth.add_claim(claim));
    for (identity, user, kind, said) in others {
        truth.add(id(*identity), user, kind, said.clone());
    }
    let (rush, took) = (Duration::from_millis(500), Duration::from_millis(1500));
    count(&Outcome { told, rush, took, killed_at: Some(2) }, &truth)
}

fn no(reason: &str) -> Said {
    Said::Rejected(reason.to_owned())
}

#[test]
fn every_user_counts_once_and_the_sum_is_the_attempts() {
    let claims = vec![claim(1, "ann", "A", 5, Standing::Held)];
    let others =
        [(2, "bob", kinds::CLAIM, no("sold_out")), (3, "cid", kinds::CLAIM, no("user_limit_reached"))];
    let users = vec![
        told("ann", vec![given(1, "A")]),
        told("bob", vec![refused(kinds::CLAIM, 2, "sold_out")]),
        told("cid", vec![refused(kinds::CLAIM, 3, "user_limit_reached")]),
        told("dan", vec![step(kinds::CLAIM, Answer::Gate)]),
        told("eve", vec![step(kinds::CLAIM, Answer::None { accepted: true })]),
        told("fay", vec![step(kinds::CLAIM, Answer::Refused { status: 401 })]),
    ];
    let (figures, details) = counted(users, claims, &others);
    let Figures { attempts, won, sold_out, unresolved, given_twice, .. } = figures;
    assert_eq!((attempts, won, sold_out, unresolved, given_twice), (6, 1, 2, 1, 0));
    assert_eq!(details.others.values().sum::<u64>(), attempts - won - sold_out - unresolved);
    assert_eq!((details.gate, details.retries, figures.killed_at), (1, 6, Some(2)));
    assert!((figures.p50_ms - 4.0).abs() < 1e-9 && (figures.seconds - 1.5).abs() < 1e-9);
}

#[test]
fn a_code_that_lapsed_counts_for_who_has_it_in_the_end() {
    let claims = vec![
        claim(1, "ann", "A", 5, Standing::Lapsed(9)),
        claim(3, "bob", "A", 9, Standing::Redeemed),
        claim(6, "cid", "B", 5, Standing::Held),
    ];
    let yes = Said::Accepted { code: "A".to_owned(), paid: Some(paid("2.00")) };
    let others = [
        (2, "bob", kinds::CLAIM, no("sold_out")),
        (4, "ann", kinds::REDEEM, no("hold_lapsed")),
        (5, "ann", kinds::CLAIM, no("sold_out")),
        (7, "cid", kinds::LOCK, no("already_locked")),
        (8, "bob", kinds::REDEEM, yes),
    ];
    let late = refused(kinds::REDEEM, 4, "hold_lapsed");
    let ann = vec![given(1, "A"), late, refused(kinds::CLAIM, 5, "sold_out")];
    let bob = vec![refused(kinds::CLAIM, 2, "sold_out"), given(3, "A"), redeemed(8, "A", "2.00")];
    let users = vec![
        Told { let_lapse: true, ..told("ann", ann) },
        Told { waited: true, ..told("bob", bob) },
        told("cid", vec![given(6, "B"), refused(kinds::LOCK, 7, "already_locked")]),
    ];
    let (figures, details) = counted(users, claims, &others);
    let Figures { won, sold_out, redeemed, lapsed, handed_on, unresolved, given_twice, .. } = figures;
    assert_eq!((won, sold_out, redeemed, lapsed, handed_on), (2, 1, 1, 1, 1));
    assert_eq!((unresolved, given_twice), (0, 0), "{details:?}");
    assert_eq!((details.let_lapse, details.waited, details.waited_and_won), (1, 1, 1));
    assert_eq!(details.not_redeemed, BTreeMap::from([("already_locked".to_owned(), 1)]));
}

#[test]
fn what_a_user_was_told_and_postgres_does_not_say_is_unresolved() {
    let yes = Said::Accepted { code: "D".to_owned(), paid: Some(paid("2.01")) };
    let others = [(5, "dan", kinds::REDEEM, yes), (6, "eve", kinds::LOCK, no("not_claimed"))];
    let claims = vec![claim(2, "bob", "B", 5, Standing::Held), claim(4, "dan", "D", 5, Standing::Redeemed)];
    let users = vec![
        told("ann", vec![given(1, "A")]),
        told("bob", vec![given(2, "C")]),
        told("cid", vec![refused(kinds::CLAIM, 3, "sold_out")]),
        told("dan", vec![given(4, "D"), redeemed(5, "D", "2.00")]),
        told("eve", vec![refused(kinds::CLAIM, 6, "not_claimed")]),
    ];
    let (figures, details) = counted(users, claims, &others);
    assert_eq!((figures.won, figures.sold_out, figures.redeemed, figures.unresolved), (0, 0, 0, 5));
    assert_eq!(details.contradicted, 5, "a cent makes a difference, and so does what was asked for");
}

#[test]
fn a_code_that_two_have_at_the_same_time_is_given_twice() {
    let twice = |told, claims| counted(told, claims, &[]).0.given_twice;
    let (ann, bob) = (told("ann", vec![given(1, "A")]), told("bob", vec![given(2, "A")]));
    assert_eq!(twice(vec![ann.clone(), bob], vec![]), 1, "told to two");
    let held = |user, identity| claim(identity, user, "A", 5, Standing::Held);
    assert_eq!(twice(vec![ann.clone()], vec![held("bob", 2)]), 1, "told to one, held by another");
    assert_eq!(twice(Vec::new(), vec![held("ann", 1), held("ann", 2)]), 1, "two rows");
    assert_eq!(twice(vec![ann.clone()], vec![held("ann", 1)]), 0);
    let lapsed = |at| claim(1, "ann", "A", 5, Standing::Lapsed(at));
    let later = |from| claim(2, "bob", "A", from, Standing::Redeemed);
    assert_eq!(twice(vec![ann.clone()], vec![later(9), lapsed(9)]), 0, "one after the other");
    assert_eq!(twice(vec![ann], vec![later(8), lapsed(9)]), 1, "before the hold had ended");
}

#[test]
fn a_code_that_is_redeemed_twice_is_given_twice() {
    let user = told("ann", vec![given(1, "A"), redeemed(2, "A", "2.00"), redeemed(3, "A", "2.00")]);
    let claims = vec![claim(1, "ann", "A", 5, Standing::Redeemed)];
    assert_eq!(counted(vec![user], claims, &[]).0.given_twice, 1);
}

#[test]
fn a_quantile_is_a_value_that_was_seen() {
    let values: Vec<_> = (1..=10).map(Duration::from_millis).collect();
    let of = |percent| quantile(&values, percent).as_millis();
    assert_eq!((of(50), of(95), of(99)), (5, 10, 10));
    assert_eq!(quantile(&[], 50), Duration::ZERO);
}
