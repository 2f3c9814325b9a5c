//! A new coupon with generated codes, made as an admin would make it: through the public API.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::SaleError;
use load_support::screen::Screen;
use stampede_client::http::{Call, Connection, Reply};

const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The API as an admin sees it.
pub struct Admin {
    api: String,
    connection: Connection,
    token: String,
}

/// How long codes are reserved.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A claim that is not redeemed by then goes back to stock; `None`: it never does.
    pub hold_seconds: Option<u64>,
    /// How long a lock lasts.
    pub lock_seconds: u64,
    /// Whether a code must be locked to be redeemed.
    pub requires_lock: bool,
}

#[derive(Deserialize)]
struct Job {
    job_id: String,
    state: String,
    done: u64,
}

#[derive(Deserialize)]
struct Coupon {
    counts: Counts,
}

#[derive(Deserialize)]
struct Counts {
    available: u64,
}

impl Admin {
    /// At one API, with an admin's token.
    #[must_use]
    pub fn new(api: &str, token: String) -> Self {
        Self { api: api.to_owned(), connection: Connection::to(api), token }
    }

    /// Makes a coupon of which each user may have one code, generates its codes, and waits until they can be claimed.
    ///
    /// # Errors
    /// When the API refuses, or the codes do not become stock in time.
    pub async fn make_coupon(
        &mut self,
        coupon: &str,
        codes: u64,
        terms: Terms,
        screen: &Screen,
    ) -> Result<(), SaleError> {
        let Terms { hold_seconds, lock_seconds, requires_lock } = terms;
        let mut definition = json!({
            "id": coupon,
            "name": "Demonstration",
            "description": "First come, first served: one code for each user",
            "category": "demonstration",
            "discount":
                {"type": "PERCENTAGE", "value": "20.00", "currency": "EUR", "maximum_discount": "25.00"},
            "lock_seconds": lock_seconds,
            "requires_lock": requires_lock,
            "limits": {"claims_per_user": 1},
        });
        if let Some(seconds) = hold_seconds {
            definition["hold_seconds"] = json!(seconds);
        }
        self.ask(Method::POST, "/v1/coupons", Some(&definition), StatusCode::CREATED).await?;
        let generate = format!("/v1/coupons/{coupon}/codes/generate");
        let reply =
            self.ask(Method::POST, &generate, Some(&json!({"count": codes})), StatusCode::ACCEPTED).await?;
        let job: Job = read(&generate, &reply)?;
        self.watch(coupon, &job.job_id, codes, screen).await
    }

    /// Generated is not enough: the coupon's owner has to make stock of them.
    async fn watch(
        &mut self,
        coupon: &str,
        job_id: &str,
        codes: u64,
        screen: &Screen,
    ) -> Result<(), SaleError> {
        let begun = Instant::now();
        let mut progress = screen.progress("codes", codes);
        let job_path = format!("/v1/jobs/{job_id}");
        let coupon_path = format!("/v1/coupons/{coupon}");
        loop {
            let reply = self.ask(Method::GET, &job_path, None, StatusCode::OK).await?;
            let job: Job = read(&job_path, &reply)?;
            progress.set(job.done, &job.state);
            let reply = self.ask(Method::GET, &coupon_path, None, StatusCode::OK).await?;
            let Counts { available } = read::<Coupon>(&coupon_path, &reply)?.counts;
            let took = begun.elapsed();
            if available >= codes {
                let seconds = took.as_secs_f64();
                progress
                    .finish(&format!("coupon {coupon}: {codes} codes can be claimed after {seconds:.1} s"));
                return Ok(());
            }
            if took > PATIENCE || job.state == "failed" {
                let Job { state, done, .. } = job;
                return Err(SaleError::NoStock { job: job_id.to_owned(), state, done, available, codes });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Asks, and asks again while the API says that it may be repeated. What got no answer is repeated only where that
    /// changes nothing.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
        wanted: StatusCode,
    ) -> Result<Reply, SaleError> {
        let begun = Instant::now();
        let safe = method == Method::GET;
        if !safe {
            // A connection that the API has closed meanwhile would look like a lost answer.
            self.connection = Connection::to(&self.api);
        }
        let body = body.map(|body| Bytes::from(body.to_string()));
        let call = Call { method, path, token: &self.token, key: None, body };
        loop {
            let again = match self.connection.send(&call, ANSWER_WITHIN).await {
                Ok(reply) if reply.status == wanted => return Ok(reply),
                Ok(reply) if !reply.may_be_repeated() || begun.elapsed() > PATIENCE => {
                    return Err(SaleError::Refused {
                        path: path.to_owned(),
                        status: reply.status.as_u16(),
                        body: String::from_utf8_lossy(&reply.body).chars().take(300).collect(),
                    });
                }
                Ok(reply) => reply.retry_after.unwrap_or(BETWEEN_LOOKS),
                Err(lost) if !safe || begun.elapsed() > PATIENCE => return Err(lost.into()),
                Err(_) => BETWEEN_LOOKS,
            };
            tokio::time::sleep(again).await;
        }
    }
}

fn read<'a, T: Deserialize<'a>>(path: &str, reply: &'a Reply) -> Result<T, SaleError> {
    serde_json::from_slice(&reply.body)
        .map_err(|error| SaleError::Unreadable { path: path.to_owned(), error })
}
