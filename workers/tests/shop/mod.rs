//! A coupon shop without an API: coupons straight into Postgres, requests straight onto Kafka, responses read back.

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
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Shop {
    pub(crate) stack: Stack,
    pub(crate) pool: PgPool,
    producer: ThreadedProducer<DefaultProducerContext>,
    responses: BaseConsumer,
    encoder: Encoder<CouponRequest>,
    decoder: Decoder<CouponResponse>,
    /// Every response event so far, by request id.
    pub(crate) told: BTreeMap<String, Vec<CouponResponse>>,
}

/// The stack with this package's own program, as Cargo has just built it.
pub(crate) async fn open(workers: usize, worker_env: Vec<(String, String)>) -> Shop {
    let worker = env!("CARGO_BIN_EXE_workers").into();
    let programs = Programs { workers: worker, ingest_api: "/nonexistent".into() };
    let config = StackConfig {
        programs: Some(programs),
        workers,
        worker_env,
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
    let responses: BaseConsumer = client("shop").create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topics::RESPONSES, partition, Offset::Beginning).unwrap();
    }
    responses.assign(&all).unwrap();
    Shop {
        stack,
        pool,
        producer: client("shop").create().unwrap(),
        responses,
        encoder: Encoder::new(registry.id_of(Subject::Request)),
        decoder: Decoder::new(registry.id_of(Subject::Response)),
        told: BTreeMap::new(),
    }
}

impl Shop {
    /// Stops the stack, after the shop's own clients: they would wait long for a broker that is gone.
    pub(crate) async fn close(self) {
        let Self { stack, producer, responses, pool, .. } = self;
        drop(producer);
        drop(responses);
        pool.close().await;
        stack.stop().await.unwrap();
    }

    /// A coupon with codes, announced on its partition.
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

    /// One claim of each of these users; answers the request ids.
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

    /// Waits until each of these requests was told an outcome.
    pub(crate) fn settle(&mut self, ids: &[String]) {
        self.producer.flush(PATIENCE).unwrap();
        let until = Instant::now() + PATIENCE;
        while !ids.iter().all(|id| self.told.contains_key(id)) {
            assert!(Instant::now() < until, "{} of {} told", self.told.len(), ids.len());
            self.listen(Duration::from_millis(50));
        }
    }

    /// Reads responses until none has come for `quiet`.
    pub(crate) fn listen(&mut self, quiet: Duration) {
        while let Some(message) = self.responses.poll(quiet) {
            let message = message.unwrap();
            let response = self.decoder.decode(message.payload().unwrap()).unwrap();
            assert_eq!(message.key().unwrap(), response.user_id.as_bytes());
            assert_eq!(
                message.partition(),
                response.partition,
                "all of one owner's are told in one partition"
            );
            self.told.entry(response.request_id.clone()).or_default().push(response);
        }
    }

    /// How many of these were given a code; every event of one request says the same, and no code is given twice.
    pub(crate) fn won(&self, ids: &[String]) -> usize {
        let mut codes = Vec::new();
        for id in ids {
            let told = &self.told[id];
            assert!(told.iter().all(|response| *response == told[0]), "{id} was told different things");
            codes.extend(told[0].code.clone());
        }
        let given = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), given, "a code was given twice");
        given
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until a query over Postgres answers `wanted`.
    pub(crate) async fn until(&self, what: &str, sql: &'static str, wanted: i64) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.count(sql).await;
            if found == wanted {
                return;
            }
            assert!(Instant::now() < until, "{what}: {found}, not {wanted}");
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
