//! The HTTP client of Stampede.
//!
//! Reading order: [`http`] (one keep-alive connection), [`deed`] (the requests of the API).

pub mod deed;
pub mod http;
