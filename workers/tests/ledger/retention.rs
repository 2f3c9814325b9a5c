//! Retention: what is dropped, what is kept as long as anything needs it, and that no read or write waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use coupon_core::batch::Decision;
use coupon_core::ids::{DAY_MS, Offset, Partition};
use coupon_core::interface::{Lookups, WriteResult};
use coupon_core::words::Reason;
use sqlx::{Connection as _, PgConnection};
use workers::postgres::retention::Retention;

use crate::fixture::{Fixture, NOW, PARTITION, rejection};

/// An owner whose partition is at [`NOW`], 2026-01-01, with the tables of the days from 2025-12-25 on.
async fn owner() -> (Fixture, Retention) {
    let mut owner = Fixture::new(10).await;
    owner.run("select ensure_outcome_days(date '2025-12-25', 8)").await;
    decide(&mut owner, 1, 0).await;
    let retention = Retention { options: owner.options.clone(), days: 30, deduplication_ms: 2 * DAY_MS };
    (owner, retention)
}

/// Decides one request this many days after [`NOW`].
async fn decide(owner: &mut Fixture, identity: u128, days: i64) -> Decision {
    let mut batch = owner.batch();
    batch.position.time.0 = NOW.0 + days * DAY_MS;
    batch.position.next_offset.0 += 1;
    batch.decisions = vec![rejection(identity, "ann", Reason::SoldOut)];
    let batch = owner.publishing(batch);
    owner.write(&batch).await;
    batch.decisions[0].clone()
}

async fn kept_days(owner: &Fixture) -> i64 {
    owner.number("select count(*) from pg_inherits where inhparent = 'outcomes'::regclass").await
}

const DROPPED: [&str; 5] =
    ["outcomes_20251225", "outcomes_20251226", "outcomes_20251227", "outcomes_20251228", "outcomes_20251229"];

#[tokio::test]
async fn days_are_dropped_that_no_partition_can_look_up_any_more() {
    let (mut owner, retention) = owner().await;
    let kept = kept_days(&owner).await;
    let longer = Retention { days: 10_000, ..retention.clone() };
    assert_eq!(longer.apply().await.unwrap(), [""; 0], "within the retention");
    assert_eq!(retention.apply().await.unwrap(), DROPPED, "the last two days are in the window");
    assert_eq!(kept_days(&owner).await, kept - 5);
    assert_eq!(retention.apply().await.unwrap(), [""; 0]);

    let days = vec![NOW.day() - 7, NOW.day()];
    let lookups = Lookups { decided: vec![1], decided_in: days, ..Lookups::default() };
    let found = owner.ledger.reader().lookup(PARTITION, &lookups).await.unwrap().decided;
    assert_eq!(found.len(), 1, "a dropped day has no outcomes");
    decide(&mut owner, 2, 0).await;
}

#[tokio::test]
async fn a_partition_that_is_behind_keeps_the_days_that_it_needs_until_it_has_caught_up() {
    let (owner, retention) = owner().await;
    let behind = format!(
        "insert into partitions (partition, next_offset, time_ms) values (6, 50, {})",
        NOW.0 - 5 * DAY_MS
    );
    owner.run(&behind).await;
    assert_eq!(retention.apply().await.unwrap(), [""; 0], "its backlog begins on 2025-12-27");
    let running = [(Partition(6), Offset(50)), (PARTITION, Offset(0))];
    let ends = |end| BTreeMap::from([(Partition(6), Offset(end)), (PARTITION, Offset(0))]);
    retention.record_caught_up(&running, &ends(51)).await.unwrap();
    assert_eq!(retention.apply().await.unwrap(), [""; 0], "one record is left");
    retention.record_caught_up(&running, &ends(50)).await.unwrap();
    assert_eq!(retention.apply().await.unwrap(), DROPPED);
    assert_eq!(owner.number("select count(*) from caught_up").await, 1, "partition 5 is not at offset 0");
}

#[tokio::test]
async fn an_unpublished_outcome_keeps_its_day() {
    let (mut owner, retention) = owner().await;
    let old = rejection(9, "bob", Reason::SoldOut);
    let insert = "insert into outcomes (day, identity, body, coupon_no, partition, \"offset\", decided_ms, kind, reason, user_id)
                  values ('2025-12-26', '00000000-0000-0000-0000-000000000009', 0, 1, 5, 1, 1, 'claim', 'sold_out', 'bob')";
    owner.run(insert).await;
    let mut batch = owner.batch();
    batch.duplicates = vec![old];
    let batch = owner.publishing(batch);
    owner.write(&batch).await;
    assert_eq!(retention.apply().await.unwrap(), [DROPPED[0], DROPPED[2], DROPPED[3], DROPPED[4]]);
    let mut idle = owner.batch();
    idle.watermark = batch.emit_seq.unwrap();
    owner.write(&idle).await;
    assert_eq!(retention.apply().await.unwrap(), [DROPPED[1]]);
}

#[tokio::test]
async fn a_write_creates_a_day_again_that_was_dropped_behind_it() {
    let (mut owner, _) = owner().await;
    owner.run("drop table outcomes_20260101").await;
    let mut batch = owner.batch();
    batch.position.time = NOW;
    batch.decisions = vec![rejection(2, "ann", Reason::SoldOut)];
    let batch = owner.publishing(batch);
    assert_eq!(owner.try_write(&batch).await, WriteResult::Retry);
    owner.write(&batch).await;
}

/// The reader is a backup, for example. Its transaction is older than the detach, which waits for it.
#[tokio::test]
async fn nothing_waits_for_a_drop_that_waits_for_a_reader_and_the_next_round_finishes_it() {
    let (mut owner, retention) = owner().await;
    let mut reader = PgConnection::connect_with(&owner.options).await.unwrap();
    sqlx::raw_sql("begin; select count(*) from outcomes").execute(&mut reader).await.unwrap();
    let round = tokio::spawn({
        let retention = retention.clone();
        async move { retention.apply().await }
    });
    let waits = "select count(*) from pg_stat_activity where application_name = 'stampede-retention'
                    and datname = current_database() and wait_event_type = 'Lock'";
    while owner.number(waits).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Both would wait for an exclusive lock of the table of all days.
    decide(&mut owner, 2, 0).await;
    assert_eq!(owner.number("select count(*) from outcomes where day = '2026-01-01'").await, 2);
    let cancel = "select pg_terminate_backend(pid) from pg_stat_activity
                   where application_name = 'stampede-retention' and datname = current_database()";
    owner.run(cancel).await;
    round.await.unwrap().unwrap_err();
    let pending = "select count(*) from pg_inherits where inhdetachpending";
    assert_eq!(owner.number(pending).await, 1);
    sqlx::raw_sql("commit").execute(&mut reader).await.unwrap();
    assert_eq!(retention.apply().await.unwrap(), DROPPED);
    assert_eq!(owner.number(pending).await, 0);
}

#[tokio::test]
async fn rows_that_nothing_refers_to_are_deleted() {
    let (mut owner, retention) = owner().await;
    let mut idle = owner.batch();
    idle.watermark = owner.row.next_emit_seq;
    idle.watermark.0 -= 1;
    owner.write(&idle).await;
    let left = "insert into outbox values (5, 1, 1, '{}'); insert into outbox_messages values (5, 1, 1, 't', null, null, '{}');
                insert into loads (job_id, coupon_no, state, wanted, maker, lease_until, created_at)
                select gen_random_uuid(), 1, 'sealed', 5, gen_random_uuid(), now(), now() - interval '1 day' * age
                  from unnest('{1, 40}'::int[]) age";
    owner.run(left).await;
    retention.apply().await.unwrap();
    for table in ["outbox", "outbox_messages"] {
        assert_eq!(owner.number(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    assert_eq!(owner.number("select count(*) from loads").await, 2, "the applied one, and the new one");
}
