//! A new coupon with codes in stock, created through the public API as an administrator creates it.

use std::time::{Duration, Instant};

use stampede_client::model::{Discount, GenerateCodes, JobState, Limit, Limits, NewCoupon};
use stampede_client::{Client, Error, RetryPolicy};
use thiserror::Error as ThisError;

use crate::progress::Console;

const STOCK_TIMEOUT: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Why there is no coupon with codes.
#[derive(Debug, ThisError)]
pub enum CouponError {
    /// The API did not create what was requested.
    #[error(transparent)]
    Client(#[from] Error),
    /// The generated codes did not become stock.
    #[error(
        "only {available} of {codes} codes are in stock: job {job} is {state} at {done}; see the workers' logs"
    )]
    NotStocked {
        /// The job.
        job: String,
        /// Its state.
        state: &'static str,
        /// Codes stored.
        done: u64,
        /// Codes in stock.
        available: u64,
        /// Codes ordered.
        codes: u64,
    },
}

/// The definition that demonstrations use: 20 % off, one claim per user, no hold.
#[must_use]
pub fn demonstration(coupon_id: &str) -> NewCoupon {
    let text = |text: &str| Some(text.to_owned());
    let discount =
        Discount { currency: text("EUR"), maximum_discount: text("25.00"), ..Discount::percentage("20.00") };
    NewCoupon {
        id: text(coupon_id),
        description: text("First come, first served: one code for each user"),
        category: text("demonstration"),
        limits: Limits { claims_per_user: Some(Limit::AtMost(1)), ..Limits::default() },
        ..NewCoupon::new("Demonstration", discount)
    }
}

/// Creates a coupon, generates its codes, and waits until all of them can be claimed.
///
/// # Errors
/// When the API rejects the coupon, or the codes do not become stock in time.
pub async fn create_with_codes(
    admin: &Client,
    coupon: &NewCoupon,
    codes: u64,
    console: &Console,
) -> Result<(), CouponError> {
    let started = Instant::now();
    let admin = admin.with_policy(RetryPolicy { deadline: STOCK_TIMEOUT, ..RetryPolicy::default() });
    let id = admin.create_coupon(coupon).await?.id;
    let job = admin.generate_codes(&id, &GenerateCodes { count: codes, pattern: None }).await?.job_id;
    let mut progress = console.progress("codes", codes);
    loop {
        let state = admin.job(&job).await?;
        progress.set(state.done, state.state.as_str());
        // A job that has stored its codes is not enough: the owner of the coupon makes stock of them.
        let available = admin.coupon(&id).await?.counts.available;
        let elapsed = started.elapsed();
        if available >= codes {
            let seconds = elapsed.as_secs_f64();
            progress.finish(&format!("coupon {id}: {codes} codes in stock after {seconds:.1} s"));
            return Ok(());
        }
        if elapsed > STOCK_TIMEOUT || state.state == JobState::Abandoned {
            let (state, done) = (state.state.as_str(), state.done);
            return Err(CouponError::NotStocked { job, state, done, available, codes });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
