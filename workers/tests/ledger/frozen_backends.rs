//! Backends that stop responding without closing their connections: the read is repeated on another connection.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::interface::Lookups;
use futures::FutureExt as _;
use sqlx::{Connection as _, PgConnection};
use workers::backoff::{TimeLimit, retry_until_ok};
use workers::postgres::{PgReader, read_pool};

use crate::fixture::{Fixture, PARTITION};

const CONNECTIONS: u32 = 4;

/// Backends that are frozen until this is dropped.
struct Frozen(Vec<i32>);

impl Frozen {
    /// Freezes the backends of the reader.
    async fn of(fixture: &Fixture) -> Self {
        let sql = "select pid from pg_stat_activity
                    where application_name = 'frozen-reads' and datname = current_database()";
        let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(&fixture.pool).await.unwrap();
        assert_eq!(pids.len(), CONNECTIONS as usize);
        signal("-STOP", &pids);
        Self(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(signal: &str, pids: &[i32]) {
    let pids = pids.iter().map(i32::to_string);
    assert!(Command::new("kill").arg(signal).args(pids).status().unwrap().success());
}

async fn read(reader: &PgReader) -> usize {
    let lookups = Arc::new(Lookups { coupons: vec!["sale".into()], ..Lookups::default() });
    let read = retry_until_ok(PARTITION, "lookup", TimeLimit::READ, || {
        let (reader, lookups) = (reader.clone(), Arc::clone(&lookups));
        async move { Ok(reader.lookup(PARTITION, &lookups).await?) }.boxed()
    });
    read.await.coupons.len()
}

/// A reader all of whose connections are open.
async fn reader(fixture: &Fixture) -> PgReader {
    let pool = read_pool(&fixture.options.clone().application_name("frozen-reads"), CONNECTIONS);
    let opened: Vec<_> = futures::future::join_all((0..CONNECTIONS).map(|_| pool.acquire())).await;
    assert!(opened.iter().all(Result::is_ok));
    drop(opened);
    // They are returned by tasks.
    while pool.num_idle() < CONNECTIONS as usize {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    PgReader::new(pool)
}

#[tokio::test]
async fn reads_continue_while_every_idle_read_connection_is_frozen() {
    let fixture = Fixture::new(0).await;
    let reader = reader(&fixture).await;
    let _frozen = Frozen::of(&fixture).await;
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        assert_eq!(read(&reader).await, 1);
    }
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

#[tokio::test]
async fn reads_in_flight_on_frozen_connections_are_repeated_on_others() {
    let fixture = Fixture::new(0).await;
    let reader = reader(&fixture).await;
    let mut locker = PgConnection::connect_with(&fixture.options).await.unwrap();
    sqlx::raw_sql("begin; lock table coupons in access exclusive mode").execute(&mut locker).await.unwrap();
    let reads = futures::future::join_all((0..CONNECTIONS).map(|_| read(&reader)));
    let frozen = async {
        let waiting = "select count(*) from pg_stat_activity
                        where application_name = 'frozen-reads' and datname = current_database()
                          and wait_event_type = 'Lock'";
        while fixture.number(waiting).await < i64::from(CONNECTIONS) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let frozen = Frozen::of(&fixture).await;
        sqlx::raw_sql("rollback").execute(&mut locker).await.unwrap();
        frozen
    };
    let began = Instant::now();
    let (read, _frozen) = tokio::join!(reads, frozen);
    assert_eq!(read, [1; CONNECTIONS as usize]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
