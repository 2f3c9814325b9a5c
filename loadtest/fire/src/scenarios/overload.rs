//! Overload: a backlog, one hot or sold-out coupon, an API at its bound of pending requests.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;

use super::kafka::freeze_for;
use super::worker::any_api;
use crate::client::{ClientRequest, WaitMode};
use crate::environment::{Environment, FaultError};
use crate::fixtures::Kind;
use crate::rng::Rng;
use stampede_client::Operation;

/// Users that claim at the same time.
const CLAIMS: usize = 300;

/// Claims any code of one coupon for `users` users at the same time, half of them with a key.
pub(super) async fn concurrent_claims(env: &Environment, coupon: &str, users: usize, rng: &mut Rng) {
    let tag = rng.any();
    let all = (0..users).map(|n| {
        let (user, mut rng) = (format!("claimer-{tag:x}-{n}"), rng.fork());
        let key = n.is_multiple_of(2).then(|| "k".to_owned());
        async move {
            ClientRequest::new(env, &user, Operation::claim(coupon), key, WaitMode::quick(&mut rng))
                .until_final(&mut rng)
                .await
        }
    });
    join_all(all.collect::<Vec<_>>()).await;
}

/// Freezes all workers while claims arrive; holds and locks end in the middle of the backlog.
pub(super) async fn backlog(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let coupon = env.fixtures.any(Kind::Brief, rng).ok_or("there is no coupon")?;
    let workers = env.workers();
    for worker in &workers {
        env.stack.freeze(*worker).ok();
    }
    let claims = concurrent_claims(env, &coupon, CLAIMS, rng);
    let resume = async {
        sleep(Duration::from_millis(3_000)).await;
        workers.iter().for_each(|worker| env.stack.resume(*worker).unwrap_or(()));
    };
    tokio::join!(claims, resume);
    Ok(())
}

/// Claims a sold-out coupon.
pub(super) async fn claims_of_a_sold_out_coupon(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let coupon = env.fixtures.any(Kind::Scarce, rng).ok_or("there is no coupon")?;
    concurrent_claims(env, &coupon, CLAIMS, rng).await;
    Ok(())
}

/// Claims one coupon; the probes that follow show that other partitions continue.
pub(super) async fn hot_coupon(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let coupon = env.fixtures.any(Kind::Hot, rng).ok_or("there is no coupon")?;
    concurrent_claims(env, &coupon, CLAIMS, rng).await;
    Ok(())
}

/// An API with a small bound on pending requests, while the broker acknowledges nothing: further requests are rejected
/// immediately and retried by their clients.
pub(super) async fn admission_limit(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let api = any_api(env, rng);
    let small = [("STAMPEDE_MAX_PENDING", "20"), ("STAMPEDE_MAX_PENDING_PER_PARTITION", "5")];
    env.restart_once_with(api, &small).await?;
    env.stack.wait_healthy(api).await?;
    freeze_for(env, Duration::from_millis(rng.between(500, 1_500))).await?;
    sleep(Duration::from_millis(1_000)).await;
    env.stack.stop_child(api).await.ok();
    env.restart_children(&[api]).await?;
    Ok(())
}
