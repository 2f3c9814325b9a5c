//! Redis behind the ports of the driver: cache lists of codes. Losing Redis costs speed, nothing else.

mod stock;

pub use stock::RedisStock;
