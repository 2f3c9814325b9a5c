//! Reads return what was written.

use std::time::Duration;

use coupon_core::batch::{Batch, Decision, Event, EventKind, StockRow};
use coupon_core::ids::{CodeNumber, CouponNo, DAY_MS, EmitSeq, LoadId, Offset, RequestId};
use coupon_core::interface::{Lookups, ReadCodes, ReturnedLookup, UserLookup};
use coupon_core::record::DeadLetter;
use coupon_core::words::{Kind, Reason};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use workers::codec::messages::Messages;

use crate::fixture::{COUPON, Fixture, NOW, PARTITION, claim, of_request, rejection};

fn sorted(mut decisions: Vec<Decision>) -> Vec<Decision> {
    decisions.sort_by_key(|decision| decision.request.id);
    decisions
}

#[tokio::test]
async fn the_outbox_returns_exactly_the_decisions_of_each_batch() {
    let mut owner = Fixture::new(10).await;
    let first = owner.deciding(owner.claims(1, &["ann"]));
    owner.write(&first).await;

    let mut decisions = owner.claims(10, &["bob", "cid"]);
    decisions[1].request.id.body = 99;
    decisions.push(rejection(12, "dan", Reason::SoldOut));
    let reused = rejection(0, "ann", Reason::IdempotencyKeyReused);
    decisions.push(of_request(reused, |request| request.id = RequestId { identity: 1, body: 77 }));
    let unknown = Decision { coupon: None, ..rejection(14, "eve", Reason::CouponUnknown) };
    decisions.push(of_request(unknown, |request| {
        (request.coupon_id, request.kind) = ("nowhere".into(), Kind::Unknown);
    }));
    let mut batch = owner.deciding(decisions);
    batch.duplicates = first.decisions.clone();
    let event = Event {
        kind: EventKind::SoldOut,
        coupon_id: "sale".into(),
        available: 0,
        lapsed: None,
        offset: Offset(3),
        at: NOW,
    };
    batch.events.push(event);
    let letter = DeadLetter { reason: "empty", error: "no value".into(), key: None, value: None };
    batch.dead_letters.push((Offset(5), letter));
    let batch = owner.publishing(batch);
    owner.write(&batch).await;

    let entries = owner.ledger.reader().outbox(PARTITION, EmitSeq(1), EmitSeq(2)).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(entries[0].decisions, first.decisions);
    let decided = batch.decisions.iter().chain(&batch.duplicates).cloned().collect();
    assert_eq!(sorted(entries[1].decisions.clone()), sorted(decided));
    assert_eq!(entries[1].next_offset, batch.position.next_offset);
    assert_eq!(entries[1].messages, Messages::new(schemas::SchemaId(3)).of(&batch));
}

#[tokio::test]
async fn all_outcomes_with_an_identity_are_found() {
    let mut owner = Fixture::new(10).await;
    let mut decisions = owner.claims(1, &["ann"]);
    decisions[0].request.id.body = 5;
    let rejection = rejection(0, "ann", Reason::IdempotencyKeyReused);
    decisions.push(of_request(rejection, |request| request.id = RequestId { identity: 1, body: 6 }));
    let batch = owner.deciding(decisions.clone());
    owner.write(&batch).await;
    let lookups = Lookups { decided: vec![1, 2], decided_in: vec![NOW.day()], ..Lookups::default() };
    assert_eq!(
        sorted(owner.ledger.reader().lookup(PARTITION, &lookups).await.unwrap().decided),
        sorted(decisions)
    );
}

/// A look-up that needed the table of another day would wait for its lock.
#[tokio::test]
async fn fault_53_outcomes_are_looked_up_in_the_tables_of_their_days_however_many_are_kept() {
    let mut owner = Fixture::new(10).await;
    for month in 0..13 {
        // One transaction for all of them would need more locks than the server has room for.
        owner.run(&format!("select ensure_outcome_days(date '2025-01-01' + {month} * 28, 28)")).await;
    }
    let (mut yesterday, mut today) = (owner.batch(), owner.batch());
    yesterday.position.time.0 -= DAY_MS;
    yesterday.decisions = vec![rejection(1, "ann", Reason::SoldOut)];
    today.decisions = vec![rejection(2, "bob", Reason::SoldOut)];
    let (yesterday, today) = (owner.publishing(yesterday), owner.publishing(today));
    owner.write(&yesterday).await;
    let today = Batch { fence: owner.batch().fence, ..owner.publishing(today) };
    owner.write(&today).await;

    let mut other = PgConnection::connect_with(&owner.options).await.unwrap();
    let lock = "begin; lock table outcomes_20250601, outcomes_20251229 in access exclusive mode";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let found = async |days: &[i32]| {
        let lookups = Lookups { decided: vec![1, 2, 3], decided_in: days.to_vec(), ..Lookups::default() };
        let results =
            timeout(Duration::from_secs(60), owner.ledger.reader().lookup(PARTITION, &lookups)).await;
        results.expect("no wait for other days").unwrap().decided
    };
    let day = NOW.day();
    assert_eq!(
        sorted(found(&[day - 1, day]).await),
        [yesterday.decisions.clone(), today.decisions.clone()].concat()
    );
    assert_eq!(found(&[day]).await, today.decisions);
    assert_eq!(found(&[day - 10_000, day + 10_000]).await, [], "days without a table");
    drop(other);
    let entries = owner.ledger.reader().outbox(PARTITION, EmitSeq(1), EmitSeq(2)).await.unwrap();
    assert_eq!(
        entries.into_iter().flat_map(|entry| entry.decisions).collect::<Vec<_>>(),
        [yesterday.decisions, today.decisions].concat()
    );
}

/// An entry that waited for longer than the window, or repeats an old outcome.
#[tokio::test]
async fn the_outbox_finds_outcomes_of_any_day() {
    let mut owner = Fixture::new(10).await;
    let mut old = owner.batch();
    old.position.time.0 -= 100 * DAY_MS;
    old.decisions = vec![rejection(1, "ann", Reason::SoldOut)];
    let old = owner.publishing(old);
    owner.write(&old).await;
    let mut today = owner.batch();
    today.position.time = NOW;
    today.duplicates = old.decisions.clone();
    let today = owner.publishing(today);
    owner.write(&today).await;
    let entries = owner.ledger.reader().outbox(PARTITION, EmitSeq(1), EmitSeq(2)).await.unwrap();
    assert_eq!(entries.into_iter().map(|entry| entry.decisions).collect::<Vec<_>>(), [&old.decisions[..]; 2]);
}

#[tokio::test]
async fn coupons_loads_users_and_returned_codes_are_read() {
    let mut owner = Fixture::new(10).await;
    owner.coupon("other").await;
    owner.write(&owner.deciding(owner.claims(1, &["ann", "bob", "ann", "cid"]))).await;
    owner.run("update claims set state = 4 where number in (2, 3)").await;
    owner.run("update stock set claimed = 2, returned = 2 where coupon_no = 1").await;
    owner.run("insert into stock_returned values (1, 3), (1, 2)").await;
    owner.run("update stock set ahead = 1, claimed = 3 where coupon_no = 1; insert into stock_ahead values (1, 8)").await;

    let users = ["ann", "bob", "cid", "dan"].map(Box::from).to_vec();
    let lookups = Lookups {
        coupons: vec!["sale".into(), "nowhere".into()],
        loads: vec![LoadId(1), LoadId(77)],
        users: vec![
            UserLookup { coupon: COUPON, users, redemptions: false },
            UserLookup { coupon: CouponNo(2), users: vec!["ann".into()], redemptions: false },
        ],
        returned: vec![
            ReturnedLookup { coupon: CouponNo(2), from: CodeNumber(0), limit: 5 },
            ReturnedLookup { coupon: COUPON, from: CodeNumber(3), limit: 1 },
        ],
        ..Lookups::default()
    };
    let results = owner.ledger.reader().lookup(PARTITION, &lookups).await.unwrap();
    let [sale] = results.coupons.as_slice() else { panic!("{:?}", results.coupons) };
    assert_eq!(
        sale.stock,
        StockRow { top: 10, cursor: 4, ahead: 1, returned: 2, claimed: 3, ..StockRow::default() }
    );
    assert_eq!((sale.coupon, sale.ahead.as_slice()), (COUPON, &[CodeNumber(8)][..]));
    assert_eq!(sale.definition.claims_per_user, Some(1));
    assert_eq!(
        results.loads.iter().map(|load| (load.load, load.count, load.sealed)).collect::<Vec<_>>(),
        [(LoadId(1), 10, false)]
    );
    let mut live: Vec<_> = results.users.iter().map(|live| (live.coupon, &*live.user, live.claims)).collect();
    live.sort_unstable();
    assert_eq!(live, [(COUPON, "ann", 1), (COUPON, "cid", 1)]);
    let returned: Vec<_> = results
        .returned
        .iter()
        .map(|(_, codes)| codes.iter().map(|c| &*c.code).collect::<Vec<_>>())
        .collect();
    assert_eq!(returned, [vec![], vec!["1-3"]], "from the lower bound on");
}

#[tokio::test]
async fn codes_are_read_in_order_across_loads_without_those_ahead_of_the_cursor() {
    let owner = Fixture::new(3).await;
    owner.load(COUPON, 3, 1).await;
    owner.load(COUPON, 4, 4).await;
    let other = owner.coupon("other").await;
    owner.load(other, 0, 2).await;
    owner.run("insert into stock_ahead values (1, 4), (1, 6)").await;
    let read = |coupon, after, count| ReadCodes { coupon, after: CodeNumber(after), count };
    let reads = [
        read(COUPON, 0, 4),
        read(other, 1, 9),
        read(COUPON, 4, 9),
        read(COUPON, 8, 1),
        read(CouponNo(99), 0, 1),
    ];
    let codes = owner.ledger.reader().read_codes(&reads).await.unwrap();
    let codes: Vec<Vec<&str>> = codes.iter().map(|codes| codes.iter().map(|c| &*c.code).collect()).collect();
    let expected: [&[&str]; 5] = [&["1-1", "1-2", "1-3", "1-5"], &["2-2"], &["1-5", "1-7", "1-8"], &[], &[]];
    assert_eq!(codes, expected);
    assert_eq!(claim(1, "ann", 3).request.kind, Kind::Claim);
}
