//! What the tests share.

pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod field;
pub(crate) mod log;

pub(crate) use client::{Ask, Reply};
pub(crate) use crowd::Crowd;
pub(crate) use field::{Field, Kind};
