//! The parts of a running instance, put together once at start.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use runtime::lifecycle::Readiness;
use runtime::postgres::{self, PostgresUrlError};
use runtime::registry::Registry;
use runtime::retry::TimedOut;
use runtime::topics::{self, Topics, TopicsError};
use runtime::{kafka, supervised};
use schemas::{Decoder, Encoder, SchemaId, Subject};
use sqlx::PgPool;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::auth::{HasTokens, Tokens};
use crate::config::{Config, WeakSecret, strong};
use crate::known_codes::KnownCodes;
use crate::known_coupons::KnownCoupons;
use crate::loads::Loads;
use crate::metrics::{self, Handles};
use crate::problem::Problem;
use crate::questions::{self, Questions};
use crate::recent::RecentOutcomes;
use crate::request_ids::RequestIds;
use crate::request_sink::{self, RequestSink};
use crate::response_reader::{self, ResponseReader};
use crate::result_hub::ResultHub;
use crate::sold_out_gate::SoldOutGate;
use crate::undecided::Undecided;

/// The part of readiness that says whether Postgres answers.
const POSTGRES: &str = "postgres";
/// The part of readiness that says whether the process takes requests at all.
const SERVING: &str = "serving";
/// Everything that must be there before requests are taken.
const PARTS: [&str; 4] = [POSTGRES, request_sink::PART, response_reader::PART, SERVING];

const CHECK: Duration = Duration::from_secs(2);
/// Connections for loads of codes: their long transactions must not keep readers waiting.
const LOAD_CONNECTIONS: u32 = 4;
const GATES: usize = 10_000;
const COUPONS: usize = 100_000;
const CODES: usize = 200_000;

/// Why an instance cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A secret that is none.
    #[error(transparent)]
    Secret(#[from] WeakSecret),
    /// The address of Postgres is none.
    #[error(transparent)]
    Url(#[from] PostgresUrlError),
    /// Postgres or its tables did not come.
    #[error(transparent)]
    Postgres(#[from] TimedOut<sqlx::Error>),
    /// The topics cannot be used.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// Schemas cannot be stored.
    #[error("schemas cannot be stored in Postgres: {0}")]
    Schemas(#[from] sqlx::Error),
    /// librdkafka refuses its settings.
    #[error("a Kafka client cannot be made: {0}")]
    Kafka(#[from] KafkaError),
    /// No thread can be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What Postgres recorded at first start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    pub(crate) topics: Topics,
    pub(crate) request_schema: SchemaId,
    pub(crate) response_schema: SchemaId,
}

/// A running instance.
pub struct App {
    pub(crate) config: Config,
    /// Asks Postgres.
    pub(crate) questions: Questions,
    pub(crate) tokens: Tokens,
    pub(crate) ids: RequestIds,
    pub(crate) sink: Arc<RequestSink>,
    pub(crate) hub: Arc<ResultHub>,
    pub(crate) coupons: KnownCoupons,
    pub(crate) codes: KnownCodes,
    pub(crate) loads: Arc<Loads>,
    /// Recorded partitions of `coupon.requests`.
    pub(crate) partitions: i32,
    pub(crate) handles: Handles,
    /// Whether each part is there.
    pub(crate) readiness: Arc<Readiness>,
    /// The process takes no more requests; whoever waits is told to come back.
    pub(crate) stopping: CancellationToken,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

impl HasTokens for Arc<App> {
    fn tokens(&self) -> &Tokens {
        &self.tokens
    }
}

/// The readiness that an instance reports; probes can show it before the instance is there.
#[must_use]
pub fn readiness() -> Arc<Readiness> {
    Readiness::new(&PARTS)
}

impl App {
    /// Waits for Postgres, its tables and Kafka, and starts what runs beside the requests.
    ///
    /// # Errors
    /// [`StartError`], in one line that says what to do.
    pub async fn start(
        config: Config,
        readiness: Arc<Readiness>,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        strong("STAMPEDE_REQUEST_ID_SECRET", &config.request_id_secret)?;
        let options = postgres::force_index_plans(postgres::options(&config.postgres, "stampede-api")?);
        let pool = postgres::eager_pool(questions::limited(options), config.postgres_connections);
        postgres::wait_for_schema(&pool).await?;
        let topics = topics::ensure(&config.kafka, &pool).await?;
        let registry = Registry::register(&pool).await?;
        let recorded = Recorded {
            topics,
            request_schema: registry.id_of(Subject::Request),
            response_schema: registry.id_of(Subject::Response),
        };
        let app = Self::assemble(config, pool, recorded, readiness, stopping)?;
        app.run_beside(recorded)?;
        Ok(app)
    }

    /// Puts the parts together; connects nowhere yet.
    pub(crate) fn assemble(
        config: Config,
        pool: PgPool,
        recorded: Recorded,
        readiness: Arc<Readiness>,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        metrics::describe();
        let partitions = recorded.topics.requests;
        let undecided = Undecided::new(partitions, config.undecided, config.partition_bound());
        let mut producer = kafka::producer(&config.kafka, "stampede-api");
        producer
            .set("message.timeout.ms", config.acknowledge_ms.to_string())
            .set("queue.buffering.max.messages", config.queue_records.to_string());
        let sink = Arc::new(RequestSink::new(
            &producer,
            usize::try_from(config.queue_records).unwrap_or(usize::MAX),
            Encoder::new(recorded.request_schema),
            Arc::clone(&undecided),
        )?);
        let recent = RecentOutcomes::new(config.recent_outcomes);
        let load_options = postgres::options(&config.postgres, "stampede-api-loads")?;
        let load_pool = postgres::pool(questions::limited(load_options), LOAD_CONNECTIONS);
        Ok(Arc::new(Self {
            tokens: config.jwt.tokens()?,
            ids: RequestIds::new(&config.request_id_secret),
            hub: ResultHub::new(recent, undecided, SoldOutGate::new(GATES)),
            coupons: KnownCoupons::new(COUPONS),
            codes: KnownCodes::new(CODES),
            loads: Loads::new(load_pool, Arc::clone(&sink), partitions, stopping.clone()),
            handles: Handles::new(),
            config,
            questions: Questions::new(pool),
            sink,
            partitions,
            readiness,
            stopping,
        }))
    }

    fn run_beside(self: &Arc<Self>, recorded: Recorded) -> Result<(), StartError> {
        let clients = response_reader::client(kafka::reader(&self.config.kafka, "stampede-api-responses"))?;
        let [at_once, together] = self.sink.watched();
        let watched = vec![at_once, together, clients.as_supervised()];
        let reader = ResponseReader {
            clients,
            partitions: recorded.topics.responses,
            decoder: Decoder::new(recorded.response_schema),
            hub: Arc::clone(&self.hub),
            readiness: Arc::clone(&self.readiness),
            pool: self.questions.pool().clone(),
            stop: self.stopping.clone(),
        };
        drop(tokio::spawn(self.sink.herald().run()));
        drop(tokio::spawn(Arc::clone(&self.hub.undecided.herald).run()));
        // It ends by itself with the process' token; nothing waits for it.
        drop(reader.spawn()?);
        let pool = self.questions.pool().clone();
        let forgotten = Arc::clone(&self.hub).look_up_forgotten(pool, self.stopping.clone());
        drop(tokio::spawn(forgotten));
        drop(tokio::spawn(Arc::clone(&self.loads).sweep()));
        drop(tokio::spawn(Arc::clone(self).check_parts()));
        drop(tokio::spawn(supervised::supervise(self.config.kafka.clone(), watched)));
        self.readiness.set(SERVING, Ok(()));
        Ok(())
    }

    /// Keeps readiness true. Ends with the process.
    async fn check_parts(self: Arc<Self>) {
        while !self.stopping.is_cancelled() {
            let sink = Arc::clone(&self.sink);
            let broker = tokio::task::spawn_blocking(move || sink.ask_broker(CHECK));
            let query = sqlx::query("select from coupons limit 1").fetch_optional(self.questions.pool());
            let (broker, postgres) = tokio::join!(broker, questions::within(CHECK, query));
            if let Ok(broker) = broker {
                self.readiness.set(request_sink::PART, broker);
            }
            self.readiness.set(POSTGRES, postgres.map(drop).map_err(|error| error.to_string()));
            self.handles.undecided.set(self.hub.undecided.len() as f64);
            tokio::select! {
                () = self.stopping.cancelled() => {}
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    /// The answer that the client's own answer consists of.
    ///
    /// # Errors
    /// 503 where Postgres does not give it in time; `doing` is logged, not told.
    pub(crate) async fn ask<T>(
        &self,
        doing: &'static str,
        question: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Problem> {
        let answer = self.questions.ask(questions::PATIENCE, question).await;
        answer.map_err(|error| Problem::database(doing, &error))
    }

    /// From now on nobody should be sent here.
    pub(crate) fn leave(&self) {
        self.readiness.set(SERVING, Err("stopping".to_owned()));
    }
}
