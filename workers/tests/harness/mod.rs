//! A stack without an API: coupons are inserted into Postgres, requests are produced to Kafka, responses are consumed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coupon_core::ids::RequestId;
use local_stack::{Programs, Stack, StackConfig};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use runtime::registry::Registry;
use schemas::{CouponRequest, CouponResponse, Decoder, Encoder, Subject, kinds, partition_for, topics};
use sqlx::PgPool;

pub(crate) const PARTITIONS: i32 = 8;
const TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) struct Harness {
    pub(crate) stack: Stack,
    pub(crate) pool: PgPool,
    producer: ThreadedProducer<DefaultProducerContext>,
    consumer: BaseConsumer,
    encoder: Encoder<CouponRequest>,
    decoder: Decoder<CouponResponse>,
    /// All responses so far, by request id.
    pub(crate) responses: BTreeMap<String, Vec<CouponResponse>>,
}

/// Starts a stack with this package's own program, as built by Cargo for this test.
pub(crate) async fn start(workers: usize, worker_env: Vec<(String, String)>) -> Harness {
    start_with(workers, worker_env, Vec::new()).await
}

/// The same, with settings of the broker.
pub(crate) async fn start_with(
    workers: usize,
    worker_env: Vec<(String, String)>,
    kafka_properties: Vec<(String, String)>,
) -> Harness {
    let worker = env!("CARGO_BIN_EXE_workers").into();
    let programs = Programs { workers: worker, ingest_api: "/nonexistent".into() };
    let config = StackConfig {
        programs: Some(programs),
        workers,
        worker_env,
        kafka_properties,
        group_session_timeout: Duration::from_secs(2),
        group_heartbeat: Duration::from_millis(100),
        ..StackConfig::servers_only()
    };
    let stack = Stack::start(config).await.unwrap();
    let endpoints = stack.endpoints();
    let pool = PgPool::connect(&endpoints.postgres_url).await.unwrap();
    let registry = Registry::register(&pool).await.unwrap();
    let client = |group: &str| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &endpoints.kafka).set("group.id", group).set("linger.ms", "1");
        config
    };
    let consumer: BaseConsumer = client("harness").create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topics::RESPONSES, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    Harness {
        stack,
        pool,
        producer: client("harness").create().unwrap(),
        consumer,
        encoder: Encoder::new(registry.id_of(Subject::Request)),
        decoder: Decoder::new(registry.id_of(Subject::Response)),
        responses: BTreeMap::new(),
    }
}

impl Harness {
    /// Stops the stack, after its own clients, which would wait long for a broker that has stopped.
    pub(crate) async fn close(self) {
        let Self { stack, producer, consumer, pool, .. } = self;
        drop(producer);
        drop(consumer);
        pool.close().await;
        stack.stop().await.unwrap();
    }

    /// Inserts a coupon with codes, and produces its `stock_added` record.
    pub(crate) async fn coupon(&self, coupon_id: &str, codes: i64) {
        let sql = "
            with coupon as (
                insert into stampede.coupons (coupon_id, partition, definition, claims_per_user, redemptions_per_code)
                values ($1, $2, '{}', 1, 1) returning coupon_no),
            stock as (insert into stampede.stock (coupon_no) select coupon_no from coupon),
            load as (
                insert into stampede.loads (job_id, coupon_no, state, wanted, count, maker, lease_until)
                select gen_random_uuid(), coupon_no, 'sealed', $3, $3, gen_random_uuid(), now() from coupon
                returning load_id)
            insert into stampede.codes (load_id, idx, code, code_key)
            select load_id, n, $1 || n, $1 || n from load, generate_series(1, $3) n returning load_id";
        let partition = partition_for(coupon_id.as_bytes(), PARTITIONS);
        let load: i64 = sqlx::query_scalar(sql)
            .bind(coupon_id)
            .bind(partition)
            .bind(codes)
            .fetch_all(&self.pool)
            .await
            .unwrap()[0];
        self.send(&CouponRequest {
            kind: kinds::STOCK_ADDED.to_owned(),
            coupon_id: coupon_id.to_owned(),
            load_id: Some(load),
            ..CouponRequest::default()
        });
    }

    /// Sends one claim for each of these users; returns the request ids.
    pub(crate) fn claim(&self, coupon_id: &str, users: std::ops::Range<u32>) -> Vec<String> {
        users
            .map(|user| {
                let request = claim(coupon_id, &format!("user-{user}"));
                self.send(&request);
                request.request_id
            })
            .collect()
    }

    pub(crate) fn send(&self, request: &CouponRequest) {
        let value = self.encoder.encode_to_vec(request).unwrap();
        self.send_raw(&request.coupon_id, &value, &request.request_id, &request.user_id);
    }

    pub(crate) fn send_raw(&self, key: &str, value: &[u8], request_id: &str, user: &str) {
        let headers = OwnedHeaders::new()
            .insert(Header { key: topics::HEADER_REQUEST_ID, value: Some(request_id) })
            .insert(Header { key: topics::HEADER_USER_ID, value: Some(user) });
        let record = BaseRecord::to(topics::REQUESTS)
            .partition(partition_for(key.as_bytes(), PARTITIONS))
            .key(key)
            .payload(value)
            .headers(headers);
        let mut next = Some(record);
        while let Some(record) = next.take() {
            if let Err((error, record)) = self.producer.send(record) {
                assert!(
                    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                    "{error}"
                );
                std::thread::sleep(Duration::from_millis(5));
                next = Some(record);
            }
        }
    }

    /// Waits until each of these requests has a response.
    pub(crate) fn settle(&mut self, ids: &[String]) {
        self.producer.flush(TIMEOUT).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while !ids.iter().all(|id| self.responses.contains_key(id)) {
            assert!(
                Instant::now() < deadline,
                "{} of {} requests have a response",
                self.responses.len(),
                ids.len()
            );
            self.poll_responses(Duration::from_millis(50));
        }
    }

    /// Consumes responses until none arrives for `quiet`.
    pub(crate) fn poll_responses(&mut self, quiet: Duration) {
        while let Some(message) = self.consumer.poll(quiet) {
            let message = message.unwrap();
            let response = self.decoder.decode(message.payload().unwrap()).unwrap();
            assert_eq!(message.key().unwrap(), response.user_id.as_bytes());
            assert_eq!(
                message.partition(),
                response.partition,
                "the responses of one owner are in one partition"
            );
            self.responses.entry(response.request_id.clone()).or_default().push(response);
        }
    }

    /// How many of these requests got a code. All responses of a request must be equal, and no code may occur twice.
    pub(crate) fn won(&self, ids: &[String]) -> usize {
        let mut codes = Vec::new();
        for id in ids {
            let responses = &self.responses[id];
            assert!(responses.iter().all(|other| *other == responses[0]), "{id} has different responses");
            codes.extend(responses[0].code.clone());
        }
        let claimed = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), claimed, "a code was claimed twice");
        claimed
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until a query returns `expected`.
    pub(crate) async fn until(&self, what: &str, sql: &'static str, expected: i64) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let found = self.count(sql).await;
            if found == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {found}, expected {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn claim(coupon_id: &str, user: &str) -> CouponRequest {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let identity = (now << 80) | (rand::random::<u128>() >> 48);
    CouponRequest {
        request_id: RequestId { identity, body: 0 }.to_string(),
        kind: kinds::CLAIM.to_owned(),
        coupon_id: coupon_id.to_owned(),
        user_id: user.to_owned(),
        minted_at_ms: i64::try_from(now).unwrap(),
        ..CouponRequest::default()
    }
}
