//! A producer that writes requests to the log without the API.

use std::collections::BTreeMap;

use coupon_core::ids::RequestId;
use schemas::topics::{DEAD_LETTERS, REQUESTS};
use schemas::{CouponRequest, Encoder, SchemaId, Subject};

use crate::kafka::{Producer, Record, header, records, schema_id};
use crate::outcome::result_of;
use crate::{Environment, Operation, Request};

/// Partition and offset of a record.
pub type Position = (i32, i64);

/// A foreign producer, and where the requests of one coupon belong.
pub struct ForeignProducer<'e> {
    env: &'e Environment,
    producer: Producer,
    schema: SchemaId,
    coupon: String,
    /// The coupon's partition.
    pub partition: i32,
}

impl<'e> ForeignProducer<'e> {
    /// For requests about this coupon.
    pub async fn of(env: &'e Environment, coupon: &str) -> Self {
        Self {
            env,
            producer: Producer::to(&env.stack.endpoints().kafka),
            schema: schema_id(&mut env.postgres().await, Subject::Request).await,
            coupon: coupon.to_owned(),
            partition: env.partition_of(coupon),
        }
    }

    /// A request of this kind with an id of its own.
    pub fn request(&self, kind: &str, user: &str, code: Option<&str>) -> CouponRequest {
        CouponRequest {
            request_id: RequestId { identity: rand::random::<u128>() >> 1, body: 0 }.to_string(),
            kind: kind.to_owned(),
            coupon_id: self.coupon.clone(),
            user_id: self.env.user(user),
            minted_at_ms: 1,
            code: code.map(|code| code.replace('-', "")),
            ..CouponRequest::default()
        }
    }

    /// A request as bytes.
    pub fn encode(&self, request: &CouponRequest) -> Vec<u8> {
        Encoder::new(self.schema).encode_to_vec(request).unwrap()
    }

    /// A record with this value where the coupon's requests belong.
    pub fn record_of(&self, value: Vec<u8>) -> Record {
        let key = Some(self.coupon.clone().into_bytes());
        Record { partition: self.partition, key, value: Some(value), headers: Vec::new() }
    }

    /// A request as a record where it belongs.
    pub fn record(&self, request: &CouponRequest) -> Record {
        self.record_of(self.encode(request))
    }

    /// Another partition than the coupon's, and none of those that [`crate::group`] reserves.
    pub const fn other_partition(&self) -> i32 {
        self.partition % 6 + 1
    }

    /// Appends a record.
    pub async fn produce(&self, record: &Record) -> Position {
        (record.partition, self.producer.produce(REQUESTS, record).await)
    }

    /// Appends a request where it belongs.
    pub async fn send(&self, request: &CouponRequest) -> Position {
        self.produce(&self.record(request)).await
    }

    /// Waits until everything that was appended to the coupon's partition before is decided, by a request behind it.
    pub async fn until_decided(&self) {
        let sentinel = Request::new("sentinel", Operation::claim_code(&self.coupon, "NOSUCHCODE"));
        let outcome = self.env.decide(sentinel).await;
        assert_eq!(result_of(&outcome), "code_unknown", "{outcome}");
    }

    /// The result of a request; `None` for one that was never decided.
    pub async fn result(&self, request: &CouponRequest) -> Option<String> {
        let identity = RequestId::parse(&request.request_id).unwrap().identity;
        let sql = "select 'accepted' from stampede.claims where identity = $1
                   union all select 'accepted' from stampede.redemptions where identity = $1
                   union all select coalesce(reason, 'accepted') from stampede.outcomes where identity = $1";
        let result = sqlx::query_scalar(sql).bind(uuid::Uuid::from_u128(identity));
        result.fetch_optional(&mut self.env.postgres().await).await.unwrap()
    }
}

impl Environment {
    /// Waits until these records are consumed and published; returns the reasons of all dead letters, by the positions
    /// of their records.
    pub async fn dead_letters(&self, consumed: &[Position]) -> BTreeMap<Position, String> {
        for (partition, offset) in consumed {
            self.until_published(*partition, *offset).await;
        }
        let letters = records(&self.stack.endpoints().kafka, DEAD_LETTERS).await;
        let position = |letter| {
            let number = |name| header(letter, name).unwrap().parse::<i64>().unwrap();
            (i32::try_from(number("partition")).unwrap(), number("offset"))
        };
        letters.iter().map(|letter| (position(letter), header(letter, "reason").unwrap())).collect()
    }
}
