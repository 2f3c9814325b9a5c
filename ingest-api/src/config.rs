//! Everything that can be set. One field per knob, with its unit in its name.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use runtime::config::{KafkaArgs, PostgresArgs, TelemetryArgs};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::auth::{Role, Tokens};

const SHORTEST_SECRET: usize = 16;

/// The HTTP front of Stampede: accepts requests onto Kafka and answers with their outcomes.
#[derive(Parser, Debug)]
#[command(
    name = "ingest-api",
    version,
    about,
    after_help = "Without a command it serves: `ingest-api serve --help` lists every setting."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve the HTTP interface (the default).
    Serve(Box<Config>),
    /// Print a token for development, signed with the same secret.
    Token(TokenArgs),
    /// For the benchmark: check tokens, read claims, and answer at once, with nothing behind. Ends when its standard
    /// input does.
    #[command(hide = true)]
    Ceiling(CeilingArgs),
}

impl Cli {
    /// Reads the command line; without a command, the settings of `serve` may stand alone.
    #[must_use]
    pub fn read() -> Self {
        let mut arguments: Vec<_> = std::env::args_os().collect();
        let first = arguments.get(1).and_then(|first| first.to_str()).unwrap_or("--");
        let known = ["serve", "token", "ceiling", "help", "--help", "-h", "--version", "-V"];
        if first.starts_with("--") && !known.contains(&first) {
            arguments.insert(1, "serve".into());
        }
        Self::parse_from(arguments)
    }
}

/// How tokens are signed.
#[derive(Args, Clone, Debug)]
pub struct JwtArgs {
    /// Secret of tokens (HS256), 16 characters or more.
    #[arg(long, env = "STAMPEDE_JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: SecretString,

    /// `iss` that tokens must have.
    #[arg(long, env = "STAMPEDE_JWT_ISSUER", default_value = "stampede")]
    pub jwt_issuer: String,

    /// `aud` that tokens must have.
    #[arg(long, env = "STAMPEDE_JWT_AUDIENCE", default_value = "stampede")]
    pub jwt_audience: String,
}

impl JwtArgs {
    /// What checks and makes tokens.
    ///
    /// # Errors
    /// The secret is too short to be one.
    pub fn tokens(&self) -> Result<Tokens, WeakSecret> {
        strong("STAMPEDE_JWT_SECRET", &self.jwt_secret)?;
        Ok(Tokens::new(&self.jwt_secret, &self.jwt_issuer, &self.jwt_audience))
    }
}

/// A secret that anybody could guess.
#[derive(Debug, Error)]
#[error("{0} must have {SHORTEST_SECRET} characters or more; `openssl rand -base64 32` makes one")]
pub struct WeakSecret(&'static str);

pub(crate) fn strong(name: &'static str, secret: &SecretString) -> Result<(), WeakSecret> {
    if secret.expose_secret().len() < SHORTEST_SECRET { Err(WeakSecret(name)) } else { Ok(()) }
}

/// Settings of the server.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Where clients are served.
    #[arg(long, env = "STAMPEDE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served for operators.
    #[arg(long, env = "STAMPEDE_PROBE_LISTEN", default_value = "127.0.0.1:9080")]
    pub probe_listen: SocketAddr,

    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// Postgres.
    #[command(flatten)]
    pub postgres: PostgresArgs,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// How tokens are signed.
    #[command(flatten)]
    pub jwt: JwtArgs,

    /// Secret that makes request ids unforgeable, 16 characters or more; the same on every instance.
    #[arg(long, env = "STAMPEDE_REQUEST_ID_SECRET", hide_env_values = true)]
    pub request_id_secret: SecretString,

    /// Undecided requests that this instance holds; more are refused with 503.
    #[arg(long, env = "STAMPEDE_UNDECIDED", default_value_t = 50_000)]
    pub undecided: usize,

    /// The same for each partition, so that one hot coupon leaves room for others; half of it all by default.
    #[arg(long, env = "STAMPEDE_UNDECIDED_PER_PARTITION")]
    pub undecided_per_partition: Option<usize>,

    /// Outcomes kept in memory; older ones are read from Postgres.
    #[arg(long, env = "STAMPEDE_RECENT_OUTCOMES", default_value_t = 200_000)]
    pub recent_outcomes: usize,

    /// Requests that may wait for Kafka's acknowledgement; more are refused with 503.
    #[arg(long, env = "STAMPEDE_QUEUE_RECORDS", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub queue_records: u32,

    /// Milliseconds that Kafka has to acknowledge a request, before it is answered with 503.
    #[arg(long, env = "STAMPEDE_ACKNOWLEDGE_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub acknowledge_ms: u64,

    /// Days that outcomes are kept; a request without an outcome that is older is gone (410).
    #[arg(long, env = "STAMPEDE_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=3_650))]
    pub retention_days: i64,

    /// Connections to Postgres.
    #[arg(long, env = "STAMPEDE_POSTGRES_CONNECTIONS", default_value_t = 10)]
    pub postgres_connections: u32,

    /// Seconds that requests under way have at a shutdown.
    #[arg(long, env = "STAMPEDE_DRAIN_SECONDS", default_value_t = 15)]
    pub drain_seconds: u64,
}

impl Config {
    /// The bound of each partition.
    #[must_use]
    pub fn partition_bound(&self) -> usize {
        self.undecided_per_partition.unwrap_or(self.undecided / 2).max(1)
    }

    /// How long outcomes are kept.
    #[must_use]
    pub fn retention_ms(&self) -> i64 {
        self.retention_days * 24 * 3600 * 1000
    }

    /// How long requests under way have at a shutdown.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// Settings of the front door with nothing behind it.
#[derive(Args, Clone, Debug)]
pub struct CeilingArgs {
    /// Where clients are served.
    #[arg(long, env = "STAMPEDE_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// How tokens are signed.
    #[command(flatten)]
    pub jwt: JwtArgs,
}

/// A token for development.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// Who it speaks for.
    #[arg(long)]
    pub sub: String,

    /// What it allows; may be repeated.
    #[arg(long = "role", value_enum, required = true)]
    pub roles: Vec<Role>,

    /// Hours that it is valid.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i64).range(1..=87_600))]
    pub hours: i64,

    /// How tokens are signed.
    #[command(flatten)]
    pub jwt: JwtArgs,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent_and_shows_no_secret() {
        Cli::command().debug_assert();
        let arguments =
            ["ingest-api", "token", "--sub", "ann", "--role", "user", "--jwt-secret", "not to be shown"];
        let cli = Cli::try_parse_from(arguments).expect("it is a command line");
        assert!(!format!("{cli:?}").contains("not to be shown"));
    }
}
