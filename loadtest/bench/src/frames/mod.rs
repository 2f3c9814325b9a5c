//! The frames that arms fill: what is common to the measurement of several designs.

pub mod baseline;
pub mod drain;
pub mod http;
