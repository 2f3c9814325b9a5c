//! All users of a sale at the same time.
//!
//! A fixed number of tasks is in flight; each serves one user after another: the first claim, and what follows from it
//! without waiting. A user who has to wait (for a hold to lapse, for a code that returns to stock) moves to a task of
//! its own and makes room for the next. Reading order: [`user`] (one user), [`request_flow`] (one request), [`order`],
//! [`counter_poller`] (where users wait for a code).

pub mod counter_poller;
pub mod order;
pub mod request_flow;
pub mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use load_support::tokens::Tokens;
use local_stack::{Child, Stack};
use tokio::task::JoinSet;

use crate::args::Share;
use crate::error::SaleError;
use user::{CheckoutResult, ClaimResult, ReturnReason, Sale, User, UserRecord, name};

/// Longer than the longest sale.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The users of a sale and their counters.
pub struct Users {
    /// What all users share.
    pub sale: Sale,
    /// How many users there are.
    pub count: u64,
    /// How many are in flight at the same time.
    pub in_flight: u64,
    /// Which share of the winners lets the code lapse.
    pub lapse: Share,
    /// How many of the users who get `sold_out` wait for a code that returns to stock.
    pub waiters: u64,
    /// Signs the users' tokens.
    pub jwt_secret: String,
    /// A child of the stack to kill in the middle of the sale.
    pub kill: Option<KillPlan>,
    /// Live counters.
    pub counters: Counters,
}

/// Live counters of a sale.
#[derive(Debug, Default)]
pub struct Counters {
    /// Users who have started.
    started: AtomicU64,
    /// Users whose first claim has a result.
    pub decided: AtomicU64,
    /// Of these, users with a code.
    pub won: AtomicU64,
    /// Of these, users who got `sold_out`.
    pub sold_out: AtomicU64,
    /// Codes that were redeemed.
    pub redeemed: AtomicU64,
    /// Users who wait and will return.
    pub waiting: AtomicU64,
    /// When the last first claim got its result, in microseconds since the start.
    rush_micros: AtomicU64,
    /// `decided` when a child was killed.
    killed_at: AtomicU64,
}

/// SIGKILL for one of the stack's children in the middle of the sale.
pub struct KillPlan {
    /// The stack.
    pub stack: Arc<Stack>,
    /// The child.
    pub child: Child,
    /// How many users must have the result of their first claim before.
    pub after: u64,
    /// Prints a line.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

/// What all users did.
pub struct Records {
    /// The requests of each user, and their results.
    pub users: Vec<UserRecord>,
    /// From the first claim until every user had the result of the first claim.
    pub rush: Duration,
    /// From the first claim to the last result.
    pub total: Duration,
    /// How many users had the result of their first claim when a child was killed.
    pub killed_at: Option<u64>,
}

impl Users {
    /// Runs all users until each has its last result.
    ///
    /// # Errors
    /// When a token cannot be signed, or a child cannot be killed.
    pub async fn run(self: &Arc<Self>) -> Result<Records, SaleError> {
        let started = Instant::now();
        let reader = Tokens::new(&self.jwt_secret, TOKEN_LIFETIME).issue("reader", "user")?;
        let reader = self.sale.client.with_token(&reader);
        let all_users = async {
            // Dropped with this future, which ends all claims.
            let mut slots = JoinSet::new();
            for _ in 0..self.in_flight.min(self.count) {
                slots.spawn(Arc::clone(self).run_slot(started));
            }
            let mut users = Vec::with_capacity(usize::try_from(self.count).unwrap_or(0));
            while let Some(slot) = slots.join_next().await {
                users.extend(slot.map_err(|_| SaleError::TaskFailed)??);
            }
            Ok::<_, SaleError>(users)
        };
        let polling = async {
            self.sale.poller.run(&reader, &self.sale.coupon).await;
            std::future::pending().await
        };
        let users = tokio::select! {
            users = all_users => users?,
            () = polling => Vec::new(),
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let killed_at = read(&self.counters.killed_at);
        Ok(Records {
            users,
            rush: Duration::from_micros(read(&self.counters.rush_micros)),
            total: started.elapsed(),
            killed_at: (killed_at > 0).then_some(killed_at),
        })
    }

    /// One slot in flight: one user after another, then those of its users who wait.
    async fn run_slot(self: Arc<Self>, started: Instant) -> Result<Vec<UserRecord>, SaleError> {
        let tokens = Tokens::new(&self.jwt_secret, TOKEN_LIFETIME);
        let mut records = Vec::new();
        let mut waiting = JoinSet::new();
        loop {
            let n = self.counters.started.fetch_add(1, Ordering::Relaxed) + 1;
            if n > self.count {
                break;
            }
            let token = tokens.issue(&name(n), "user")?;
            let mut user = User::new(n, self.sale.client.with_token(&token));
            match self.serve(&mut user, started).await? {
                Some(reason) => drop(waiting.spawn(Arc::clone(&self).wait_and_return(user, reason))),
                None => records.push(user.into_record()),
            }
        }
        while let Some(record) = waiting.join_next().await {
            records.push(record.map_err(|_| SaleError::TaskFailed)?);
        }
        Ok(records)
    }

    /// A user's first claim and what follows without waiting; `Some`: the user will return.
    async fn serve(&self, user: &mut User, started: Instant) -> Result<Option<ReturnReason>, SaleError> {
        let claim = user.claim(&self.sale).await;
        let elapsed = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.rush_micros.fetch_max(elapsed, Ordering::SeqCst);
        if user.has_result() {
            let decided = self.counters.decided.fetch_add(1, Ordering::SeqCst) + 1;
            self.kill_after(decided)?;
        }
        Ok(match claim {
            ClaimResult::Code(code) => self.keep_or_lapse(user, code).await,
            ClaimResult::SoldOut => {
                let before = self.counters.sold_out.fetch_add(1, Ordering::SeqCst);
                (before < self.waiters).then_some(ReturnReason::SoldOut)
            }
            ClaimResult::Other => None,
        })
    }

    /// Checks a code out, or lets it lapse. Every second code that lapses is locked before.
    async fn keep_or_lapse(&self, user: &mut User, code: String) -> Option<ReturnReason> {
        let winner = self.counters.won.fetch_add(1, Ordering::SeqCst);
        if let Some(nth) = self.lapse.picks(winner) {
            if nth % 2 == 0 {
                user.lock(&self.sale, &code).await;
            }
            return Some(ReturnReason::LetLapse(code));
        }
        match user.check_out(&self.sale, &code).await {
            CheckoutResult::Redeemed => {
                self.counters.redeemed.fetch_add(1, Ordering::Relaxed);
                None
            }
            CheckoutResult::Lapsed => Some(ReturnReason::Lapsed),
            CheckoutResult::Other => None,
        }
    }

    async fn wait_and_return(self: Arc<Self>, user: User, reason: ReturnReason) -> UserRecord {
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let record = user.wait_and_return(&self.sale, reason).await;
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        self.counters.redeemed.fetch_add(u64::from(record.has_redeemed()), Ordering::Relaxed);
        record
    }

    fn kill_after(&self, decided: u64) -> Result<(), SaleError> {
        match &self.kill {
            // Exactly one user has this number.
            Some(kill) if decided == kill.after => {
                kill.stack.kill(kill.child)?;
                let killed_at = self.counters.decided.load(Ordering::SeqCst);
                self.counters.killed_at.store(killed_at, Ordering::SeqCst);
                (kill.log)(&format!(
                    "SIGKILL for {}: {killed_at} of {} users have the result of their claim",
                    kill.child, self.count
                ));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
