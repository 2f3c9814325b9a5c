//! A small world forged by hand in a real Postgres and a real Kafka: one coupon, a few requests, and everything that
//! must follow from them. The tests of the checker break it in one place after another.

use checker::{CheckConfig, Report, check};
use coupon_core::ids::RequestId;
use local_stack::{Stack, testing};
use runtime::config::{KafkaArgs, PostgresArgs};
use runtime::registry::Registry;
use schemas::topics::{DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES};
use schemas::{CouponEvent, CouponRequest, CouponResponse, Encoder, Subject, partition_for};
use sqlx::{Connection as _, PgConnection};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

use crate::support::log::{Planted, Producer};

pub(crate) mod life;

pub(crate) const COUPON: &str = "spring";
const PARTITIONS: i32 = 2;
const DAY: &str = "2025-11-21";
/// Codes of the coupon; all are claimed.
const CODES: [&str; 3] = ["AAA", "BBB", "CCC"];
/// When everything was decided.
const AT: i64 = 1_763_700_000_000;

/// Who asked for what, in the order of the log from offset 1 on, and what became of it.
pub(crate) const ASKED: [(u128, i64, &str, Became); 8] = [
    (1, 0, "ann", Became::Won(1)),
    (2, 0, "bob", Became::Won(2)),
    (1, 0, "ann", Became::Repetition),
    (99, 0, "", Became::DeadLetter),
    (5, 7, "carl", Became::Won(3)),
    (5, 8, "carl", Became::Rejected("idempotency_key_reused")),
    (7, 0, "dora", Became::Rejected("sold_out")),
    (8, 0, "emil", Became::Waiting),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Became {
    Won(i64),
    Rejected(&'static str),
    Repetition,
    DeadLetter,
    Waiting,
}

pub(crate) fn partition() -> i32 {
    partition_for(COUPON.as_bytes(), PARTITIONS)
}

pub(crate) fn id(identity: u128, body: i64) -> RequestId {
    RequestId { identity, body }
}

fn uuid(identity: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(identity)
}

/// A world on a stack: a database of its own, and the topics.
pub(crate) struct World {
    pub(crate) config: CheckConfig,
    pub(crate) producer: Producer,
    registry: Registry,
}

impl World {
    pub(crate) async fn check(&self) -> Report {
        check(&self.config, None).await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: &'static str) {
        let mut connection = PgConnection::connect(&self.config.postgres_url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    pub(crate) async fn tell(&self, response: &CouponResponse) {
        let value = Encoder::new(self.registry.id_of(Subject::Response)).encode_to_vec(response).unwrap();
        let key = Some(response.user_id.clone().into_bytes());
        let partition = partition_for(response.user_id.as_bytes(), PARTITIONS);
        let planted = Planted { partition, key, value: Some(value), ..Planted::default() };
        self.producer.produce(RESPONSES, &planted).await;
    }
}

async fn database(stack: &Stack, sql: String) {
    let mut connection = PgConnection::connect(&stack.endpoints().postgres_url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn url_of(stack: &Stack, database: &str) -> String {
    let url = stack.endpoints().postgres_url;
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

async fn migrate(postgres_url: &str) {
    let mut connection = PgConnection::connect(postgres_url).await.unwrap();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../workers/migrations");
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut migrations: Vec<PathBuf> = files.collect();
    migrations.sort();
    for migration in &migrations {
        let sql = std::fs::read_to_string(migration).unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    let made =
        "create table stampede._sqlx_migrations (version bigint primary key, success boolean not null)";
    sqlx::raw_sql(made).execute(&mut connection).await.unwrap();
    let insert = "insert into stampede._sqlx_migrations select n, true from generate_series(1, $1::bigint) n";
    let newest = i64::try_from(migrations.len()).unwrap();
    sqlx::query(insert).bind(newest).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Forges the world in a new database and in the topics of a stack.
pub(crate) async fn forge(stack: &Stack, name: &str) -> World {
    database(stack, format!("create database {name}")).await;
    let endpoints = stack.endpoints();
    let config = CheckConfig { postgres_url: url_of(stack, name), ..CheckConfig::running(&endpoints) };
    migrate(&config.postgres_url).await;
    let postgres = PostgresArgs { postgres_url: config.postgres_url.clone().into() };
    let pool = runtime::postgres::pool(runtime::postgres::options(&postgres, "forger").unwrap(), 2);
    let kafka = KafkaArgs { kafka_brokers: endpoints.kafka.clone(), partitions: PARTITIONS, replication: 1 };
    runtime::topics::ensure(&kafka, &pool).await.unwrap();
    let registry = Registry::register(&pool).await.unwrap();
    let world = World { config, producer: Producer::to(&endpoints.kafka), registry };
    forge_rows(&pool).await;
    forge_log(&world).await;
    forge_told(&world).await;
    pool.close().await;
    world
}

async fn forge_rows(pool: &sqlx::PgPool) {
    let next = 1 + ASKED.len() as i64 - 1;
    let frame = format!(
        "insert into coupons (coupon_id, partition, definition, claims_per_user, redemptions_per_code)
         values ('{COUPON}', {p}, '{{}}', 1, 1);
         insert into stock (coupon_no, top, cursor, claimed) values (1, 3, 3, 3);
         insert into loads (job_id, coupon_no, state, wanted, count, maker, lease_until, base)
         values (gen_random_uuid(), 1, 'applied', 3, 3, gen_random_uuid(), now(), 0);
         select ensure_outcome_days('{DAY}', 1);
         insert into partitions (partition, epoch, write_no, next_offset, last_offset, next_emit_seq, emitted_seq)
         values ({p}, 1, 3, {next}, {next} - 1, 4, 3)",
        p = partition()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(frame)).execute(pool).await.unwrap();
    for (code, idx) in CODES.iter().zip(1_i64..) {
        let insert = "insert into codes (load_id, idx, code, code_key) values (1, $1, $2, $2)";
        sqlx::query(insert).bind(idx).bind(code).execute(pool).await.unwrap();
    }
    for ((identity, body, user, became), offset) in ASKED.into_iter().zip(1_i64..) {
        match became {
            Became::Won(number) => {
                let insert =
                    "insert into claims (identity, body, coupon_no, number, \"offset\", claimed_ms, user_id)
                              values ($1, $2, 1, $3, $4, $5, $6)";
                let insert = sqlx::query(insert).bind(uuid(identity)).bind(body).bind(number);
                insert.bind(offset).bind(AT).bind(user).execute(pool).await.unwrap();
            }
            Became::Rejected(reason) => {
                let insert = "insert into outcomes (day, identity, body, coupon_no, partition, \"offset\", decided_ms,
                              kind, reason, user_id) values ($8::date, $1, $2, 1, $3, $4, $5, 'claim', $6, $7)";
                let insert = sqlx::query(sqlx::AssertSqlSafe(insert.replace("$8", &format!("'{DAY}'"))));
                let insert = insert.bind(uuid(identity)).bind(body).bind(partition()).bind(offset);
                insert.bind(AT).bind(reason).bind(user).execute(pool).await.unwrap();
            }
            Became::Repetition | Became::DeadLetter | Became::Waiting => {}
        }
    }
}

async fn forge_log(world: &World) {
    let encoder: Encoder<CouponRequest> = Encoder::new(world.registry.id_of(Subject::Request));
    let internal = CouponRequest {
        kind: "stock_added".into(),
        coupon_id: COUPON.into(),
        load_id: Some(1),
        ..CouponRequest::default()
    };
    let mut values = vec![encoder.encode_to_vec(&internal).unwrap()];
    for (identity, body, user, became) in ASKED {
        let request = CouponRequest {
            request_id: id(identity, body).to_string(),
            kind: "claim".to_owned(),
            coupon_id: COUPON.to_owned(),
            user_id: user.to_owned(),
            ..CouponRequest::default()
        };
        let rubbish = became == Became::DeadLetter;
        values.push(if rubbish { b"rubbish".to_vec() } else { encoder.encode_to_vec(&request).unwrap() });
    }
    for value in values {
        let key = Some(COUPON.as_bytes().to_vec());
        let planted = Planted { partition: partition(), key, value: Some(value), ..Planted::default() };
        world.producer.produce(REQUESTS, &planted).await;
    }
}

pub(crate) fn response_of(
    identity: u128,
    body: i64,
    user: &str,
    offset: i64,
    became: Became,
) -> Option<CouponResponse> {
    let common = CouponResponse {
        request_id: id(identity, body).to_string(),
        kind: "claim".to_owned(),
        coupon_id: COUPON.to_owned(),
        user_id: user.to_owned(),
        decided_at_ms: AT,
        partition: partition(),
        offset,
        ..CouponResponse::default()
    };
    match became {
        Became::Won(number) => Some(CouponResponse {
            status: "accepted".to_owned(),
            code: CODES.get(number as usize - 1).map(|code| (*code).to_owned()),
            code_number: Some(number),
            claim_state: Some("CLAIMED".to_owned()),
            claimed_at_ms: Some(AT),
            ..common
        }),
        Became::Rejected(reason) => {
            Some(CouponResponse { status: "rejected".to_owned(), reason: Some(reason.to_owned()), ..common })
        }
        Became::Repetition | Became::DeadLetter | Became::Waiting => None,
    }
}

async fn forge_told(world: &World) {
    for ((identity, body, user, became), offset) in ASKED.into_iter().zip(1_i64..) {
        if let Some(response) = response_of(identity, body, user, offset, became) {
            world.tell(&response).await;
            world.tell(&response).await;
        }
        if became == Became::DeadLetter {
            let headers = vec![("partition", partition().to_string()), ("offset", offset.to_string())];
            world.producer.produce(DEAD_LETTERS, &Planted { headers, ..Planted::default() }).await;
        }
    }
    for (kind, offset) in [("restocked", 0), ("sold_out", 5)] {
        let event = CouponEvent {
            kind: kind.to_owned(),
            coupon_id: COUPON.to_owned(),
            partition: partition(),
            offset,
            ..CouponEvent::default()
        };
        let value = Some(Encoder::new(world.registry.id_of(Subject::Event)).encode_to_vec(&event).unwrap());
        world.producer.produce(EVENTS, &Planted { value, ..Planted::default() }).await;
    }
}

/// A copy of one forged database; the topics are shared, and nobody changes them.
pub(crate) async fn copy_of_the_forged() -> World {
    static FORGED: OnceCell<()> = OnceCell::const_new();
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let stack = testing::shared_servers().await.unwrap();
    let forge_once = async || drop(forge(&stack, "forged").await);
    FORGED.get_or_init(forge_once).await;
    let name = format!("copy_{}", COPIES.fetch_add(1, Ordering::SeqCst));
    copy(&stack, "forged", &name).await
}

async fn copy(stack: &Stack, template: &str, name: &str) -> World {
    // A template must not be in use, not even by another copy being made.
    static COPYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one_at_a_time = COPYING.lock().await;
    database(stack, format!("create database {name} template {template}")).await;
    let postgres = PostgresArgs { postgres_url: url_of(stack, name).into() };
    let pool = runtime::postgres::pool(runtime::postgres::options(&postgres, "forger").unwrap(), 1);
    let registry = Registry::register(&pool).await.unwrap();
    pool.close().await;
    let config =
        CheckConfig { postgres_url: url_of(stack, name), ..CheckConfig::running(&stack.endpoints()) };
    World { config, producer: Producer::to(&stack.endpoints().kafka), registry }
}
