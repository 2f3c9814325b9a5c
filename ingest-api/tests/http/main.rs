//! The HTTP interface in front of the real stack.

mod claims;
mod life;
mod lists;
mod refusals;
mod stack;
mod told;
