//! A second world forged by hand, in which codes have a life: three coupons in one partition, everything that can
//! happen to a code, and the rows, responses and events that must follow from it.
//!
//! The broker gives records their times, and nobody can forge those: the log comes first, the rows are made from it.

use local_stack::{Stack, StackConfig};
use rdkafka::message::Message as _;
use runtime::config::{KafkaArgs, PostgresArgs};
use runtime::registry::Registry;
use schemas::topics::{EVENTS, REQUESTS};
use schemas::{CouponEvent, CouponRequest, CouponResponse, Encoder, Subject, partition_for};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

use super::{CheckConfig, DAY, PARTITIONS, World, database, id, migrate, url_of};
use crate::support::log::{Planted, Producer, records};

/// Coupons, in the order of their numbers: one with holds; one that requires a lock; one shared by many, twice each.
const COUPONS: [(&str, &[&str]); 3] =
    [("hold", &["H1", "H2", "H3", "H4"]), ("gate", &["G1", "G2", "G3"]), ("crowd", &["S1", "S2"])];
const HOLD_MS: i64 = 1_000;
const LOCK_MS: [i64; 3] = [2_000, 300_000, 300_000];

/// One record of the log from [`FIRST`] on, and what became of it. Numbers of other records are their offsets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    kind: &'static str,
    coupon: usize,
    user: &'static str,
    /// The code's number; 0: rejected.
    number: i64,
    reason: &'static str,
    /// The state in which it left the claim, and the record that made that.
    state: i64,
    since: usize,
    /// The record from which a hold runs.
    hold: usize,
    order: &'static str,
    /// rollback: the redemption.
    redemption: usize,
    /// redeem: amount, discount, final price.
    money: [&'static str; 3],
    /// The seconds that pass before.
    after: f32,
}

/// The first offset after the announcements of the loads.
const FIRST: usize = 3;
const NO: Line = Line {
    kind: "tick",
    coupon: 0,
    user: "",
    number: 0,
    reason: "",
    state: 0,
    since: 0,
    hold: 0,
    order: "",
    redemption: 0,
    money: [""; 3],
    after: 0.0,
};
const SMALL: [&str; 3] = ["10.05", "1.01", "9.04"];
const MIDDLE: [&str; 3] = ["20.00", "2.00", "18.00"];
const LARGE: [&str; 3] = ["100.00", "5.00", "95.00"];

#[rustfmt::skip]
pub(crate) const LINES: [Line; 26] = [
    /*  3 */ Line { kind: "claim", user: "ann", number: 1, state: 1, since: 3, hold: 3, ..NO },
    /*  4 */ Line { kind: "claim", user: "bob", number: 2, state: 1, since: 4, hold: 4, ..NO },
    /*  5 */ Line { kind: "lock", user: "bob", number: 2, state: 2, since: 4, hold: 4, order: "o-2", ..NO },
    /*  6 */ Line { kind: "claim", coupon: 1, user: "ann", number: 1, state: 1, since: 6, ..NO },
    /*  7 */ Line { kind: "lock", coupon: 1, user: "ann", number: 1, state: 2, since: 6, order: "o-1", ..NO },
    /*  8 */ Line { kind: "redeem", coupon: 1, user: "ann", number: 1, state: 3, since: 6, order: "o-1", money: SMALL, ..NO },
    /*  9 */ Line { kind: "rollback", coupon: 1, user: "shop", number: 1, state: 1, since: 6, order: "o-1", redemption: 8, ..NO },
    /* 10 */ Line { kind: "claim", coupon: 1, user: "bob", number: 3, state: 1, since: 10, ..NO },
    /* 11 */ Line { kind: "redeem", coupon: 2, user: "cara", number: 1, order: "x-1", money: MIDDLE, ..NO },
    /* 12 */ Line { kind: "redeem", coupon: 2, user: "dora", number: 1, order: "x-2", money: MIDDLE, ..NO },
    /* 13 */ Line { kind: "rollback", coupon: 2, user: "shop", number: 1, order: "x-2", redemption: 12, ..NO },
    /* 14 */ Line { kind: "revoke", coupon: 1, user: "admin", number: 2, state: 5, ..NO },
    /* 15 */ Line { kind: "claim", coupon: 1, user: "erin", reason: "sold_out", ..NO },
    /* 16 */ Line { after: 2.3, ..NO },
    /* 17 */ Line { kind: "claim", user: "cara", number: 1, state: 1, since: 17, hold: 17, ..NO },
    /* 18 */ Line { kind: "lock", user: "cara", number: 1, state: 2, since: 17, hold: 17, ..NO },
    /* 19 */ Line { kind: "redeem", user: "cara", number: 1, state: 3, since: 17, order: "o-3", money: LARGE, ..NO },
    /* 20 */ Line { kind: "claim", user: "ann", number: 2, state: 1, since: 20, hold: 20, ..NO },
    /* 21 */ Line { kind: "return", user: "ann", number: 2, state: 4, since: 20, ..NO },
    /* 22 */ Line { kind: "claim", user: "dora", number: 2, state: 1, since: 22, hold: 22, ..NO },
    /* 23 */ Line { kind: "revoke", user: "admin", number: 2, state: 5, since: 22, ..NO },
    /* 24 */ Line { kind: "claim", user: "bob", number: 3, state: 1, since: 24, hold: 24, ..NO },
    /* 25 */ Line { kind: "lock", user: "bob", number: 3, state: 2, since: 24, hold: 24, ..NO },
    /* 26 */ Line { kind: "unlock", user: "bob", number: 3, state: 4, since: 24, after: 1.3, ..NO },
    /* 27 */ Line { kind: "lock", user: "bob", reason: "hold_lapsed", ..NO },
    /* 28 */ Line { kind: "claim", user: "erin", number: 3, state: 1, since: 28, hold: 28, ..NO },
];

/// What lapsed: of a hold, the first record not decided, the code, its user, and the time: a record's and some more.
const LAPSES: [(bool, i64, &str, &str, usize, i64); 4] = [
    (true, 16, "H1", "ann", 3, HOLD_MS),
    (false, 16, "H2", "bob", 5, LOCK_MS[0]),
    (true, 16, "H2", "bob", 4, HOLD_MS),
    (true, 26, "H3", "bob", 24, HOLD_MS),
];

impl Line {
    fn is(&self, kind: &str) -> bool {
        self.kind == kind && self.reason.is_empty()
    }

    fn is_change(&self) -> bool {
        self.reason.is_empty() && ["lock", "unlock", "return", "rollback", "revoke"].contains(&self.kind)
    }

    fn hold_until(&self, times: &[i64]) -> Option<i64> {
        (self.hold > 0).then(|| times[self.hold] + HOLD_MS)
    }

    fn lock_until(&self, now: i64) -> Option<i64> {
        self.is("lock").then(|| now + LOCK_MS[self.coupon])
    }

    fn code(&self) -> Option<&'static str> {
        COUPONS[self.coupon].1.get(usize::try_from(self.number - 1).ok()?).copied()
    }

    fn request(&self, offset: usize) -> CouponRequest {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        CouponRequest {
            request_id: if self.kind == "tick" { String::new() } else { id(offset as u128, 0).to_string() },
            kind: self.kind.to_owned(),
            coupon_id: COUPONS[self.coupon].0.to_owned(),
            user_id: self.user.to_owned(),
            code: match (offset, self.kind) {
                (10, _) => self.code().map(str::to_owned),
                (27, _) => Some("H3".to_owned()),
                (_, "claim") => None,
                _ => self.code().map(str::to_owned),
            },
            order_id: if self.redemption > 0 { None } else { text(self.order) },
            order_amount: text(self.money[0]),
            currency: self.is("redeem").then(|| "EUR".to_owned()),
            redemption_id: (self.redemption > 0).then(|| id(self.redemption as u128, 0).to_string()),
            ..CouponRequest::default()
        }
    }

    fn response(&self, offset: usize, times: &[i64]) -> Option<CouponResponse> {
        if self.kind == "tick" {
            return None;
        }
        let now = times[offset];
        let paid = if self.is("redeem") { Some((offset, self)) } else { None };
        let paid = paid.or_else(|| Some((self.redemption, LINES.get(self.redemption.checked_sub(FIRST)?)?)));
        let words = ["CLAIMED", "LOCKED", "REDEEMED", "RETURNED", "REVOKED"];
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some(CouponResponse {
            request_id: id(offset as u128, 0).to_string(),
            kind: self.kind.to_owned(),
            coupon_id: COUPONS[self.coupon].0.to_owned(),
            user_id: self.user.to_owned(),
            status: if self.reason.is_empty() { "accepted" } else { "rejected" }.to_owned(),
            decided_at_ms: now,
            partition: partition(),
            offset: offset as i64,
            reason: text(self.reason),
            code: self.code().map(str::to_owned),
            code_number: (self.number > 0).then_some(self.number),
            claim_state: (self.state > 0).then(|| words[self.state as usize - 1].to_owned()),
            claimed_at_ms: (self.since > 0).then(|| times[self.since]),
            hold_until_ms: self.hold_until(times),
            lock_until_ms: self.lock_until(now),
            redemption_id: paid.map(|(offset, _)| id(offset as u128, 0).to_string()),
            order_id: text(self.order),
            order_amount: paid.map(|(_, line)| line.money[0].to_owned()),
            discount: paid.map(|(_, line)| line.money[1].to_owned()),
            final_price: paid.map(|(_, line)| line.money[2].to_owned()),
            currency: paid.map(|_| "EUR".to_owned()),
            redeemed_at_ms: paid.map(|(offset, _)| times[offset]),
        })
    }
}

/// The response to the request at an offset.
pub(crate) fn response_of_line(offset: usize, times: &[i64]) -> CouponResponse {
    LINES[offset - FIRST].response(offset, times).unwrap()
}

/// The partition of all three coupons: their records are put there, whatever their keys say.
fn partition() -> i32 {
    partition_for(COUPONS[0].0.as_bytes(), PARTITIONS)
}

/// Records with the seconds that pass before them; answers the times that the broker gave them.
async fn forge_log(world: &World) -> Vec<i64> {
    let encoder: Encoder<CouponRequest> = Encoder::new(world.registry.id_of(Subject::Request));
    let loads = COUPONS.iter().zip(1..).map(|((coupon, _), load)| CouponRequest {
        kind: "stock_added".into(),
        coupon_id: (*coupon).to_owned(),
        load_id: Some(load),
        ..CouponRequest::default()
    });
    let lines = LINES.iter().zip(FIRST..).map(|(line, offset)| (line.after, line.request(offset)));
    for (after, request) in loads.map(|load| (0.0, load)).chain(lines) {
        tokio::time::sleep(Duration::from_secs_f32(after)).await;
        let value = Some(encoder.encode_to_vec(&request).unwrap());
        let planted = Planted { partition: partition(), value, ..Planted::default() };
        world.producer.produce(REQUESTS, &planted).await;
    }
    let log = records(&world.config.kafka, REQUESTS).await;
    log.iter().map(|record| record.timestamp().to_millis().unwrap()).collect()
}

fn rows(times: &[i64]) -> String {
    let (p, next) = (partition(), FIRST + LINES.len());
    let mut sql = format!(
        "set search_path = stampede; select ensure_outcome_days('{DAY}', 1);
         insert into partitions (partition, epoch, write_no, next_offset, last_offset, time_ms, next_emit_seq, emitted_seq)
         values ({p}, 1, 3, {next}, {next} - 1, {}, 4, 3);",
        times[next - 1]
    );
    let discount = r#"{"discount": {"type": "PERCENTAGE", "value": "10.00", "maximum_discount": "5.00"}}"#;
    let rules =
        ["1, 1, null, 2, false, 1, null", "1, null, 1, 300, true, 1, 1", "1, null, null, 300, false, 2, 3"];
    for (((coupon, codes), rules), no) in COUPONS.iter().zip(rules).zip(1..) {
        let count = codes.len();
        write!(
            sql,
            "insert into coupons (coupon_id, partition, definition, claims_per_user, hold_seconds,
                 redemptions_per_user, lock_seconds, requires_lock, redemptions_per_code, redemptions_total)
             values ('{coupon}', {p}, '{discount}', {rules});
             insert into loads (job_id, coupon_no, state, wanted, count, maker, lease_until, base)
             values (gen_random_uuid(), {no}, 'applied', {count}, {count}, gen_random_uuid(), now(), 0);"
        )
        .unwrap();
        for (code, idx) in codes.iter().zip(1..) {
            write!(sql, "insert into codes values ({no}, {idx}, '{code}', '{code}');").unwrap();
        }
    }
    for (line, offset) in LINES.iter().zip(FIRST..) {
        row(&mut sql, line, offset, times);
    }
    let tail = "
        update claims set lapsed_ms = first_hold_ms where \"offset\" in (3, 4, 24);
        update claims set order_id = 'o-3' where \"offset\" = 17;
        update redemptions r set rolled_back_ms = o.decided_ms from outcomes o where o.redemption = r.identity;
        insert into code_marks values (1, 2, 0, true), (2, 2, 0, true), (3, 1, 1, false);
        insert into stock (coupon_no, top, cursor, ahead, returned, claimed, redeemed, revoked, redemptions) values
            (1, 4, 3, 0, 0, 1, 1, 1, 1), (2, 3, 1, 2, 0, 2, 0, 1, 0), (3, 2, 0, 0, 0, 0, 0, 0, 1);
        insert into stock_ahead values (2, 2), (2, 3);";
    sql.push_str(tail);
    sql
}

fn row(sql: &mut String, line: &Line, offset: usize, times: &[i64]) {
    let (no, now, p) = (line.coupon + 1, times[offset], partition());
    let uuid = |offset: usize| format!("'{}'", super::uuid(offset as u128));
    let value = |value: Option<i64>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
    let text = |text: &str| if text.is_empty() { "null".to_owned() } else { format!("'{text}'") };
    let (identity, user, number, order) = (uuid(offset), line.user, line.number, text(line.order));
    let (hold, since) = (value(line.hold_until(times)), value((line.since > 0).then(|| times[line.since])));
    let written = if line.is("claim") {
        // How it stands in the end.
        let state = [(3, 4), (4, 4), (17, 3), (20, 4), (22, 5), (24, 4)].iter().find(|(at, _)| *at == offset);
        let state = state.map_or(1, |(_, state)| *state);
        let holds = if state == 1 { hold.as_str() } else { "null" };
        write!(
            sql,
            "insert into claims (identity, body, coupon_no, number, \"offset\", claimed_ms, user_id, first_hold_ms,
                                 hold_until_ms, deadline_ms, partition, state)
             values ({identity}, 0, {no}, {number}, {offset}, {now}, '{user}', {hold}, {holds}, {holds},
                     case when {hold} is not null then {p} end, {state});"
        )
    } else if line.is("redeem") {
        let [amount, discount, left] = line.money;
        write!(
            sql,
            "insert into redemptions values ({identity}, 0, {no}, {number}, {offset}, {now}, {since}, '{user}',
                                             {order}, {amount}, {discount}, {left}, 'EUR');"
        )
    } else if line.is_change() {
        let (state, lock) = (value((line.state > 0).then_some(line.state)), value(line.lock_until(now)));
        let rolled_back = line.redemption > 0;
        let redemption = if rolled_back { uuid(line.redemption) } else { "null".to_owned() };
        let (body, order) = if rolled_back { ("0", "null") } else { ("null", order.as_str()) };
        write!(
            sql,
            "insert into outcomes (day, identity, body, coupon_no, partition, \"offset\", decided_ms, kind, user_id,
                 number, claim_state, claimed_ms, hold_until_ms, lock_until_ms, order_id, redemption, redemption_body)
             values ('{DAY}', {identity}, 0, {no}, {p}, {offset}, {now}, '{}', '{user}', {number}, {state}, {since},
                     {hold}, {lock}, {order}, {redemption}, {body});",
            line.kind
        )
    } else if line.reason.is_empty() {
        Ok(())
    } else {
        write!(
            sql,
            "insert into outcomes (day, identity, body, coupon_no, partition, \"offset\", decided_ms, kind, reason,
                 user_id)
             values ('{DAY}', {identity}, 0, {no}, {p}, {offset}, {now}, '{}', '{}', '{user}');",
            line.kind, line.reason
        )
    };
    written.unwrap();
}

/// An event of this world.
pub(crate) fn lapsed(of_hold: bool, offset: i64, code: &str, user: &str, at_ms: i64) -> CouponEvent {
    CouponEvent {
        kind: if of_hold { "hold_lapsed" } else { "lock_lapsed" }.to_owned(),
        coupon_id: COUPONS[0].0.to_owned(),
        at_ms,
        partition: partition(),
        offset,
        code: Some(code.to_owned()),
        user_id: Some(user.to_owned()),
        available: Some(1),
    }
}

async fn forge_told(world: &World, times: &[i64]) {
    for (line, offset) in LINES.iter().zip(FIRST..) {
        if let Some(response) = line.response(offset, times) {
            world.tell(&response).await;
        }
    }
    let of_stock = [("restocked", 0, 0), ("restocked", 1, 1), ("restocked", 2, 2), ("sold_out", 1, 14)];
    for (kind, coupon, offset) in of_stock {
        let (kind, coupon_id) = (kind.to_owned(), COUPONS[coupon].0.to_owned());
        let event = CouponEvent { kind, coupon_id, partition: partition(), offset, ..CouponEvent::default() };
        world.happen(&event).await;
    }
    for (of_hold, offset, code, user, record, after) in LAPSES {
        let event = lapsed(of_hold, offset, code, user, times[record] + after);
        world.happen(&event).await;
        // Told again after a takeover.
        world.happen(&event).await;
    }
}

impl World {
    pub(crate) async fn happen(&self, event: &CouponEvent) {
        let value = Some(Encoder::new(self.registry.id_of(Subject::Event)).encode_to_vec(event).unwrap());
        self.producer.produce(EVENTS, &Planted { value, ..Planted::default() }).await;
    }
}

/// Forges the lives in a new database and in the topics of a stack; answers the times of the records.
pub(crate) async fn forge_lives(stack: &Stack, name: &str) -> (World, Vec<i64>) {
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
    let times = forge_log(&world).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows(&times))).execute(&pool).await.unwrap();
    forge_told(&world, &times).await;
    pool.close().await;
    (world, times)
}

/// A copy of the forged lives; the topics are shared, and nobody changes them.
pub(crate) async fn copy_of_the_lives() -> (World, Vec<i64>) {
    static FORGED: OnceCell<(Stack, Vec<i64>)> = OnceCell::const_new();
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let forge_once = async || {
        let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
        let (_, times) = forge_lives(&stack, "lives").await;
        (stack, times)
    };
    let (stack, times) = FORGED.get_or_init(forge_once).await;
    let copy = format!("life_{}", COPIES.fetch_add(1, Ordering::SeqCst));
    (super::copy(stack, "lives", &copy).await, times.clone())
}
