//! The HTTP API of Stampede. It accepts a request by writing it to Kafka, and returns the outcome that the owner of the
//! coupon's partition decides.
//!
//! Reading order, which is the way of a claim:
//! 1. `server`: start and shutdown, `router` with every route, `middleware`.
//! 2. `auth`: tokens and roles. `http`: bodies, headers, validation, `problem`.
//! 3. `api`: the handlers. `claims` first; `locks`, `returns`, `redemptions` and `revocations` submit requests about a
//!    code (`code_requests`).
//! 4. `requests`: `admission`; the `context` of a request; `submit`, which mints an id (`ids`), takes a place among the
//!    pending requests and sends the record (`producer`).
//! 5. `outcomes`: the `consumer` of responses; the `hub`, which updates the `cache`, the `pending` requests and the
//!    sold-out `gate`; the JSON `view`.
//! 6. `api` again: `requests` (an outcome later), `wallet`, `history` and `validation` read Postgres through `db`.
//! 7. `catalogue`: definitions of coupons, loads of codes, caches of what exists; with `api::coupons`, `codes`, `jobs`.
//! 8. `config`, `app`, `telemetry`: settings, the parts of an instance, metrics and readiness. `model`: values that
//!    Kafka, Postgres and HTTP have in common.
//!
//! A folder imports only folders before it in this list: `telemetry`, `model`, `http`, `auth`, `config`, `db`,
//! `outcomes`, `requests`, `catalogue`, `app`, `api`, `server`.

pub mod app;
pub mod auth;
pub mod config;
pub mod http;
pub mod server;
pub mod telemetry;

mod api;
mod catalogue;
mod clock;
mod crash_points;
mod db;
mod model;
mod outcomes;
mod requests;
mod text;
