//! Plans are made when tables are empty, and kept. This fills an empty database over the ledger's own connections,
//! and then counts how many rows and pages each call touches: what grows with the tables is found, however fast the
//! machine is.

use std::time::Duration;

use coupon_core::batch::{Batch, StockChange, StockRow};
use coupon_core::effect::{ReadCodes, ReturnedOf, UsersOf, Wants};
use coupon_core::ids::{CodeNumber, CouponNo, EmitSeq, LoadId};
use coupon_core::vocabulary::Reason;

use crate::fixture::{COUPON, Fixture, PARTITION, claim, rejection};

const CODES: i64 = 200_000;
const BATCH: i64 = 1_000;

/// Rows that sequential scans read, and rows that index scans read, since the server began to count.
async fn touched(owner: &mut Fixture) -> (i64, i64) {
    // A backend reports what it counted at the end of a transaction, if it has not within the last second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let idle = owner.batch();
    owner.write(&idle).await;
    let use_one = || owner.run("select pg_sleep(0.1)");
    tokio::join!(use_one(), use_one(), use_one(), use_one());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let read = |column: &str| {
        format!("select coalesce(sum({column}), 0)::bigint from pg_stat_user_tables where schemaname = 'stampede'
                    and relname in ('claims', 'codes', 'loads', 'stock', 'coupons', 'stock_returned', 'stock_ahead')")
    };
    let rows = "select coalesce(sum(idx_tup_read), 0)::bigint from pg_stat_user_indexes where schemaname = 'stampede'";
    (owner.number(&read("seq_tup_read")).await, owner.number(rows).await)
}

/// One call of everything, with few keys.
async fn everything(owner: &Fixture, after: i64) {
    let reader = owner.ledger.reader();
    let wants = Wants {
        coupons: vec!["sale".into()],
        decided: vec![1, 2],
        loads: vec![LoadId(1)],
        users: vec![UsersOf {
            coupon: COUPON,
            users: vec!["user-1".into(), "nobody".into()],
            redemptions: false,
        }],
        returned: vec![ReturnedOf { coupon: COUPON, limit: 3 }],
        ..Wants::default()
    };
    reader.load(PARTITION, &wants).await.unwrap();
    reader.read_codes(&[ReadCodes { coupon: COUPON, after: CodeNumber(after), count: 10 }]).await.unwrap();
    reader.outbox(PARTITION, EmitSeq(1), EmitSeq(1)).await.unwrap();
}

fn full(owner: &Fixture, n: i64) -> Batch {
    let first = n * BATCH + 1;
    let claims =
        (first..first + BATCH).map(|n| claim(u128::try_from(n).unwrap(), &format!("user-{n}"), n)).collect();
    owner.deciding(claims)
}

#[tokio::test]
async fn calls_touch_as_much_of_a_full_database_as_of_an_empty_one() {
    let mut owner = Fixture::new(10).await;
    let other = owner.coupon("other").await;
    let same = |coupon, row| StockChange { coupon, was: row, is: row, passed: 0 };
    // Plans are made now, and often enough for a prepared statement to keep one.
    owner.run("analyze").await;
    for n in 0..7 {
        everything(&owner, n).await;
        let mut write =
            owner.deciding(vec![rejection(1_000_000 + u128::try_from(n).unwrap(), "ann", Reason::Paused)]);
        write.stock = vec![same(COUPON, owner.stock), same(other, StockRow::default())];
        owner.write(&write).await;
    }

    owner.load(COUPON, 10, CODES - 10).await;
    owner.run(&format!("update stock set top = {CODES} where coupon_no = 1")).await;
    owner.stock.top = CODES;
    // Coupons that nobody mentions, in the way of whoever does not go by index.
    owner
        .run(
            "with made as (insert into coupons (coupon_id, partition, definition)
                               select 'c' || g, 5, '{}' from generate_series(1, 3000) g returning coupon_no)
             insert into stock (coupon_no) select coupon_no from made",
        )
        .await;
    for n in 0..40 {
        let batch = full(&owner, n);
        owner.write(&batch).await;
    }

    let before = touched(&mut owner).await;
    everything(&owner, owner.stock.cursor).await;
    let claims = owner.claims(900_000, &["zoe", "yan"]);
    let mut batch = owner.deciding(claims);
    batch.stock.extend([2, 3, 4].map(|n| same(CouponNo(n), StockRow::default())));
    owner.write(&batch).await;
    let after = touched(&mut owner).await;
    assert_eq!(after.0, before.0, "rows that sequential scans read");
    assert!(after.1 - before.1 < 200, "{} rows were read by index to answer a few keys", after.1 - before.1);
}
