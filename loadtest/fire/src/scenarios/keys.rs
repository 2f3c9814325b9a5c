//! Idempotency-Keys: reused with another body, in parallel, and for two targets.

use futures::future::{join, join_all};

use crate::client::{ClientRequest, WaitMode};
use crate::environment::{Environment, FaultError};
use crate::fixtures::Kind;
use crate::rng::Rng;
use stampede_client::Operation;

const AT_ONCE: usize = 100;

fn two_coupons(env: &Environment, rng: &mut Rng) -> Result<[String; 2], FaultError> {
    let mut all = env.fixtures.all(Kind::Cool);
    rng.shuffle(&mut all);
    match <[String; 2]>::try_from(all.into_iter().take(2).collect::<Vec<_>>()) {
        Ok(two) => Ok(two),
        Err(_) => Err("there are not two coupons".into()),
    }
}

fn any_user(rng: &mut Rng) -> String {
    format!("keyed-{:x}", rng.any())
}

/// Sends one body, another one under the same key, and the first again: the first keeps its outcome.
pub(super) async fn with_another_body(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let [coupon, _] = two_coupons(env, rng)?;
    let user = any_user(rng);
    let key = || Some("one and the same".to_owned());
    let first = ClientRequest::new(env, &user, Operation::claim(&coupon), key(), WaitMode::quick(rng));
    let Some(original) = first.until_final(rng).await else {
        return Err("the first body has no outcome".into());
    };
    let named = Operation::claim_code(&coupon, "NOSUCHCODE");
    const REUSED: &str = "idempotency_key_reused";
    let other = ClientRequest::new(env, &user, named, key(), WaitMode::quick(rng)).allow_problem(REUSED);
    if let Some(other) = other.until_final(rng).await.filter(|other| other.word() != REUSED) {
        env.stats.complain(format!("another body under the same key of {user} got {other:?}"));
    }
    let again = first.again(WaitMode::Wait(2)).until_final(rng).await;
    if let Some(again) = again.filter(|again| again.decided_at != original.decided_at) {
        env.stats.complain(format!("the first body got {original:?}, and then {again:?}"));
    }
    Ok(())
}

/// Sends the same request a hundred times, to all instances at once: one outcome.
pub(super) async fn a_hundred_times(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let [coupon, _] = two_coupons(env, rng)?;
    let first = ClientRequest::new(
        env,
        &any_user(rng),
        Operation::claim(&coupon),
        Some("k".to_owned()),
        WaitMode::Wait(2),
    );
    let all = (0..AT_ONCE).map(|_| {
        let (same, mut rng) = (first.again(WaitMode::quick(rng)), rng.fork());
        async move { same.until_final(&mut rng).await }
    });
    let outcomes = join_all(all.collect::<Vec<_>>()).await;
    let mut codes: Vec<&str> =
        outcomes.iter().flatten().filter_map(|outcome| outcome.code.as_deref()).collect();
    codes.dedup();
    if codes.len() > 1 {
        env.stats.complain(format!("one request, sent a hundred times, got {codes:?}"));
    }
    Ok(())
}

/// Uses the same key for two coupons: two requests.
pub(super) async fn on_two_coupons(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let coupons = two_coupons(env, rng)?;
    let user = any_user(rng);
    let [one, other] = coupons.each_ref().map(|coupon| {
        ClientRequest::new(
            env,
            &user,
            Operation::claim(coupon),
            Some("the same".to_owned()),
            WaitMode::quick(rng),
        )
    });
    let (mut rng, mut others) = (rng.fork(), rng.fork());
    let (one, other) = join(one.until_final(&mut rng), other.until_final(&mut others)).await;
    for (outcome, coupon) in [one, other].iter().zip(&coupons) {
        if let Some(outcome) = outcome.as_ref().filter(|outcome| outcome.coupon_id.as_ref() != Some(coupon)) {
            env.stats.complain(format!("a claim of {coupon} got {outcome:?}"));
        }
    }
    Ok(())
}
