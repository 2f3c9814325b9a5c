//! What an operator does by hand: look at the partitions, let a stopped one go on, list dead letters and replay them.
//!
//! Guarantees: looking changes nothing; what changes something says what it will do, wants to be confirmed, and leaves
//! a row in Postgres; text that came from outside reaches a terminal only in a form that does nothing there.

pub mod args;
mod dead_letters;
mod harmless;
mod letters;
mod partitions;
mod repair;
mod replay;
mod survey;

use std::io::Write as _;

use rdkafka::error::KafkaError;
use runtime::postgres;
use thiserror::Error;

pub use args::{DeadLetterCommand, DeadLettersArgs, PartitionsArgs, RepairArgs};

/// Why a command did not do what it was asked for. One line: what, and what to do.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The address of Postgres.
    #[error(transparent)]
    PostgresUrl(#[from] postgres::PostgresUrlError),
    /// Postgres.
    #[error(
        "Postgres: {0}; is STAMPEDE_POSTGRES_URL right, the server up, and the schema there (workers migrate)?"
    )]
    Postgres(#[from] sqlx::Error),
    /// Kafka.
    #[error("Kafka: {0}; is STAMPEDE_KAFKA_BROKERS right and the broker up?")]
    Kafka(#[from] KafkaError),
    /// Kafka, while it was asked about a partition.
    #[error("Kafka was asked about partition {0}: {1}")]
    Inspect(i32, String),
    /// Standard output.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] std::io::Error),
    /// A task of our own panicked.
    #[error("this is a bug: {0}")]
    Bug(#[from] tokio::task::JoinError),
    /// What was asked for is refused; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// `workers partitions`.
///
/// # Errors
/// [`OperatorError`].
pub async fn partitions(args: PartitionsArgs) -> Result<(), OperatorError> {
    let seen = survey::all(&args.servers).await?;
    say(&if args.json { partitions::json(&seen) } else { partitions::table(&seen) })
}

/// `workers repair`.
///
/// # Errors
/// [`OperatorError`]; [`OperatorError::Refused`] as long as it is not confirmed.
pub async fn repair(args: RepairArgs) -> Result<(), OperatorError> {
    let pool = pool(&args.servers.postgres)?;
    for partition in &args.partitions {
        let done = repair::repair(&args, *partition, &pool).await?;
        say(&done)?;
    }
    if args.confirm {
        return Ok(());
    }
    Err(OperatorError::Refused("nothing was changed; say --confirm to do it".to_owned()))
}

/// `workers dead-letters`.
///
/// # Errors
/// [`OperatorError`].
pub async fn dead_letters(args: DeadLettersArgs) -> Result<(), OperatorError> {
    match args.command {
        DeadLetterCommand::List(args) => say(&dead_letters::list(args).await?),
        DeadLetterCommand::Replay(args) => {
            let outcome = replay::replay(args).await?;
            say(&outcome.text)?;
            outcome.refused.map_or(Ok(()), |why| Err(OperatorError::Refused(why)))
        }
    }
}

fn pool(args: &runtime::config::PostgresArgs) -> Result<sqlx::PgPool, OperatorError> {
    Ok(postgres::pool(postgres::options(args, "stampede-operator")?, 2))
}

/// To standard output. Whoever reads may stop reading.
fn say(text: &str) -> Result<(), OperatorError> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
