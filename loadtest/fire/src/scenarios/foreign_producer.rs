//! A producer that writes to the log past the API.

use std::time::Duration;

use coupon_core::ids::RequestId;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, Encoder, SchemaId, Subject, fingerprint, partition_for};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::environment::{Environment, FaultError};
use crate::fixtures::Kind;
use crate::rng::Rng;

const DELIVERED_WITHIN: Duration = Duration::from_secs(60);

/// A record to append.
#[derive(Clone, Debug)]
struct PlantedRecord {
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

/// A foreign producer and the coupon of its records.
struct ForeignProducer {
    schema: SchemaId,
    coupon: String,
    partition: i32,
    partitions: i32,
}

impl ForeignProducer {
    async fn new(env: &Environment, rng: &mut Rng) -> Result<Self, FaultError> {
        let sql = "select schema_id from stampede.schemas where fingerprint = $1";
        let own = sqlx::query_scalar(sql).bind(Subject::Request.newest().fingerprint.as_slice());
        let own: i32 = own.fetch_one(&mut env.postgres().await?).await?;
        let coupon = env.fixtures.any(Kind::Cool, rng).ok_or("there is no coupon")?;
        let partition = partition_for(coupon.as_bytes(), env.partitions);
        Ok(Self { schema: SchemaId(own), coupon, partition, partitions: env.partitions })
    }

    fn claim(&self, rng: &mut Rng) -> CouponRequest {
        let identity = u128::from(rng.any()) << 63 | u128::from(rng.any() >> 1);
        CouponRequest {
            request_id: RequestId { identity, body: 0 }.to_string(),
            kind: "claim".to_owned(),
            coupon_id: self.coupon.clone(),
            user_id: format!("foreign-{:x}", rng.any()),
            minted_at_ms: 1,
            ..CouponRequest::default()
        }
    }

    fn record(&self, request: &CouponRequest) -> Result<PlantedRecord, FaultError> {
        let value = Encoder::new(self.schema).encode_to_vec(request)?;
        Ok(PlantedRecord {
            partition: self.partition,
            key: self.coupon.clone().into_bytes(),
            value,
            headers: Vec::new(),
        })
    }

    const fn elsewhere(&self) -> i32 {
        (self.partition + 1) % self.partitions
    }
}

/// Random bytes, truncated records, an unknown schema, the wrong partition, control characters, an unknown kind; and valid
/// records, each of them twice.
pub(super) async fn foreign_records(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let foreign = ForeignProducer::new(env, rng).await?;
    let claim = foreign.claim(rng);
    let good = foreign.record(&claim)?;
    let of = |change: fn(&mut CouponRequest)| {
        let mut request = claim.clone();
        change(&mut request);
        foreign.record(&request)
    };
    let with = |value: &[u8]| PlantedRecord { value: value.to_vec(), ..good.clone() };
    let mut unknown_schema = good.value.clone();
    if let Some(id) = unknown_schema.get_mut(1..5) {
        id.copy_from_slice(&999_999_i32.to_be_bytes());
    }
    let unreadable = foreign.claim(rng);
    let headers_of_user =
        vec![(HEADER_REQUEST_ID, unreadable.request_id), (HEADER_USER_ID, unreadable.user_id)];
    let stolen = CouponRequest { user_id: "eve".to_owned(), ..claim.clone() };
    let mut planted = vec![
        good.clone(),
        good.clone(),
        with(b""),
        with(b"random bytes"),
        with(&good.value[..good.value.len() / 2]),
        with(&unknown_schema),
        with(&[good.value.as_slice(), b"more"].concat()),
        PlantedRecord { partition: foreign.elsewhere(), ..good.clone() },
        PlantedRecord { headers: headers_of_user, ..with(b"random bytes with headers") },
        of(|request| request.user_id = "an\0n".to_owned())?,
        of(|request| request.kind = "teleport".to_owned())?,
        of(|request| request.request_id = "nonsense".to_owned())?,
        foreign.record(&stolen)?,
        good,
    ];
    // The valid record stays the first of its id.
    if let Some(others) = planted.get_mut(1..) {
        rng.shuffle(others);
    }
    append(env, planted).await
}

/// A newer API writes a field that running workers do not have.
pub(super) async fn newer_schema(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let foreign = ForeignProducer::new(env, rng).await?;
    let mut newer: Value = serde_json::from_str(Subject::Request.newest().definition)?;
    let name = format!("channel_{:x}", rng.any());
    let more = json!({"name": name, "type": ["null", "string"], "default": null});
    newer["fields"].as_array_mut().ok_or("the schema has no fields")?.push(more);
    let newer = newer.to_string();
    let sql = "insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3) returning schema_id";
    let stored = sqlx::query_scalar(sql).bind(Subject::Request.name());
    let stored = stored.bind(fingerprint(&newer)?.to_vec()).bind(&newer);
    let id: i32 = stored.fetch_one(&mut env.postgres().await?).await?;
    let mut planted = Vec::new();
    for _ in 0..5 {
        let mut record = foreign.record(&foreign.claim(rng))?;
        // The union's second branch, and a text of two bytes.
        record.value.extend([2, 4, b'q', b'r']);
        record.value.get_mut(1..5).ok_or("a record without a header")?.copy_from_slice(&id.to_be_bytes());
        planted.push(record);
    }
    append(env, planted).await
}

async fn append(env: &Environment, planted: Vec<PlantedRecord>) -> Result<(), FaultError> {
    let brokers = env.endpoints.kafka.clone();
    spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "0").set("enable.idempotence", "true");
        let producer: BaseProducer = config.create()?;
        for PlantedRecord { partition, key, value, headers } in &planted {
            let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_str()) })
            });
            let record =
                BaseRecord::to(REQUESTS).partition(*partition).key(key).payload(value).headers(headers);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(DELIVERED_WITHIN)?)
    })
    .await?
}
