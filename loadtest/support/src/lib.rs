//! What the load tools share: [`screen`] (progress on a terminal) and [`tokens`] (access tokens for the local stack).

pub mod screen;
pub mod tokens;
