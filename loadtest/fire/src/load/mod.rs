//! The load: users who start at a fixed rate, whether or not earlier requests have their outcome (an open model). Each
//! runs one of several flows.
//!
//! A new flow is a function and a line in [`USER_FLOWS`].

mod buying;
mod cancelling;
mod concurrent;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::client::{ClientRequest, WaitMode};
use super::environment::Environment;
use super::rng::Rng;
use stampede_client::{Operation, Outcome};

/// Bound on active users; a user beyond it is counted and not started.
const MAX_USERS: usize = 3_000;
const TICK: Duration = Duration::from_millis(10);
/// Requests per user, as long as too few users have finished to measure it.
const USUAL_REQUESTS: f64 = 2.5;
/// User ids that are used again and again, so that limits are reached.
const REGULARS: usize = 200;

type RunFlow = for<'u> fn(&'u mut User<'_>) -> BoxFuture<'u, Option<()>>;

/// A flow, and the share of users that run it, in percent.
struct UserFlow {
    share: usize,
    run: RunFlow,
}

/// Shares add up to 100, which a test checks.
const USER_FLOWS: &[UserFlow] = &[
    UserFlow { share: 24, run: |user| Box::pin(buying::take_any(user)) },
    UserFlow { share: 6, run: |user| Box::pin(buying::take_any_without_a_key(user)) },
    UserFlow { share: 8, run: |user| Box::pin(buying::take_by_name(user)) },
    UserFlow { share: 18, run: |user| Box::pin(buying::check_out(user)) },
    UserFlow { share: 8, run: |user| Box::pin(cancelling::cancel_the_order(user)) },
    UserFlow { share: 8, run: |user| Box::pin(cancelling::give_back(user)) },
    UserFlow { share: 8, run: |user| Box::pin(cancelling::let_lapse(user)) },
    UserFlow { share: 1, run: |user| Box::pin(cancelling::have_revoked(user)) },
    UserFlow { share: 8, run: |user| Box::pin(concurrent::use_a_shared_code(user)) },
    UserFlow { share: 5, run: |user| Box::pin(concurrent::send_several_times_at_once(user)) },
    UserFlow { share: 2, run: |user| Box::pin(concurrent::claim_a_scarce_code(user)) },
    UserFlow { share: 4, run: |user| Box::pin(reading::read_resources(user)) },
];

/// A user that runs a flow.
pub struct User<'f> {
    env: &'f Environment,
    name: String,
    rng: Rng,
    keys: u32,
}

impl<'f> User<'f> {
    fn new(env: &'f Environment, n: u64, mut rng: Rng) -> Self {
        let name =
            if rng.percent(10) { format!("regular-{}", rng.below(REGULARS)) } else { format!("user-{n}") };
        // A returning user must not use a key twice: that would be the same request.
        let keys = u32::try_from(n & 0xffff).unwrap_or(0) << 8;
        Self { env, name, rng, keys }
    }

    fn key(&mut self) -> Option<String> {
        self.keys += 1;
        Some(format!("key-{}-{:x}", self.keys, self.rng.any()))
    }

    /// Sends a request with a new key, waits in a random mode, and returns the outcome.
    async fn send(&mut self, operation: Operation<'_>) -> Option<Outcome> {
        let (key, mode) = (self.key(), WaitMode::any(&mut self.rng));
        let name = match operation.role() {
            "service" => "shop",
            "admin" => "admin",
            _ => &self.name,
        };
        let request = ClientRequest::new(self.env, name, operation, key, mode).counted();
        request.until_final(&mut self.rng).await
    }

    /// The same; `None` unless the outcome is accepted.
    async fn send_accepted(&mut self, operation: Operation<'_>) -> Option<Outcome> {
        self.send(operation).await.filter(Outcome::is_accepted)
    }

    async fn run_flow(&mut self) {
        let mut draw = self.rng.below(100);
        for flow in USER_FLOWS {
            if draw < flow.share {
                // A flow ends early at a rejection.
                (flow.run)(self).await.unwrap_or_default();
                return;
            }
            draw -= flow.share;
        }
    }
}

/// Starts users at `rate` requests per second until `stop` is cancelled, then waits until all of them have finished.
pub async fn run(env: Arc<Environment>, seed: u64, rate: f64, stop: CancellationToken) {
    let mut rng = Rng::new(seed);
    let mut users = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut due, mut last, mut started) = (0.0, Instant::now(), 0_u64);
    while !stop.is_cancelled() {
        let now = tick.tick().await;
        let per_user = requests_per_user(&env);
        due += rate / per_user * now.saturating_duration_since(last).as_secs_f64();
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            started += 1;
            if users.len() >= MAX_USERS {
                env.stats.shed();
                continue;
            }
            env.stats.count_user();
            let (env, rng) = (Arc::clone(&env), rng.fork());
            users.spawn(async move { User::new(&env, started, rng).run_flow().await });
        }
        while users.try_join_next().is_some() {}
    }
    while users.join_next().await.is_some() {}
}

/// Measured so far, so that the rate is one of requests whatever the mix of flows.
fn requests_per_user(env: &Environment) -> f64 {
    let users = env.stats.users();
    if users < 100 {
        return USUAL_REQUESTS;
    }
    (env.history.len() as f64 / users as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_flows_add_up_to_100() {
        assert_eq!(USER_FLOWS.iter().map(|flow| flow.share).sum::<usize>(), 100);
    }
}
