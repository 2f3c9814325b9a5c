//! Where an arm is measured: real servers, started for the round, on an empty disk.
//!
//! All arms of a round share the servers. Before each arm, [`Environment::renew`] creates new topics, tables, lists and a new
//! consumer group, so that no plan, statistic or backlog of one arm affects another, and the checker reads only what its own
//! arm has done.

use std::time::{Duration, Instant};

use local_stack::{Child, Programs, Stack, StackConfig};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use runtime::config::KafkaArgs;
use schemas::topics::ALL;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::BenchError;
use crate::host::{cpu, machine};
use checker::CheckConfig;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const TOPICS_GONE_WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Kinds of servers that an arm can need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A long group session: no worker dies in these arms, and one that is stopped on purpose, or slow on a busy machine,
    /// keeps its partitions.
    LongSession,
    /// The shortest group session: the partitions of a dead worker are reassigned as soon as possible.
    ShortSession,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::LongSession, Self::ShortSession];

    /// How long the broker waits for a silent worker.
    #[must_use]
    pub const fn session(self) -> Duration {
        match self {
            Self::LongSession => Duration::from_secs(60),
            Self::ShortSession => Duration::from_secs(1),
        }
    }
}

/// Real servers, and the workers that are started when they are wanted.
pub struct Environment {
    /// The servers.
    pub stack: Stack,
    /// Where things are written to and read from, outside of what is measured.
    pub connection: PgConnection,
    /// Which servers they are.
    pub kind: Kind,
    /// Partitions of the present arm.
    partitions: u32,
    /// Workers that were ever started here.
    workers_known: usize,
    /// How many generations there were here; each has a group of its own.
    generations: u64,
    /// How many names were given.
    names: u64,
}

impl Environment {
    /// Starts the servers.
    ///
    /// # Errors
    /// When they do not start, when nothing would be durable, when Postgres does not response.
    pub async fn start(programs: &Programs, kind: Kind) -> Result<Self, BenchError> {
        let config = StackConfig {
            programs: Some(programs.clone()),
            partitions: 1,
            group_session_timeout: kind.session(),
            group_heartbeat: Duration::from_millis(100),
            ..StackConfig::servers_only()
        };
        let stack = Stack::start(config).await?;
        machine::file_system(stack.data_dir())?;
        let connection = connect(&stack).await?;
        Ok(Self { stack, connection, kind, partitions: 1, workers_known: 0, generations: 0, names: 0 })
    }

    /// Where it is and what it promises, a line for each.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn describe(&mut self) -> Result<Vec<String>, BenchError> {
        let file_system = machine::file_system(self.stack.data_dir())?;
        let durability = machine::durability(&mut self.connection).await?;
        Ok(vec![
            machine::describe(),
            durability,
            format!("data on {file_system}"),
            "Kafka 4.3, one broker, heap 512 MB, five eighths of it young generation, promoted after one collection, first compiler only, one network thread, two for requests; acks = all, lz4, enable.idempotence = false: readers recognise duplicates"
                .to_owned(),
            "Redis: no persistence (save \"\", appendonly no)".to_owned(),
        ])
    }

    /// Removes everything of the previous arm: programs stop, topics and tables are deleted, Redis is emptied. The first
    /// worker creates everything anew, with this many partitions.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn renew(&mut self, partitions: u32) -> Result<(), BenchError> {
        for child in self.stack.children() {
            let ours = matches!(child, Child::Worker(_) | Child::Api(_));
            if ours && self.stack.is_running(child) {
                self.stack.resume(child)?;
                // Whether it had ended by itself matters only to the arm that started it.
                self.stack.stop_child(child).await.ok();
            }
        }
        self.partitions = partitions;
        self.generations += 1;
        delete_topics(&self.kafka()).await?;
        let redis = redis::Client::open(self.stack.endpoints().redis_url)?;
        redis::cmd("FLUSHALL").exec_async(&mut redis.get_multiplexed_async_connection().await?).await?;
        self.connection.execute("drop schema if exists stampede, bench cascade").await?;
        // Prepared statements know tables that are gone.
        let connection = connect(&self.stack).await?;
        std::mem::replace(&mut self.connection, connection).close().await?;
        Ok(())
    }

    /// How to reach Kafka.
    #[must_use]
    pub fn kafka(&self) -> KafkaArgs {
        KafkaArgs {
            kafka_brokers: self.stack.endpoints().kafka,
            partitions: i32::try_from(self.partitions).unwrap_or(i32::MAX),
            replication: 1,
        }
    }

    /// Another connection to Postgres.
    ///
    /// # Errors
    /// When Postgres does not response.
    pub async fn connect(&self) -> Result<PgConnection, BenchError> {
        connect(&self.stack).await
    }

    /// Finishes deferred work of Postgres (dirty pages, dead rows, statistics), so that it does not fall into a measurement.
    ///
    /// # Errors
    /// When Postgres does not response.
    pub async fn quiesce(&mut self) -> Result<(), BenchError> {
        self.connection.execute("vacuum (analyze)").await?;
        self.connection.execute("checkpoint").await?;
        Ok(())
    }

    /// An unused coupon id.
    pub fn name(&mut self) -> String {
        self.names += 1;
        format!("bench-{}", self.names)
    }

    /// The only value of a query.
    ///
    /// # Errors
    /// When Postgres does not response, or something else.
    pub async fn scalar<T>(&mut self, query: &str) -> Result<T, BenchError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()));
        Ok(query.fetch_one(&mut self.connection).await?)
    }

    fn check_config(&self) -> CheckConfig {
        CheckConfig { group: self.group(), ..CheckConfig::settled(&self.stack.endpoints()) }
    }

    /// Waits until the workers have nothing left to do.
    ///
    /// # Errors
    /// When they still have after `limit`.
    pub async fn settle(&self, limit: Duration) -> Result<(), BenchError> {
        Ok(checker::settle(&self.check_config(), limit).await?)
    }

    /// Runs the checker on everything of this arm, once the stack is idle.
    ///
    /// # Errors
    /// [`BenchError::Broken`] for a violation: the figure is void.
    pub async fn check(&self) -> Result<(), BenchError> {
        let report = checker::check(&self.check_config(), None).await?;
        if report.is_clean() { Ok(()) } else { Err(BenchError::Broken(Box::new(report))) }
    }

    /// CPU time that the programs have used so far, those of a kind together.
    #[must_use]
    pub fn cpu(&self) -> Vec<(&'static str, Duration)> {
        let children = self.stack.children();
        let used = |wanted: fn(&Child) -> bool| -> Duration {
            let pids =
                children.iter().filter(|child| wanted(child)).filter_map(|child| self.stack.pid(*child));
            pids.map(cpu::of_tree).sum()
        };
        vec![
            ("worker", used(|child| matches!(child, Child::Worker(_)))),
            ("api", used(|child| matches!(child, Child::Api(_)))),
            ("postgres", used(|child| *child == Child::Postgres)),
            ("kafka", used(|child| *child == Child::Kafka)),
            ("redis", used(|child| *child == Child::Redis)),
        ]
    }

    /// Starts a worker and waits until it is healthy.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_worker(&mut self) -> Result<(), BenchError> {
        self.begin_workers(1).await?;
        Ok(self.stack.wait_healthy(Child::Worker(0)).await?)
    }

    /// Starts so many workers; those that run already count.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn begin_workers(&mut self, count: usize) -> Result<(), BenchError> {
        let environment = vec![
            ("STAMPEDE_GROUP".to_owned(), self.group()),
            ("STAMPEDE_PARTITIONS".to_owned(), self.partitions.to_string()),
        ];
        for n in 0..count {
            if n < self.workers_known {
                self.stack.set_env(Child::Worker(n), environment.clone())?;
                self.stack.start_child(Child::Worker(n)).await?;
            } else {
                self.stack.spawn_worker(environment.clone()).await?;
                self.workers_known += 1;
            }
        }
        Ok(())
    }

    /// A group for each arm: offsets committed in one mean nothing in the next.
    fn group(&self) -> String {
        format!("bench-workers-{}", self.generations)
    }

    /// Stops the workers in order.
    ///
    /// # Errors
    /// When one has to be killed.
    pub async fn stop_workers(&mut self) -> Result<(), BenchError> {
        for n in 0..self.workers_known {
            self.stack.stop_child(Child::Worker(n)).await?;
        }
        Ok(())
    }
}

async fn connect(stack: &Stack) -> Result<PgConnection, BenchError> {
    let options: PgConnectOptions = stack.endpoints().postgres_url.parse()?;
    Ok(runtime::postgres::connect(&options.disable_statement_logging()).await?)
}

/// Deletes our topics, and waits until they are gone from the broker's metadata.
async fn delete_topics(kafka: &KafkaArgs) -> Result<(), BenchError> {
    let admin: AdminClient<DefaultClientContext> =
        runtime::kafka::client(kafka, "loadtest-topics").create()?;
    let names = ALL.map(|topic| topic.name);
    // Missing topics are an error here that does not matter; remaining ones show below.
    drop(admin.delete_topics(&names, &AdminOptions::new()).await?);
    let client: BaseConsumer = runtime::kafka::client(kafka, "loadtest-topics").create()?;
    let wait = move || {
        let started = Instant::now();
        while started.elapsed() < TOPICS_GONE_WITHIN {
            let known = client.fetch_metadata(None, REQUEST_TIMEOUT)?;
            if !known.topics().iter().any(|topic| names.contains(&topic.name())) {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(BenchError::Stuck { what: "the topics did not go", after: TOPICS_GONE_WITHIN })
    };
    tokio::task::spawn_blocking(wait).await.map_err(|_| BenchError::Lost)?
}

/// What was used between two samples.
#[must_use]
pub fn used(
    before: &[(&'static str, Duration)],
    after: &[(&'static str, Duration)],
) -> Vec<(&'static str, Duration)> {
    after
        .iter()
        .map(|(name, now)| {
            let then =
                before.iter().find(|(known, _)| known == name).map_or(Duration::ZERO, |(_, then)| *then);
            (*name, now.saturating_sub(then))
        })
        .collect()
}
