//! Users who try what is not allowed: the outcome has the right reason.

use std::time::Duration;

use tokio::time::sleep;

use crate::client::{ClientRequest, WaitMode};
use crate::environment::{Environment, FaultError};
use crate::fixtures::Kind;
use crate::rng::Rng;
use load_support::orders;
use stampede_client::{Operation, Outcome};

/// A user with a sequence of operations.
struct Actor<'f> {
    env: &'f Environment,
    user: String,
    operations: u32,
}

impl<'f> Actor<'f> {
    fn new(env: &'f Environment, role: &str, rng: &mut Rng) -> Self {
        Self { env, user: format!("{role}-{:x}", rng.any()), operations: 0 }
    }

    async fn send(&mut self, operation: Operation<'_>, rng: &mut Rng) -> Option<Outcome> {
        self.operations += 1;
        let key = Some(format!("operation-{}", self.operations));
        ClientRequest::new(self.env, &self.user, operation, key, WaitMode::quick(rng)).until_final(rng).await
    }

    /// Records a complaint unless the outcome is one of `wanted`.
    async fn expect(&mut self, operation: Operation<'_>, wanted: &[&str], rng: &mut Rng) -> Option<Outcome> {
        let outcome = self.send(operation, rng).await?;
        if !wanted.contains(&outcome.word()) {
            let user = &self.user;
            self.env.stats.complain(format!("{operation:?} of {user} should be {wanted:?}: {outcome:?}"));
        }
        Some(outcome)
    }

    async fn claim(&mut self, kind: Kind, rng: &mut Rng) -> Result<String, FaultError> {
        let coupon = self.env.fixtures.any(kind, rng).ok_or("there is no coupon")?;
        let claimed = self.send(Operation::claim(&coupon), rng).await.ok_or("the claim has no outcome")?;
        Ok(claimed.code.as_deref().ok_or("there is no code to claim")?.to_owned())
    }
}

/// A code of another user is unknown.
pub(super) async fn code_of_another_user(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let (mut owner, mut thief) = (Actor::new(env, "owner", rng), Actor::new(env, "thief", rng));
    let code = owner.claim(Kind::Cool, rng).await?;
    for operation in [
        Operation::lock(&code),
        Operation::unlock(&code),
        Operation::return_code(&code),
        orders::redeem(&code, "stolen"),
    ] {
        thief.expect(operation, &["code_unknown"], rng).await;
    }
    owner.expect(orders::redeem(&code, "own"), &["accepted"], rng).await;
    thief.expect(orders::redeem(&code, "stolen"), &["code_unknown"], rng).await;
    Ok(())
}

/// Redeems before the claim, without the required lock, twice, and after the lapse.
pub(super) async fn redeem_out_of_order(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut early = Actor::new(env, "early", rng);
    early.expect(orders::redeem("NOSUCHCODE", "order"), &["code_unknown"], rng).await;
    let code = early.claim(Kind::Strict, rng).await?;
    early.expect(orders::redeem(&code, "order"), &["not_locked"], rng).await;
    let mut twice = Actor::new(env, "twice", rng);
    let code = twice.claim(Kind::Cool, rng).await?;
    twice.expect(orders::redeem(&code, "order-1"), &["accepted"], rng).await;
    twice.expect(orders::redeem(&code, "order-1"), &["already_redeemed", "order_already_used"], rng).await;
    twice.expect(orders::redeem(&code, "order-2"), &["already_redeemed"], rng).await;
    let mut late = Actor::new(env, "late", rng);
    let code = late.claim(Kind::Brief, rng).await?;
    // Twice the length of the hold.
    sleep(Duration::from_secs(4)).await;
    late.expect(orders::redeem(&code, "order"), &["hold_lapsed"], rng).await;
    Ok(())
}
