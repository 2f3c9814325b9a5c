//! Prepared statements keep plans that were made while tables were empty. This test fills an empty database over the
//! ledger's own connections, and then counts the rows that each call reads. A count that grows with the tables fails
//! the test on a machine of any speed.

use std::time::Duration;

use coupon_core::batch::{Batch, CodeFlags, StockChange, StockRow};
use coupon_core::ids::{CodeNumber, CouponNo, EmitSeq, LoadId, Millis};
use coupon_core::interface::{
    CodeLookup, DueLookup, Lookups, OrderLookup, ReadCodes, ReturnedLookup, UserLookup,
};
use coupon_core::words::{ClaimState, Reason};

use sqlx::{Connection as _, PgConnection};

use crate::builders::{
    HOLD, change, claim_with_hold, flags_change, id, redeem, redemption, rollback, rolled_back, status,
    stored_claim,
};
use crate::fixture::{COUPON, Fixture, NOW, PARTITION, claim, rejection};

const CODES: i64 = 200_000;
const BATCH: i64 = 1_000;
/// A redemption of the first batch.
const REDEEMED: u128 = 2_000_001;

/// The indexes with the most rows read, for the message.
const MOST_READ: &str = "
    select string_agg(indexrelname || ' ' || idx_tup_read, ', ' order by idx_tup_read desc) from pg_stat_user_indexes";
/// Gives most claims a hold, and redeems half of them.
const TRANSITIONS: &str = "
    update claims set first_hold_ms = 1, hold_until_ms = 1767226200000 + number,
           deadline_ms = 1767226200000 + number, partition = 5
     where number % 4 <> 0 and state = 1;
    insert into redemptions
    select gen_random_uuid(), 0, 1, number, 1, 1, claimed_ms, user_id, 'order-' || number, 1, 1, 0, 'EUR'
      from claims where number % 2 = 0 and state = 1;
    insert into code_marks select 1, number, 1 from generate_series(1, 20000) number
        on conflict do nothing;
    insert into stock_returned select 2, number from generate_series(1, 20000) number";

/// Rows read by sequential scans and by index scans, since the statistics were reset.
async fn rows_read(owner: &mut Fixture) -> (i64, i64) {
    // A backend reports its statistics at the end of a transaction, at most once per second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let idle = owner.batch();
    owner.write(&idle).await;
    let use_one = || owner.run("select pg_sleep(0.1)");
    tokio::join!(use_one(), use_one(), use_one(), use_one());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let read = |column: &str| {
        format!("select coalesce(sum({column}), 0)::bigint from pg_stat_user_tables where schemaname = 'stampede'
                    and relname in ('claims', 'codes', 'loads', 'stock', 'coupons', 'stock_returned', 'stock_ahead',
                                    'redemptions', 'code_marks')")
    };
    let rows = "select coalesce(sum(idx_tup_read), 0)::bigint from pg_stat_user_indexes where schemaname = 'stampede'";
    (owner.number(&read("seq_tup_read")).await, owner.number(rows).await)
}

/// Every kind of read, with few keys.
async fn read_everything(owner: &Fixture, after: i64) {
    let reader = owner.ledger.reader();
    let users = |redemptions| UserLookup {
        coupon: COUPON,
        users: vec!["user-1".into(), "unknown".into()],
        redemptions,
    };
    let code = |key: &str| CodeLookup { key: key.into(), user: "user-1".into() };
    let lookups = Lookups {
        coupons: vec!["sale".into()],
        decided: vec![1, 2, REDEEMED],
        decided_in: vec![NOW.day()],
        loads: vec![LoadId(1)],
        users: vec![users(false), users(true)],
        returned: vec![ReturnedLookup { coupon: COUPON, from: CodeNumber(0), limit: 3 }],
        codes: vec![code("1-1"), code("1-7"), code("nothing")],
        redemptions: vec![id(REDEEMED), id(77)],
        orders: vec![OrderLookup { coupon: COUPON, number: CodeNumber(1), order: "order-1".into() }],
        due: Some(DueLookup { from: Millis(i64::MIN), until: Millis(HOLD.0 + 50), limit: 3 }),
    };
    reader.lookup(PARTITION, &lookups).await.unwrap();
    reader.read_codes(&[ReadCodes { coupon: COUPON, after: CodeNumber(after), count: 10 }]).await.unwrap();
    reader.outbox(PARTITION, EmitSeq(1), EmitSeq(1)).await.unwrap();
}

/// Every transition of the code `number`, which has no claim; leaves that code returned.
async fn all_transitions(owner: &mut Fixture, identity: u128, number: i64) {
    let held = status(ClaimState::Claimed, Some(HOLD), None, None);
    let mut back = status(ClaimState::Returned, Some(HOLD), None, None);
    back.lapsed = Some(HOLD);
    let order = format!("order-{identity}");
    let ahead = (COUPON, CodeNumber(CODES + number));
    let used = |uses| CodeFlags { uses, revoked: false };
    let mut steps = [owner.batch(), owner.batch(), owner.batch()];
    steps[0].decisions =
        vec![claim_with_hold(identity, "zoe", number), redeem(identity + 1, "zoe", number, &order)];
    steps[0].ahead_taken = vec![ahead];
    steps[0].code_flags = vec![flags_change(number, used(0), used(1))];
    steps[1].decisions =
        vec![rollback(identity + 2, "boss", number, &held, redemption(identity + 1, &order))];
    steps[1].rolled_back = vec![rolled_back(identity + 1, false)];
    steps[1].ahead_freed = vec![ahead];
    steps[1].code_flags = vec![flags_change(number, used(1), used(0))];
    steps[2].claims = vec![change(&held, stored_claim(identity, "zoe", number, back))];
    steps[2].returned_added = vec![(COUPON, CodeNumber(number))];
    for mut step in steps {
        step.fence.write_no = owner.batch().fence.write_no;
        let step = Batch { emit_seq: None, ..step };
        let step = owner.publishing(step);
        owner.write(&step).await;
    }
}

fn full(owner: &Fixture, n: i64) -> Batch {
    let first = n * BATCH + 1;
    let claims =
        (first..first + BATCH).map(|n| claim(u128::try_from(n).unwrap(), &format!("user-{n}"), n)).collect();
    owner.deciding(claims)
}

#[tokio::test]
async fn calls_read_as_many_rows_of_a_full_database_as_of_an_empty_one() {
    let mut owner = Fixture::new(10).await;
    let other = owner.coupon("other").await;
    let same = |coupon, row| StockChange { coupon, before: row, after: row, passed: 0 };
    // Plans are made now; the calls repeat often enough for a prepared statement to keep one.
    owner.run("analyze").await;
    for n in 0..7 {
        read_everything(&owner, n).await;
        all_transitions(&mut owner, 2_000_000 + 10 * u128::try_from(n).unwrap(), 1 + n).await;
        let mut write =
            owner.deciding(vec![rejection(1_000_000 + u128::try_from(n).unwrap(), "ann", Reason::Paused)]);
        write.stock = vec![same(COUPON, owner.stock), same(other, StockRow::default())];
        owner.write(&write).await;
    }

    owner.load(COUPON, 10, CODES - 10).await;
    owner.run(&format!("update stock set top = {CODES} where coupon_no = 1")).await;
    owner.stock.top = CODES;
    // Other coupons, which a sequential scan would read.
    owner
        .run(
            "with inserted as (insert into coupons (coupon_id, partition, definition)
                               select 'c' || g, 5, '{}' from generate_series(1, 3000) g returning coupon_no)
             insert into stock (coupon_no) select coupon_no from inserted",
        )
        .await;
    for n in 0..40 {
        let batch = full(&owner, n);
        owner.write(&batch).await;
    }
    // On a separate connection: closing it reports its statistics now, and not during the measured calls.
    let mut other_connection = PgConnection::connect_with(&owner.options).await.unwrap();
    sqlx::raw_sql(TRANSITIONS).execute(&mut other_connection).await.unwrap();
    other_connection.close().await.unwrap();

    let before = rows_read(&mut owner).await;
    read_everything(&owner, owner.stock.cursor).await;
    all_transitions(&mut owner, 3_000_000, CODES - 100).await;
    let claims = owner.claims(900_000, &["zoe", "yan"]);
    let mut batch = owner.deciding(claims);
    batch.stock.extend([2, 3, 4].map(|n| same(CouponNo(n), StockRow::default())));
    owner.write(&batch).await;
    let after = rows_read(&mut owner).await;
    assert_eq!(after.0, before.0, "rows read by sequential scans");
    let read = after.1 - before.1;
    let most: String = sqlx::query_scalar(MOST_READ).fetch_one(&owner.pool).await.unwrap();
    assert!(read < 200, "{read} rows were read by index for a few keys; in total: {most}");
}
