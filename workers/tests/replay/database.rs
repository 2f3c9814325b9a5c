//! A database with the state of a simulated ledger before a run.

use std::sync::Arc;

use coupon_core::batch::{Batch, Decision, Verdict};
use coupon_core::ids::{CouponNo, Millis, Partition};
use coupon_core::interface::WriteResult;
use coupon_core::words::{ClaimState, Reason};
use runtime::config::PostgresArgs;
use schemas::SchemaId;
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use uuid::Uuid;
use workers::codec::messages::{EncodedBatch, Messages};
use workers::postgres::{PgLedger, PgReader, read_pool};

use crate::environment::ledger::tables::{Coupon, Load, LoadState};
use crate::environment::ledger::{Ledger, UNSTORABLE_USER_PREFIX, code_key, display_code};

/// That of the simulated machines.
pub(crate) const PARTITION: Partition = Partition(3);
const TABLES: &str = "truncate stampede.partitions, stampede.coupons, stampede.stock, stampede.stock_ahead,
    stampede.stock_returned, stampede.loads, stampede.codes, stampede.claims, stampede.outcomes, stampede.redemptions,
    stampede.code_marks, stampede.outbox, stampede.outbox_messages restart identity";

pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) ledger: PgLedger,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let stack = local_stack::testing::shared_servers().await.unwrap();
        let args = PostgresArgs { postgres_url: SecretString::from(stack.endpoints().postgres_url) };
        let options = runtime::postgres::options(&args, "replay").unwrap();
        let mut connection = PgConnection::connect_with(&options).await.unwrap();
        let name = format!("replay_{}", std::process::id());
        let create = AssertSqlSafe(format!("create database {name}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        // Nothing here must survive a crash of the server.
        let options = options.database(&name).options([("synchronous_commit", "off")]);
        let pool = read_pool(&options, 2);
        workers::postgres::migrate::run(&pool).await.unwrap();
        let ledger = PgLedger::new(&options, PgReader::new(pool.clone()), PARTITION, "replay");
        Self { pool, ledger }
    }

    async fn run(&self, sql: String) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&self.pool).await;
        done.unwrap_or_else(|error| unreachable!("{error}: {sql}"));
    }

    /// Empties all tables and writes the state of a ledger.
    pub(crate) async fn reset(&self, ledger: &Ledger) {
        let (row, position) = (&ledger.row, &ledger.row.position);
        let mut sql = format!(
            "{TABLES}; insert into partitions (partition, epoch, nonce, write_no, next_offset, last_offset, last_digest,
                time_ms, suspect_until_ms, next_emit_seq, emitted_seq)
             values ({PARTITION}, {}, '{}', {}, {}, {}, {}, {}, {}, {}, {});",
            row.epoch,
            Uuid::from_u128(row.nonce.0),
            row.write_no,
            position.next_offset,
            position.last_offset,
            position.last_digest,
            position.time,
            position.possible_duplicates_until,
            row.next_emit_seq,
            row.emitted_seq,
        );
        for (no, coupon) in (1_i64..).zip(&ledger.coupons) {
            sql.push_str(&coupon_rows(no, coupon));
            for (base, load) in &coupon.loads {
                let count = ledger.load(*load).unwrap().count;
                sql.push_str(&load_rows(
                    &Load { id: *load, coupon: CouponNo(no), count, state: LoadState::Applied },
                    Some(*base),
                ));
            }
        }
        for claim in ledger.claims.values() {
            sql.push_str(&claim_row(&claim.decision, &claim.claim));
        }
        for row in ledger.redemptions.values() {
            sql.push_str(&redemption_row(&row.decision));
        }
        self.run(sql).await;
        self.add_catalogue(ledger, ledger.coupons.len(), &ledger.loads).await;
    }

    /// Adds what the API has added: coupons up to this number, loads, and the seals of loads.
    pub(crate) async fn add_catalogue(&self, ledger: &Ledger, coupons: usize, loads: &[Load]) {
        let count = "select count(*), (select count(*) from loads) from coupons";
        let (known, known_loads): (i64, i64) = sqlx::query_as(count).fetch_one(&self.pool).await.unwrap();
        let mut sql = String::new();
        for index in usize::try_from(known).unwrap()..coupons {
            let created = Coupon::new(
                &ledger.coupons[index].id,
                ledger.coupons[index].definition.clone(),
                ledger.coupons[index].created,
            );
            sql.push_str(&coupon_rows(index as i64 + 1, &created));
        }
        for load in &loads[usize::try_from(known_loads).unwrap().min(loads.len())..] {
            sql.push_str(&load_rows(load, None));
        }
        for load in loads.iter().filter(|load| matches!(load.state, LoadState::Sealed(_))) {
            sql.push_str(&format!(
                "update loads set state = 'sealed' where load_id = {} and state = 'open';",
                load.id
            ));
        }
        if !sql.is_empty() {
            self.run(sql).await;
        }
    }

    pub(crate) async fn write(&self, batch: &Arc<Batch>) -> WriteResult {
        let mut batch = (**batch).clone();
        for decision in &mut batch.decisions {
            // In the simulation, the name alone is what cannot be stored.
            let stored = matches!(decision.verdict, Verdict::Rejected(Reason::Unprocessable));
            if decision.request.user.starts_with(UNSTORABLE_USER_PREFIX) && !stored {
                decision.request.user = "x".repeat(300).into();
            }
        }
        let encoded = EncodedBatch::new(Arc::new(batch), Messages::new(SchemaId(3)));
        self.ledger.write(&encoded).await
    }
}

fn coupon_rows(no: i64, coupon: &Coupon) -> String {
    let (id, stock) = (&coupon.id, &coupon.stock);
    let mut sql = format!(
        "insert into coupons (coupon_no, coupon_id, partition, definition) overriding system value
              values ({no}, '{id}', {PARTITION}, '{{}}');
         insert into stock values ({no}, {}, {}, {}, {}, {}, {}, {}, {}, {});",
        stock.top,
        stock.cursor,
        stock.ahead,
        stock.returned,
        stock.claimed,
        stock.locked,
        stock.redeemed,
        stock.revoked,
        stock.redemptions,
    );
    for (table, numbers) in [("stock_ahead", &coupon.ahead), ("stock_returned", &coupon.returned)] {
        for number in numbers {
            sql.push_str(&format!("insert into {table} values ({no}, {number});"));
        }
    }
    for (number, flags) in &coupon.flags {
        sql.push_str(&format!(
            "insert into code_marks values ({no}, {number}, {}, {});",
            flags.uses, flags.revoked
        ));
    }
    sql
}

fn load_rows(load: &Load, base: Option<i64>) -> String {
    let Load { id, coupon, count, .. } = load;
    let state = if base.is_some() { "applied" } else { "open" };
    let base = base.map_or("null".to_owned(), |base| base.to_string());
    let mut sql = format!(
        "insert into loads (load_id, job_id, coupon_no, state, wanted, count, maker, lease_until, base)
              overriding system value
              values ({id}, gen_random_uuid(), {coupon}, '{state}', {count}, {count}, gen_random_uuid(), now(), {base});"
    );
    for idx in 1..=*count {
        let (code, key) = (display_code(*id, idx), code_key(*id, idx));
        sql.push_str(&format!("insert into codes values ({id}, {idx}, '{code}', '{key}');"));
    }
    sql
}

fn claim_row(decision: &Decision, claim: &coupon_core::claim::Claim) -> String {
    let (status, first_hold) = (
        &claim.status,
        match &decision.verdict {
            Verdict::Claimed { hold_until, .. } => *hold_until,
            Verdict::Changed(_) | Verdict::Rejected(_) => None,
        },
    );
    let deadline = status.deadline();
    let partition = if deadline.is_some() { PARTITION.to_string() } else { "null".to_owned() };
    format!(
        "insert into claims (identity, body, coupon_no, number, \"offset\", claimed_ms, state, user_id, first_hold_ms,
             hold_until_ms, lock_until_ms, order_id, lapsed_ms, deadline_ms, partition)
         values ('{}', {}, {}, {}, {}, {}, {}, '{}', {}, {}, {}, {}, {}, {}, {partition});",
        Uuid::from_u128(claim.id.identity),
        claim.id.body,
        claim.coupon,
        claim.number,
        decision.offset,
        claim.claimed,
        state_no(status.state),
        claim.user,
        sql_of(first_hold),
        sql_of(status.hold_until),
        sql_of(status.lock_until),
        status.order.as_ref().map_or("null".to_owned(), |order| format!("'{order}'")),
        sql_of(status.lapsed),
        sql_of(deadline),
    )
}

fn redemption_row(decision: &Decision) -> String {
    let Verdict::Changed(changed) = &decision.verdict else { unreachable!("a redemption") };
    let redemption = changed.redemption.as_ref().unwrap();
    format!(
        "insert into redemptions values ('{}', {}, {}, {}, {}, {}, {}, '{}', '{}', {}, {}, {}, '{}');",
        Uuid::from_u128(redemption.id.identity),
        redemption.id.body,
        decision.coupon.unwrap(),
        changed.number,
        decision.offset,
        redemption.redeemed,
        sql_of(changed.claimed),
        decision.request.user,
        redemption.order,
        redemption.amount,
        redemption.discount,
        redemption.final_price,
        redemption.currency,
    )
}

fn sql_of(time: Option<Millis>) -> String {
    time.map_or("null".to_owned(), |time| time.to_string())
}

/// The number of a state in the tables.
pub(crate) const fn state_no(state: ClaimState) -> i16 {
    match state {
        ClaimState::Claimed => 1,
        ClaimState::Locked => 2,
        ClaimState::Redeemed => 3,
        ClaimState::Returned => 4,
        ClaimState::Revoked => 5,
    }
}
