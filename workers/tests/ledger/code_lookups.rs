//! Lookups for requests about codes; and outcomes about codes are published again unchanged.

use coupon_core::batch::{CodeFlags, Decision, StockRow, Verdict};
use coupon_core::coupon::Status;
use coupon_core::ids::{CodeNumber, EmitSeq, LoadId, Millis, Nonce, RequestId};
use coupon_core::interface::{CodeLookup, DueLookup, LookupResults, Lookups, OrderLookup, UserLookup};
use coupon_core::money::Rate;
use coupon_core::words::{ClaimState, Kind, Reason};
use workers::codec::response::response_of;

use crate::builders::{
    HOLD, LOCK, change, changed, claim_with_hold, flags_change, id, redeem, redemption, rollback,
    rolled_back, status, stored_claim, with_redemption,
};
use crate::fixture::{COUPON, Fixture, NOW, PARTITION, ledger, of_request, rejection};

async fn load(owner: &Fixture, lookups: Lookups) -> LookupResults {
    owner.ledger.reader().lookup(PARTITION, &lookups).await.unwrap()
}

/// Writes decisions without the matching stock changes.
async fn write(owner: &mut Fixture, decisions: Vec<Decision>) {
    let mut batch = owner.batch();
    batch.decisions = decisions;
    owner.write(&owner.publishing(batch)).await;
}

fn code_lookup(key: &str, user: &str) -> CodeLookup {
    CodeLookup { key: key.into(), user: user.into() }
}

#[tokio::test]
async fn every_outcome_is_read_back_unchanged_after_later_changes_of_its_claim() {
    let mut owner = Fixture::new(10).await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let locked = status(ClaimState::Locked, Some(HOLD), Some(LOCK), Some("order-1"));
    let free = status(ClaimState::Returned, None, None, None);
    let revoked = status(ClaimState::Revoked, None, None, None);
    let mut shared = redeem(20, "eve", 9, "order-9");
    let mut shared_rollback = rollback(21, "boss", 9, &held, redemption(20, "order-9"));
    let mut unclaimed = changed(22, Kind::Revoke, "boss", 8, &revoked);
    for decision in [&mut shared, &mut shared_rollback, &mut unclaimed] {
        let Verdict::Changed(changed) = &mut decision.verdict else { unreachable!() };
        changed.state = changed.state.filter(|state| *state == ClaimState::Revoked);
        (changed.claimed, changed.hold_until) = (None, None);
    }
    let mut fine = redemption(23, "order-3");
    fine.amount = "0.1000".parse().unwrap();
    fine.discount = "0.0000".parse().unwrap();
    fine.final_price = "0.1000".parse().unwrap();
    fine.currency = "CLF".into();
    let mut whole = redemption(24, "order-4");
    whole.amount = "999999999999".parse().unwrap();
    whole.discount = "999999999999".parse().unwrap();
    whole.final_price = "0".parse().unwrap();
    whole.currency = "JPY".into();
    let mut keyed = redeem(25, "cid", 5, "order-5");
    keyed.request.id.body = 77;
    let Verdict::Changed(inner) = &mut keyed.verdict else { unreachable!() };
    inner.redemption.as_mut().unwrap().id.body = 77;
    let keyed_redemption = inner.redemption.clone().unwrap();

    let decisions = vec![
        claim_with_hold(1, "ann", 1),
        changed(2, Kind::Lock, "ann", 1, &locked),
        changed(3, Kind::Unlock, "ann", 1, &held),
        redeem(4, "ann", 1, "order-1"),
        rollback(5, "boss", 1, &held, redemption(4, "order-1")),
        changed(6, Kind::Return, "ann", 1, &free),
        changed(7, Kind::Revoke, "boss", 2, &revoked),
        crate::fixture::claim(8, "bob", 3),
        rejection(9, "bob", Reason::OrderAlreadyUsed),
        of_request(rejection(10, "bob", Reason::NotYourCode), |request| request.kind = Kind::Lock),
        shared,
        shared_rollback,
        unclaimed,
        with_redemption(redeem(23, "bob", 3, "order-3"), fine),
        with_redemption(redeem(24, "bob", 4, "order-4"), whole),
        keyed,
        rollback(26, "boss", 5, &held, keyed_redemption),
    ];
    let mut batch = owner.batch();
    batch.decisions = decisions.clone();
    batch.rolled_back = vec![rolled_back(4, true)];
    let batch = owner.publishing(batch);
    owner.write(&batch).await;
    // The claims change; the published outcomes do not.
    owner.run("update claims set state = 4, hold_until_ms = null, deadline_ms = null, lapsed_ms = 5").await;

    let entry = owner.ledger.reader().outbox(PARTITION, EmitSeq(1), EmitSeq(1)).await.unwrap().remove(0);
    let identities = decisions.iter().map(|decision| decision.request.id.identity).collect();
    let read =
        load(&owner, Lookups { decided: identities, decided_in: vec![NOW.day()], ..Lookups::default() })
            .await
            .decided;
    for mut again in [entry.decisions, read] {
        again.sort_by_key(|decision| decision.request.id);
        let mut first = decisions.clone();
        first.sort_by_key(|decision| decision.request.id);
        assert_eq!(again, first);
        for (again, first) in again.iter().zip(&first) {
            // Amounts compare equal at any scale; their text is published.
            assert_eq!(response_of(again, PARTITION), response_of(first, PARTITION));
        }
    }
}

#[tokio::test]
async fn codes_are_found_by_name_with_their_claims_and_flags() {
    let mut owner = Fixture::new(4).await;
    write(&mut owner, vec![claim_with_hold(1, "ann", 1), claim_with_hold(2, "bob", 2)]).await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let mut lapsed = status(ClaimState::Returned, Some(HOLD), None, None);
    lapsed.lapsed = Some(HOLD);
    let given_back = status(ClaimState::Returned, None, None, None);
    let mut batch = owner.batch();
    batch.claims = vec![
        change(&held, stored_claim(1, "ann", 1, lapsed)),
        change(&held, stored_claim(2, "bob", 2, given_back)),
    ];
    batch.code_flags = vec![flags_change(3, CodeFlags::default(), CodeFlags { uses: 2, revoked: false })];
    owner.write(&batch).await;
    write(&mut owner, vec![claim_with_hold(3, "cid", 1)]).await;
    owner
        .run(
            "insert into loads (job_id, coupon_no, state, wanted, count, maker, lease_until)
         values (gen_random_uuid(), 1, 'sealed', 1, 1, gen_random_uuid(), now());
         insert into codes values (2, 1, 'Not-Yet', 'NOTYET')",
        )
        .await;

    let codes = vec![
        code_lookup("1-1", "ann"),
        code_lookup("1-1", "cid"),
        code_lookup("1-2", "bob"),
        code_lookup("1-3", "ann"),
        code_lookup("NOTYET", "ann"),
    ];
    let codes = codes.into_iter().chain([code_lookup("nothing", "ann")]).collect();
    let mut results = load(&owner, Lookups { codes, ..Lookups::default() }).await;
    results.codes.sort_by(|a, b| a.key.cmp(&b.key));
    let [one, two, three, unapplied] = results.codes.as_slice() else { panic!("{:?}", results.codes) };
    assert_eq!((&*one.key, &*one.code, one.coupon), ("1-1", "1-1", COUPON));
    assert_eq!((one.load, one.idx, one.base), (LoadId(1), 1, Some(0)));
    assert_eq!(one.claim, Some(stored_claim(3, "cid", 1, held)));
    assert_eq!((&two.claim, two.flags), (&None, CodeFlags::default()));
    assert_eq!(three.flags, CodeFlags { uses: 2, revoked: false });
    assert_eq!((&*unapplied.code, unapplied.base, unapplied.idx), ("Not-Yet", None, 1));
    // Ann's hold lapsed, and cid has claimed that code; bob has returned his.
    assert_eq!(results.lapsed, [(COUPON, CodeNumber(1), "ann".into())]);
}

#[tokio::test]
async fn redemptions_are_found_by_identity_and_body_with_their_codes() {
    let mut owner = Fixture::new(4).await;
    write(
        &mut owner,
        vec![claim_with_hold(1, "ann", 2), redeem(5, "ann", 2, "order-1"), redeem(6, "ann", 2, "order-2")],
    )
    .await;
    let mut batch = owner.batch();
    batch.rolled_back = vec![rolled_back(5, false)];
    owner.write(&batch).await;

    let redemptions = vec![id(5), id(6), RequestId { identity: 6, body: 9 }, id(7)];
    let lookups = Lookups {
        redemptions,
        codes: vec![code_lookup("1-2", "ann"), code_lookup("1-1", "ann")],
        ..Lookups::default()
    };
    let mut results = load(&owner, lookups).await;
    results.redemptions.sort_by_key(|stored| stored.redemption.id);
    let [undone, live] = results.redemptions.as_slice() else { panic!("{:?}", results.redemptions) };
    assert_eq!((&undone.redemption, undone.rolled_back), (&redemption(5, "order-1"), true));
    assert_eq!((&live.redemption, live.rolled_back), (&redemption(6, "order-2"), false));
    assert_eq!((live.coupon, live.number, &*live.user), (COUPON, CodeNumber(2), "ann"));
    assert_eq!(live.redemption.discount.to_string(), "10.00");
    let mut keys: Vec<_> = results.codes.iter().map(|code| &*code.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["1-1", "1-2"], "each code once");

    let order =
        |number, order: &str| OrderLookup { coupon: COUPON, number: CodeNumber(number), order: order.into() };
    let orders = vec![order(2, "order-1"), order(2, "order-2"), order(1, "order-2"), order(2, "order-3")];
    let lookups = Lookups { orders, redemptions: vec![id(6)], ..Lookups::default() };
    let results = load(&owner, lookups).await;
    assert_eq!(results.orders, [order(2, "order-2")], "the other one was rolled back");
    assert_eq!(results.codes.iter().map(|code| &*code.key).collect::<Vec<_>>(), ["1-2"]);

    let users = |redemptions| {
        let users = vec!["ann".into(), "bob".into()];
        Lookups { users: vec![UserLookup { coupon: COUPON, users, redemptions }], ..Lookups::default() }
    };
    let counts = |results: &LookupResults| {
        results.users.iter().map(|live| (live.claims, live.redemptions)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&load(&owner, users(true)).await), [(1, 1)]);
    assert_eq!(counts(&load(&owner, users(false)).await), [(1, 0)]);
}

#[tokio::test]
async fn due_claims_are_read_in_order_with_the_next_deadline() {
    let mut owner = Fixture::new(9).await;
    let at = |identity, number, until: i64| {
        let mut decision = claim_with_hold(identity, "ann", number);
        let Verdict::Claimed { hold_until, .. } = &mut decision.verdict else { unreachable!() };
        *hold_until = Some(Millis(until));
        decision
    };
    let decisions = vec![at(1, 5, 20), at(2, 4, 20), at(3, 3, 10), at(4, 2, 30), at(5, 1, 40)];
    write(&mut owner, decisions).await;
    owner
        .run(
            "update claims set partition = 6 where identity = (select identity from claims where number = 1)",
        )
        .await;
    let due_from = async |from, until, limit| {
        let due = DueLookup { from: Millis(from), until: Millis(until), limit };
        let lookups = Lookups { due: Some(due), ..Lookups::default() };
        let due = load(&owner, lookups).await.due.unwrap();
        let numbers: Vec<i64> = due.claims.iter().map(|(_, claim)| claim.number.0).collect();
        (numbers, due.next.map(|next| next.0))
    };
    let due = async |until, limit| due_from(i64::MIN, until, limit).await;
    assert_eq!(due(9, 5).await, (vec![], Some(10)));
    assert_eq!(due(10, 5).await, (vec![3], Some(20)));
    assert_eq!(due(20, 2).await, (vec![3, 4], Some(30)), "the earliest, then by number");
    assert_eq!(due(99, 9).await, (vec![3, 4, 5, 2], None), "claims of other partitions are excluded");
    assert_eq!(due_from(20, 29, 9).await, (vec![4, 5], Some(30)), "from the lower bound on");

    let first = DueLookup { from: Millis(10), until: Millis(10), limit: 1 };
    let lookups = Lookups { due: Some(first), ..Lookups::default() };
    let results = load(&owner, lookups).await.due.unwrap();
    let held = status(ClaimState::Claimed, Some(Millis(10)), None, None);
    assert_eq!(results.claims, [("sale".into(), stored_claim(3, "ann", 3, held))]);
    assert_eq!(load(&owner, Lookups::default()).await.due, None, "not requested");
}

#[tokio::test]
async fn a_takeover_returns_the_next_deadline() {
    let mut owner = Fixture::new(9).await;
    assert_eq!(owner.row.next_deadline, None);
    write(&mut owner, vec![claim_with_hold(1, "ann", 1), crate::fixture::claim(2, "bob", 2)]).await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let locked = status(ClaimState::Locked, Some(HOLD), Some(LOCK), None);
    let taken = ledger(&owner.options, &owner.pool, "worker-b").take_over(Nonce(2)).await.unwrap();
    assert_eq!(taken.next_deadline, Some(HOLD));

    let mut second = Fixture { row: taken, ledger: ledger(&owner.options, &owner.pool, "worker-b"), ..owner };
    let mut batch = second.batch();
    batch.claims = vec![change(&held, stored_claim(1, "ann", 1, locked))];
    second.write(&batch).await;
    assert_eq!(second.ledger.read_back().await.unwrap().next_deadline, None, "returned by a takeover only");
    let taken = second.ledger.take_over(Nonce(3)).await.unwrap();
    assert_eq!(taken.next_deadline, Some(LOCK), "a lock suspends the hold");
}

#[tokio::test]
async fn a_coupon_is_read_with_all_its_rules_and_counters() {
    let owner = Fixture::new(9).await;
    owner
        .run(
            "update coupons set status = 'paused', starts_at_ms = 1, expires_at_ms = 2, claims_per_user = null,
                    redemptions_per_user = 3, redemptions_per_code = null, redemptions_total = 5000000000,
                    hold_seconds = 60, lock_seconds = 30, requires_lock = true, definition = '{\"name\": \"Sale\",
                    \"discount\": {\"type\": \"FIXED_AMOUNT\", \"value\": \"5.00\", \"currency\": \"EUR\",
                                   \"minimum_order\": \"20\", \"maximum_discount\": \"5\"}}'",
        )
        .await;
    owner
        .run(
            "update stock set cursor = 4, claimed = 1, locked = 1, redeemed = 1, revoked = 1, redemptions = 8
              where coupon_no = 1",
        )
        .await;
    let lookups = || Lookups { coupons: vec!["sale".into()], ..Lookups::default() };
    let sale = load(&owner, lookups()).await.coupons.remove(0);
    let counters = StockRow { claimed: 1, locked: 1, redeemed: 1, revoked: 1, redemptions: 8, ..sale.stock };
    assert_eq!(sale.stock, StockRow { top: 9, cursor: 4, ahead: 0, returned: 0, ..counters });
    let rules = &sale.definition;
    assert_eq!(
        (rules.status, rules.starts, rules.expires),
        (Status::Paused, Some(Millis(1)), Some(Millis(2)))
    );
    assert_eq!((rules.hold, rules.lock, rules.requires_lock), (Some(60_000), 30_000, true));
    assert_eq!((rules.claims_per_user, rules.redemptions_per_user), (None, Some(3)));
    assert_eq!((rules.redemptions_per_code, rules.redemptions_total), (None, Some(5_000_000_000)));
    assert!(rules.is_shared());
    assert_eq!(rules.discount.rate, Rate::Fixed("5".parse().unwrap()));
    assert_eq!(rules.discount.currency.as_deref(), Some("EUR"));
    assert_eq!(rules.discount.minimum_order, Some("20".parse().unwrap()));
    assert_eq!(rules.discount.maximum_discount, Some("5".parse().unwrap()));

    owner.run("update coupons set definition = jsonb_set(definition, '{discount,type}', '\"GIFT\"')").await;
    let rejected = owner.ledger.reader().lookup(PARTITION, &lookups()).await;
    assert!(rejected.is_err(), "a discount type of a newer version is an error, not no discount");
}
