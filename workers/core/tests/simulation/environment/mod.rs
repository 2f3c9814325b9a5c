//! The services around one partition, in memory: the log, the ledger, the Redis lists and the broker's topics.
//!
//! A service executes one operation at a time and never fails by itself. The run decides when an operation is executed
//! and whether its response is lost.

pub(crate) mod broker;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod redis;

use broker::Broker;
use ledger::Ledger;
use log::Log;
use redis::Redis;

pub(crate) struct Environment {
    pub(crate) log: Log,
    pub(crate) redis: Redis,
    pub(crate) ledger: Ledger,
    pub(crate) broker: Broker,
}
