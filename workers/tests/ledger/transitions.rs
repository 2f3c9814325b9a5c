//! Claim transitions: each is written only if the rows are as the owner has cached them.

use coupon_core::batch::{Batch, CodeFlags, Decision, Event, EventKind, Lapsed, StockRow};
use coupon_core::ids::{CodeNumber, Millis, Offset};
use coupon_core::interface::WriteResult;
use coupon_core::words::{ClaimState, Kind, Reason};

use crate::builders::{
    DAY_MS, HOLD, LOCK, change, changed, claim_with_hold, flags_change, read_code, redeem, redemption,
    rollback, rolled_back, status, stored_claim,
};
use crate::fixture::{COUPON, Fixture, NOW, claim, rejection};

/// A digest of all rows of the tables that a batch writes.
const ROWS: &str = "
    select hashtextextended(string_agg(r, '|' order by r), 0) from (
        select 'c' || t from claims t union all select 'o' || t from outcomes t
        union all select 'r' || t from redemptions t union all select 'm' || t from code_marks t
        union all select 's' || t from stock t union all select 'a' || t from stock_ahead t
        union all select 'b' || t from stock_returned t union all select 'x' || t from outbox t
        union all select 'y' || t from outbox_messages t union all select 'p' || t from partitions t) r (r)";

/// The error of a rejected batch, of which nothing may have been written.
async fn mismatch(owner: &Fixture, batch: &Batch) -> String {
    let before = owner.number(ROWS).await;
    let result = owner.try_write(batch).await;
    assert_eq!(owner.number(ROWS).await, before, "a rejected batch writes nothing");
    let WriteResult::Mismatch(reason) = result else { unreachable!("{result:?}") };
    reason
}

/// A fault of a batch, and the function that introduces it.
type Fault = (&'static str, fn(&mut Batch));

/// A batch with these decisions and this stock row.
fn batch(owner: &Fixture, decisions: Vec<Decision>, after: StockRow) -> Batch {
    let mut batch = owner.batch();
    batch.position.next_offset.0 += decisions.len() as i64;
    batch.decisions = decisions;
    batch.stock.push(owner.stock_change(after));
    owner.publishing(batch)
}

/// A database in which ann has claimed the first code, with a hold.
async fn held() -> Fixture {
    let mut owner = Fixture::new(10).await;
    let after = StockRow { cursor: 1, claimed: 1, ..owner.stock };
    owner.write(&batch(&owner, vec![claim_with_hold(1, "ann", 1)], after)).await;
    owner
}

#[tokio::test]
async fn every_transition_of_a_claim_is_read_back_after_its_batch() {
    let mut owner = held().await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(1, "ann", 1, held.clone())));

    // Locked for an order, released, locked again.
    let locked = status(ClaimState::Locked, Some(HOLD), Some(LOCK), Some("order-1"));
    let mut before = held.clone();
    for (n, kind, now) in [(2, Kind::Lock, &locked), (3, Kind::Unlock, &held), (4, Kind::Lock, &locked)] {
        let after = match now.state {
            ClaimState::Locked => StockRow { claimed: 0, locked: 1, ..owner.stock },
            _ => StockRow { claimed: 1, locked: 0, ..owner.stock },
        };
        let mut step = batch(&owner, vec![changed(n, kind, "ann", 1, now)], after);
        step.claims = vec![change(&before, stored_claim(1, "ann", 1, now.clone()))];
        owner.write(&step).await;
        assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(1, "ann", 1, now.clone())), "{kind}");
        before = now.clone();
    }

    // Redeemed, and rolled back with a fresh hold.
    let redeemed = status(ClaimState::Redeemed, Some(HOLD), None, Some("order-1"));
    let after = StockRow { locked: 0, redeemed: 1, redemptions: 1, ..owner.stock };
    let mut step = batch(&owner, vec![redeem(5, "ann", 1, "order-1")], after);
    step.claims = vec![change(&before, stored_claim(1, "ann", 1, redeemed.clone()))];
    owner.write(&step).await;
    assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(1, "ann", 1, redeemed.clone())));
    let fresh = status(ClaimState::Claimed, Some(Millis(HOLD.0 + 7)), None, None);
    let after = StockRow { claimed: 1, redeemed: 0, redemptions: 0, ..owner.stock };
    let mut step = batch(&owner, vec![rollback(6, "boss", 1, &fresh, redemption(5, "order-1"))], after);
    step.claims = vec![change(&redeemed, stored_claim(1, "ann", 1, fresh.clone()))];
    step.rolled_back = vec![rolled_back(5, false)];
    owner.write(&step).await;
    assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(1, "ann", 1, fresh.clone())));

    // The hold lapses, and the code is free.
    let mut lapsed = status(ClaimState::Returned, fresh.hold_until, None, None);
    lapsed.lapsed = fresh.hold_until;
    let mut step = batch(&owner, Vec::new(), StockRow { claimed: 0, returned: 1, ..owner.stock });
    step.claims = vec![change(&fresh, stored_claim(1, "ann", 1, lapsed))];
    step.returned_added = vec![(COUPON, CodeNumber(1))];
    let lapse = Lapsed { code: crate::fixture::code(1), user: "ann".into() };
    step.events = vec![Event {
        kind: EventKind::HoldLapsed,
        coupon_id: "sale".into(),
        available: 10,
        lapsed: Some(lapse),
        offset: Offset(6),
        at: HOLD,
    }];
    owner.write(&owner.publishing(step)).await;
    let free = read_code(&owner, 1).await;
    assert_eq!((free.claim, free.flags), (None, CodeFlags::default()));
    assert_eq!(owner.number("select number from stock_returned").await, 1);

    // Claimed again, and revoked.
    let after = StockRow { claimed: 1, returned: 0, ..owner.stock };
    let mut step = batch(&owner, vec![claim(7, "bob", 1)], after);
    step.returned_taken = vec![(COUPON, CodeNumber(1))];
    owner.write(&step).await;
    let plain = status(ClaimState::Claimed, None, None, None);
    assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(7, "bob", 1, plain.clone())));
    let revoked = status(ClaimState::Revoked, None, None, None);
    let after = StockRow { claimed: 0, revoked: 1, ..owner.stock };
    let mut step = batch(&owner, vec![changed(8, Kind::Revoke, "boss", 1, &revoked)], after);
    step.claims = vec![change(&plain, stored_claim(7, "bob", 1, revoked.clone()))];
    step.code_flags = vec![flags_change(1, CodeFlags::default(), CodeFlags { uses: 0, revoked: true })];
    owner.write(&step).await;
    let last = read_code(&owner, 1).await;
    assert_eq!(last.claim, Some(stored_claim(7, "bob", 1, revoked)));
    assert!(last.flags.revoked);
}

#[tokio::test]
async fn a_claim_changes_only_if_its_state_and_deadline_are_as_cached() {
    let mut owner = held().await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let locked = status(ClaimState::Locked, Some(HOLD), Some(LOCK), None);
    let after = StockRow { claimed: 0, locked: 1, ..owner.stock };
    let mut good = batch(&owner, vec![changed(2, Kind::Lock, "ann", 1, &locked)], after);
    good.claims = vec![change(&held, stored_claim(1, "ann", 1, locked.clone()))];
    let wrong: [Fault; 4] = [
        ("another state", |batch| batch.claims[0].before = Some((ClaimState::Redeemed, Some(HOLD)))),
        ("another deadline", |batch| batch.claims[0].before = Some((ClaimState::Claimed, Some(LOCK)))),
        ("no deadline", |batch| batch.claims[0].before = Some((ClaimState::Claimed, None))),
        ("no such claim", |batch| batch.claims[0].claim.id.identity = 99),
    ];
    for (what, introduce) in wrong {
        let mut faulty = good.clone();
        introduce(&mut faulty);
        let reason = mismatch(&owner, &faulty).await;
        assert!(reason.contains("partition 5: 0 of 1 claims"), "{what}: {reason}");
    }
    owner.write(&good).await;
    assert!(mismatch(&owner, &Batch { fence: owner.batch().fence, ..good }).await.contains("stock rows"));
}

#[tokio::test]
async fn a_redemption_is_rolled_back_once_and_an_order_has_one_live_redemption_of_a_code() {
    let mut owner = held().await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let redeemed = status(ClaimState::Redeemed, Some(HOLD), None, Some("order-1"));
    let after = StockRow { claimed: 0, redeemed: 1, redemptions: 1, ..owner.stock };
    let mut step = batch(&owner, vec![redeem(5, "ann", 1, "order-1")], after);
    step.claims = vec![change(&held, stored_claim(1, "ann", 1, redeemed.clone()))];
    owner.write(&step).await;

    let mut twice = owner.batch();
    twice.decisions = vec![redeem(6, "ann", 1, "order-1")];
    assert!(mismatch(&owner, &owner.publishing(twice)).await.contains("redemptions_live"));
    let mut again = owner.batch();
    again.decisions = vec![redeem(5, "ann", 1, "order-2")];
    assert_eq!(owner.try_write(&owner.publishing(again)).await, WriteResult::AlreadyDecided);

    let mut unknown = owner.batch();
    unknown.rolled_back = vec![rolled_back(77, false)];
    assert!(mismatch(&owner, &unknown).await.contains("0 of 1 redemptions"));
    let mut another = owner.batch();
    another.rolled_back = vec![rolled_back(5, false)];
    another.rolled_back[0].id.body = 3;
    assert!(
        mismatch(&owner, &another).await.contains("0 of 1 redemptions"),
        "the same identity, another body"
    );

    // Rolled back and redeemed again for the same order in one batch.
    let mut step = batch(&owner, Vec::new(), owner.stock);
    step.decisions =
        vec![rollback(7, "boss", 1, &held, redemption(5, "order-1")), redeem(8, "ann", 1, "order-1")];
    step.rolled_back = vec![rolled_back(5, false)];
    let step = owner.publishing(step);
    owner.write(&step).await;
    let mut late = owner.batch();
    late.rolled_back = vec![rolled_back(5, false)];
    assert!(mismatch(&owner, &late).await.contains("0 of 1 redemptions"), "it was rolled back before");
    assert_eq!(owner.number("select count(*) from redemptions where rolled_back_ms is null").await, 1);
}

#[tokio::test]
async fn transitions_of_a_claim_in_the_batch_that_made_it_end_in_one_row() {
    let mut owner = Fixture::new(10).await;
    let locked = status(ClaimState::Locked, Some(HOLD), Some(LOCK), Some("order-1"));
    let redeemed = status(ClaimState::Redeemed, Some(HOLD), None, Some("order-1"));
    let mut decisions = vec![claim_with_hold(1, "ann", 1)];
    decisions.push(changed(2, Kind::Lock, "ann", 1, &locked));
    decisions.push(redeem(3, "ann", 1, "order-1"));
    // Claimed, redeemed, rolled back, returned, and claimed by another user, all within the batch.
    let free = status(ClaimState::Returned, None, None, None);
    decisions.extend([claim_with_hold(4, "bob", 2), redeem(5, "bob", 2, "order-1")]);
    let fresh = status(ClaimState::Claimed, Some(HOLD), None, None);
    decisions.push(rollback(6, "boss", 2, &fresh, redemption(5, "order-1")));
    decisions.extend([changed(7, Kind::Return, "bob", 2, &free), claim_with_hold(8, "cid", 2)]);
    let after = StockRow { cursor: 2, claimed: 1, redeemed: 1, redemptions: 1, ..owner.stock };
    let mut all = batch(&owner, decisions.clone(), after);
    let made = |claim| coupon_core::batch::ClaimChange { before: None, claim };
    all.claims =
        vec![made(stored_claim(1, "ann", 1, redeemed.clone())), made(stored_claim(4, "bob", 2, free))];
    all.rolled_back = vec![rolled_back(5, true)];
    owner.write(&all).await;
    assert_eq!(owner.number("select count(*) from claims").await, 3);
    assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(1, "ann", 1, redeemed)));
    assert_eq!(read_code(&owner, 2).await.claim, Some(stored_claim(8, "cid", 2, fresh)));
    assert_eq!(owner.number("select count(*) from redemptions where rolled_back_ms is null").await, 1);
}

#[tokio::test]
async fn a_returned_code_is_claimed_again_in_the_same_batch() {
    let mut owner = held().await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let free = status(ClaimState::Returned, None, None, None);
    let decisions = vec![changed(2, Kind::Return, "ann", 1, &free), claim_with_hold(3, "bob", 1)];
    let mut step = batch(&owner, decisions, owner.stock);
    let mut without = step.clone();
    without.claims.clear();
    assert!(mismatch(&owner, &without).await.contains("claims_live"), "ann still has it");
    step.claims = vec![change(&held, stored_claim(1, "ann", 1, free))];
    owner.write(&step).await;
    assert_eq!(read_code(&owner, 1).await.claim, Some(stored_claim(3, "bob", 1, held)));
    assert_eq!(owner.number("select count(*) from stock_returned").await, 0);
}

#[tokio::test]
async fn code_flags_are_written_only_if_the_previous_flags_are_as_cached() {
    let mut owner = Fixture::new(10).await;
    let none = CodeFlags::default();
    let used = |uses| CodeFlags { uses, revoked: false };
    let flagging = |owner: &Fixture, number, before, after| {
        let mut batch = owner.batch();
        batch.code_flags = vec![flags_change(number, before, after)];
        batch
    };
    // A row with default flags is equal to a missing row.
    for (before, after) in [(none, used(1)), (used(1), used(2)), (used(2), none), (none, used(1))] {
        for wrong in [used(7), CodeFlags { revoked: true, ..before }] {
            let reason = mismatch(&owner, &flagging(&owner, 1, wrong, after)).await;
            assert!(reason.contains("0 of 1 codes are marked"), "{reason}");
        }
        let batch = flagging(&owner, 1, before, after);
        owner.write(&batch).await;
        assert_eq!(read_code(&owner, 1).await.flags, after);
    }
    assert!(mismatch(&owner, &flagging(&owner, 1, none, used(1))).await.contains("0 of 1 codes"));

    // New and existing flags in one batch.
    let revoked = CodeFlags { uses: 1, revoked: true };
    let mut both = flagging(&owner, 1, used(1), revoked);
    both.code_flags.push(flags_change(2, none, used(1)));
    let mut one_wrong = both.clone();
    one_wrong.code_flags[1].before = used(3);
    assert!(mismatch(&owner, &one_wrong).await.contains("1 of 2 codes are marked"));
    owner.write(&both).await;
    assert_eq!(read_code(&owner, 1).await.flags, revoked);
    assert_eq!(read_code(&owner, 2).await.flags, used(1));
}

#[tokio::test]
async fn numbers_ahead_of_the_cursor_and_behind_it_are_counted() {
    let mut owner = Fixture::new(10).await;
    let number = |n| (COUPON, CodeNumber(n));
    // Three named claims.
    let named = vec![claim(1, "ann", 3), claim(2, "bob", 5), claim(3, "cid", 8)];
    let mut step = batch(&owner, named, StockRow { ahead: 3, claimed: 3, ..owner.stock });
    step.ahead_taken = [3, 5, 8].map(number).to_vec();
    owner.write(&step).await;
    let mut again = owner.batch();
    again.ahead_taken = vec![number(8)];
    assert!(mismatch(&owner, &again).await.contains("stock_ahead_pkey"));

    // The cursor passes the first two; the second is returned behind it, the third ahead of it.
    let free = status(ClaimState::Returned, None, None, None);
    let decisions = [(4, 1), (5, 2), (6, 4)].map(|(id, n)| claim(id, "dan", n));
    let mut step = batch(&owner, decisions.to_vec(), owner.stock);
    step.decisions.push(changed(7, Kind::Return, "bob", 5, &free));
    step.decisions.push(changed(8, Kind::Return, "cid", 8, &free));
    let plain = status(ClaimState::Claimed, None, None, None);
    step.claims = vec![
        change(&plain, stored_claim(2, "bob", 5, free.clone())),
        change(&plain, stored_claim(3, "cid", 8, free.clone())),
    ];
    step.stock[0].after = StockRow { cursor: 5, ahead: 0, returned: 1, claimed: 4, ..owner.stock };
    step.stock[0].passed = 2;
    step.ahead_freed = vec![number(8)];
    step.returned_added = vec![number(5)];
    let mut wrong = step.clone();
    wrong.ahead_freed.push(number(9));
    assert!(mismatch(&owner, &wrong).await.contains("1 of 2 numbers are ahead"));
    owner.write(&step).await;
    assert_eq!(owner.number("select count(*) from stock_ahead").await, 0);
    assert_eq!(owner.number("select number from stock_returned").await, 5);
    let mut again = owner.batch();
    again.returned_added = vec![number(5)];
    assert!(mismatch(&owner, &again).await.contains("stock_returned_pkey"));
}

#[tokio::test]
async fn a_batch_of_claims_without_holds_calls_only_write_batch() {
    let mut owner = Fixture::new(10).await;
    owner.run("drop function write_life").await;
    let mut decisions = owner.claims(1, &["ann", "bob"]);
    decisions.push(rejection(3, "cid", Reason::SoldOut));
    let mut plain = owner.deciding(decisions);
    plain.events = vec![Event {
        kind: EventKind::SoldOut,
        coupon_id: "sale".into(),
        available: 0,
        lapsed: None,
        offset: Offset(3),
        at: NOW,
    }];
    owner.write(&plain).await;
    let after = StockRow { cursor: 3, claimed: 3, ..owner.stock };
    let holding = batch(&owner, vec![claim_with_hold(4, "dan", 3)], after);
    assert_eq!(owner.try_write(&holding).await, WriteResult::Retry, "a hold needs the other function");
}

#[tokio::test]
async fn write_life_alone_does_not_bypass_the_fence() {
    let owner = held().await;
    let arrays = vec!["'{}'"; 65].join(", ");
    let alone = format!("select write_life(5, 1, gen_random_uuid(), 1, date '2026-01-01', {arrays})");
    let error = sqlx::raw_sql(sqlx::AssertSqlSafe(alone)).execute(&owner.pool).await.unwrap_err();
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("SP001"));
}

#[tokio::test]
async fn text_that_postgres_rejects_is_rejected_as_data_in_every_column() {
    let owner = held().await;
    let long = "o".repeat(129);
    for order in [long.as_str(), "n\0l", ""] {
        let locked = status(ClaimState::Locked, Some(HOLD), Some(LOCK), Some(order));
        let lock = changed(2, Kind::Lock, "ann", 1, &locked);
        for decision in [redeem(5, "ann", 1, order), lock] {
            let mut batch = owner.batch();
            batch.decisions = vec![decision];
            let result = owner.try_write(&owner.publishing(batch)).await;
            assert!(matches!(result, WriteResult::DataRejected(_)), "{order:?}: {result:?}");
        }
        let held = status(ClaimState::Claimed, Some(HOLD), None, None);
        let mut batch = owner.batch();
        batch.claims = vec![change(&held, stored_claim(1, "ann", 1, locked))];
        let result = owner.try_write(&batch).await;
        assert!(matches!(result, WriteResult::DataRejected(_)), "{order:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_batch_that_its_rows_cannot_represent_is_not_written() {
    let owner = held().await;
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let rejected = async |introduce: &dyn Fn(&mut Batch)| {
        let mut batch = owner.batch();
        introduce(&mut batch);
        mismatch(&owner, &owner.publishing(batch)).await
    };
    let reason = rejected(&|batch| {
        batch.claims = vec![coupon_core::batch::ClaimChange {
            before: None,
            claim: stored_claim(9, "ann", 2, held.clone()),
        }];
    })
    .await;
    assert!(reason.contains("not made by this batch"));
    let reason = rejected(&|batch| batch.rolled_back = vec![rolled_back(9, true)]).await;
    assert!(reason.contains("not made by this batch"));
    let reason = rejected(&|batch| {
        batch.decisions = vec![redeem(5, "ann", 1, "order-1")];
        batch.decisions[0].decided.0 += DAY_MS;
    })
    .await;
    assert!(reason.contains("more than a redemption's row"));
    let reason = rejected(&|batch| batch.decisions = vec![changed(5, Kind::Redeem, "ann", 1, &held)]).await;
    assert!(reason.contains("without a redemption"));
    let reason = rejected(&|batch| batch.decisions = vec![changed(5, Kind::Claim, "ann", 1, &held)]).await;
    assert!(reason.contains("kind"));
}
