//! A worker from start to end: what is needed is awaited, the group is joined, partitions are owned until a signal
//! comes; then everything is handed over before the group is left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coupon_core::machine::Config;
use metrics_exporter_prometheus::PrometheusHandle;
use runtime::lifecycle::{Readiness, shutdown_on_signal};
use runtime::registry::Registry;
use runtime::retry::TimedOut;
use runtime::topics::Topics;
use runtime::{group, kafka, postgres, probes, redis, supervised, topics};
use schemas::Subject;
use sqlx::PgPool;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use crate::config::{MigrateArgs, RunArgs};
use crate::consumer::{Assigned, ConsumerThread, Settings, StartError};
use crate::decode::Decode;
use crate::driver::Setup;
use crate::emitter::Emitter;
use crate::ledger::{Spares, read_pool};
use crate::ledgers::PgLedgers;
use crate::log::{Inspector, KafkaLog};
use crate::messages::Messages;
use crate::seams::World;
use crate::standing::{GROUP, PARTITIONS, Standing};
use crate::stock::RedisStock;
use crate::topic_identity::Identities;
use crate::{fleet, lag, migrate, topic_identity};

/// How long leaving the group may take once every partition is handed over.
const LEAVE: Duration = Duration::from_secs(5);

/// Why a worker cannot start or go on. One line: what, and what to do.
#[derive(Debug, Error)]
pub enum RunError {
    /// The address of Postgres.
    #[error(transparent)]
    PostgresUrl(#[from] postgres::PostgresUrlError),
    /// The address of Redis.
    #[error(transparent)]
    RedisUrl(#[from] redis::RedisUrlError),
    /// The probes' address.
    #[error("cannot listen on {0}: {1}; choose another with STAMPEDE_PROBE_LISTEN")]
    Listen(SocketAddr, std::io::Error),
    /// Postgres does not come up.
    #[error("{0}; is STAMPEDE_POSTGRES_URL right and the server up?")]
    Postgres(#[from] TimedOut<sqlx::Error>),
    /// The schema cannot be brought up to date.
    #[error("the database's schema cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// Our schemas cannot be registered.
    #[error("our schemas cannot be registered in Postgres: {0}")]
    Registry(#[from] sqlx::Error),
    /// The topics.
    #[error(transparent)]
    Topics(#[from] topics::TopicsError),
    /// A client of Kafka.
    #[error("Kafka's client cannot be made: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The consumer thread.
    #[error(transparent)]
    Consumer(#[from] StartError),
    /// The consumer thread has ended by itself.
    #[error(
        "the thread that talks to Kafka's consumers is gone: this is a bug, please report it with the log"
    )]
    ConsumerGone,
}

/// Brings the database's schema up to date.
///
/// # Errors
/// [`RunError`].
pub async fn migrate_only(args: MigrateArgs) -> Result<(), RunError> {
    let pool = postgres::pool(postgres::options(&args.postgres, "stampede-migrate")?, 1);
    postgres::wait_for_server(&pool).await?;
    migrate::run(&pool).await?;
    tracing::info!("the database's schema is up to date");
    Ok(())
}

/// Owns partitions until a signal comes.
///
/// # Errors
/// [`RunError`], before the group is joined; afterwards everything is repeated.
pub async fn run(args: RunArgs, handle: PrometheusHandle) -> Result<(), RunError> {
    let shutdown = shutdown_on_signal();
    let readiness = Readiness::new(&[GROUP, PARTITIONS]);
    let listener = TcpListener::bind(args.probe_listen)
        .await
        .map_err(|error| RunError::Listen(args.probe_listen, error))?;
    let probes_end = CancellationToken::new();
    let probes = tokio::spawn(probes::serve(listener, handle, Arc::clone(&readiness), probes_end.clone()));
    let served = tokio::select! {
        served = Box::pin(serve(&args, readiness, shutdown.clone())) => served,
        // A start that waits for a server ends at once; one that has begun to serve ends in order by itself.
        () = starting_was_interrupted(&shutdown) => Ok(()),
    };
    probes_end.cancel();
    drop(probes.await);
    served
}

/// Waits for a signal, and then for as long as an orderly end may take at most.
async fn starting_was_interrupted(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(LEAVE * 3).await;
    tracing::warn!("not everything could be handed over in time; the next owners finish it");
}

/// What has to be there before the group is joined.
struct Prepared {
    worker: String,
    pool: PgPool,
    options: sqlx::postgres::PgConnectOptions,
    topics: Topics,
    registry: Registry,
}

async fn prepare(args: &RunArgs) -> Result<Prepared, RunError> {
    let worker = args.worker_id();
    let options = postgres::options(&args.postgres, &format!("stampede-worker-{worker}"))?;
    let pool = read_pool(&options, args.read_connections);
    postgres::wait_for_server(&pool).await?;
    migrate::run(&pool).await?;
    let topics = topics::ensure(&args.kafka, &pool).await?;
    let registry = Registry::register(&pool).await?;
    Ok(Prepared { worker, pool, options, topics, registry })
}

async fn serve(
    args: &RunArgs,
    readiness: Arc<Readiness>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let prepared = tokio::select! {
        prepared = Box::pin(prepare(args)) => prepared?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let Prepared { worker, pool, options, topics, registry } = prepared;
    let decode = Decode::new(registry.id_of(Subject::Request), topics.requests);
    let (assignments, heard) = unbounded_channel();
    let assigned = Arc::new(Assigned::default());

    let mut inspector = kafka::reader(&args.kafka, &format!("{worker}-inspector"));
    // It reads the group's committed offsets. It never subscribes, so it never joins.
    inspector.set("group.id", &args.group);
    let inspector = Arc::new(Inspector::new(&inspector)?);
    let warming = Arc::clone(&inspector);
    let warmed = tokio::task::spawn_blocking(move || warming.warm_up(topics.requests));
    let emitter = Emitter::new(&kafka::producer(&args.kafka, &worker), topics, &registry)?;
    let redis = redis::connect_lazily(&args.redis)?;

    let spares = Spares::new(&options, &worker, args.spare_connections as usize);
    let keeping = Arc::clone(&spares);
    let keeping = tokio::spawn(async move { keeping.keep().await });

    // The group is joined when a takeover can be fast.
    tokio::select! {
        warmed = warmed => drop(warmed),
        () = shutdown.cancelled() => return Ok(()),
    }
    let mut membership = kafka::membership(&args.kafka, &worker, &args.group, args.group_protocol);
    if let Some(millis) = args.session_timeout_ms {
        let set =
            group::set_session(&args.kafka, &mut membership, &args.group, args.group_protocol, millis).await;
        if let Err(error) = set {
            tracing::warn!(%error, millis, "the group's session timeout stays as it is");
        }
    }
    // It never fetches, so there is nothing to lose; an error about offsets would only frighten.
    membership.set("auto.offset.reset", "latest");
    membership.set("max.poll.interval.ms", args.max_poll_interval_ms.to_string());
    let consumer = ConsumerThread::start(Settings {
        membership,
        reader: kafka::reader(&args.kafka, &format!("{worker}-reader")),
        decode: decode.clone(),
        assignments,
        assigned: Arc::clone(&assigned),
    })?;
    let clients =
        consumer.watched.iter().cloned().chain([inspector.watched()]).chain(emitter.watched()).collect();
    let clients = tokio::spawn(supervised::supervise(args.kafka.clone(), clients));
    let identities = Identities::new(args.kafka.kafka_brokers.clone(), pool.clone());
    let ledgers =
        PgLedgers { options, pool, spares, worker, messages: Messages::new(registry.id_of(Subject::Event)) };
    let stock = Arc::new(RedisStock::new(redis));
    let world = World {
        log: Arc::new(KafkaLog::new(
            consumer.commands.clone(),
            assigned,
            Arc::clone(&inspector),
            identities.clone(),
        )),
        stock: Arc::<RedisStock>::clone(&stock),
        ledgers: Arc::new(ledgers),
        outlet: Arc::new(emitter),
    };
    let machine = Config { batch_records: args.batch_records as usize, ..Config::default() };
    let standing = Standing::new(readiness);
    let watching = tokio::spawn(lag::watch(inspector, Arc::clone(&standing), topics.requests));
    let identity = tokio::spawn(topic_identity::watch(identities, consumer.commands.clone()));
    let setup = Arc::new(Setup { world, machine, decode });
    fleet::follow(Arc::clone(&setup), heard, standing, shutdown.clone()).await;
    let was_told_to_stop = shutdown.is_cancelled();
    watching.abort();
    identity.abort();
    clients.abort();
    keeping.abort();

    // Clients of Kafka may take long to close when the broker is away.
    let closing = tokio::task::spawn_blocking(move || {
        consumer.stop();
        drop(setup);
    });
    if tokio::time::timeout(LEAVE, closing).await.is_err() {
        tracing::warn!("the group could not be left in time; the session will time out");
    }
    stock.last_words().await;
    // Whoever supervises this process must see that it did not end in order.
    if was_told_to_stop { Ok(()) } else { Err(RunError::ConsumerGone) }
}
