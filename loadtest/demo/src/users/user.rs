//! One user of the sale: claims a code, locks it for a checkout, and redeems it.
//!
//! Some users let their code lapse; they return too late, get `hold_lapsed`, and claim again. Some users who get
//! `sold_out` wait for a code that returns to stock. A user counts by the result of the last claim.

use std::time::{Duration, Instant};

use checker::History;
use coupon_core::words::Reason;
use stampede_client::{Client, Operation};

use super::counter_poller::CounterPoller;
use super::order::UserOrder;
use super::request_flow::{Origin, Step, StepResult, send};

/// How long after the end of their hold users return who let it lapse: the waiting users claim before them.
const RETURN_DELAY: Duration = Duration::from_secs(1);
/// No user starts another claim later than this.
const RETURN_LIMIT: Duration = Duration::from_secs(600);
/// Checkouts of one code, if its lock lapses again and again in the middle.
const MAX_CHECKOUTS: usize = 10;

/// What all users of a sale share.
pub struct Sale {
    /// The API.
    pub client: Client,
    /// The coupon that all users claim.
    pub coupon: String,
    /// How long a claim is held, and a lock lasts.
    pub hold: Duration,
    /// Every request and response.
    pub history: History,
    /// Where users wait for a code.
    pub poller: CounterPoller,
}

/// What one user did.
#[derive(Clone, Debug)]
pub struct UserRecord {
    /// The user.
    pub user: String,
    /// All requests with their results; the first is a claim.
    pub steps: Vec<Step>,
    /// Whether the user let a code lapse on purpose.
    pub let_lapse: bool,
    /// Whether the user got `sold_out` and waited.
    pub waited: bool,
}

impl UserRecord {
    /// Whether one of the requests redeemed a code.
    #[must_use]
    pub fn has_redeemed(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.result, StepResult::Accepted { payment: Some(_), .. }))
    }

    /// The result of the last claim.
    #[must_use]
    pub fn last_claim(&self) -> Option<&StepResult> {
        self.steps.iter().rev().find(|step| step.kind == schemas::kinds::CLAIM).map(|step| &step.result)
    }
}

/// A user, and what it did so far.
pub struct User {
    client: Client,
    order: UserOrder,
    started: Instant,
    record: UserRecord,
}

/// How a claim ended.
pub enum ClaimResult {
    /// With this code.
    Code(String),
    /// Nothing is left.
    SoldOut,
    /// With a result that another claim does not change.
    Other,
}

/// How a checkout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckoutResult {
    /// The code is redeemed.
    Redeemed,
    /// The hold lapsed before; the code is no longer the user's.
    Lapsed,
    /// With a result that another attempt does not change.
    Other,
}

/// Why a user returns.
pub enum ReturnReason {
    /// The hold lapsed in the middle of the checkout.
    Lapsed,
    /// The user lets this code lapse.
    LetLapse(String),
    /// The user got `sold_out` and waits.
    SoldOut,
}

impl User {
    /// User number `n`; `client` has its token.
    #[must_use]
    pub fn new(n: u64, client: Client) -> Self {
        let record = UserRecord { user: name(n), steps: Vec::new(), let_lapse: false, waited: false };
        Self { client, order: UserOrder::new(n), started: Instant::now(), record }
    }

    /// What the user did.
    #[must_use]
    pub fn into_record(self) -> UserRecord {
        self.record
    }

    /// Whether the last request has a result.
    #[must_use]
    pub fn has_result(&self) -> bool {
        let last = self.record.steps.last();
        last.is_some_and(|step| !matches!(step.result, StepResult::Unresolved { .. }))
    }

    /// Claims any code.
    pub async fn claim(&mut self, sale: &Sale) -> ClaimResult {
        match self.send(sale, Operation::claim(&sale.coupon)).await {
            StepResult::Accepted { code, .. } => ClaimResult::Code(code.clone()),
            result if result.is_sold_out() => ClaimResult::SoldOut,
            _ => ClaimResult::Other,
        }
    }

    /// Locks a code for the user's order; returns whether it is locked.
    pub async fn lock(&mut self, sale: &Sale, code: &str) -> bool {
        let order = self.order.clone();
        let result = self.send(sale, Operation::lock_for(code, &order.id)).await;
        matches!(result, StepResult::Accepted { .. })
    }

    /// Locks and redeems a code; again, if the lock lapses in between.
    pub async fn check_out(&mut self, sale: &Sale, code: &str) -> CheckoutResult {
        for _ in 0..MAX_CHECKOUTS {
            if !self.lock(sale, code).await && !self.was_rejected_for(Reason::AlreadyLocked) {
                break;
            }
            if self.redeem(sale, code).await {
                return CheckoutResult::Redeemed;
            }
            if !self.was_rejected_for(Reason::LockLapsed) && !self.was_rejected_for(Reason::NotLocked) {
                break;
            }
        }
        if self.was_rejected_for(Reason::HoldLapsed) { CheckoutResult::Lapsed } else { CheckoutResult::Other }
    }

    /// Waits, returns, and claims until the user has redeemed a code or the sale has ended.
    pub async fn wait_and_return(mut self, sale: &Sale, reason: ReturnReason) -> UserRecord {
        match reason {
            ReturnReason::Lapsed => {}
            ReturnReason::LetLapse(code) => {
                self.record.let_lapse = true;
                tokio::time::sleep(sale.hold + RETURN_DELAY).await;
                if self.redeem(sale, &code).await {
                    return self.record;
                }
            }
            ReturnReason::SoldOut => {
                if !self.wait_for_code(sale).await {
                    return self.record;
                }
            }
        }
        while self.started.elapsed() < RETURN_LIMIT {
            match self.claim(sale).await {
                ClaimResult::Code(code) => match self.check_out(sale, &code).await {
                    CheckoutResult::Lapsed => {}
                    CheckoutResult::Redeemed | CheckoutResult::Other => break,
                },
                ClaimResult::SoldOut if self.wait_for_code(sale).await => {}
                ClaimResult::SoldOut | ClaimResult::Other => break,
            }
        }
        self.record
    }

    /// Waits for a code that returns to stock; `false`: the sale has ended.
    async fn wait_for_code(&mut self, sale: &Sale) -> bool {
        self.record.waited = true;
        sale.poller.wait_for_code().await
    }

    async fn redeem(&mut self, sale: &Sale, code: &str) -> bool {
        let order = self.order.clone();
        let result = self.send(sale, Operation::redeem(code, order.as_order())).await;
        matches!(result, StepResult::Accepted { .. })
    }

    async fn send(&mut self, sale: &Sale, operation: Operation<'_>) -> &StepResult {
        // Each step of a user has a key of its own: a further claim is another request, a retry is not.
        let key = format!("{}-{}-{}", sale.coupon, operation.kind(), self.record.steps.len());
        let origin = Origin { user: &self.record.user, coupon: &sale.coupon, history: &sale.history };
        let step = send(&self.client, origin, operation, &key).await;
        &self.record.steps.push_mut(step).result
    }

    fn was_rejected_for(&self, reason: Reason) -> bool {
        self.record.steps.last().is_some_and(|step| step.result.is_rejected_for(reason))
    }
}

/// The name of user number `n`: the subject of its token.
#[must_use]
pub fn name(n: u64) -> String {
    format!("user-{n:06}")
}
