//! Codes: the one normalisation, the patterns that codes are made from, and the check character that finds typing
//! errors.
//!
//! Guarantees:
//! - two codes that a person could take for one another are one code ([`normalise()`]), for every coupon alike;
//! - every wrong character and every two neighbours in the wrong order are found ([`Pattern::verify`]);
//! - a [`Generator`] gives every code of its pattern's space with the same chance, and none twice;
//! - nobody guesses a code ([`Pattern::ensure_room`]).
//!
//! That a new code is not in the system yet, only the ledger can tell (its index over keys): the space is so large
//! that this hardly ever happens, but it does, and then another one is drawn.
//!
//! Reading order: [`mod@normalise`], [`check`], [`pattern`], [`generate`].

pub mod check;
pub mod generate;
pub mod normalise;
pub mod pattern;

pub use generate::{Code, Generator};
pub use normalise::{CodeFault, CodeKey, normalise};
pub use pattern::{GUESSES_PER_CODE, Pattern, PatternError, PatternFault, PatternSpec, VerifyError};
