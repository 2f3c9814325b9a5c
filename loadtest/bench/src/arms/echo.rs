//! `echo`: what this broker sustains. Claims are read from a full topic, and a response of the same size as Stampede's is
//! produced for each, with the same settings and acknowledgements. Nothing is decided or stored.

use std::time::Duration;

use futures::FutureExt as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use runtime::config::KafkaArgs;
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS, RESPONSES};
use schemas::{CouponResponse, Encoder, SchemaId, kinds, status};

use crate::BenchError;
use crate::frames::baseline::{BaselineArm, Count, Work};
use crate::host::environment::Environment;
use crate::load::backlog::{Ends, Requests, claim, unix_ms};
use crate::load::latencies::Latencies;
use crate::load::worker_run::blocking;

const POLL: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(1);
/// A broker that needs longer than this for nothing at all is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// The arm.
pub const ECHO: BaselineArm = BaselineArm {
    name: "echo",
    about: "Kafka: claims are read from a full topic, a response of the same size is produced for each; acks = all; nothing is decided",
    prepare: |env, claims| prepare(env, claims).boxed_local(),
    share: 1,
    what: "responses",
    count: Count::By(|env| count(env).boxed_local()),
};

async fn prepare(env: &mut Environment, claims: u64) -> Result<Work, BenchError> {
    // Makes the topics and registers the schemas.
    env.start_worker().await?;
    env.stop_workers().await?;
    let kafka = env.kafka();
    let from = Ends::open(&kafka)?.of(REQUESTS)?;
    let requests = Requests::open(&kafka, &mut env.connection).await?;
    let coupon = env.name();
    blocking(move || requests.fill((0..claims).map(|n| claim(&coupon, n)))).await?;
    let echo = Echo::open(&kafka, from)?;
    Ok(blocking(move || echo.run(claims)).boxed_local())
}

async fn count(env: &mut Environment) -> Result<i64, BenchError> {
    Ends::open(&env.kafka())?.of(RESPONSES)
}

struct Echo {
    consumer: BaseConsumer,
    producer: ThreadedProducer<DefaultProducerContext>,
    encoder: Encoder<CouponResponse>,
}

impl Echo {
    fn open(kafka: &KafkaArgs, from: i64) -> Result<Self, BenchError> {
        let consumer: BaseConsumer = runtime::kafka::reader(kafka, "loadtest-echo-reader").create()?;
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(REQUESTS, 0, Offset::Offset(from))?;
        consumer.assign(&start)?;
        let producer = runtime::kafka::producer(kafka, "loadtest-echo").create()?;
        Ok(Self { consumer, producer, encoder: Encoder::new(SchemaId(1)) })
    }

    fn run(&self, claims: u64) -> Result<Latencies, BenchError> {
        let mut value = Vec::with_capacity(256);
        let mut done = 0;
        let mut idle = Duration::ZERO;
        while done < claims {
            let Some(message) = self.consumer.poll(POLL) else {
                idle += POLL;
                if idle > STUCK_AFTER {
                    return Err(BenchError::Stuck { what: "no more claims came", after: STUCK_AFTER });
                }
                continue;
            };
            idle = Duration::ZERO;
            self.response(&message?, done, &mut value)?;
            done += 1;
        }
        let mut waited = Duration::ZERO;
        while self.producer.in_flight_count() > 0 {
            if waited > STUCK_AFTER {
                return Err(BenchError::Stuck { what: "not every response was acknowledged", after: waited });
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
        Ok(Latencies::default())
    }

    /// The response that Stampede would give, as to its size.
    fn response(&self, message: &BorrowedMessage<'_>, n: u64, value: &mut Vec<u8>) -> Result<(), BenchError> {
        let user = header(message, HEADER_USER_ID);
        let response = CouponResponse {
            request_id: header(message, HEADER_REQUEST_ID).to_owned(),
            kind: kinds::CLAIM.to_owned(),
            coupon_id: message.key().map(String::from_utf8_lossy).unwrap_or_default().into_owned(),
            user_id: user.to_owned(),
            status: status::ACCEPTED.to_owned(),
            decided_at_ms: unix_ms(),
            offset: message.offset(),
            code: Some(format!("{:016X}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))),
            code_number: i64::try_from(n).ok(),
            claim_state: Some("CLAIMED".to_owned()),
            claimed_at_ms: Some(unix_ms()),
            ..CouponResponse::default()
        };
        value.clear();
        self.encoder.encode(&response, value)?;
        let mut record = BaseRecord::to(RESPONSES).partition(0).key(user).payload(value.as_slice());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                    record = unsent;
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> &'a str {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let value = headers.into_iter().find(|header| header.key == name).and_then(|header| header.value);
    value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}
