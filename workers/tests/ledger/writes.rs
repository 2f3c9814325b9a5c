//! Rejected writes, and their results.

use coupon_core::batch::{Batch, LoadApplied, StockChange, StockRow};
use coupon_core::ids::{CodeNumber, EmitSeq, LoadId, Offset};
use coupon_core::interface::WriteResult;
use coupon_core::record::DeadLetter;
use coupon_core::words::Reason;

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::fixture::{COUPON, Fixture, claim, rejection};

/// The result of a batch that must be rejected, of which nothing may have been written.
async fn rejected(owner: &Fixture, batch: &Batch) -> WriteResult {
    let before = owner.number("select count(*) from claims").await
        + owner.number("select count(*) from outcomes").await;
    let result = owner.try_write(batch).await;
    let after = owner.number("select count(*) from claims").await
        + owner.number("select count(*) from outcomes").await;
    assert_eq!(before, after, "a rejected batch writes nothing");
    assert_eq!(owner.ledger.read_back().await.unwrap(), owner.row);
    result
}

#[tokio::test]
async fn stock_is_written_only_if_its_row_is_as_cached() {
    let mut owner = Fixture::new(10).await;
    let good = owner.deciding(owner.claims(1, &["ann"]));
    let mut wrong = good.clone();
    wrong.stock[0].before.cursor += 1;
    assert!(matches!(rejected(&owner, &wrong).await, WriteResult::Mismatch(_)));
    let counters: [fn(&mut StockRow); 4] =
        [|was| was.locked += 1, |was| was.redeemed += 1, |was| was.revoked += 1, |was| was.redemptions += 1];
    for miscount in counters {
        let mut wrong = good.clone();
        miscount(&mut wrong.stock[0].before);
        assert!(matches!(rejected(&owner, &wrong).await, WriteResult::Mismatch(_)));
    }
    let mut impossible = good.clone();
    impossible.stock[0].after.claimed += 1;
    assert!(
        matches!(rejected(&owner, &impossible).await, WriteResult::Mismatch(_)),
        "a constraint checks the sum"
    );
    owner.write(&good).await;

    // With several coupons the function takes another branch.
    let other = owner.coupon("other").await;
    let empty = StockRow::default();
    let mut both = owner.deciding(owner.claims(2, &["bob"]));
    both.stock.push(StockChange { coupon: other, before: empty, after: empty, passed: 0 });
    for miscount in counters.into_iter().chain([(|was| was.top += 1) as fn(&mut StockRow)]) {
        let mut one_wrong = both.clone();
        miscount(&mut one_wrong.stock[1].before);
        assert!(matches!(rejected(&owner, &one_wrong).await, WriteResult::Mismatch(_)));
    }
    owner.write(&both).await;
    assert_eq!(owner.number("select cursor from stock where coupon_no = 1").await, 2);
}

#[tokio::test]
async fn a_decided_request_is_never_decided_again() {
    let mut owner = Fixture::new(10).await;
    let mut decisions = owner.claims(1, &["ann"]);
    decisions.push(rejection(2, "bob", Reason::SoldOut));
    owner.write(&owner.deciding(decisions)).await;
    assert_eq!(
        rejected(&owner, &owner.deciding(owner.claims(1, &["ann"]))).await,
        WriteResult::AlreadyDecided
    );
    let again = owner.deciding(vec![rejection(2, "bob", Reason::Paused)]);
    assert_eq!(rejected(&owner, &again).await, WriteResult::AlreadyDecided);
}

#[tokio::test]
async fn a_code_is_in_one_live_claim_only() {
    let mut owner = Fixture::new(10).await;
    owner.write(&owner.deciding(owner.claims(1, &["ann"]))).await;
    let taken = owner.deciding(vec![claim(2, "bob", 1)]);
    assert!(
        matches!(rejected(&owner, &taken).await, WriteResult::Mismatch(reason) if reason.contains("claims_live"))
    );
    owner.run("update claims set state = 4").await;
    assert_eq!(owner.try_write(&taken).await, WriteResult::Written, "a returned code may be claimed again");
}

#[tokio::test]
async fn a_value_that_postgres_rejects_is_rejected_as_data() {
    let owner = Fixture::new(10).await;
    let long = "u".repeat(257);
    for user in ["n\0l", long.as_str(), ""] {
        let batch = owner.deciding(vec![claim(1, user, 1)]);
        let result = rejected(&owner, &batch).await;
        assert!(matches!(result, WriteResult::DataRejected(_)), "claim by {user:?}: {result:?}");
        let batch = owner.deciding(vec![rejection(1, user, Reason::SoldOut)]);
        let result = rejected(&owner, &batch).await;
        assert!(matches!(result, WriteResult::DataRejected(_)), "rejection of {user:?}: {result:?}");
    }
}

#[tokio::test]
async fn a_dead_letter_can_contain_any_bytes() {
    let mut owner = Fixture::new(0).await;
    let mut batch = owner.batch();
    batch.dead_letters.push((
        Offset(0),
        DeadLetter {
            reason: "malformed",
            error: "unexpected \0 and \u{1}".into(),
            key: Some([0, 255, 1].into()),
            value: Some([0, 0, 255].into()),
        },
    ));
    batch.position.next_offset = Offset(1);
    let batch = owner.publishing(batch);
    owner.write(&batch).await;
    let entries =
        owner.ledger.reader().outbox(crate::fixture::PARTITION, EmitSeq(1), EmitSeq(1)).await.unwrap();
    assert_eq!(entries[0].messages[0].value.as_deref(), Some(&[0, 0, 255][..]));
}

#[tokio::test]
async fn a_returned_number_is_claimed_again_once() {
    let mut owner = Fixture::new(10).await;
    owner.write(&owner.deciding(owner.claims(1, &["ann", "bob"]))).await;
    owner.run("update claims set state = 4 where number = 1").await;
    owner.run("update stock set claimed = 1, returned = 1; insert into stock_returned values (1, 1)").await;
    owner.stock = StockRow { claimed: 1, returned: 1, ..owner.stock };

    let mut batch = owner.deciding(vec![claim(3, "cid", 1)]);
    batch.stock[0].after = StockRow { returned: 0, claimed: 2, ..owner.stock };
    batch.returned_taken = vec![(COUPON, CodeNumber(1))];
    let mut wrong = batch.clone();
    wrong.returned_taken.push((COUPON, CodeNumber(2)));
    assert!(matches!(rejected(&owner, &wrong).await, WriteResult::Mismatch(_)));
    owner.write(&batch).await;
    assert_eq!(owner.number("select count(*) from stock_returned").await, 0);
}

#[tokio::test]
async fn a_sealed_load_becomes_stock_once() {
    let mut owner = Fixture::new(0).await;
    owner.load(COUPON, 0, 5).await;
    owner.run("update loads set state = 'sealed', base = null").await;
    let mut batch = owner.batch();
    batch.loads.push(LoadApplied { load: LoadId(1), base: 0 });
    batch.stock.push(owner.stock_change(StockRow { top: 5, ..owner.stock }));
    owner.write(&batch).await;
    assert_eq!(owner.number("select base from loads where state = 'applied'").await, 0);

    let mut again = owner.batch();
    again.loads.push(LoadApplied { load: LoadId(1), base: 5 });
    assert!(matches!(rejected(&owner, &again).await, WriteResult::Mismatch(_)));
}

#[tokio::test]
async fn two_loads_of_a_coupon_never_begin_at_the_same_number() {
    let mut owner = Fixture::new(5).await;
    owner.load(COUPON, 5, 3).await;
    owner.run("update loads set state = 'sealed', base = null where load_id = 2").await;
    let mut batch = owner.batch();
    batch.loads.push(LoadApplied { load: LoadId(2), base: 0 });
    batch.stock.push(owner.stock_change(StockRow { top: 8, ..owner.stock }));
    let result = rejected(&owner, &batch).await;
    assert!(matches!(&result, WriteResult::Mismatch(reason) if reason.contains("loads_base")), "{result:?}");
    batch.loads[0].base = 5;
    owner.write(&batch).await;
}

#[tokio::test]
async fn the_cursor_removes_the_numbers_ahead_that_it_passes() {
    let mut owner = Fixture::new(10).await;
    owner.run("insert into stock_ahead values (1, 2), (1, 9); update stock set ahead = 2, claimed = 2").await;
    owner.stock = StockRow { ahead: 2, claimed: 2, ..owner.stock };
    let mut batch = owner.deciding(vec![claim(1, "ann", 1), claim(2, "bob", 3)]);
    batch.stock[0].after = StockRow { cursor: 3, ahead: 1, claimed: 4, ..owner.stock };
    for passed in [2, -1] {
        batch.stock[0].passed = passed;
        assert!(
            matches!(rejected(&owner, &batch).await, WriteResult::Mismatch(reason) if reason.contains("ahead of it")),
            "there is one, not {passed}"
        );
    }
    batch.stock[0].passed = 1;
    owner.write(&batch).await;
    assert_eq!(owner.number("select number from stock_ahead").await, 9);
}

#[tokio::test]
async fn outbox_entries_are_deleted_when_the_watermark_passes_them() {
    let mut owner = Fixture::new(10).await;
    for (n, user) in ["ann", "bob", "cid"].into_iter().enumerate() {
        let claims = owner.claims(1 + n as u128, &[user]);
        owner.write(&owner.deciding(claims)).await;
    }
    assert_eq!(owner.number("select count(*) from outbox").await, 3);
    let mut idle = owner.batch();
    idle.watermark = EmitSeq(2);
    owner.write(&idle).await;
    assert_eq!(owner.number("select min(seq) from outbox").await, 3);
    assert_eq!(owner.number("select count(*) from outbox").await, 1);
    assert_eq!(owner.ledger.read_back().await.unwrap().emitted_seq, EmitSeq(2));
}

#[tokio::test]
async fn the_tables_of_a_day_are_created_when_the_day_begins() {
    let mut owner = Fixture::new(0).await;
    for day in [0, 1, 40] {
        let mut batch = owner.deciding(vec![rejection(day + 1, "ann", Reason::SoldOut)]);
        batch.position.time.0 += i64::try_from(day).unwrap() * 24 * 60 * 60 * 1000;
        owner.write(&batch).await;
    }
    assert_eq!(owner.number("select count(distinct day) from outcomes").await, 3);
}

#[tokio::test]
async fn a_batch_that_would_drop_a_decision_is_not_written() {
    let owner = Fixture::new(10).await;
    let mut batch = owner.deciding(owner.claims(1, &["ann"]));
    batch.decisions[0].coupon = None;
    assert!(matches!(rejected(&owner, &batch).await, WriteResult::Mismatch(_)));
}

#[tokio::test]
async fn workers_can_create_the_same_day_concurrently() {
    const MAKE: &str = "select stampede.ensure_outcome_days('2031-01-01', 2)";
    const WAITS: &str = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                            and database = (select oid from pg_database where datname = current_database())";
    let owner = Fixture::new(0).await;
    let mut first = PgConnection::connect_with(&owner.options).await.unwrap();
    let mut second = PgConnection::connect_with(&owner.options).await.unwrap();
    first.execute("begin").await.unwrap();
    first.execute(MAKE).await.unwrap();
    // The second has found that the day does not exist, and waits for the first.
    let second = tokio::spawn(async move { second.execute(MAKE).await.map(drop) });
    while owner.number(WAITS).await == 0 {
        assert!(!second.is_finished(), "it must wait: {:?}", second.await);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    first.execute("commit").await.unwrap();
    second.await.unwrap().unwrap();
    let days = "select count(*) from pg_inherits where inhparent = 'stampede.outcomes'::regclass
                   and inhrelid::regclass::text like '%2031%'";
    assert_eq!(owner.number(days).await, 2);
}
