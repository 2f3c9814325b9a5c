//! Coupons and their codes, for administrators.
//!
//! The server applies no Idempotency-Key to these requests, so they are repeated only while nothing was accepted.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::client::exchange::{Exchange, Safety};
use crate::error::Error;
use crate::model::{Coupon, GenerateCodes, Job, JobState, NewCoupon};
use crate::observer::Step;
use crate::transport::{HttpRequest, path_segment};

const JOB_INTERVAL: Duration = Duration::from_millis(200);

impl Client {
    /// Creates a coupon.
    ///
    /// # Errors
    /// [`Error::Problem`]: 409 where the id is taken, 422 with every invalid field. [`Error::Unconfirmed`]: it may
    /// have been created; [`Self::coupon`] shows whether it was.
    pub async fn create_coupon(&self, coupon: &NewCoupon) -> Result<Coupon, Error> {
        self.post("/v1/coupons", coupon, StatusCode::CREATED).await
    }

    /// A coupon with its live counters.
    ///
    /// # Errors
    /// [`Error::Problem`], or no response by the deadline.
    pub async fn coupon(&self, coupon_id: &str) -> Result<Coupon, Error> {
        self.get(&format!("/v1/coupons/{}", path_segment(coupon_id))).await
    }

    /// Starts a job that generates codes.
    ///
    /// # Errors
    /// [`Error::Problem`]; [`Error::Unconfirmed`]: the job may have been started.
    pub async fn generate_codes(&self, coupon_id: &str, codes: &GenerateCodes) -> Result<Job, Error> {
        let path = format!("/v1/coupons/{}/codes/generate", path_segment(coupon_id));
        self.post(&path, codes, StatusCode::ACCEPTED).await
    }

    /// How far a job is.
    ///
    /// # Errors
    /// [`Error::Problem`], or no response by the deadline.
    pub async fn job(&self, job_id: &str) -> Result<Job, Error> {
        self.get(&format!("/v1/jobs/{}", path_segment(job_id))).await
    }

    /// Polls a job until it is applied or abandoned, or the deadline of the client's policy passes. The job in its
    /// last state is returned in all three cases.
    ///
    /// # Errors
    /// As [`Self::job`].
    pub async fn wait_for_job(&self, job_id: &str) -> Result<Job, Error> {
        let deadline = Instant::now() + self.policy.deadline;
        loop {
            let job = self.job(job_id).await?;
            let has_ended = matches!(job.state, JobState::Applied | JobState::Abandoned);
            if has_ended || Instant::now() + JOB_INTERVAL >= deadline {
                return Ok(job);
            }
            sleep(JOB_INTERVAL).await;
        }
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        expected: StatusCode,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::InvalidRequest(error.to_string()))?;
        let request = HttpRequest { token: self.token.as_deref(), ..HttpRequest::post(path, body) };
        let mut exchange = Exchange::new(self, self.policy, None, None);
        let response = exchange.repeat(Step::Query, &request, Duration::ZERO, Safety::Once).await?;
        if response.status == expected {
            response.json().map_err(|_| Error::unexpected(&response))
        } else {
            Err(Error::of_response(&response))
        }
    }
}
