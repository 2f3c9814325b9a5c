#![doc = include_str!("../README.md")]
//!
//! # Reading order
//! [`Client`] and [`RequestBuilder`] (what a caller uses) · [`Operation`] (the requests) · `client::exchange` (the retry
//! loop: one idempotency key over all attempts) · [`RetryPolicy`] · [`Error`] · [`Observer`] · [`model`] (the JSON
//! types) · [`transport`] (one HTTP/1.1 exchange, pooled connections).

mod client;
mod coupons;
mod error;
pub mod model;
mod observer;
mod operation;
mod queries;
mod retry;
pub mod transport;

pub use client::{Client, ClientBuilder, Polling, RequestBuilder};
pub use error::{Cause, Error, FieldError, Problem};
pub use model::{Outcome, Status};
pub use observer::{Attempt, Observer, Step};
pub use operation::{Operation, Order};
pub use retry::RetryPolicy;
