//! The checker sees what is planted: a small world is forged by hand in a real Postgres and a real Kafka, found
//! clean, and then broken in one place after another.

use coupon_core::ids::RequestId;
use loadtest::checker::{CheckConfig, Heard, History, Invariant, Report, check};
use local_stack::{Stack, StackConfig, testing};
use runtime::config::{KafkaArgs, PostgresArgs};
use runtime::registry::Registry;
use schemas::topics::{DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES};
use schemas::{CouponEvent, CouponRequest, CouponResponse, Encoder, Subject, partition_for};
use sqlx::{Connection as _, PgConnection};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

use crate::support::log::{Planted, Producer};

const COUPON: &str = "spring";
const PARTITIONS: i32 = 2;
const DAY: &str = "2025-11-21";
/// Codes of the coupon; all are claimed.
const CODES: [&str; 3] = ["AAA", "BBB", "CCC"];
/// When everything was decided.
const AT: i64 = 1_763_700_000_000;

/// Who asked for what, in the order of the log from offset 1 on, and what became of it.
const ASKED: [(u128, i64, &str, Became); 8] = [
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
enum Became {
    Won(i64),
    Rejected(&'static str),
    Repetition,
    DeadLetter,
    Waiting,
}

fn partition() -> i32 {
    partition_for(COUPON.as_bytes(), PARTITIONS)
}

fn id(identity: u128, body: i64) -> RequestId {
    RequestId { identity, body }
}

fn uuid(identity: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(identity)
}

/// A world on a stack: a database of its own, and the topics.
struct World {
    config: CheckConfig,
    producer: Producer,
    registry: Registry,
}

impl World {
    async fn check(&self) -> Report {
        check(&self.config, None).await.unwrap()
    }

    async fn sql(&self, sql: &'static str) {
        let mut connection = PgConnection::connect(&self.config.postgres_url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn tell(&self, response: &CouponResponse) {
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

/// Forges the world in a new database and in the topics of a stack.
async fn forge(stack: &Stack, name: &str) -> World {
    database(stack, format!("create database {name}")).await;
    let endpoints = stack.endpoints();
    let config = CheckConfig { postgres_url: url_of(stack, name), ..CheckConfig::running(&endpoints) };
    let mut connection = PgConnection::connect(&config.postgres_url).await.unwrap();
    let migration = include_str!("../../../workers/migrations/0001_spine.sql");
    sqlx::raw_sql(migration).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
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
        "insert into coupons (coupon_id, partition, definition, claims_per_user) values ('{COUPON}', {p}, '{{}}', 1);
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

fn response_of(identity: u128, body: i64, user: &str, offset: i64, became: Became) -> Option<CouponResponse> {
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
async fn copy_of_the_forged() -> World {
    static FORGED: OnceCell<()> = OnceCell::const_new();
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let stack = testing::shared_servers().await.unwrap();
    let forge_once = async || drop(forge(&stack, "forged").await);
    FORGED.get_or_init(forge_once).await;
    let name = format!("copy_{}", COPIES.fetch_add(1, Ordering::SeqCst));
    // A template must not be in use, not even by another copy being made.
    static COPYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one_at_a_time = COPYING.lock().await;
    database(&stack, format!("create database {name} template forged")).await;
    let postgres = PostgresArgs { postgres_url: url_of(&stack, &name).into() };
    let pool = runtime::postgres::pool(runtime::postgres::options(&postgres, "forger").unwrap(), 1);
    let registry = Registry::register(&pool).await.unwrap();
    pool.close().await;
    let config =
        CheckConfig { postgres_url: url_of(&stack, &name), ..CheckConfig::running(&stack.endpoints()) };
    World { config, producer: Producer::to(&stack.endpoints().kafka), registry }
}

/// The forged world with one thing changed: these invariants, and no others, are broken, and the offender is named.
async fn planted(sql: &'static str, broken: &[Invariant], named: &str) {
    let world = copy_of_the_forged().await;
    world.sql(sql).await;
    expect_broken(&world.check().await, broken, named);
}

fn expect_broken(report: &Report, broken: &[Invariant], named: &str) {
    let found: Vec<Invariant> =
        report.lines.iter().filter(|line| line.violations > 0).map(|line| line.invariant).collect();
    assert_eq!(found, broken, "\n{report}");
    let offenders = || report.lines.iter().flat_map(|line| &line.first);
    assert!(offenders().any(|offender| offender.contains(named)), "nobody says {named:?}\n{report}");
}

#[tokio::test]
async fn a_forged_world_in_order_is_clean() {
    let report = copy_of_the_forged().await.check().await;
    assert!(report.is_clean(), "\n{report}");
    assert_eq!((report.claims, report.outcomes, report.given_twice), (3, 2, 0));
    assert_eq!((report.requests, report.responses, report.dead_letters), (9, 10, 1));
    for invariant in
        [Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I4, Invariant::I5, Invariant::I6]
    {
        assert!(report.line(invariant).checked > 0, "\n{report}");
    }
}

#[tokio::test]
async fn a_stack_that_should_be_settled_and_is_not_is_reported() {
    let world = copy_of_the_forged().await;
    let config = CheckConfig { settled: true, ..world.config.clone() };
    let report = check(&config, None).await.unwrap();
    expect_broken(&report, &[Invariant::I3, Invariant::I7], "1 records were not consumed");
}

#[tokio::test]
async fn a_code_in_two_claims_is_seen() {
    let world = copy_of_the_forged().await;
    world.sql("set search_path = stampede; drop index claims_live; update claims set number = 1 where number = 2").await;
    let report = world.check().await;
    // The second of them was told of another code, too.
    expect_broken(&report, &[Invariant::I2, Invariant::I4], "code 1 of spring");
    assert_eq!(report.given_twice, 1);
}

#[tokio::test]
async fn a_code_text_that_is_there_twice_is_seen() {
    planted(
        "set search_path = stampede; alter table codes drop constraint codes_code_key_key;
         update codes set code_key = 'AAA', code = 'AAA' where idx = 2",
        &[Invariant::I2, Invariant::I4],
        "code AAA (AAA) is there more than once",
    )
    .await;
}

#[tokio::test]
async fn a_lost_result_is_seen() {
    planted(
        "delete from stampede.claims where user_id = 'bob'; update stampede.stock set claimed = 2, returned = 1;
         insert into stampede.stock_returned values (1, 2)",
        &[Invariant::I3, Invariant::I5, Invariant::I7, Invariant::I9],
        "was skipped",
    )
    .await;
}

#[tokio::test]
async fn a_counter_that_is_off_by_one_is_seen() {
    planted(
        "update stampede.stock set claimed = 2, redeemed = 1",
        &[Invariant::I1],
        "spring: claimed is 2, and 3 rows are claimed",
    )
    .await;
}

#[tokio::test]
async fn a_number_that_is_free_and_held_is_seen() {
    planted(
        "set search_path = stampede; alter table stock drop constraint stock_adds_up;
         update stock set returned = 1; insert into stock_returned values (1, 2)",
        &[Invariant::I1, Invariant::I2],
        "is held, and free",
    )
    .await;
}

#[tokio::test]
async fn a_load_that_lacks_a_code_is_seen() {
    planted(
        "delete from stampede.codes where idx = 3",
        &[Invariant::I1, Invariant::I4],
        "load 1 has not exactly the codes 1 to 3",
    )
    .await;
}

#[tokio::test]
async fn a_skipped_offset_is_seen() {
    planted(
        "update stampede.partitions set next_offset = next_offset + 1, last_offset = next_offset",
        &[Invariant::I3, Invariant::I7],
        "was skipped",
    )
    .await;
}

#[tokio::test]
async fn a_position_beyond_the_log_is_seen() {
    planted(
        "update stampede.partitions set next_offset = 1000000, last_offset = 999999, emitted_seq = next_emit_seq",
        &[Invariant::I3, Invariant::I7],
        "the log ends before 9",
    )
    .await;
}

#[tokio::test]
async fn an_outcome_at_another_requests_offset_is_seen() {
    planted(
        "update stampede.claims set \"offset\" = 3 - \"offset\" where \"offset\" < 3",
        &[Invariant::I4, Invariant::I7],
        "and its outcome is that of",
    )
    .await;
}

#[tokio::test]
async fn an_outcome_that_was_never_told_is_seen_unless_it_lies_in_the_outbox() {
    let add = "insert into stampede.outcomes select day, gen_random_uuid(), 0, coupon_no, partition, 4, decided_ms, kind,
               'unprocessable', user_id from stampede.outcomes where reason = 'sold_out'";
    planted(add, &[Invariant::I5, Invariant::I7], "was decided, and never told").await;

    let world = copy_of_the_forged().await;
    world.sql(add).await;
    world
        .sql(
            "set search_path = stampede; update partitions set next_emit_seq = 5;
             insert into outbox select partition, 4, 8, array_agg(identity), null from outcomes where \"offset\" = 4
             group by partition",
        )
        .await;
    let report = world.check().await;
    assert_eq!(report.line(Invariant::I5).violations, 0, "\n{report}");
    assert!(report.notes.iter().any(|note| note.contains("1 outcomes lie in the outbox")), "\n{report}");
}

#[tokio::test]
async fn a_user_with_more_than_allowed_is_seen() {
    planted(
        "update stampede.claims set user_id = 'ann' where user_id = 'bob'",
        &[Invariant::I4, Invariant::I6],
        "has 2 live claims of spring, which allows 1",
    )
    .await;
}

#[tokio::test]
async fn a_request_that_was_decided_twice_is_seen() {
    planted(
        "insert into stampede.outcomes select day, '00000000-0000-0000-0000-000000000001', 0, coupon_no, partition, 3,
         decided_ms, kind, 'user_limit_reached', 'ann' from stampede.outcomes where reason = 'sold_out'",
        &[Invariant::I5, Invariant::I8],
        "was decided more than once, again at",
    )
    .await;
}

#[tokio::test]
async fn a_key_that_nobody_had_before_is_seen() {
    planted(
        "update stampede.outcomes set reason = 'idempotency_key_reused' where reason = 'sold_out'",
        &[Invariant::I4, Invariant::I8],
        "nobody had its key before",
    )
    .await;
}

#[tokio::test]
async fn somebody_told_sold_out_while_a_code_was_left_is_seen() {
    planted(
        "set search_path = stampede; delete from claims where user_id = 'bob';
         insert into outcomes select day, '00000000-0000-0000-0000-000000000002', 0, coupon_no, partition, 2, decided_ms,
         kind, 'sold_out', 'bob' from outcomes where reason = 'sold_out';
         update stock set claimed = 2, returned = 1; insert into stock_returned values (1, 2)",
        &[Invariant::I4, Invariant::I9],
        "was told sold out when 1 of 3 codes of spring were given",
    )
    .await;
}

#[tokio::test]
async fn clients_that_were_told_otherwise_than_postgres_says_are_seen() {
    let world = copy_of_the_forged().await;
    let history = History::new();
    let hear = |user: &str, id: RequestId, outcome: &str| {
        let asked = history.sent(user, COUPON, None);
        let body = format!(
            r#"{{"request_id":"{id}.tag","kind":"claim","coupon_id":"{COUPON}",{outcome},"decided_at":"2025-11-21T04:40:00Z"}}"#
        );
        history.heard(asked, Heard::Answer { status: 200, body });
    };
    hear("ann", id(1, 0), r#""status":"accepted","code":"AAA""#);
    let report = check(&world.config, Some(&history)).await.unwrap();
    assert!(report.is_clean(), "\n{report}");
    assert_eq!(report.unresolved, 0);

    hear("bob", id(2, 0), r#""status":"accepted","code":"AAA""#);
    hear("dora", id(7, 0), r#""status":"rejected","reason":"expired""#);
    let lost = history.sent("zoe", COUPON, None);
    let body = format!(r#"{{"request_id":"{}.tag","status":"pending"}}"#, id(4_711, 0));
    history.heard(lost, Heard::Answer { status: 202, body });
    let report = check(&world.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I2, Invariant::I3, Invariant::I4], "is not in the log");
    assert_eq!((report.given_twice, report.unresolved), (1, 1));
    assert_eq!(report.line(Invariant::I4).violations, 2, "\n{report}");
}

#[tokio::test]
async fn what_is_planted_in_the_topics_is_seen() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    let world = forge(&stack, "forged").await;
    assert!(world.check().await.is_clean());

    let (identity, body, user, _) = ASKED[6];
    let other = response_of(identity, body, user, 7, Became::Rejected("expired")).unwrap();
    world.tell(&other).await;
    expect_broken(&world.check().await, &[Invariant::I4], "rejected expired");

    let nobody = response_of(1234, 0, "nobody", 7, Became::Rejected("sold_out")).unwrap();
    world.tell(&nobody).await;
    expect_broken(&world.check().await, &[Invariant::I4, Invariant::I5], "tells what no row holds");

    let rubbish = Planted { value: Some(b"rubbish".to_vec()), ..Planted::default() };
    world.producer.produce(RESPONSES, &rubbish).await;
    let report = world.check().await;
    expect_broken(&report, &[Invariant::I4, Invariant::I5], "cannot be read");
    assert_eq!(report.line(Invariant::I5).violations, 2, "\n{report}");

    // A dead letter for a record that was not consumed.
    let headers = vec![("partition", partition().to_string()), ("offset", "8".to_owned())];
    world.producer.produce(DEAD_LETTERS, &Planted { headers, ..Planted::default() }).await;
    let report = world.check().await;
    expect_broken(&report, &[Invariant::I4, Invariant::I5, Invariant::I7], "was never consumed");
    stack.stop().await.unwrap();
}
