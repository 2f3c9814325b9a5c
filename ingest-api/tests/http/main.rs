//! The HTTP API against the real stack: Kafka, Postgres, Redis, workers and two instances of the API.

mod claims;
mod code_requests;
mod lists;
mod rebuilt_outcomes;
mod rejections;
mod stack;
