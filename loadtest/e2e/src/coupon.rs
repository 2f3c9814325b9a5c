//! A coupon, and where its codes stand: in the wallet of who has them, in a validation, in the counters, in events.

use std::collections::BTreeSet;
use std::time::Duration;

use checker::{CheckConfig, settle};
use rdkafka::message::Message as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use schemas::topics::EVENTS;
use schemas::{CouponEvent, Decoder, SchemaId, Subject};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::field::SETTLES_WITHIN;
use super::life::{AMOUNT, CURRENCY, Deed, word};
use super::log::records;
use super::{Act, Field};

/// Available, claimed, locked, redeemed, revoked.
pub(crate) type Counts = [u64; 5];

/// A coupon on a field.
#[derive(Clone, Copy)]
pub(crate) struct Sale<'f> {
    pub(crate) field: &'f Field,
    pub(crate) coupon: &'f str,
}

/// Something that happened without a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) code: String,
    pub(crate) user: String,
    pub(crate) at_ms: i64,
}

impl Field {
    pub(crate) async fn redis(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.stack.endpoints().redis_url).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// A new coupon with these fields over the usual ones, and so many codes.
    pub(crate) async fn stocked(&self, codes: u64, fields: Value) -> String {
        let coupon = self.coupon_of(fields).await;
        self.generate(&coupon, codes).await;
        coupon
    }

    /// Rewrites a coupon's rules by SQL, and has its owner forget what it remembers of them: the API has no way yet.
    pub(crate) async fn redefine(&self, coupon: &str, set: &str) {
        let mut postgres = self.postgres().await;
        let update = format!("update stampede.coupons set {set} where coupon_id = $1");
        let sql = sqlx::AssertSqlSafe(update);
        assert_eq!(sqlx::query(sql).bind(coupon).execute(&mut postgres).await.unwrap().rows_affected(), 1);
        // Whoever owns the partition is shut out, finds that it still is assigned to it, and takes it over again.
        let shut_out =
            "select (stampede.take_over(partition, 'somebody', gen_random_uuid())).next_deadline_ms
                          from stampede.coupons where coupon_id = $1";
        sqlx::query(shut_out).bind(coupon).execute(&mut postgres).await.unwrap();
    }
}

impl<'f> Sale<'f> {
    pub(crate) const fn of(field: &'f Field, coupon: &'f str) -> Self {
        Self { field, coupon }
    }

    /// A code for this user.
    pub(crate) async fn claim(&self, user: &str) -> String {
        let outcome = self.field.see_through(Act::of(user, Deed::Claim(self.coupon))).await;
        assert_eq!(word(&outcome), "accepted", "{user}: {outcome}");
        outcome["code"].as_str().unwrap().to_owned()
    }

    /// The code of this number, as it is shown.
    pub(crate) async fn code(&self, number: i64) -> String {
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no)
                    where c.coupon_id = $1 and coalesce(l.base, 0) + k.idx = $2";
        let code = sqlx::query_scalar(sql).bind(self.coupon).bind(number);
        code.fetch_one(&mut self.field.postgres().await).await.unwrap()
    }

    /// The names of its lists in Redis, once there is one with something in it: a coupon gets one when more of its codes
    /// are wanted than its owner reads at first.
    pub(crate) async fn lists(&self, redis: &mut MultiplexedConnection) -> Vec<String> {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            let lists = self.lists_now(redis).await;
            if !lists.is_empty() {
                return lists;
            }
            assert!(Instant::now() < until, "{} gets no list", self.coupon);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The names of the lists that it has at this moment: one that its owner doubts is thrown away.
    pub(crate) async fn lists_now(&self, redis: &mut MultiplexedConnection) -> Vec<String> {
        let sql = "select coupon_no from stampede.coupons where coupon_id = $1";
        let number = sqlx::query_scalar::<_, i64>(sql).bind(self.coupon);
        let number = number.fetch_one(&mut self.field.postgres().await).await.unwrap();
        redis.keys(format!("stampede:stock:{number}:*")).await.unwrap()
    }

    pub(crate) async fn counts(&self) -> Counts {
        let counts = self.field.counts(self.coupon).await;
        let of = |name: &str| counts[name].as_u64().unwrap();
        let found = ["available", "claimed", "locked", "redeemed", "revoked"].map(of);
        assert_eq!(found.iter().sum::<u64>() + of("expired"), of("generated"), "{counts}");
        found
    }

    /// Waits until the counters are these.
    pub(crate) async fn until(&self, wanted: Counts) {
        let until = Instant::now() + SETTLES_WITHIN;
        loop {
            let found = self.counts().await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < until, "the counters stay {found:?}, and should become {wanted:?}");
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// Where a code stands in the wallet of this user; nothing if it is not there.
    pub(crate) async fn in_wallet(&self, user: &str, code: &str) -> Value {
        let wallet = self.field.get(1, "/v1/users/me/codes?limit=100", &self.field.token(user)).await.json();
        let found = wallet["items"].as_array().unwrap_or_else(|| panic!("{wallet}"));
        found.iter().find(|item| item["code"] == code).cloned().unwrap_or_default()
    }

    /// What a validation of this code says to this user: `valid`, or the reason.
    pub(crate) async fn validation(&self, user: &str, code: &str) -> String {
        let path = format!("/v1/codes/{code}/validation?order_amount={AMOUNT}&currency={CURRENCY}");
        let said = self.field.get(1, &path, &self.field.token(user)).await.json();
        match said["valid"].as_bool() {
            Some(true) => "valid".to_owned(),
            Some(false) => said["reason"].as_str().unwrap().to_owned(),
            None => panic!("{said}"),
        }
    }

    /// State in the wallet (`-` if it is not there), validation, counters.
    pub(crate) async fn expect(&self, user: &str, code: &str, wanted: (&str, &str, Counts)) {
        let item = self.in_wallet(user, code).await;
        let state = item["state"].as_str().unwrap_or("-");
        let validation = self.validation(user, code).await;
        assert_eq!((state, &*validation, self.counts().await), wanted, "{user} has {item}");
    }

    /// What happened to the coupon without a request, each once, however often it was told.
    pub(crate) async fn events(&self) -> Vec<Event> {
        // What is written is told a moment later, or by the next owner.
        let config = CheckConfig::settled(&self.field.stack.endpoints());
        settle(&config, SETTLES_WITHIN).await.unwrap();
        let sql = "select schema_id from stampede.schemas where fingerprint = $1";
        let own = sqlx::query_scalar(sql).bind(Subject::Event.newest().fingerprint.as_slice());
        let own: i32 = own.fetch_one(&mut self.field.postgres().await).await.unwrap();
        let decoder: Decoder<CouponEvent> = Decoder::new(SchemaId(own));
        let told = records(&self.field.stack.endpoints().kafka, EVENTS).await;
        let told = told.iter().map(|record| decoder.decode(record.payload().unwrap()).unwrap());
        let mut once = BTreeSet::new();
        for event in told.filter(|event| event.coupon_id == self.coupon) {
            let CouponEvent { kind, code, user_id, at_ms, offset, .. } = event;
            let (code, user) = (code.unwrap_or_default(), user_id.unwrap_or_default());
            once.insert((offset, Event { kind, code, user, at_ms }));
        }
        once.into_iter().map(|(_, event)| event).collect()
    }

    /// Kinds of the events about a code, in order.
    pub(crate) async fn lapses(&self, code: &str) -> Vec<String> {
        let mut events: Vec<Event> =
            self.events().await.into_iter().filter(|event| event.code == code).collect();
        events.sort_by_key(|event| event.at_ms);
        events.into_iter().map(|event| event.kind).collect()
    }
}

/// The usual coupon, with these fields over it: many claims a user, so that tests are about something else.
pub(crate) fn rules(over: &Value) -> Value {
    let mut fields = json!({"limits": {"claims_per_user": 100}});
    for (name, value) in over.as_object().into_iter().flatten() {
        fields[name] = value.clone();
    }
    fields
}
