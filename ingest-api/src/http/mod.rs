//! What HTTP requests and responses have in common: headers, parameters, bodies, validation, pagination, JSON responses
//! and problems.

pub mod problem;

pub(crate) mod body;
pub(crate) mod headers;
pub(crate) mod pagination;
pub(crate) mod parameters;
pub(crate) mod responses;
pub(crate) mod validation;
