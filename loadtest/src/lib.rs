//! Stampede under load: a demonstration sale, a benchmark, and the checker of everything that must always be true.
//!
//! Reading order:
//! 1. [`sale`]: the whole stack and many users who want the same thing; what `deploy/run` starts.
//! 2. [`checker`]: reads Postgres, the topics and what clients were told, and holds them against the invariants.
//! 3. [`bench`](mod@bench): Stampede beside what it could be held against.
//! 4. [`verify`]: the checker as a program; [`headline`] (many more attempts than codes), [`memory`] (whether it stays
//!    bounded), [`k6`] (scripts).
//! 5. [`fire`]: the stack under load, and everything that can go wrong.
//! 6. [`http`], [`deed`], [`tokens`], [`screen`]: what a user speaks, what it asks for, what it shows at the door, and
//!    what a person sees.

pub mod bench;
pub mod checker;
pub mod deed;
pub mod fire;
pub mod headline;
pub mod http;
pub mod k6;
pub mod memory;
pub mod sale;
pub mod screen;
pub mod tokens;
pub mod verify;
