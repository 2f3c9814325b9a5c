//! The handlers, one file for each resource, and what they have in common.
//!
//! A handler extracts, validates and authorises, then either submits a request ([`crate::requests::submit`]) or reads
//! Postgres ([`crate::db`]).

pub(crate) mod openapi;

mod code_requests;
mod order_fields;

pub(crate) mod claims;
pub(crate) mod codes;
pub(crate) mod coupons;
pub(crate) mod history;
pub(crate) mod jobs;
pub(crate) mod locks;
pub(crate) mod redemptions;
pub(crate) mod requests;
pub(crate) mod returns;
pub(crate) mod revocations;
pub(crate) mod validation;
pub(crate) mod wallet;
