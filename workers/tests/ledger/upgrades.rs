//! Upgrades: the statements of release 0.1.0, as Postgres logged them, continue on the newest schema beside new workers,
//! until the upgrade is finished.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use coupon_core::ids::{Epoch, Nonce};
use coupon_core::interface::WriteResult;
use runtime::lifecycle::Readiness;
use runtime::postgres::{LEVEL, SCHEMA};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _};
use tokio_util::sync::CancellationToken;
use workers::postgres::{migrate, read_pool};

use crate::fixture::{Fixture, NOW, database, ledger};

/// The newest migration of release 0.1.0.
const RELEASED: i64 = 4;
/// The statements of its workers and API, separated by semicolons.
const STATEMENTS: &str = include_str!("release_0_1_0.sql");
/// The partition and the coupon of the worker of release 0.1.0.
const OLD_PARTITION: i32 = 6;
const OLD_COUPON: i64 = 1_000;
const OLD_CODES: i64 = 1_000_000;

fn statements() -> Vec<&'static str> {
    STATEMENTS.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()).collect()
}

/// The statement that calls this function, and no other one of ours.
fn statement(function: &str) -> &'static str {
    let calls = |sql: &&&str| sql.contains(&format!("stampede.{function}(")) && !sql.contains("write_life");
    statements().iter().find(calls).copied().unwrap()
}

/// A database with the schema of release 0.1.0.
async fn database_of_0_1_0() -> PgConnectOptions {
    let options = database().await;
    let all = sqlx::migrate!("./migrations");
    let released = all.iter().filter(|migration| migration.version <= RELEASED).cloned().collect();
    let migrator = Migrator {
        migrations: Cow::Owned(released),
        table_name: Cow::Borrowed("stampede._sqlx_migrations"),
        create_schemas: Cow::Borrowed(&[Cow::Borrowed("stampede")]),
        ..all
    };
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    options
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(options).await.unwrap()
}

/// A worker of release 0.1.0: one session with its prepared statements, which claims a code per write.
struct OldOwner {
    session: PgConnection,
    epoch: i64,
    nonce: String,
    write_no: i64,
}

impl OldOwner {
    async fn start(options: &PgConnectOptions) -> Self {
        let mut session = connect(options).await;
        let coupon = format!(
            "insert into coupons (coupon_no, coupon_id, partition, definition) overriding system value
                  values ({OLD_COUPON}, 'old', {OLD_PARTITION}, '{{}}');
             insert into stock (coupon_no, top) values ({OLD_COUPON}, {OLD_CODES});
             prepare take_over as {}; prepare write as {}",
            statement("take_over"),
            statement("write_batch"),
        );
        session.execute(AssertSqlSafe(coupon).into_sql_str()).await.unwrap();
        let mut owner = Self { session, epoch: 0, nonce: String::new(), write_no: 0 };
        owner.take_over().await.unwrap();
        owner
    }

    async fn take_over(&mut self) -> Result<(), sqlx::Error> {
        let call = format!("execute take_over ({OLD_PARTITION}, 'old', gen_random_uuid())");
        let row = sqlx::raw_sql(AssertSqlSafe(call)).fetch_one(&mut self.session).await?;
        self.epoch = row.try_get("epoch")?;
        self.nonce = row.try_get::<uuid::Uuid, _>("nonce")?.to_string();
        Ok(())
    }

    /// Claims the next code.
    async fn write(&mut self) -> Result<(), sqlx::Error> {
        let number = self.write_no + 1;
        let values = self.values(number);
        let sql = format!("execute write ({})", arguments(statement("write_batch"), &values));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.session).await?;
        self.write_no = number;
        Ok(())
    }

    fn values(&self, number: i64) -> BTreeMap<&'static str, String> {
        let before = number - 1;
        let user = format!("user-{number}");
        BTreeMap::from([
            ("p_partition", OLD_PARTITION.to_string()),
            ("p_epoch", self.epoch.to_string()),
            ("p_nonce", self.nonce.clone()),
            ("p_attempt", self.nonce.clone()),
            ("p_write_no", number.to_string()),
            ("p_next_offset", number.to_string()),
            ("p_time_ms", NOW.0.to_string()),
            ("c_identity", format!("{{{}}}", uuid::Uuid::from_u128(number as u128))),
            ("c_body", "{0}".to_owned()),
            ("c_coupon", format!("{{{OLD_COUPON}}}")),
            ("c_number", format!("{{{number}}}")),
            ("c_offset", format!("{{{number}}}")),
            ("c_ms", format!("{{{}}}", NOW.0)),
            ("c_user", format!("{{{user}}}")),
            ("s_coupon", format!("{{{OLD_COUPON}}}")),
            ("s_top", format!("{{{OLD_CODES}}}")),
            ("s_was_top", format!("{{{OLD_CODES}}}")),
            ("s_cursor", format!("{{{number}}}")),
            ("s_was_cursor", format!("{{{before}}}")),
            ("s_claimed", format!("{{{number}}}")),
        ])
    }
}

/// The values of a statement's parameters, in their order. Without a value, a column of the stock row is 0, any other
/// array is empty, and a scalar is 0.
fn arguments(statement: &str, values: &BTreeMap<&str, String>) -> String {
    let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut arguments = BTreeMap::new();
    for (before, after) in statement.match_indices('$').map(|(at, _)| statement.split_at(at)) {
        let digits = after[1..].find(|c: char| !c.is_ascii_digit()).unwrap();
        let position: usize = after[1..=digits].parse().unwrap();
        let name = before.rsplit(" => ").nth(1).unwrap().rsplit([' ', '(']).next().unwrap();
        let is_array = after[1 + digits..].split([',', ')']).next().unwrap().contains("[]");
        let default = match name {
            _ if name.starts_with("s_") => "{0}",
            _ if is_array => "{}",
            _ => "0",
        };
        arguments.insert(position, values.get(name).cloned().unwrap_or_else(|| default.to_owned()));
    }
    arguments.values().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn every_statement_of_release_0_1_0_is_valid_on_the_newest_schema() {
    let options = database_of_0_1_0().await;
    let mut released = connect(&options).await;
    migrate::run(&read_pool(&options, 1)).await.unwrap();
    let mut newest = connect(&options).await;
    let statements = statements();
    assert!(statements.len() > 30, "{} statements", statements.len());
    for sql in statements {
        for session in [&mut released, &mut newest] {
            if sql.starts_with("copy ") {
                let copy = session.copy_in_raw(sql).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
                assert_eq!(copy.finish().await.unwrap(), 0);
            } else {
                drop(session.prepare(sql.into_sql_str()).await.unwrap_or_else(|e| panic!("{e}: {sql}")));
            }
        }
    }
}

#[tokio::test]
async fn fault_54_a_worker_of_release_0_1_0_continues_while_the_schema_is_migrated_and_beside_new_workers() {
    let options = database_of_0_1_0().await;
    let mut old = OldOwner::start(&options).await;
    let (written, stop) = (Arc::new(AtomicI64::new(0)), CancellationToken::new());
    let (count, stopped) = (Arc::clone(&written), stop.clone());
    let writing = tokio::spawn(async move {
        while !stopped.is_cancelled() {
            old.write().await.unwrap();
            count.store(old.write_no, Relaxed);
        }
        old
    });
    let at_least = async |writes: i64| {
        while written.load(Relaxed) < writes && !writing.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    at_least(20).await;
    migrate::run(&read_pool(&options, 1)).await.unwrap();
    let mut new = Fixture::on(options, 100).await;
    for n in 0..20 {
        at_least(written.load(Relaxed) + 1).await;
        let claims = new.claims(2_000_000 + n, &["ann"]);
        new.write(&new.deciding(claims)).await;
    }
    stop.cancel();
    let mut old = writing.await.unwrap();
    let epoch = old.epoch;
    old.take_over().await.unwrap();
    assert_eq!(old.epoch, epoch + 1);
    old.write().await.unwrap();
    let claims_of = async |coupon: i64| {
        new.number(&format!("select count(*) from claims where coupon_no = {coupon}")).await
    };
    assert_eq!((claims_of(OLD_COUPON).await, claims_of(1).await), (old.write_no, 20));
}

#[tokio::test]
async fn a_finished_upgrade_fences_owners_of_a_lower_level_and_keeps_them_out() {
    let options = database_of_0_1_0().await;
    let mut old = OldOwner::start(&options).await;
    let pool = read_pool(&options, 2);
    migrate::run(&pool).await.unwrap();
    assert_eq!(migrate::finish(&pool).await.unwrap(), [0; 0], "level 1 is that of release 0.1.0");
    old.write().await.unwrap();

    let new = Fixture::on(options.clone(), 10).await;
    let next = LEVEL + 1;
    let newer = format!("select (taken).epoch from take_over_2(7, 'newer', gen_random_uuid(), {next})");
    assert_eq!(new.number(&newer).await, 1);
    let finish = format!("select count(*) from finish_upgrade({next})");
    assert_eq!(new.number(&finish).await, 2);
    assert_eq!(new.number(&finish).await, 0, "the fenced partitions have no owner");
    assert_eq!(new.number("select epoch from partitions where partition = 7").await, 1);

    let fenced = old.write().await.unwrap_err();
    assert_eq!(fenced.as_database_error().unwrap().code().unwrap(), "SP001");
    let refused = old.take_over().await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "SP003");
    let claims = new.claims(1, &["ann"]);
    assert_eq!(new.try_write(&new.deciding(claims)).await, WriteResult::Fenced);
    let refused = new.ledger.take_over(Nonce(9)).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("this worker has level {LEVEL}")), "{refused}");

    migrate::finish(&pool).await.unwrap();
    assert_eq!(
        new.number("select level::bigint from required_level").await,
        i64::from(next),
        "never lowered"
    );
    new.run(&format!("update required_level set level = {LEVEL}")).await;
    assert_eq!(ledger(&options, &pool, "worker-b").take_over(Nonce(9)).await.unwrap().epoch, Epoch(3));
}

#[tokio::test]
async fn a_takeover_that_is_concurrent_with_the_end_of_an_upgrade_is_fenced_too() {
    let owner = Fixture::new(0).await;
    let mut taking = connect(&owner.options).await;
    let take_over = "begin; select from take_over(8, 'old', gen_random_uuid())";
    sqlx::raw_sql(take_over).execute(&mut taking).await.unwrap();
    let pool = owner.pool.clone();
    let finishing = tokio::spawn(async move {
        sqlx::query_scalar::<_, i32>("select * from finish_upgrade(2) p order by p").fetch_all(&pool).await
    });
    let waits = "select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock' and query like '%finish_upgrade%'";
    while owner.number(waits).await == 0 {
        assert!(!finishing.is_finished(), "it waits for the takeover");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::raw_sql("commit").execute(&mut taking).await.unwrap();
    assert_eq!(finishing.await.unwrap().unwrap(), [5, 8]);
}

#[tokio::test]
async fn a_program_waits_for_an_older_schema_and_reports_both_versions() {
    let options = database_of_0_1_0().await;
    let pool = read_pool(&options, 1);
    let readiness = Readiness::new(&[SCHEMA]);
    let operator = async {
        let reason = loop {
            match readiness.check() {
                Err(reasons) if reasons != ["schema: starting"] => break reasons.join("; "),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(reason.contains("has version 4") && reason.contains("workers migrate"), "{reason}");
        migrate::run(&pool).await.unwrap();
    };
    let (waited, ()) = tokio::join!(runtime::postgres::wait_for_schema(&pool, &readiness), operator);
    waited.unwrap();
    assert_eq!(readiness.check(), Ok(()));
}

#[tokio::test]
async fn an_index_whose_build_was_interrupted_is_dropped_before_it_is_built_again() {
    let owner = Fixture::new(2).await;
    let mut session = connect(&owner.options).await;
    let duplicate = "create unique index concurrently interrupted on codes (load_id)";
    sqlx::raw_sql(duplicate).execute(&mut session).await.unwrap_err();
    let left = "select count(*) from pg_class where relname = 'interrupted'";
    assert_eq!(owner.number(left).await, 1);
    migrate::run(&owner.pool).await.unwrap();
    assert_eq!(owner.number(left).await, 0);
}
