//! The operator commands: list the partitions, repair a stopped one, list dead letters and replay them.
//!
//! Guarantees: listing changes nothing; a repair prints what it will do, requires confirmation, and is recorded in
//! Postgres; external text is escaped before it reaches a terminal.

pub mod args;
mod dead_letters;
mod escape;
mod letters;
mod partitions;
mod reject;
mod repair;
mod replay;
mod survey;

use std::io::Write as _;

use rdkafka::error::KafkaError;
use runtime::postgres;
use thiserror::Error;

pub use args::{DeadLetterCommand, DeadLettersArgs, PartitionsArgs, RejectArgs, RepairArgs};

/// A command failed. One line: the cause, and the remedy.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The URL of Postgres is invalid.
    #[error(transparent)]
    PostgresUrl(#[from] postgres::PostgresUrlError),
    /// Postgres failed.
    #[error(
        "Postgres: {0}; check STAMPEDE_POSTGRES_URL, that the server is up, and that the schema exists (workers migrate)"
    )]
    Postgres(#[from] sqlx::Error),
    /// Kafka failed.
    #[error("Kafka: {0}; check STAMPEDE_KAFKA_BROKERS and that the brokers are up")]
    Kafka(#[from] KafkaError),
    /// A request to Kafka about a partition failed.
    #[error("request to Kafka about partition {0} failed: {1}")]
    Inspect(i32, String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
    /// A task panicked.
    #[error("this is a bug: {0}")]
    Bug(#[from] tokio::task::JoinError),
    /// The operation was rejected; nothing was changed.
    #[error("{0}")]
    Rejected(String),
}

/// `workers partitions`.
///
/// # Errors
/// [`OperatorError`].
pub async fn partitions(args: PartitionsArgs) -> Result<(), OperatorError> {
    let statuses = survey::all(&args.servers).await?;
    print(&if args.json { partitions::json(&statuses) } else { partitions::table(&statuses) })
}

/// `workers repair`.
///
/// # Errors
/// [`OperatorError`]; [`OperatorError::Rejected`] without --confirm.
pub async fn repair(args: RepairArgs) -> Result<(), OperatorError> {
    let pool = pool(&args.servers.postgres)?;
    for partition in &args.partitions {
        let done = repair::repair(&args, *partition, &pool).await?;
        print(&done)?;
    }
    if args.confirm {
        return Ok(());
    }
    Err(OperatorError::Rejected("nothing was changed; add --confirm to perform the repair".to_owned()))
}

/// `workers reject`.
///
/// # Errors
/// [`OperatorError`].
pub async fn reject(args: RejectArgs) -> Result<(), OperatorError> {
    print(&reject::reject(&args, &pool(&args.postgres)?).await?)
}

/// `workers dead-letters`.
///
/// # Errors
/// [`OperatorError`].
pub async fn dead_letters(args: DeadLettersArgs) -> Result<(), OperatorError> {
    match args.command {
        DeadLetterCommand::List(args) => print(&dead_letters::list(args).await?),
        DeadLetterCommand::Replay(args) => {
            let outcome = replay::replay(args).await?;
            print(&outcome.text)?;
            outcome.rejected.map_or(Ok(()), |reason| Err(OperatorError::Rejected(reason)))
        }
    }
}

fn pool(args: &runtime::config::PostgresArgs) -> Result<sqlx::PgPool, OperatorError> {
    Ok(postgres::pool(postgres::options(args, "stampede-operator")?, 2))
}

/// Prints to standard output. The reader may close the pipe early.
fn print(text: &str) -> Result<(), OperatorError> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
