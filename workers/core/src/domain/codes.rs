//! Codes: their normalisation, the patterns that they are generated from, and the check character that detects typing
//! errors.
//!
//! Guarantees:
//! - two codes that a person can confuse are one code ([`normalise()`]), for every coupon;
//! - every wrong character and every swap of two neighbours is detected ([`Pattern::verify`]);
//! - a [`Generator`] draws every code of its pattern's space with the same probability, and none twice;
//! - codes are too sparse to be guessed ([`Pattern::ensure_room`]).
//!
//! Only Postgres can detect that a new code exists already, by its unique index over keys. The space is so large that
//! this is rare; then another code is drawn.
//!
//! Reading order: [`mod@normalise`], [`check`], [`pattern`], [`generate`].

pub mod check;
pub mod generate;
pub mod normalise;
pub mod pattern;

pub use generate::{Code, Generator};
pub use normalise::{CodeFault, CodeKey, normalise};
pub use pattern::{GUESSES_PER_CODE, Pattern, PatternError, PatternFault, PatternSpec, VerifyError};
