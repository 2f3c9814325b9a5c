//! A coupon, and where the state of its codes is visible: wallets, validations, counters, events.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rdkafka::message::Message as _;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use schemas::topics::EVENTS;
use schemas::{CouponEvent, Decoder, Subject};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::kafka::{records, schema_id};
use crate::orders::{self, AMOUNT, CURRENCY};
use crate::outcome::result_of;
use crate::wait::{TIMEOUT, until_equal};
use crate::{Environment, Operation, Request, path_segment};

/// Available, claimed, locked, redeemed, revoked.
pub type Counts = [u64; 5];

/// A coupon of an environment.
pub struct Coupon<'e> {
    env: &'e Environment,
    /// The coupon's id.
    pub id: String,
}

impl fmt::Display for Coupon<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// A change that no request caused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Its kind, such as `hold_lapsed`.
    pub kind: String,
    /// The code, or nothing.
    pub code: String,
    /// When it happened.
    pub at_ms: i64,
}

impl Environment {
    /// Changes a coupon's rules by SQL, because the API cannot yet, and makes its owner drop what it has cached: a
    /// takeover fences the owner, which finds that the partition is still assigned to it and takes it over again.
    pub async fn redefine(&self, coupon: &str, set: &str) {
        let mut postgres = self.postgres().await;
        let update = format!("update stampede.coupons set {set} where coupon_id = $1");
        let sql = sqlx::AssertSqlSafe(update);
        assert_eq!(sqlx::query(sql).bind(coupon).execute(&mut postgres).await.unwrap().rows_affected(), 1);
        let fence = "select (stampede.take_over(partition, 'a test', gen_random_uuid())).next_deadline_ms
                       from stampede.coupons where coupon_id = $1";
        sqlx::query(fence).bind(coupon).execute(&mut postgres).await.unwrap();
    }
}

impl<'e> Coupon<'e> {
    pub(crate) const fn new(env: &'e Environment, id: String) -> Self {
        Self { env, id }
    }

    /// Claims any code for this user.
    pub async fn claim(&self, user: &str) -> String {
        let outcome = self.env.decide(Request::claim(user, &self.id)).await;
        assert_eq!(result_of(&outcome), "accepted", "{user}: {outcome}");
        outcome["code"].as_str().unwrap().to_owned()
    }

    /// Claims any code for this user, again and again until one is available.
    pub async fn claim_when_available(&self, user: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let outcome = self.env.decide(Request::claim(user, &self.id)).await;
            if result_of(&outcome) == "accepted" {
                return outcome["code"].as_str().unwrap().to_owned();
            }
            assert_eq!(result_of(&outcome), "sold_out", "{user}: {outcome}");
            assert!(Instant::now() < deadline, "no code becomes available for {user}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The code with this number, as the API shows it.
    pub async fn code(&self, number: i64) -> String {
        let sql = "select k.code from stampede.codes k join stampede.loads l using (load_id)
                     join stampede.coupons c using (coupon_no)
                    where c.coupon_id = $1 and coalesce(l.base, 0) + k.idx = $2";
        let code = sqlx::query_scalar(sql).bind(&self.id).bind(number);
        code.fetch_one(&mut self.env.postgres().await).await.unwrap()
    }

    /// The names of its lists in Redis, once there is one. A coupon gets a list when more of its codes are claimed than
    /// its owner reads at first.
    pub async fn lists(&self, redis: &mut MultiplexedConnection) -> Vec<String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let lists = self.current_lists(redis).await;
            if !lists.is_empty() {
                return lists;
            }
            assert!(Instant::now() < deadline, "{} gets no list", self.id);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The names of its lists in Redis at this moment. A list is deleted when its owner distrusts it.
    pub async fn current_lists(&self, redis: &mut MultiplexedConnection) -> Vec<String> {
        let sql = "select coupon_no from stampede.coupons where coupon_id = $1";
        let number = sqlx::query_scalar::<_, i64>(sql).bind(&self.id);
        let number = number.fetch_one(&mut self.env.postgres().await).await.unwrap();
        redis.keys(format!("stampede:stock:{number}:*")).await.unwrap()
    }

    /// The live counters.
    pub async fn counts(&self) -> Counts {
        let counts = self.env.counts(&self.id).await;
        let of = |name: &str| counts[name].as_u64().unwrap();
        let found = ["available", "claimed", "locked", "redeemed", "revoked"].map(of);
        assert_eq!(found.iter().sum::<u64>() + of("expired"), of("generated"), "{counts}");
        found
    }

    /// Waits until the counters are these.
    pub async fn until_counts(&self, wanted: Counts) {
        until_equal(wanted, async || self.counts().await).await;
    }

    /// A code in the wallet of a user; null if the wallet does not contain it.
    pub async fn in_wallet(&self, user: &str, code: &str) -> Value {
        let token = self.env.token(user);
        let wallet = self.env.get(1, "/v1/users/me/codes?limit=100", &token).await.json();
        let items = wallet["items"].as_array().unwrap_or_else(|| panic!("{wallet}"));
        items.iter().find(|item| item["code"] == code).cloned().unwrap_or_default()
    }

    /// The result of a validation by this user: `valid`, or the reason.
    pub async fn validation(&self, user: &str, code: &str) -> String {
        let code = path_segment(code);
        let path = format!("/v1/codes/{code}/validation?order_amount={AMOUNT}&currency={CURRENCY}");
        let validation = self.env.get(1, &path, &self.env.token(user)).await.json();
        match validation["valid"].as_bool() {
            Some(true) => "valid".to_owned(),
            Some(false) => validation["reason"].as_str().unwrap().to_owned(),
            None => panic!("{validation}"),
        }
    }

    /// Waits until a validation by this user has this result.
    pub async fn until_validation(&self, user: &str, code: &str, wanted: &str) {
        until_equal(wanted.to_owned(), async || self.validation(user, code).await).await;
    }

    /// Expects this state in the user's wallet (`-` if the code is not there), this validation and these counters.
    pub async fn expect(&self, user: &str, code: &str, wanted: (&str, &str, Counts)) {
        let item = self.in_wallet(user, code).await;
        let state = item["state"].as_str().unwrap_or("-");
        let validation = self.validation(user, code).await;
        assert_eq!((state, &*validation, self.counts().await), wanted, "{user} has {item}");
    }

    /// The coupon's events so far, each once however often it was published.
    pub async fn events(&self) -> Vec<Event> {
        self.env.until_all_published(self.env.partition_of(&self.id)).await;
        let own = schema_id(&mut self.env.postgres().await, Subject::Event).await;
        let decoder: Decoder<CouponEvent> = Decoder::new(own);
        let published = records(&self.env.stack.endpoints().kafka, EVENTS).await;
        let published = published.iter().map(|record| decoder.decode(record.payload().unwrap()).unwrap());
        let mut distinct = BTreeSet::new();
        for event in published.filter(|event| event.coupon_id == *self.id) {
            let CouponEvent { kind, code, at_ms, offset, .. } = event;
            distinct.insert((offset, Event { kind, code: code.unwrap_or_default(), at_ms }));
        }
        distinct.into_iter().map(|(_, event)| event).collect()
    }

    /// Kinds of the events of a code, in order.
    pub async fn events_of(&self, code: &str) -> Vec<String> {
        let mut events = self.events().await;
        events.retain(|event| event.code == code);
        events.sort_by_key(|event| event.at_ms);
        events.into_iter().map(|event| event.kind).collect()
    }
}

/// A coupon with many claims per user, so that a test is about something else, and these fields.
pub fn rules(fields: &Value) -> Value {
    let mut rules = json!({"limits": {"claims_per_user": 100}});
    for (name, value) in fields.as_object().into_iter().flatten() {
        rules[name] = value.clone();
    }
    rules
}

/// What a user may do with their own code.
pub fn operations_of_a_user(code: &str) -> [Operation<'_>; 4] {
    [
        Operation::lock(code),
        Operation::unlock(code),
        Operation::return_code(code),
        orders::redeem(code, "order-1"),
    ]
}
