//! The HTTP front of Stampede. It accepts a request by writing it to Kafka, and answers with the outcome that the
//! owner of the coupon's partition decides.
//!
//! Reading order, which is the way of a claim:
//! 1. `router`: every route. `auth` (`known_tokens`), `extract`, `fields`, `problem`: who asks, what is read, how refusals look.
//! 2. `claims`: one claim. `known_coupons` and `sold_out_gate` answer what needs no decision.
//! 3. `asked`, `said`: what every route shares that makes a request. `locks`, `returns`, `redemptions`, `revocations`:
//!    those about a code; `known_codes` tells whose partition it belongs to (`remembered` keeps what is known).
//! 4. `accept`: the one way by which a request is accepted. `request_ids` mints its id, `undecided` gives it a
//!    place (`room` looks at the door whether there is one), `request_sink` sends it.
//! 5. `response_reader`, `result_hub`, `recent`, `lookup`: how its outcome comes back, and is never missed; `herald`
//!    wakes who waits. `questions`: how Postgres is asked, with a limit.
//! 6. `requests`: asking for an outcome later. `wallet`, `history`, `validation`: what Postgres knows; `pages`.
//! 7. `coupons`, `coupon_body`, `codes`, `jobs`, `loads`: definitions and stock.
//! 8. `config`, `app`, `server`: settings, parts, start and stop. `ceiling`: what the benchmark holds it against.

pub mod app;
pub mod auth;
pub mod ceiling;
pub mod config;
pub mod metrics;
pub mod problem;
pub mod server;

mod accept;
mod asked;
mod claims;
mod clock;
mod codes;
mod coupon_body;
mod coupons;
mod crash_points;
mod extract;
mod fields;
mod herald;
mod history;
mod jobs;
mod known_codes;
mod known_coupons;
mod known_tokens;
mod loads;
mod locks;
mod lookup;
mod openapi;
mod orders;
mod outcome;
mod pages;
mod questions;
mod recent;
mod redemptions;
mod remembered;
mod request_ids;
mod request_sink;
mod requests;
mod response_reader;
mod result_hub;
mod returns;
mod revocations;
mod room;
mod router;
mod said;
mod sold_out_gate;
mod undecided;
mod validation;
mod wallet;
