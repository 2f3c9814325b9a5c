//! A backlog of requests: a coupon with stock, and a topic that is full before the worker is started.
//!
//! Coupon, codes and requests are written as the API writes them; only that nobody waits for an answer.

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
use schemas::{CouponRequest, Encoder, Message as _, SchemaId, kinds};
use sqlx::PgConnection;
use uuid::Uuid;

use super::BenchError;

const PARTITION: i32 = 0;
const ROWS_PER_CHUNK: usize = 20_000;
const ASK: Duration = Duration::from_secs(60);
const DELIVERED_WITHIN: Duration = Duration::from_secs(600);
/// Odd, so multiplying by it shuffles 32 bits without a collision.
const SHUFFLE: u64 = 0x9E37_79B1;

const COUPON: &str = "
    with made as (
        insert into stampede.coupons (coupon_id, partition, definition, claims_per_user, redemptions_per_code)
        values ($1, $2, $3, 1, 1) returning coupon_no)
    insert into stampede.stock (coupon_no) select coupon_no from made returning coupon_no";
const LOAD: &str = "
    insert into stampede.loads (job_id, coupon_no, wanted, maker, lease_until)
    values ($1, $2, $3, $1, now() + interval '1 hour') returning load_id";

/// User number `n`: all different, and in no order, as users come.
#[must_use]
pub fn user_name(n: u64) -> String {
    format!("user-{:08x}", n.wrapping_mul(SHUFFLE) & 0xffff_ffff)
}

/// Request number `n`: like a UUIDv7, it grows with time. A thousand of them share a millisecond.
#[must_use]
pub fn request_id(base_ms: u64, n: u64) -> RequestId {
    let ms = u128::from(base_ms + n / 1_000) & 0xffff_ffff_ffff;
    // The rest looks random, as in a real one: version and variant, then a shuffled count.
    let low = u128::from(n.wrapping_mul(SHUFFLE) & 0x3fff_ffff_ffff_ffff);
    let count = u128::from(n % 1_000) << 64;
    RequestId { identity: ms << 80 | 7 << 76 | count | 0b10 << 62 | low, body: 0 }
}

/// Makes a coupon of which each user may have one code, with as many codes in a sealed load; answers coupon number and
/// load.
///
/// # Errors
/// When Postgres refuses.
pub async fn make_coupon(
    connection: &mut PgConnection,
    coupon: &str,
    codes: u64,
) -> Result<(i64, i64), BenchError> {
    let definition = serde_json::json!({
        "name": "Benchmark", "discount": {"type": "PERCENTAGE", "value": "10.00"},
    });
    let coupon_no: i64 = sqlx::query_scalar(COUPON)
        .bind(coupon)
        .bind(PARTITION)
        .bind(definition)
        .fetch_one(&mut *connection)
        .await?;
    let count = i64::try_from(codes).unwrap_or(i64::MAX);
    let load: i64 = sqlx::query_scalar(LOAD)
        .bind(Uuid::from_u128(rand::random()))
        .bind(coupon_no)
        .bind(count)
        .fetch_one(&mut *connection)
        .await?;
    copy_codes(connection, load, codes).await?;
    sqlx::query("update stampede.loads set state = 'sealed', count = $2 where load_id = $1")
        .bind(load)
        .bind(count)
        .execute(&mut *connection)
        .await?;
    Ok((coupon_no, load))
}

async fn copy_codes(connection: &mut PgConnection, load: i64, codes: u64) -> Result<(), BenchError> {
    let pattern = Pattern::default();
    let mut drawn = (1_u64..=codes).zip(pattern.generate(rand::rng()));
    let mut copy =
        connection.copy_in_raw("copy stampede.codes (load_id, idx, code, code_key) from stdin").await?;
    loop {
        let chunk: Vec<(u64, Code)> = drawn.by_ref().take(ROWS_PER_CHUNK).collect();
        if chunk.is_empty() {
            break;
        }
        let mut rows = String::with_capacity(chunk.len() * 64);
        for (idx, code) in chunk {
            _ = writeln!(rows, "{load}\t{idx}\t{}\t{}", code.shown, code.key.as_str());
        }
        copy.send(rows.into_bytes()).await?;
    }
    let copied = copy.finish().await?;
    if copied == codes {
        return Ok(());
    }
    let found = i64::try_from(copied).unwrap_or(i64::MAX);
    Err(BenchError::Count { what: "codes copied", wanted: codes, found })
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
}

impl Requests {
    /// With the schema id that the worker has registered.
    ///
    /// # Errors
    /// When the schema is not registered, or librdkafka refuses its settings.
    pub async fn open(kafka: &KafkaArgs, connection: &mut PgConnection) -> Result<Self, BenchError> {
        let fingerprint = CouponRequest::SUBJECT.newest().fingerprint;
        let id = sqlx::query_scalar("select schema_id from stampede.schemas where fingerprint = $1")
            .bind(fingerprint.as_slice())
            .fetch_one(connection)
            .await?;
        let producer = runtime::kafka::producer(kafka, "loadtest-backlog").create()?;
        Ok(Self { producer, encoder: Encoder::new(SchemaId(id)) })
    }

    /// Tells the owner of a coupon that a load is complete.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub fn announce(&self, coupon: &str, load: i64) -> Result<(), BenchError> {
        let record = CouponRequest {
            kind: kinds::STOCK_ADDED.to_owned(),
            coupon_id: coupon.to_owned(),
            minted_at_ms: unix_ms(),
            load_id: Some(load),
            ..CouponRequest::default()
        };
        self.send(&record, None)?;
        Ok(self.producer.flush(DELIVERED_WITHIN)?)
    }

    /// As the API would send them: each with an id of its own. Blocks.
    ///
    /// # Errors
    /// When Kafka does not take them.
    pub fn fill(&self, requests: impl Iterator<Item = CouponRequest>) -> Result<(), BenchError> {
        let base_ms = u64::try_from(unix_ms()).unwrap_or(0);
        for (n, mut record) in (0..).zip(requests) {
            record.request_id = request_id(base_ms, n).to_string();
            record.minted_at_ms = unix_ms();
            let headers = OwnedHeaders::new_with_capacity(2)
                .insert(Header { key: HEADER_REQUEST_ID, value: Some(record.request_id.as_bytes()) })
                .insert(Header { key: HEADER_USER_ID, value: Some(record.user_id.as_bytes()) });
            self.send(&record, Some(headers))?;
        }
        Ok(self.producer.flush(DELIVERED_WITHIN)?)
    }

    fn send(&self, record: &CouponRequest, headers: Option<OwnedHeaders>) -> Result<(), BenchError> {
        let value = self.encoder.encode_to_vec(record)?;
        let mut message =
            BaseRecord::to(REQUESTS).partition(PARTITION).key(&record.coupon_id).payload(&value);
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

/// Where topics end, as the broker says: everything below has been acknowledged.
pub struct Ends {
    consumer: BaseConsumer,
}

impl Ends {
    /// A client that asks.
    ///
    /// # Errors
    /// When librdkafka refuses its settings.
    pub fn open(kafka: &KafkaArgs) -> Result<Self, BenchError> {
        Ok(Self { consumer: runtime::kafka::reader(kafka, "loadtest-ends").create()? })
    }

    /// How many records partition 0 of a topic has had. Blocks for a round trip.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn of(&self, topic: &str) -> Result<i64, BenchError> {
        Ok(self.consumer.fetch_watermarks(topic, PARTITION, ASK)?.1)
    }
}

fn unix_ms() -> i64 {
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
