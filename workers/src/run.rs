//! The life cycle of a worker: wait for the servers, join the group, own partitions until a signal, hand them over, leave
//! the group.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coupon_core::machine::{Config, ids_within};
use metrics_exporter_prometheus::PrometheusHandle;
use runtime::lifecycle::{Readiness, shutdown_on_signal};
use runtime::postgres::{LEVEL, SCHEMA, SCHEMA_VERSION, SchemaError};
use runtime::registry::Registry;
use runtime::retry::TimedOut;
use runtime::topics::Topics;
use runtime::{group, kafka, postgres, probes, redis, topics};
use schemas::Subject;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::codec::decode::RecordDecoder;
use crate::codec::messages::Messages;
use crate::config::{MigrateArgs, RunArgs};
use crate::dependencies::Dependencies;
use crate::kafka::consumer::{Assigned, ConsumerThread, Settings, StartError};
use crate::kafka::inspector::Inspector;
use crate::kafka::lag;
use crate::kafka::log::KafkaLog;
use crate::kafka::publisher::KafkaPublisher;
use crate::kafka::topic_identity::{self, Identities};
use crate::owner::assignments;
use crate::owner::driver::Setup;
use crate::owner::stalls;
use crate::owner::status::{GROUP, PARTITIONS, StatusRegistry};
use crate::ports::{Assignment, Ports};
use crate::postgres::ledgers::PgLedgers;
use crate::postgres::retention::Retention;
use crate::postgres::{WarmConnections, migrate, read_pool};
use crate::redis::RedisStock;
use crate::retention;

/// Time limit of leaving the group after every partition is handed over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a whole shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a worker cannot start or continue, in one line with the remedy.
#[derive(Debug, Error)]
pub enum RunError {
    /// Invalid address of Postgres.
    #[error(transparent)]
    PostgresUrl(#[from] postgres::PostgresUrlError),
    /// Invalid address of Redis.
    #[error(transparent)]
    RedisUrl(#[from] redis::RedisUrlError),
    /// The address of the probes is not available.
    #[error("cannot listen on {0}: {1}; choose another address with STAMPEDE_PROBE_LISTEN")]
    Listen(SocketAddr, std::io::Error),
    /// Postgres does not start.
    #[error("{0}; is STAMPEDE_POSTGRES_URL right and the server up?")]
    Postgres(#[from] TimedOut<sqlx::Error>),
    /// The schema cannot be read.
    #[error(transparent)]
    Schema(#[from] TimedOut<SchemaError>),
    /// A migration fails.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The required level cannot be raised.
    #[error("cannot finish the upgrade: {0}")]
    Finish(#[source] sqlx::Error),
    /// The Avro schemas cannot be stored.
    #[error("cannot register the schemas in Postgres: {0}")]
    Registry(#[from] sqlx::Error),
    /// The topics are missing or wrong.
    #[error(transparent)]
    Topics(#[from] topics::TopicsError),
    /// librdkafka rejects the settings of a client.
    #[error("cannot create a Kafka client: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The consumer thread cannot start.
    #[error(transparent)]
    Consumer(#[from] StartError),
    /// The consumer thread has ended by itself.
    #[error("the consumer thread has ended: this is a bug, please report it with the log")]
    ConsumerEnded,
}

/// Applies pending migrations.
///
/// # Errors
/// [`RunError`].
pub async fn migrate_only(args: MigrateArgs) -> Result<(), RunError> {
    let pool = postgres::pool(postgres::options(&args.postgres, "stampede-migrate")?, 1);
    postgres::wait_for_server(&pool).await?;
    migrate::run(&pool).await?;
    tracing::info!(version = SCHEMA_VERSION, "database schema is up to date");
    if args.finish {
        let fenced = migrate::finish(&pool).await.map_err(RunError::Finish)?;
        tracing::info!(level = LEVEL, ?fenced, "upgrade finished: owners of older releases are fenced");
    }
    Ok(())
}

/// Runs a worker until a signal.
///
/// # Errors
/// [`RunError`], before the group is joined; afterwards every failure is retried.
pub async fn run(args: RunArgs, metrics: PrometheusHandle) -> Result<(), RunError> {
    let shutdown = shutdown_on_signal();
    let readiness = Readiness::new(&[SCHEMA, GROUP, PARTITIONS]);
    let listener = TcpListener::bind(args.probe_listen)
        .await
        .map_err(|error| RunError::Listen(args.probe_listen, error))?;
    let end_probes = CancellationToken::new();
    let probes = tokio::spawn(probes::serve(listener, metrics, Arc::clone(&readiness), end_probes.clone()));
    let result = tokio::select! {
        result = Box::pin(serve(&args, readiness, shutdown.clone())) => result,
        () = shutdown_timed_out(&shutdown) => Ok(()),
    };
    end_probes.cancel();
    drop(probes.await);
    result
}

async fn shutdown_timed_out(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    tracing::warn!("not everything was handed over in time; the next owners complete it");
}

async fn serve(
    args: &RunArgs,
    readiness: Arc<Readiness>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let worker = tokio::select! {
        worker = Box::pin(Worker::prepare(args, &readiness)) => worker?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let mut background = JoinSet::new();
    // The group is joined when a takeover can be fast.
    tokio::select! {
        () = worker.warm_up(&mut background) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let member = worker.join_group(args).await?;
    let statuses = StatusRegistry::new(readiness);
    worker.start_background(args, &member, &statuses, &mut background);
    let stock = Arc::clone(&worker.stock);
    let Member { thread, assignments, assigned } = member;
    let setup = Arc::new(worker.into_setup(args, &thread, assigned));
    assignments::follow(Arc::clone(&setup), assignments, statuses, shutdown.clone()).await;
    // Without a signal the consumer thread has ended, and the process's supervisor must see an error.
    let result = if shutdown.is_cancelled() { Ok(()) } else { Err(RunError::ConsumerEnded) };
    background.abort_all();
    leave_group(thread, setup).await;
    stock.drain().await;
    result
}

/// Closing a Kafka client may take long while its broker is unreachable.
async fn leave_group(thread: ConsumerThread, setup: Arc<Setup>) {
    let closing = tokio::task::spawn_blocking(move || {
        thread.stop();
        drop(setup);
    });
    if tokio::time::timeout(LEAVE_TIMEOUT, closing).await.is_err() {
        tracing::warn!("could not leave the group in time; its session will time out");
    }
}

/// What a worker needs before it joins the group: the servers are up, the clients exist.
struct Worker {
    name: String,
    options: PgConnectOptions,
    pool: PgPool,
    topics: Topics,
    decoder: RecordDecoder,
    messages: Messages,
    inspector: Arc<Inspector>,
    publisher: KafkaPublisher,
    stock: Arc<RedisStock>,
    identities: Identities,
    warm_connections: Arc<WarmConnections>,
}

/// The worker's membership in the group.
struct Member {
    thread: ConsumerThread,
    assignments: UnboundedReceiver<Assignment>,
    assigned: Arc<Assigned>,
}

impl Worker {
    /// Waits for the servers, and creates the clients.
    async fn prepare(args: &RunArgs, readiness: &Readiness) -> Result<Self, RunError> {
        let name = args.worker_id();
        let options = postgres::options(&args.postgres, &format!("stampede-worker-{name}"))?;
        let pool = read_pool(&options, args.read_connections);
        postgres::wait_for_server(&pool).await?;
        if args.migrate {
            migrate::run(&pool).await?;
        }
        postgres::wait_for_schema(&pool, readiness).await?;
        let topics = topics::ensure(&args.kafka, &pool).await?;
        let registry = Registry::register(&pool).await?;

        let mut inspector = kafka::reader(&args.kafka, &format!("{name}-inspector"));
        // It reads the group's committed offsets. It never subscribes, so it never joins.
        inspector.set("group.id", &args.group);
        Ok(Self {
            decoder: RecordDecoder::new(registry.id_of(Subject::Request), topics.requests),
            messages: Messages::new(registry.id_of(Subject::Event)),
            inspector: Arc::new(Inspector::new(&inspector)?),
            publisher: KafkaPublisher::new(&kafka::producer(&args.kafka, &name), topics, &registry)?,
            stock: Arc::new(RedisStock::new(redis::connect_lazily(&args.redis)?)),
            identities: Identities::new(args.kafka.kafka_brokers.clone(), pool.clone()),
            warm_connections: WarmConnections::new(&options, &name, args.warm_connections as usize),
            name,
            options,
            pool,
            topics,
        })
    }

    /// Connects to everything that a takeover uses.
    async fn warm_up(&self, background: &mut JoinSet<()>) {
        let warm_connections = Arc::clone(&self.warm_connections);
        background.spawn(async move { warm_connections.maintain().await });
        let (inspector, partitions) = (Arc::clone(&self.inspector), self.topics.requests);
        drop(tokio::task::spawn_blocking(move || inspector.warm_up(partitions)).await);
    }

    async fn join_group(&self, args: &RunArgs) -> Result<Member, RunError> {
        let mut membership = kafka::membership(&args.kafka, &self.name, &args.group, args.group_protocol);
        if let Some(millis) = args.session_timeout_ms {
            let set =
                group::set_session(&args.kafka, &mut membership, &args.group, args.group_protocol, millis)
                    .await;
            if let Err(error) = set {
                tracing::warn!(%error, millis, "cannot set the group's session timeout; it stays unchanged");
            }
        }
        // The membership never fetches, so no record is lost; `error` would log errors that concern nothing.
        membership.set("auto.offset.reset", "latest");
        membership.set("max.poll.interval.ms", args.max_poll_interval_ms.to_string());
        let (sender, assignments) = unbounded_channel();
        let assigned = Arc::new(Assigned::default());
        let thread = ConsumerThread::start(Settings {
            membership,
            reader: kafka::reader(&args.kafka, &format!("{}-reader", self.name)),
            decoder: self.decoder.clone(),
            assignments: sender,
            assigned: Arc::clone(&assigned),
        })?;
        Ok(Member { thread, assignments, assigned })
    }

    /// Starts the lag report, the retention, the check of the topic's identity, and that of progress.
    fn start_background(
        &self,
        args: &RunArgs,
        member: &Member,
        statuses: &Arc<StatusRegistry>,
        background: &mut JoinSet<()>,
    ) {
        let running = || {
            let statuses = Arc::clone(statuses);
            move || statuses.running()
        };
        background.spawn(lag::report(Arc::clone(&self.inspector), self.topics.requests, running()));
        let retention = Retention {
            options: self.options.clone(),
            days: args.retention_days,
            deduplication_ms: args.deduplication_ms(),
        };
        background.spawn(retention::apply(retention, Arc::clone(&self.inspector), running()));
        let commands = member.thread.commands.clone();
        background.spawn(topic_identity::watch(self.identities.clone(), commands));
        let dependencies = Dependencies::new(&self.options, &self.inspector);
        background.spawn(stalls::watch(Arc::clone(statuses), move || dependencies.respond()));
    }

    fn into_setup(self, args: &RunArgs, thread: &ConsumerThread, assigned: Arc<Assigned>) -> Setup {
        let log = KafkaLog::new(thread.commands.clone(), assigned, self.inspector, self.identities);
        let ledgers = PgLedgers {
            options: self.options,
            pool: self.pool,
            warm_connections: self.warm_connections,
            worker: self.name,
        };
        Setup {
            ports: Ports {
                log: Arc::new(log),
                stock: self.stock,
                ledgers: Arc::new(ledgers),
                publisher: Arc::new(self.publisher),
            },
            machine: Config {
                batch_records: args.batch_records as usize,
                deduplication_ms: args.deduplication_ms(),
                max_recent_ids: ids_within((args.recent_ids_mib as usize) << 20),
                max_time_ahead: args.max_time_ahead_ms,
                ..Config::default()
            },
            decoder: self.decoder,
            messages: self.messages,
        }
    }
}
