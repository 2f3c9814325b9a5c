//! Why a sale ends without figures.

use std::io;

use checker::CheckError;
use load_support::coupons::CouponError;
use local_stack::StackError;
use thiserror::Error;

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum SaleError {
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A coupon.
    #[error("the coupon: {0}")]
    Coupon(#[from] CouponError),
    /// A token could not be signed.
    #[error("no token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// The figures could not be read.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// The checker could not run.
    #[error("the checker: {0}")]
    Check(#[from] CheckError),
    /// A task panicked.
    #[error("a task of the sale panicked")]
    TaskFailed,
    /// Standard output cannot be written, or signals cannot be received.
    #[error(transparent)]
    Io(#[from] io::Error),
}
