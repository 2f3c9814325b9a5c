//! The HTTP front of Stampede. It accepts a request by writing it to Kafka, and answers with the outcome that the
//! owner of the coupon's partition decides.
//!
//! Reading order, which is the way of a claim:
//! 1. `router`: every route. `auth`, `extract`, `fields`, `problem`: who asks, what is read, how refusals look.
//! 2. `claims`: one claim. `known_coupons` and `sold_out_gate` answer what needs no decision.
//! 3. `accept`: the one way by which a request is accepted. `request_ids` mints its id, `undecided` gives it a
//!    place, `request_sink` sends it.
//! 4. `response_reader`, `result_hub`, `recent`, `lookup`: how its outcome comes back, and is never missed.
//! 5. `requests`: asking for an outcome later.
//! 6. `coupons`, `coupon_body`, `codes`, `jobs`, `loads`: definitions and stock.
//! 7. `config`, `app`, `server`: settings, parts, start and stop.

pub mod app;
pub mod auth;
pub mod config;
pub mod metrics;
pub mod problem;
pub mod server;

mod accept;
mod claims;
mod clock;
mod codes;
mod coupon_body;
mod coupons;
mod crash_points;
mod extract;
mod fields;
mod jobs;
mod known_coupons;
mod loads;
mod lookup;
mod money;
mod openapi;
mod outcome;
mod recent;
mod request_ids;
mod request_sink;
mod requests;
mod response_reader;
mod result_hub;
mod router;
mod sold_out_gate;
mod undecided;
