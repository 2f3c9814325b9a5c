//! A database for each test, on the Postgres that all tests of this binary share, with one coupon and an owner that
//! writes to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use coupon_core::batch::{Batch, Decision, Fence, StockChange, StockRow, Verdict};
use coupon_core::ids::{Attempt, CodeNumber, CouponNo, EmitSeq, Millis, Nonce, Offset, Partition, RequestId};
use coupon_core::interface::{PartitionRow, WriteResult};
use coupon_core::record::Request;
use coupon_core::words::{Kind, Reason};
use runtime::config::PostgresArgs;
use schemas::SchemaId;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool};
use workers::codec::messages::{EncodedBatch, Messages};
use workers::postgres::{PgLedger, PgReader, read_pool};

/// 2026-01-01.
pub(crate) const NOW: Millis = Millis(1_767_225_600_000);
pub(crate) const PARTITION: Partition = Partition(5);
pub(crate) const COUPON: CouponNo = CouponNo(1);

pub(crate) struct Fixture {
    pub(crate) options: PgConnectOptions,
    pub(crate) pool: PgPool,
    pub(crate) ledger: PgLedger,
    /// The partition row, as the owner caches it.
    pub(crate) row: PartitionRow,
    pub(crate) stock: StockRow,
}

/// A database without tables.
pub(crate) async fn database() -> PgConnectOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let stack = local_stack::testing::shared_servers().await.unwrap();
    let args = PostgresArgs { postgres_url: SecretString::from(stack.endpoints().postgres_url) };
    let options = runtime::postgres::options(&args, "ledger-tests").unwrap();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let name = format!("ledger_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    options.database(&name)
}

impl Fixture {
    /// A database with one coupon (number 1) of this many codes, whose partition was taken over once.
    pub(crate) async fn new(codes: i64) -> Self {
        let options = database().await;
        workers::postgres::migrate::run(&read_pool(&options, 1)).await.unwrap();
        Self::on(options, codes).await
    }

    /// The same on a database that has its tables, but no coupons numbered by it.
    pub(crate) async fn on(options: PgConnectOptions, codes: i64) -> Self {
        let pool = read_pool(&options, 4);
        let ledger = ledger(&options, &pool, "worker-a");
        let row = ledger.take_over(Nonce(1)).await.unwrap();
        let mut fixture = Self { options, pool, ledger, row, stock: StockRow::default() };
        fixture.coupon("sale").await;
        if codes > 0 {
            fixture.load(COUPON, 0, codes).await;
            fixture.stock.top = codes;
            sqlx::query("update stock set top = $1 where coupon_no = 1")
                .bind(codes)
                .execute(&fixture.pool)
                .await
                .unwrap();
        }
        fixture
    }

    pub(crate) async fn run(&self, sql: &str) -> u64 {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap().rows_affected()
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn coupon(&self, id: &str) -> CouponNo {
        let insert =
            "with inserted as (insert into coupons (coupon_id, partition, definition, claims_per_user,
                                                         redemptions_per_code)
                                    values ($1, 5, '{}', 1, 1) returning coupon_no)
                      insert into stock (coupon_no) select coupon_no from inserted returning coupon_no";
        CouponNo(sqlx::query_scalar(insert).bind(id).fetch_one(&self.pool).await.unwrap())
    }

    /// A load with codes `<coupon>-<number>`, applied at `base`.
    pub(crate) async fn load(&self, coupon: CouponNo, base: i64, count: i64) {
        let load = "insert into loads (job_id, coupon_no, state, wanted, count, maker, lease_until, base)
                    values (gen_random_uuid(), $1, 'applied', $2, $2, gen_random_uuid(), now(), $3) returning load_id";
        let load: i64 = sqlx::query_scalar(load)
            .bind(coupon.0)
            .bind(count)
            .bind(base)
            .fetch_one(&self.pool)
            .await
            .unwrap();
        let codes = "insert into codes select $1, n, $2 || '-' || ($3 + n), $2 || '-' || ($3 + n)
                       from generate_series(1, $4) n";
        sqlx::query(codes)
            .bind(load)
            .bind(coupon.0.to_string())
            .bind(base)
            .bind(count)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// The next write of this owner, empty.
    pub(crate) fn batch(&self) -> Batch {
        let mut position = self.row.position;
        position.time = NOW;
        let fence = Fence {
            partition: PARTITION,
            epoch: self.row.epoch,
            nonce: self.row.nonce,
            write_no: self.row.write_no.next(),
            attempt: Attempt(7),
        };
        Batch::new(fence, position, self.row.emitted_seq)
    }

    /// The next write with these decisions, and the matching stock change and outbox entry.
    pub(crate) fn deciding(&self, decisions: Vec<Decision>) -> Batch {
        let mut batch = self.batch();
        let claims = decisions.iter().filter(|d| matches!(d.verdict, Verdict::Claimed { .. })).count() as i64;
        if claims > 0 {
            let after = StockRow {
                cursor: self.stock.cursor + claims,
                claimed: self.stock.claimed + claims,
                ..self.stock
            };
            batch.stock.push(self.stock_change(after));
        }
        batch.position.next_offset.0 += decisions.len() as i64;
        batch.decisions = decisions;
        self.publishing(batch)
    }

    /// A change of the coupon's stock row to `after`.
    pub(crate) fn stock_change(&self, after: StockRow) -> StockChange {
        StockChange { coupon: COUPON, before: self.stock, after, passed: 0 }
    }

    /// Sets the outbox sequence number of the batch.
    pub(crate) fn publishing(&self, mut batch: Batch) -> Batch {
        batch.emit_seq = batch.publishes().then_some(self.row.next_emit_seq);
        batch
    }

    /// Writes a batch.
    pub(crate) async fn try_write(&self, batch: &Batch) -> WriteResult {
        let encoded = EncodedBatch::new(Arc::new(batch.clone()), Messages::new(SchemaId(3)));
        self.ledger.write(&encoded).await
    }

    /// Writes a batch, which must succeed, and updates the cached rows.
    pub(crate) async fn write(&mut self, batch: &Batch) {
        assert_eq!(self.try_write(batch).await, WriteResult::Written);
        self.row.write_no = batch.fence.write_no;
        self.row.attempt = Some(batch.fence.attempt);
        self.row.position = batch.position;
        self.row.emitted_seq = batch.watermark;
        if batch.publishes() {
            self.row.next_emit_seq = EmitSeq(self.row.next_emit_seq.0 + 1);
        }
        if let Some(change) = batch.stock.iter().find(|change| change.coupon == COUPON) {
            self.stock = change.after;
        }
    }

    /// Claims of the next codes in sequence by `users`, with identities from `first` on.
    pub(crate) fn claims(&self, first: u128, users: &[&str]) -> Vec<Decision> {
        let next = self.stock.cursor + 1;
        users.iter().enumerate().map(|(n, user)| claim(first + n as u128, user, next + n as i64)).collect()
    }
}

pub(crate) fn ledger(options: &PgConnectOptions, pool: &PgPool, worker: &str) -> PgLedger {
    PgLedger::new(options, PgReader::new(pool.clone()), PARTITION, worker)
}

/// The code with this number.
pub(crate) fn code(number: i64) -> Box<str> {
    format!("{COUPON}-{number}").into()
}

pub(crate) fn claim(identity: u128, user: &str, number: i64) -> Decision {
    Decision {
        request: Request {
            id: RequestId { identity, body: 0 },
            kind: Kind::Claim,
            coupon_id: "sale".into(),
            user: user.into(),
            code: None,
            details: None,
        },
        coupon: Some(COUPON),
        offset: Offset(identity as i64),
        decided: NOW,
        verdict: Verdict::Claimed { number: CodeNumber(number), code: code(number), hold_until: None },
    }
}

/// The same decision of a changed request.
pub(crate) fn of_request(mut decision: Decision, change: impl FnOnce(&mut Request)) -> Decision {
    change(&mut decision.request);
    decision
}

pub(crate) fn rejection(identity: u128, user: &str, reason: Reason) -> Decision {
    Decision { verdict: Verdict::Rejected(reason), ..claim(identity, user, 0) }
}
