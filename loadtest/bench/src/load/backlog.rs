//! A backlog of requests: coupons with stock, and a topic that is filled before the worker starts.
//!
//! Coupons, codes and requests are written as the API writes them, without waiting for responses.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coupon_core::codes::{Code, Pattern};
use coupon_core::ids::RequestId;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use runtime::config::KafkaArgs;
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, Encoder, Message as _, SchemaId, kinds, partition_for};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::BenchError;
use crate::arm::counted;

const ROWS_PER_CHUNK: usize = 20_000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const DELIVERED_WITHIN: Duration = Duration::from_secs(600);
/// Odd, so multiplying by it shuffles 32 bits without a collision.
const SHUFFLE: u64 = 0x9E37_79B1;

const COUPONS: &str = "
    with made as (
        insert into stampede.coupons (coupon_id, partition, definition, claims_per_user, redemptions_per_code)
        select u.id, u.partition, $3, 1, 1 from unnest($1, $2) u (id, partition) returning coupon_no)
    insert into stampede.stock (coupon_no) select coupon_no from made";
const NUMBERS: &str = "
    select c.coupon_no from unnest($1) with ordinality u (id, n)
      join stampede.coupons c on c.coupon_id = u.id order by u.n";
const LOADS: &str = "
    insert into stampede.loads (job_id, coupon_no, wanted, maker, lease_until)
    select gen_random_uuid(), coupon_no, $2, $3, now() + interval '1 hour' from unnest($1) u (coupon_no)
    returning coupon_no, load_id";

/// User number `n`: all different, and in no order, as users come.
#[must_use]
pub fn user_name(n: u64) -> String {
    format!("user-{:08x}", n.wrapping_mul(SHUFFLE) & 0xffff_ffff)
}

/// Request number `n`: like a UUIDv7, it grows with time. A thousand of them share a millisecond.
#[must_use]
pub fn request_id(base_ms: u64, n: u64) -> RequestId {
    let ms = u128::from(base_ms + n / 1_000) & 0xffff_ffff_ffff;
    // The rest samples random, as in a real one: version and variant, then a shuffled count.
    let low = u128::from(n.wrapping_mul(SHUFFLE) & 0x3fff_ffff_ffff_ffff);
    let count = u128::from(n % 1_000) << 64;
    RequestId { identity: ms << 80 | 7 << 76 | count | 0b10 << 62 | low, body: 0 }
}

/// The id of request number `n` with an Idempotency-Key: digests, in no order.
#[must_use]
pub fn keyed_id(n: u64) -> RequestId {
    let digest = u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    RequestId { identity: digest, body: (n + 1).cast_signed() }
}

/// A coupon whose codes are loaded; they become stock when its owner applies the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    /// Its id.
    pub id: String,
    /// Its number in Postgres.
    pub number: i64,
    /// The sealed load.
    pub load: i64,
}

/// Makes coupons of which each user may have one code, each with as many codes in a sealed load.
///
/// # Errors
/// When Postgres rejects a statement.
pub async fn make_coupons(
    connection: &mut PgConnection,
    ids: Vec<String>,
    partitions: i32,
    codes_each: u64,
) -> Result<Vec<Coupon>, BenchError> {
    let definition = serde_json::json!({
        "name": "Benchmark", "discount": {"type": "PERCENTAGE", "value": "10.00"},
    });
    let owners: Vec<i32> = ids.iter().map(|id| partition_for(id.as_bytes(), partitions)).collect();
    sqlx::query(COUPONS).bind(&ids).bind(owners).bind(definition).execute(&mut *connection).await?;
    let numbers: Vec<i64> = sqlx::query_scalar(NUMBERS).bind(&ids).fetch_all(&mut *connection).await?;
    let count = i64::try_from(codes_each).unwrap_or(i64::MAX);
    let loads: Vec<(i64, i64)> = sqlx::query_as(LOADS)
        .bind(&numbers)
        .bind(count)
        .bind(Uuid::from_u128(rand::random()))
        .fetch_all(&mut *connection)
        .await?;
    let loads: HashMap<i64, i64> = loads.into_iter().collect();
    let coupon = |(id, number): (String, i64)| Some(Coupon { id, number, load: *loads.get(&number)? });
    let coupons: Vec<Coupon> = ids.into_iter().zip(numbers).filter_map(coupon).collect();
    copy_codes(connection, &coupons, codes_each).await?;
    let ids: Vec<i64> = coupons.iter().map(|coupon| coupon.load).collect();
    sqlx::query("update stampede.loads set state = 'sealed', count = $2 where load_id = any ($1)")
        .bind(ids)
        .bind(count)
        .execute(&mut *connection)
        .await?;
    Ok(coupons)
}

async fn copy_codes(
    connection: &mut PgConnection,
    coupons: &[Coupon],
    codes_each: u64,
) -> Result<(), BenchError> {
    let pattern = Pattern::default();
    let places = coupons.iter().flat_map(|coupon| (1..=codes_each).map(|idx| (coupon.load, idx)));
    let mut drawn = places.zip(pattern.generate(rand::rng()));
    let mut copy =
        connection.copy_in_raw("copy stampede.codes (load_id, idx, code, code_key) from stdin").await?;
    loop {
        let chunk: Vec<((i64, u64), Code)> = drawn.by_ref().take(ROWS_PER_CHUNK).collect();
        if chunk.is_empty() {
            break;
        }
        let mut rows = String::with_capacity(chunk.len() * 64);
        for ((load, idx), code) in chunk {
            _ = writeln!(rows, "{load}\t{idx}\t{}\t{}", code.shown, code.key.as_str());
        }
        copy.send(rows.into_bytes()).await?;
    }
    let copied = i64::try_from(copy.finish().await?).unwrap_or(i64::MAX);
    counted("codes copied", codes_each * coupons.len() as u64, copied)
}

/// A claim of any code by user number `n`.
#[must_use]
pub fn claim(coupon: &str, n: u64) -> CouponRequest {
    CouponRequest {
        kind: kinds::CLAIM.to_owned(),
        coupon_id: coupon.to_owned(),
        user_id: user_name(n),
        ..CouponRequest::default()
    }
}

/// Writes to `coupon.requests` as the API does.
pub struct Requests {
    producer: ThreadedProducer<DefaultProducerContext>,
    encoder: Encoder<CouponRequest>,
    partitions: i32,
}

impl Requests {
    /// With the schema id that the worker has registered.
    ///
    /// # Errors
    /// When the schema is not registered, or librdkafka rejects its settings.
    pub async fn open(kafka: &KafkaArgs, connection: &mut PgConnection) -> Result<Self, BenchError> {
        let fingerprint = CouponRequest::SUBJECT.newest().fingerprint;
        let id = sqlx::query_scalar("select schema_id from stampede.schemas where fingerprint = $1")
            .bind(fingerprint.as_slice())
            .fetch_one(connection)
            .await?;
        let mut config = runtime::kafka::producer(kafka, "loadtest-backlog");
        // What is measured is so many claims, and no copies of them.
        let producer = config.set("enable.idempotence", "true").create()?;
        Ok(Self { producer, encoder: Encoder::new(SchemaId(id)), partitions: kafka.partitions })
    }

    /// Announces complete loads to the owners of the coupons. Blocks.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub fn announce(&self, coupons: &[Coupon]) -> Result<(), BenchError> {
        for coupon in coupons {
            let record = CouponRequest {
                kind: kinds::STOCK_ADDED.to_owned(),
                coupon_id: coupon.id.clone(),
                minted_at_ms: unix_ms(),
                load_id: Some(coupon.load),
                ..CouponRequest::default()
            };
            self.send(&record, None)?;
        }
        Ok(self.producer.flush(DELIVERED_WITHIN)?)
    }

    /// As the API would send them: each with an id of its own. Blocks.
    ///
    /// # Errors
    /// When Kafka does not take them.
    pub fn fill(&self, requests: impl Iterator<Item = CouponRequest>) -> Result<(), BenchError> {
        let base_ms = u64::try_from(unix_ms()).unwrap_or(0);
        for (n, record) in (0..).zip(requests) {
            self.request(record, request_id(base_ms, n))?;
        }
        Ok(self.producer.flush(DELIVERED_WITHIN)?)
    }

    /// As the API would send them, each with an Idempotency-Key. Blocks.
    ///
    /// # Errors
    /// When Kafka does not take them.
    pub fn fill_keyed(&self, requests: impl Iterator<Item = CouponRequest>) -> Result<(), BenchError> {
        for (n, record) in (0..).zip(requests) {
            self.request(record, keyed_id(n))?;
        }
        Ok(self.producer.flush(DELIVERED_WITHIN)?)
    }

    /// Sends one request under this id, and does not wait for it to be delivered.
    ///
    /// # Errors
    /// When librdkafka does not take it.
    pub fn request(&self, mut record: CouponRequest, id: RequestId) -> Result<(), BenchError> {
        record.request_id = id.to_string();
        record.minted_at_ms = unix_ms();
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: HEADER_REQUEST_ID, value: Some(record.request_id.as_bytes()) })
            .insert(Header { key: HEADER_USER_ID, value: Some(record.user_id.as_bytes()) });
        self.send(&record, Some(headers))
    }

    fn send(&self, record: &CouponRequest, headers: Option<OwnedHeaders>) -> Result<(), BenchError> {
        let value = self.encoder.encode_to_vec(record)?;
        let partition = partition_for(record.coupon_id.as_bytes(), self.partitions);
        let mut message =
            BaseRecord::to(REQUESTS).partition(partition).key(&record.coupon_id).payload(&value);
        if let Some(headers) = headers {
            message = message.headers(headers);
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    message = unsent;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

/// The ends of topics according to the broker: everything below is acknowledged.
pub struct Ends {
    consumer: BaseConsumer,
    partitions: i32,
}

impl Ends {
    /// Opens a client.
    ///
    /// # Errors
    /// When librdkafka rejects its settings.
    pub fn open(kafka: &KafkaArgs) -> Result<Self, BenchError> {
        let consumer = runtime::kafka::reader(kafka, "loadtest-ends").create()?;
        Ok(Self { consumer, partitions: kafka.partitions })
    }

    /// How many records a topic has had. Blocks for a round trip for each of its partitions.
    ///
    /// # Errors
    /// When the broker does not response.
    pub fn of(&self, topic: &str) -> Result<i64, BenchError> {
        let mut all = 0;
        for partition in 0..self.partitions {
            all += self.consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?.1;
        }
        Ok(all)
    }
}

/// Now.
#[must_use]
pub fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn users_and_requests_are_all_different_and_requests_grow_with_time() {
        let users: HashSet<String> = (0..100_000).map(user_name).collect();
        assert_eq!(users.len(), 100_000);
        let ids: Vec<RequestId> = (0..100_000).map(|n| request_id(1_700_000_000_000, n)).collect();
        assert!(ids.windows(2).all(|pair| pair[0].identity < pair[1].identity));
        let uuid = Uuid::from_u128(ids[12_345].identity);
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }
}
