//! The rules of Stampede. Nothing here does I/O, reads a clock, waits, or counts metrics: what goes in are
//! records, answers and numbers; what comes out are outcomes and effects. Everything that matters for
//! correctness is decided in this crate.
//!
//! Reading order:
//! 1. [`ids`] and [`vocabulary`]: the numbers that must not be confused, and the stable words.
//! 2. [`record`]: what the owner of a partition consumes. [`batch`]: what it decides and writes.
//! 3. [`coupon`], [`stock`], [`decide`]: one coupon, its free codes, and the decision on a claim. [`claim`], [`life`],
//!    [`money`]: what becomes of a claimed code, and what it takes off an order.
//! 4. [`effect`]: the border. What the machine asks of the world, and what the world answers.
//! 5. [`machine`]: the owner of one partition, from takeover to hand-over.
//! 6. [`codes`]: patterns, check characters and the one normalisation of codes.

pub mod batch;
pub mod claim;
pub mod codes;
pub mod coupon;
pub mod decide;
pub mod effect;
pub mod ids;
pub mod life;
pub mod machine;
pub mod money;
pub mod planted;
pub mod record;
pub mod repetition;
pub mod stock;
pub mod vocabulary;
