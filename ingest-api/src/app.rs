//! The parts of an instance, assembled once at start, and its background tasks.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use rdkafka::error::KafkaError;
use runtime::kafka;
use runtime::lifecycle::Readiness;
use runtime::postgres::{self, PostgresUrlError, SchemaError};
use runtime::registry::Registry;
use runtime::retry::TimedOut;
use runtime::topics::{self, Topics, TopicsError};
use schemas::{Decoder, Encoder, SchemaId, Subject};
use sqlx::PgPool;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::auth::{HasTokens, Tokens};
use crate::catalogue::code_cache::CodeCache;
use crate::catalogue::existence_cache::ExistenceCache;
use crate::catalogue::loads::Loads;
use crate::config::{Config, WeakSecret, require_strong};
use crate::db::coupons;
use crate::db::query_pool::{QueryError, QueryPool, READ_TIMEOUT, with_statement_timeout, with_timeout};
use crate::http::problem::Problem;
use crate::outcomes::cache::OutcomeCache;
use crate::outcomes::consumer::{self, ResponseConsumer};
use crate::outcomes::gate::SoldOutGate;
use crate::outcomes::hub::OutcomeHub;
use crate::outcomes::pending::PendingRequests;
use crate::requests::ids::RequestIds;
use crate::requests::producer::RequestProducer;
use crate::requests::submit::{HasSubmitter, Submitter};
use crate::telemetry::metrics::{self as names, SubmitMetrics};
use crate::telemetry::probes::{KAFKA, POSTGRES, SERVING};

pub use crate::telemetry::probes::readiness;

/// Interval and timeout of the checks for readiness.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Connections for loads of codes, whose long transactions must not delay the queries of requests.
const LOAD_CONNECTIONS: u32 = 4;
const MAX_GATES: usize = 10_000;
const CACHED_COUPONS: usize = 100_000;
const CACHED_CODES: usize = 200_000;

/// Why an instance cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A secret is too short.
    #[error(transparent)]
    Secret(#[from] WeakSecret),
    /// The URL of Postgres is invalid.
    #[error(transparent)]
    Url(#[from] PostgresUrlError),
    /// Postgres or its schema cannot be read.
    #[error(transparent)]
    Schema(#[from] TimedOut<SchemaError>),
    /// The topics cannot be used.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// Schemas cannot be stored.
    #[error("schemas cannot be stored in Postgres: {0}")]
    Schemas(#[from] sqlx::Error),
    /// librdkafka rejects the configuration.
    #[error("Kafka client cannot be created: {0}")]
    Kafka(#[from] KafkaError),
    /// A thread cannot be started.
    #[error("thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What Postgres recorded at the first start of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    pub(crate) topics: Topics,
    pub(crate) request_schema: SchemaId,
    pub(crate) response_schema: SchemaId,
}

/// A running instance.
pub struct App {
    pub(crate) config: Config,
    pub(crate) query_pool: Arc<QueryPool>,
    pub(crate) tokens: Tokens,
    pub(crate) requests: Submitter,
    pub(crate) coupons: ExistenceCache,
    pub(crate) codes: CodeCache,
    pub(crate) loads: Arc<Loads>,
    pub(crate) readiness: Arc<Readiness>,
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

impl HasSubmitter for Arc<App> {
    fn submitter(&self) -> &Submitter {
        &self.requests
    }
}

impl App {
    /// Waits for Postgres, its schema and Kafka, then starts the background tasks.
    ///
    /// # Errors
    /// [`StartError`], in one line that names the remedy.
    pub async fn start(
        config: Config,
        readiness: Arc<Readiness>,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        require_strong("STAMPEDE_REQUEST_ID_SECRET", &config.request_id_secret)?;
        let options = postgres::force_index_plans(postgres::options(&config.postgres, "stampede-api")?);
        let pool = postgres::eager_pool(with_statement_timeout(options), config.postgres_connections);
        postgres::wait_for_schema(&pool, &readiness).await?;
        let topics = topics::ensure(&config.kafka, &pool).await?;
        let registry = Registry::register(&pool).await?;
        let recorded = Recorded {
            topics,
            request_schema: registry.id_of(Subject::Request),
            response_schema: registry.id_of(Subject::Response),
        };
        let app = Self::assemble(config, pool, recorded, readiness, stopping)?;
        app.spawn_background_tasks(recorded)?;
        Ok(app)
    }

    /// Assembles the parts; opens no connection.
    pub(crate) fn assemble(
        config: Config,
        pool: PgPool,
        recorded: Recorded,
        readiness: Arc<Readiness>,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        names::describe();
        let partitions = recorded.topics.requests;
        let pending = PendingRequests::new(partitions, config.max_pending, config.partition_bound());
        let mut producer = kafka::producer(&config.kafka, "stampede-api");
        producer
            .set("message.timeout.ms", config.produce_timeout_ms.to_string())
            .set("queue.buffering.max.messages", config.producer_queue_records.to_string());
        let producer = Arc::new(RequestProducer::new(
            &producer,
            usize::try_from(config.producer_queue_records).unwrap_or(usize::MAX),
            Encoder::new(recorded.request_schema),
            Arc::clone(&pending),
        )?);
        let cache = OutcomeCache::new(config.outcome_cache_size);
        let load_options = postgres::options(&config.postgres, "stampede-api-loads")?;
        let load_pool = postgres::pool(with_statement_timeout(load_options), LOAD_CONNECTIONS);
        let loads = Loads::new(load_pool, Arc::clone(&producer), partitions, stopping.clone());
        let query_pool = Arc::new(QueryPool::new(pool));
        let deduplication_ms = config.deduplication_ms();
        let requests = Submitter {
            ids: RequestIds::new(&config.request_id_secret),
            producer,
            hub: OutcomeHub::new(cache, pending, SoldOutGate::new(MAX_GATES), deduplication_ms),
            query_pool: Arc::clone(&query_pool),
            deduplication_ms,
            partitions,
            metrics: SubmitMetrics::new(),
            stopping,
        };
        Ok(Arc::new(Self {
            tokens: config.jwt.tokens()?,
            config,
            query_pool,
            requests,
            coupons: ExistenceCache::new(CACHED_COUPONS),
            codes: CodeCache::new(CACHED_CODES),
            loads,
            readiness,
        }))
    }

    fn spawn_background_tasks(self: &Arc<Self>, recorded: Recorded) -> Result<(), StartError> {
        let Submitter { producer, hub, stopping, .. } = &self.requests;
        let clients = consumer::client(kafka::reader(&self.config.kafka, "stampede-api-responses"))?;
        let consumer = ResponseConsumer {
            clients,
            partitions: recorded.topics.responses,
            decoder: Decoder::new(recorded.response_schema),
            hub: Arc::clone(hub),
            readiness: Arc::clone(&self.readiness),
            pool: self.query_pool.pool().clone(),
            stop: stopping.clone(),
        };
        drop(tokio::spawn(producer.wake_batcher().run()));
        drop(tokio::spawn(Arc::clone(&hub.pending.wake_batcher).run()));
        // The thread ends by the shutdown token and is never joined.
        drop(consumer.spawn()?);
        let pool = self.query_pool.pool().clone();
        drop(tokio::spawn(Arc::clone(hub).look_up_pending(pool, stopping.clone())));
        drop(tokio::spawn(Arc::clone(&self.loads).sweep()));
        drop(tokio::spawn(Arc::clone(self).check_readiness()));
        self.readiness.set(SERVING, Ok(()));
        Ok(())
    }

    /// Updates readiness by Kafka and Postgres. Ends with the process.
    async fn check_readiness(self: Arc<Self>) {
        let Submitter { producer, hub, stopping, .. } = &self.requests;
        while !stopping.is_cancelled() {
            let producer = Arc::clone(producer);
            let broker = tokio::task::spawn_blocking(move || producer.check_broker(CHECK_INTERVAL));
            let query = coupons::check_readable(self.query_pool.pool());
            let (broker, postgres) = tokio::join!(broker, with_timeout(CHECK_INTERVAL, query));
            if let Ok(broker) = broker {
                self.readiness.set(KAFKA, broker);
            }
            self.readiness.set(POSTGRES, postgres.map_err(|error| error.to_string()));
            gauge!(names::PENDING).set(hub.pending.len() as f64);
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
        }
    }

    /// Runs a query whose result is the response.
    ///
    /// # Errors
    /// 503 where Postgres does not respond in time; `operation` is logged and not returned.
    pub(crate) async fn query<T>(
        &self,
        operation: &'static str,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Problem> {
        self.query_within(READ_TIMEOUT, operation, query).await
    }

    /// The same with another timeout.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(crate) async fn query_within<T>(
        &self,
        limit: Duration,
        operation: &'static str,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Problem> {
        self.query_pool.run(limit, query).await.map_err(|error| match error {
            QueryError::Overloaded => {
                Problem::overloaded("too many queries are waiting for the database; retry")
            }
            error => {
                tracing::warn!(operation, %error, "query failed");
                Problem::unavailable("the database did not respond; retry")
            }
        })
    }

    /// Fails readiness: load balancers send no further requests.
    pub(crate) fn stop_serving(&self) {
        self.readiness.set(SERVING, Err("stopping".to_owned()));
    }
}
