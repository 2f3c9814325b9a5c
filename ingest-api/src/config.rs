//! The settings of the program. One field per setting, with the unit in its name.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use runtime::config::{KafkaArgs, PostgresArgs, TelemetryArgs};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::auth::{Role, Tokens};

const MIN_SECRET_CHARACTERS: usize = 16;

/// The HTTP API of Stampede: accepts requests onto Kafka and returns their outcomes.
#[derive(Parser, Debug)]
#[command(
    name = "ingest-api",
    version,
    about,
    after_help = "The default command is `serve`; `ingest-api serve --help` lists every setting."
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve the HTTP API (the default).
    Serve(Box<Config>),
    /// Print a token for development, signed with the same secret.
    Token(TokenArgs),
    /// For the benchmark: verify tokens, read claims and respond, without a backend. Ends with standard input.
    #[command(hide = true)]
    Ceiling(CeilingArgs),
}

impl Cli {
    /// Reads the command line. Without a command, the settings of `serve` may be given directly.
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

/// The signature of tokens.
#[derive(Args, Clone, Debug)]
pub struct JwtArgs {
    /// Secret of tokens (HS256), at least 16 characters.
    #[arg(long, env = "STAMPEDE_JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: SecretString,

    /// Required `iss` of tokens.
    #[arg(long, env = "STAMPEDE_JWT_ISSUER", default_value = "stampede")]
    pub jwt_issuer: String,

    /// Required `aud` of tokens.
    #[arg(long, env = "STAMPEDE_JWT_AUDIENCE", default_value = "stampede")]
    pub jwt_audience: String,
}

impl JwtArgs {
    /// Verifies and issues tokens with these settings.
    ///
    /// # Errors
    /// The secret is too short.
    pub fn tokens(&self) -> Result<Tokens, WeakSecret> {
        require_strong("STAMPEDE_JWT_SECRET", &self.jwt_secret)?;
        Ok(Tokens::new(&self.jwt_secret, &self.jwt_issuer, &self.jwt_audience))
    }
}

/// A secret that is too short.
#[derive(Debug, Error)]
#[error(
    "{0} must have at least {MIN_SECRET_CHARACTERS} characters; create one with `openssl rand -base64 32`"
)]
pub struct WeakSecret(&'static str);

pub(crate) fn require_strong(name: &'static str, secret: &SecretString) -> Result<(), WeakSecret> {
    if secret.expose_secret().len() < MIN_SECRET_CHARACTERS { Err(WeakSecret(name)) } else { Ok(()) }
}

/// The settings of the server.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address of the HTTP API.
    #[arg(long, env = "STAMPEDE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Address of /healthz, /readyz and /metrics, for operators.
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

    /// The signature of tokens.
    #[command(flatten)]
    pub jwt: JwtArgs,

    /// Secret that makes request ids unforgeable, at least 16 characters; the same on every instance.
    #[arg(long, env = "STAMPEDE_REQUEST_ID_SECRET", hide_env_values = true)]
    pub request_id_secret: SecretString,

    /// Maximum number of pending requests of this instance; further requests are rejected with 503.
    #[arg(long, env = "STAMPEDE_MAX_PENDING", default_value_t = 50_000)]
    pub max_pending: usize,

    /// Maximum number of pending requests in each partition, so that one hot coupon leaves places for others; half of
    /// STAMPEDE_MAX_PENDING by default.
    #[arg(long, env = "STAMPEDE_MAX_PENDING_PER_PARTITION")]
    pub max_pending_per_partition: Option<usize>,

    /// Outcomes cached in memory; older ones are read from Postgres.
    #[arg(long, env = "STAMPEDE_OUTCOME_CACHE_SIZE", default_value_t = 200_000)]
    pub outcome_cache_size: usize,

    /// Maximum number of records that wait for Kafka's acknowledgement; further requests are rejected with 503.
    #[arg(long, env = "STAMPEDE_PRODUCER_QUEUE_RECORDS", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub producer_queue_records: u32,

    /// Milliseconds in which Kafka must acknowledge a request; after them the response is 503.
    #[arg(long, env = "STAMPEDE_PRODUCE_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub produce_timeout_ms: u64,

    /// Retention of outcomes in days; an older request without an outcome is 410.
    #[arg(long, env = "STAMPEDE_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=3_650))]
    pub retention_days: i64,

    /// Hours within which a request that is sent again gets its first outcome: the same value as the workers'.
    #[arg(long, env = "STAMPEDE_DEDUPLICATION_HOURS", default_value_t = 48, value_parser = clap::value_parser!(i64).range(1..=720))]
    pub deduplication_hours: i64,

    /// Connections to Postgres.
    #[arg(long, env = "STAMPEDE_POSTGRES_CONNECTIONS", default_value_t = 10)]
    pub postgres_connections: u32,

    /// Seconds in which running requests must end at a shutdown.
    #[arg(long, env = "STAMPEDE_DRAIN_SECONDS", default_value_t = 15)]
    pub drain_seconds: u64,
}

impl Config {
    /// Maximum number of pending requests in each partition.
    #[must_use]
    pub fn partition_bound(&self) -> usize {
        self.max_pending_per_partition.unwrap_or(self.max_pending / 2).max(1)
    }

    /// Retention of outcomes.
    #[must_use]
    pub fn retention_ms(&self) -> i64 {
        self.retention_days * 24 * 3600 * 1000
    }

    /// The deduplication window.
    #[must_use]
    pub fn deduplication_ms(&self) -> i64 {
        self.deduplication_hours * 3600 * 1000
    }

    /// Time in which running requests must end at a shutdown.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// The settings of the server without a backend.
#[derive(Args, Clone, Debug)]
pub struct CeilingArgs {
    /// Address of the HTTP API.
    #[arg(long, env = "STAMPEDE_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Logs.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// The signature of tokens.
    #[command(flatten)]
    pub jwt: JwtArgs,
}

/// A token for development.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// Subject: the id of the user or service.
    #[arg(long)]
    pub sub: String,

    /// Role; may be repeated.
    #[arg(long = "role", value_enum, required = true)]
    pub roles: Vec<Role>,

    /// Hours until the token expires.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(i64).range(1..=87_600))]
    pub hours: i64,

    /// The signature of tokens.
    #[command(flatten)]
    pub jwt: JwtArgs,
}

impl TokenArgs {
    /// Issues the token.
    ///
    /// # Errors
    /// The secret is too short, or the token cannot be signed.
    pub fn issue(&self) -> Result<String, Box<dyn Error>> {
        let now = chrono::Utc::now().timestamp();
        let roles = self.roles.iter().copied().collect();
        Ok(self.jwt.tokens()?.issue(&self.sub, roles, now, self.hours * 3600)?)
    }
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
        let cli = Cli::try_parse_from(arguments).expect("a command line");
        assert!(!format!("{cli:?}").contains("not to be shown"));
    }
}
