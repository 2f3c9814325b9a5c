//! Somebody who writes requests to the log without asking the API.

use coupon_core::ids::RequestId;
use schemas::topics::REQUESTS;
use schemas::{CouponRequest, Encoder, SchemaId, Subject, partition_for};

use super::Field;
use super::life::word;
use super::log::{Planted, Producer};
use super::{Act, Deed};

/// Partitions of the request topic, as recorded.
pub(crate) const PARTITIONS: i32 = 8;

/// A foreign producer, and its place in the log.
pub(crate) struct Foreigner {
    producer: Producer,
    schema: SchemaId,
    coupon: String,
    pub(crate) partition: i32,
}

impl Foreigner {
    pub(crate) async fn at(field: &Field, coupon: &str) -> Self {
        let sql = "select schema_id from stampede.schemas where fingerprint = $1";
        let own = sqlx::query_scalar(sql).bind(Subject::Request.newest().fingerprint.as_slice());
        let own: i32 = own.fetch_one(&mut field.postgres().await).await.unwrap();
        Self {
            producer: Producer::to(&field.stack.endpoints().kafka),
            schema: SchemaId(own),
            coupon: coupon.to_owned(),
            partition: partition_for(coupon.as_bytes(), PARTITIONS),
        }
    }

    /// A request of this kind, with an id of its own.
    pub(crate) fn request(&self, kind: &str, user: &str, code: Option<&str>) -> CouponRequest {
        CouponRequest {
            request_id: RequestId { identity: rand::random::<u128>() >> 1, body: 0 }.to_string(),
            kind: kind.to_owned(),
            coupon_id: self.coupon.clone(),
            user_id: user.to_owned(),
            minted_at_ms: 1,
            code: code.map(|code| code.replace('-', "")),
            ..CouponRequest::default()
        }
    }

    pub(crate) fn record(&self, request: &CouponRequest) -> Planted {
        let value = Some(Encoder::new(self.schema).encode_to_vec(request).unwrap());
        let key = Some(self.coupon.clone().into_bytes());
        Planted { partition: self.partition, key, value, headers: Vec::new() }
    }

    pub(crate) async fn produce(&self, planted: &Planted) -> (i32, i64) {
        (planted.partition, self.producer.produce(REQUESTS, planted).await)
    }

    /// Appends a request where it belongs.
    pub(crate) async fn send(&self, request: &CouponRequest) {
        self.produce(&self.record(request)).await;
    }

    /// Waits until everything that was appended before is decided: somebody asks for something behind it.
    pub(crate) async fn heard(&self, field: &Field) {
        let outcome =
            field.see_through(Act::of("somebody", Deed::ClaimNamed(&self.coupon, "NOSUCHCODE"))).await;
        assert_eq!(word(&outcome), "code_unknown", "{outcome}");
    }

    /// What became of a request, in one word; `None` for one that was never decided.
    pub(crate) async fn outcome(&self, field: &Field, request: &CouponRequest) -> Option<String> {
        let identity = RequestId::parse(&request.request_id).unwrap().identity;
        let sql = "select 'accepted' from stampede.claims where identity = $1
                   union all select 'accepted' from stampede.redemptions where identity = $1
                   union all select coalesce(reason, 'accepted') from stampede.outcomes where identity = $1";
        let word = sqlx::query_scalar(sql).bind(uuid::Uuid::from_u128(identity));
        word.fetch_optional(&mut field.postgres().await).await.unwrap()
    }
}
