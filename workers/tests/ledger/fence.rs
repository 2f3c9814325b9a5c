//! The fence: takeover, read-back, and both concurrent with writes in flight.

use std::time::{Duration, Instant};

use coupon_core::ids::{Attempt, Epoch, Nonce};
use coupon_core::interface::WriteResult;
use sqlx::{Connection as _, PgConnection};

use crate::fixture::{Fixture, PARTITION, ledger};

#[tokio::test]
async fn a_takeover_fences_the_previous_owner_and_returns_its_position() {
    let mut old = Fixture::new(10).await;
    let claims = old.claims(1, &["ann", "bob"]);
    let batch = old.deciding(claims);
    old.write(&batch).await;

    let new = ledger(&old.options, &old.pool, "worker-b");
    let row = new.take_over(Nonce(2)).await.unwrap();
    assert_eq!((row.epoch, row.nonce), (Epoch(old.row.epoch.0 + 1), Nonce(2)));
    assert_eq!(
        (row.write_no, row.attempt),
        (old.row.write_no, None),
        "an attempt of another epoch is cleared"
    );
    assert_eq!((row.position, row.next_emit_seq), (batch.position, old.row.next_emit_seq));

    let late = old.claims(3, &["cid"]);
    assert_eq!(old.try_write(&old.deciding(late)).await, WriteResult::Fenced);
    assert_eq!(old.number("select count(*) from claims").await, 2);
}

#[tokio::test]
async fn the_same_call_twice_is_written_once_and_the_row_has_its_attempt() {
    let mut owner = Fixture::new(10).await;
    let claims = owner.claims(1, &["ann"]);
    let mut batch = owner.deciding(claims);
    batch.fence.attempt = Attempt(41);
    owner.write(&batch).await;
    assert_eq!(owner.try_write(&batch).await, WriteResult::Fenced);
    let row = owner.ledger.read_back().await.unwrap();
    assert_eq!(row, owner.row);
    assert_eq!(row.attempt, Some(Attempt(41)));
}

#[tokio::test]
async fn an_offset_or_a_watermark_never_moves_backwards() {
    let mut owner = Fixture::new(10).await;
    let claims = owner.claims(1, &["ann"]);
    let batch = owner.deciding(claims);
    owner.write(&batch).await;
    let mut backwards = owner.batch();
    backwards.position.next_offset.0 -= 1;
    assert!(matches!(owner.try_write(&backwards).await, WriteResult::Mismatch(_)));
    let mut ahead = owner.batch();
    ahead.watermark = owner.row.next_emit_seq;
    assert!(
        matches!(owner.try_write(&ahead).await, WriteResult::Mismatch(_)),
        "the watermark never passes unpublished entries"
    );
    assert_eq!(owner.ledger.read_back().await.unwrap(), owner.row);
}

#[tokio::test]
async fn a_takeover_terminates_a_blocking_predecessor_and_waits_for_other_sessions() {
    let owner = Fixture::new(0).await;
    let name = format!("stampede-partition-{PARTITION}");
    let hold = "update partitions set write_no = write_no + 1";
    let mut frozen =
        PgConnection::connect_with(&owner.options.clone().application_name(&name)).await.unwrap();
    sqlx::raw_sql("begin").execute(&mut frozen).await.unwrap();
    sqlx::raw_sql(hold).execute(&mut frozen).await.unwrap();

    let new = ledger(&owner.options, &owner.pool, "worker-b");
    let started = Instant::now();
    let row = new.take_over(Nonce(2)).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "the predecessor was terminated after {:?}",
        started.elapsed()
    );
    assert_eq!(row.write_no, owner.row.write_no, "the uncommitted write of the predecessor was rolled back");

    let mut other = PgConnection::connect_with(&owner.options).await.unwrap();
    sqlx::raw_sql("begin").execute(&mut other).await.unwrap();
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();
    assert!(new.take_over(Nonce(3)).await.is_err(), "another session is reported, never terminated");
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    assert_eq!(new.take_over(Nonce(4)).await.unwrap().nonce, Nonce(4));
}

#[tokio::test]
async fn a_write_waits_for_a_row_locked_by_another_session_and_then_retries() {
    let mut owner = Fixture::new(10).await;
    let mut other = PgConnection::connect_with(&owner.options).await.unwrap();
    sqlx::raw_sql("begin; select * from partitions for update").execute(&mut other).await.unwrap();
    let claims = owner.claims(1, &["ann"]);
    let batch = owner.deciding(claims);
    assert_eq!(owner.try_write(&batch).await, WriteResult::Retry);
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    owner.write(&batch).await;
}

#[tokio::test]
async fn a_call_whose_connection_is_cut_is_unknown_and_the_row_shows_that_it_was_not_written() {
    let owner = Fixture::new(10).await;
    let mut other = PgConnection::connect_with(&owner.options).await.unwrap();
    sqlx::raw_sql("begin; select * from partitions for update").execute(&mut other).await.unwrap();
    let claims = owner.claims(1, &["ann"]);
    let batch = owner.deciding(claims);
    let cut = async {
        let find = "select pg_terminate_backend(pid) from pg_stat_activity
                     where application_name = 'stampede-partition-5' and wait_event_type = 'Lock'
                       and datname = current_database()";
        while sqlx::query(find).fetch_all(&owner.pool).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (result, ()) = tokio::join!(owner.try_write(&batch), cut);
    assert!(matches!(result, WriteResult::Unknown | WriteResult::Retry), "{result:?}");
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    assert_eq!(owner.ledger.read_back().await.unwrap(), owner.row);
    assert_eq!(
        owner.try_write(&batch).await,
        WriteResult::Written,
        "the identical call, on a new connection"
    );
}

#[tokio::test]
async fn two_workers_can_migrate_concurrently_and_again() {
    let options = crate::fixture::database().await;
    let pools = [workers::postgres::read_pool(&options, 2), workers::postgres::read_pool(&options, 2)];
    let (one, two) =
        tokio::join!(workers::postgres::migrate::run(&pools[0]), workers::postgres::migrate::run(&pools[1]));
    one.unwrap();
    two.unwrap();
    workers::postgres::migrate::run(&pools[0]).await.unwrap();
    let readiness = runtime::lifecycle::Readiness::new(&[]);
    runtime::postgres::wait_for_schema(&pools[0], &readiness).await.unwrap();
    let registry = runtime::registry::Registry::register(&pools[0]).await.unwrap();
    let again = runtime::registry::Registry::register(&pools[1]).await.unwrap();
    let id = registry.id_of(schemas::Subject::Event);
    assert_eq!(id, again.id_of(schemas::Subject::Event));
    let stored = runtime::registry::schema_definition(&pools[0], id).await.unwrap();
    assert_eq!(stored.as_deref(), Some(schemas::Subject::Event.newest().definition));
    assert_eq!(runtime::registry::schema_definition(&pools[0], schemas::SchemaId(9999)).await.unwrap(), None);
}
