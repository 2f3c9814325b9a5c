//! Somebody who writes to the log without asking the API.

use std::time::Duration;

use coupon_core::ids::RequestId;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, Encoder, SchemaId, Subject, fingerprint, partition_for};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::dice::Dice;
use crate::field::{Field, Trouble};
use crate::shop::Kind;

const DELIVERED_WITHIN: Duration = Duration::from_secs(60);

/// A record to append.
#[derive(Clone, Debug)]
struct Planted {
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

/// A foreign producer, and a coupon that it meddles with.
struct Foreigner {
    schema: SchemaId,
    coupon: String,
    partition: i32,
    partitions: i32,
}

impl Foreigner {
    async fn on(field: &Field, dice: &mut Dice) -> Result<Self, Trouble> {
        let sql = "select schema_id from stampede.schemas where fingerprint = $1";
        let own = sqlx::query_scalar(sql).bind(Subject::Request.newest().fingerprint.as_slice());
        let own: i32 = own.fetch_one(&mut field.postgres().await?).await?;
        let coupon = field.shop.any(Kind::Cool, dice).ok_or("there is no coupon")?;
        let partition = partition_for(coupon.as_bytes(), field.partitions);
        Ok(Self { schema: SchemaId(own), coupon, partition, partitions: field.partitions })
    }

    fn claim(&self, dice: &mut Dice) -> CouponRequest {
        let identity = u128::from(dice.any()) << 63 | u128::from(dice.any() >> 1);
        CouponRequest {
            request_id: RequestId { identity, body: 0 }.to_string(),
            kind: "claim".to_owned(),
            coupon_id: self.coupon.clone(),
            user_id: format!("foreign-{:x}", dice.any()),
            minted_at_ms: 1,
            ..CouponRequest::default()
        }
    }

    fn record(&self, request: &CouponRequest) -> Result<Planted, Trouble> {
        let value = Encoder::new(self.schema).encode_to_vec(request)?;
        Ok(Planted {
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

/// Rubbish, records that are cut short, of a schema that nobody has stored, in a partition that is not theirs, with
/// control characters, of no known kind; and good ones, each a second time.
pub(super) async fn foreign_producer(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let foreigner = Foreigner::on(field, dice).await?;
    let claim = foreigner.claim(dice);
    let good = foreigner.record(&claim)?;
    let of = |change: fn(&mut CouponRequest)| {
        let mut request = claim.clone();
        change(&mut request);
        foreigner.record(&request)
    };
    let with = |value: &[u8]| Planted { value: value.to_vec(), ..good.clone() };
    let mut unknown_schema = good.value.clone();
    if let Some(id) = unknown_schema.get_mut(1..5) {
        id.copy_from_slice(&999_999_i32.to_be_bytes());
    }
    let unreadable = foreigner.claim(dice);
    let who = vec![(HEADER_REQUEST_ID, unreadable.request_id), (HEADER_USER_ID, unreadable.user_id)];
    let stolen = CouponRequest { user_id: "eve".to_owned(), ..claim.clone() };
    let mut planted = vec![
        good.clone(),
        good.clone(),
        with(b""),
        with(b"rubbish"),
        with(&good.value[..good.value.len() / 2]),
        with(&unknown_schema),
        with(&[good.value.as_slice(), b"more"].concat()),
        Planted { partition: foreigner.elsewhere(), ..good.clone() },
        Planted { headers: who, ..with(b"rubbish of somebody") },
        of(|request| request.user_id = "an\0n".to_owned())?,
        of(|request| request.kind = "teleport".to_owned())?,
        of(|request| request.request_id = "nonsense".to_owned())?,
        foreigner.record(&stolen)?,
        good,
    ];
    // The good one stays the first of its id.
    if let Some(others) = planted.get_mut(1..) {
        dice.shuffle(others);
    }
    append(field, planted).await
}

/// An API of tomorrow writes a field more than a running worker knows.
pub(super) async fn newer_schema(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let foreigner = Foreigner::on(field, dice).await?;
    let mut newer: Value = serde_json::from_str(Subject::Request.newest().definition)?;
    let name = format!("channel_{:x}", dice.any());
    let more = json!({"name": name, "type": ["null", "string"], "default": null});
    newer["fields"].as_array_mut().ok_or("the schema has no fields")?.push(more);
    let newer = newer.to_string();
    let sql = "insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3) returning schema_id";
    let stored = sqlx::query_scalar(sql).bind(Subject::Request.name());
    let stored = stored.bind(fingerprint(&newer)?.to_vec()).bind(&newer);
    let id: i32 = stored.fetch_one(&mut field.postgres().await?).await?;
    let mut planted = Vec::new();
    for _ in 0..5 {
        let mut record = foreigner.record(&foreigner.claim(dice))?;
        // The union's second branch, and a text of two bytes.
        record.value.extend([2, 4, b'q', b'r']);
        record.value.get_mut(1..5).ok_or("a record without a header")?.copy_from_slice(&id.to_be_bytes());
        planted.push(record);
    }
    append(field, planted).await
}

async fn append(field: &Field, planted: Vec<Planted>) -> Result<(), Trouble> {
    let brokers = field.endpoints.kafka.clone();
    spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "0").set("enable.idempotence", "true");
        let producer: BaseProducer = config.create()?;
        for Planted { partition, key, value, headers } in &planted {
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
