//! Where an arm is measured: real servers of its own, just started, with an empty disk behind them.

use std::time::Duration;

use local_stack::{Child, Programs, Stack, StackConfig};
use runtime::config::KafkaArgs;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _, PgConnection};

use super::{BenchError, cpu, machine};
use crate::checker::{self, CheckConfig};

/// Real servers, and one worker that is started when it is wanted.
pub struct Ground {
    /// The servers.
    pub stack: Stack,
    /// Where things are written to and read from, outside of what is measured.
    pub connection: PgConnection,
    /// Whether the worker was ever started here.
    pub worker_known: bool,
    /// Grows with every run here, so that names are unique.
    runs: u64,
}

impl Ground {
    /// Starts the servers.
    ///
    /// # Errors
    /// When they do not start, when nothing would be durable, when Postgres does not answer.
    pub async fn start(programs: &Programs) -> Result<Self, BenchError> {
        let config = StackConfig {
            programs: Some(programs.clone()),
            // One hot coupon is one partition by design.
            partitions: 1,
            ..StackConfig::servers_only()
        };
        let stack = Stack::start(config).await?;
        machine::file_system(stack.data_dir())?;
        let connection = connect(&stack).await?;
        Ok(Self { stack, connection, worker_known: false, runs: 0 })
    }

    /// Where it is and what it promises, for people.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn describe(&mut self) -> Result<String, BenchError> {
        let file_system = machine::file_system(self.stack.data_dir())?;
        let durability = machine::durability(&mut self.connection).await?;
        Ok(format!("{}\n{durability}\ndata on {file_system}; Kafka 4.3 with acks=all", machine::describe()))
    }

    /// How to reach Kafka.
    #[must_use]
    pub fn kafka(&self) -> KafkaArgs {
        KafkaArgs { kafka_brokers: self.stack.endpoints().kafka, partitions: 1, replication: 1 }
    }

    /// Another connection to Postgres.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn connect(&self) -> Result<PgConnection, BenchError> {
        connect(&self.stack).await
    }

    /// What earlier work left to do (dirty pages, dead rows, statistics) is done now and not while something is
    /// measured.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn calm(&mut self) -> Result<(), BenchError> {
        self.connection.execute("vacuum (analyze)").await?;
        self.connection.execute("checkpoint").await?;
        Ok(())
    }

    /// A name that no coupon has here.
    pub fn name(&mut self) -> String {
        self.runs += 1;
        format!("bench-{}", self.runs)
    }

    /// The only value of a query.
    ///
    /// # Errors
    /// When Postgres does not answer, or something else.
    pub async fn scalar<T>(&mut self, query: &str) -> Result<T, BenchError>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()));
        Ok(query.fetch_one(&mut self.connection).await?)
    }

    /// Waits until the worker has nothing left to do.
    ///
    /// # Errors
    /// When it still has after `limit`.
    pub async fn settle(&self, limit: Duration) -> Result<(), BenchError> {
        Ok(checker::settle(&CheckConfig::settled(&self.stack.endpoints()), limit).await?)
    }

    /// CPU time that the programs have used so far.
    #[must_use]
    pub fn cpu(&self) -> Vec<(&'static str, Duration)> {
        let used = |child| self.stack.pid(child).map_or(Duration::ZERO, cpu::of_tree);
        vec![
            ("worker", used(Child::Worker(0))),
            ("postgres", used(Child::Postgres)),
            ("kafka", used(Child::Kafka)),
            ("redis", used(Child::Redis)),
        ]
    }

    /// Starts the worker and waits until it is healthy.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_worker(&mut self) -> Result<(), BenchError> {
        self.begin_worker().await?;
        Ok(self.stack.wait_healthy(Child::Worker(0)).await?)
    }

    /// Starts the worker.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn begin_worker(&mut self) -> Result<(), BenchError> {
        if self.worker_known {
            self.stack.start_child(Child::Worker(0)).await?;
        } else {
            self.stack.spawn_worker(Vec::new()).await?;
            self.worker_known = true;
        }
        Ok(())
    }

    /// Stops the worker in order.
    ///
    /// # Errors
    /// When it has to be killed.
    pub async fn stop_worker(&mut self) -> Result<(), BenchError> {
        Ok(self.stack.stop_child(Child::Worker(0)).await?)
    }
}

async fn connect(stack: &Stack) -> Result<PgConnection, BenchError> {
    let options: PgConnectOptions = stack.endpoints().postgres_url.parse()?;
    Ok(runtime::postgres::connect(&options.disable_statement_logging()).await?)
}

/// What was used between two looks.
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
