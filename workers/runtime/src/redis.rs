//! The Redis client. It connects when it is first used and reconnects by itself. A program starts without Redis, because
//! losing Redis costs speed and nothing else.

use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::io::tcp::TcpSettings;
use ::redis::{Client, IntoConnectionInfo as _, RedisError};
use secrecy::ExposeSecret as _;
use thiserror::Error;

use crate::config::RedisArgs;

/// A pop that takes longer is abandoned, and its list with it: reading the codes from Postgres is faster.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The URL is invalid.
#[derive(Debug, Error)]
#[error("STAMPEDE_REDIS_URL is invalid: {0}; expected redis://host:6379/")]
pub struct RedisUrlError(#[from] RedisError);

/// A connection that is shared by cloning. Commands are never sent twice: one that fails after it was sent may have been
/// executed, and the caller must treat it as unknown.
///
/// # Errors
/// [`RedisUrlError`] when the URL is invalid.
pub fn connect_lazily(args: &RedisArgs) -> Result<ConnectionManager, RedisUrlError> {
    let info = args.redis_url.expose_secret().into_connection_info()?;
    let client = Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?;
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_number_of_retries(2)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(200))
        .set_pipeline_buffer_size(1024);
    Ok(ConnectionManager::new_lazy_with_config(client, config)?)
}
