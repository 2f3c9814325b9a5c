//! One request of a user, sent until its outcome is known, and recorded in the history.
//!
//! Every attempt carries the same Idempotency-Key, so a lost response never makes a second request.

use std::time::{Duration, Instant};

use checker::History;
use coupon_core::ids::RequestId;
use coupon_core::words::Reason;
use load_support::recorder::Recorder;
use stampede_client::model::Redemption;
use stampede_client::{Client, Error, Operation, Outcome, RetryPolicy, Status};

/// Longer than any restart: a request without an outcome by then is unresolved.
pub(super) const DEADLINE: Duration = Duration::from_secs(300);

/// What a redemption comes to, in the response and in Postgres: exact decimals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The order.
    pub order_id: String,
    /// Its amount before the discount.
    pub order_amount: String,
    /// The discount.
    pub discount: String,
    /// Its amount after the discount.
    pub final_price: String,
    /// ISO 4217.
    pub currency: String,
}

impl From<Redemption> for Payment {
    fn from(redemption: Redemption) -> Self {
        let Redemption { order_id, order_amount, discount, final_price, currency, .. } = redemption;
        Self { order_id, order_amount, discount, final_price, currency }
    }
}

/// How a request ended for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// The request was accepted.
    Accepted {
        /// The request.
        request: RequestId,
        /// The code.
        code: String,
        /// What the order comes to, if the code was redeemed.
        payment: Option<Box<Payment>>,
    },
    /// The request was decided and rejected.
    Rejected {
        /// The request.
        request: RequestId,
        /// Why.
        reason: String,
    },
    /// The sold-out gate responded; there is no decided request.
    SoldOutGate,
    /// The API rejected the HTTP request.
    HttpError {
        /// HTTP status.
        status: u16,
    },
    /// No outcome by the deadline.
    Unresolved {
        /// Whether the request had been accepted (202).
        accepted: bool,
    },
}

impl StepResult {
    /// Whether the request was rejected for this reason.
    #[must_use]
    pub fn is_rejected_for(&self, expected: Reason) -> bool {
        matches!(self, Self::Rejected { reason, .. } if reason == expected.as_str())
    }

    /// Whether nothing was left.
    #[must_use]
    pub fn is_sold_out(&self) -> bool {
        *self == Self::SoldOutGate || self.is_rejected_for(Reason::SoldOut)
    }

    fn of(result: Result<Outcome, Error>) -> Self {
        match result {
            // An outcome that cannot be read was accepted all the same.
            Ok(outcome) => Self::of_outcome(outcome).unwrap_or(Self::Unresolved { accepted: true }),
            Err(Error::OutcomeNotReceived { .. }) => Self::Unresolved { accepted: true },
            Err(Error::Problem(problem))
                if problem.status.as_u16() == 409 && problem.code == Reason::SoldOut.as_str() =>
            {
                Self::SoldOutGate
            }
            Err(error @ (Error::Problem(_) | Error::UnexpectedResponse { .. })) => {
                Self::HttpError { status: error.status().map_or(0, |status| status.as_u16()) }
            }
            Err(_) => Self::Unresolved { accepted: false },
        }
    }

    fn of_outcome(outcome: Outcome) -> Option<Self> {
        // The part behind the dot is the API's own: when the id was issued, and to which caller.
        let request = RequestId::parse(outcome.request_id.split('.').next()?).ok()?;
        match outcome.status {
            Status::Accepted => {
                let payment = outcome.redemption.map(|redemption| Box::new(redemption.into()));
                Some(Self::Accepted { request, code: outcome.code?, payment })
            }
            Status::Rejected => Some(Self::Rejected { request, reason: outcome.reason? }),
            Status::Pending => None,
        }
    }
}

/// One request of a user.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kind of request.
    pub kind: &'static str,
    /// How it ended.
    pub result: StepResult,
    /// From the first attempt to the result.
    pub took: Duration,
    /// Attempts that were repeated.
    pub retries: u64,
}

/// Where a request belongs in the history.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The user: the subject of the client's token.
    pub user: &'a str,
    /// The coupon of the sale.
    pub coupon: &'a str,
    /// The history.
    pub history: &'a History,
}

/// Sends a request under `key` until its outcome is known; every response is recorded.
pub async fn send(client: &Client, origin: Origin<'_>, operation: Operation<'_>, key: &str) -> Step {
    let started = Instant::now();
    let recorder = Recorder::new(origin.history, origin.user, origin.coupon, Some(key));
    let policy = RetryPolicy { deadline: DEADLINE, ..RetryPolicy::default() };
    let request = client.request(operation).idempotency_key(key).policy(policy).observer(&recorder);
    let result = StepResult::of(request.send_and_wait().await);
    Step { kind: operation.kind(), result, took: started.elapsed(), retries: recorder.retries() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stampede_client::Problem;

    const ID: RequestId = RequestId { identity: 7, body: 9 };

    fn outcome(status: Status) -> Outcome {
        Outcome {
            request_id: format!("{ID}.abc"),
            status,
            kind: None,
            coupon_id: None,
            reason: None,
            retry_at: None,
            code: None,
            claim: None,
            redemption: None,
            decided_at: None,
        }
    }

    fn problem(status: u16, code: &str) -> Error {
        let (kind, title, detail) = Default::default();
        let status = status.try_into().expect("a status");
        let (errors, retry_after) = (Vec::new(), None);
        Error::Problem(Box::new(Problem {
            status,
            kind,
            code: code.to_owned(),
            title,
            detail,
            errors,
            retry_after,
        }))
    }

    #[test]
    fn an_outcome_is_kept_under_the_id_that_postgres_has() {
        let granted = Outcome { code: Some("X".to_owned()), ..outcome(Status::Accepted) };
        let accepted = StepResult::Accepted { request: ID, code: "X".to_owned(), payment: None };
        assert_eq!(StepResult::of(Ok(granted)), accepted);
        let sold_out = Outcome { reason: Some("sold_out".to_owned()), ..outcome(Status::Rejected) };
        assert!(StepResult::of(Ok(sold_out)).is_sold_out());
    }

    #[test]
    fn a_redemption_is_kept_with_its_money() {
        let text = str::to_owned;
        let redemption = Redemption {
            redemption_id: ID.to_string(),
            code: text("X"),
            order_id: text("o"),
            order_amount: text("10.00"),
            discount: text("2.00"),
            final_price: text("8.00"),
            currency: text("EUR"),
            redeemed_at: text("…"),
        };
        let redeemed =
            Outcome { code: Some(text("X")), redemption: Some(redemption), ..outcome(Status::Accepted) };
        let StepResult::Accepted { payment: Some(payment), .. } = StepResult::of(Ok(redeemed)) else {
            unreachable!("it has a redemption")
        };
        assert_eq!((&*payment.discount, &*payment.final_price, &*payment.currency), ("2.00", "8.00", "EUR"));
    }

    #[test]
    fn an_error_is_sorted_by_what_is_known_about_the_request() {
        assert_eq!(StepResult::of(Err(problem(409, "sold_out"))), StepResult::SoldOutGate);
        assert_eq!(StepResult::of(Err(problem(401, "x"))), StepResult::HttpError { status: 401 });
        let cause = || stampede_client::Cause::Deadline(DEADLINE);
        let unconfirmed = Error::Unconfirmed { idempotency_key: None, cause: cause() };
        assert_eq!(StepResult::of(Err(unconfirmed)), StepResult::Unresolved { accepted: false });
        let accepted = Error::OutcomeNotReceived { request_id: ID.to_string(), cause: cause() };
        assert_eq!(StepResult::of(Err(accepted)), StepResult::Unresolved { accepted: true });
    }
}
