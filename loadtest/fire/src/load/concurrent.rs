//! Users who compete for the same codes, and clients that send a request several times at once.

use futures::future::join_all;

use super::User;
use crate::client::{ClientRequest, WaitMode};
use crate::fixtures::Kind;
use load_support::orders;
use stampede_client::Operation;

/// Redeems a shared code.
pub(super) async fn use_a_shared_code(user: &mut User<'_>) -> Option<()> {
    let code = user.env.fixtures.any_shared_code(&mut user.rng)?;
    let redeemed = user.send_accepted(orders::redeem(&code, "order-1")).await?;
    if user.rng.percent(20) {
        user.send(Operation::roll_back(&redeemed.redemption.as_ref()?.redemption_id)).await?;
    }
    Some(())
}

/// One request under one key, several times at once, on all instances.
pub(super) async fn send_several_times_at_once(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Cool, &mut user.rng)?;
    let key = user.key();
    let first = ClientRequest::new(
        user.env,
        &user.name,
        Operation::claim(&coupon),
        key,
        WaitMode::any(&mut user.rng),
    );
    let times = user.rng.between(2, 5);
    let all = (0..times).map(|_| {
        let (same, mut rng) = (first.again(WaitMode::any(&mut user.rng)), user.rng.fork());
        async move { same.until_final(&mut rng).await }
    });
    // The history records all responses under one request.
    let outcomes = join_all(all.collect::<Vec<_>>()).await;
    if outcomes.iter().any(Option::is_some) {
        user.env.stats.count_outcome();
    }
    let code = outcomes.iter().flatten().find_map(|outcome| outcome.code.as_deref())?;
    user.send_accepted(orders::redeem(code, "order-1")).await?;
    Some(())
}

/// Claims from a coupon that is sold out most of the time.
pub(super) async fn claim_a_scarce_code(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Scarce, &mut user.rng)?;
    let claimed = user.send_accepted(Operation::claim(&coupon)).await?;
    user.send_accepted(orders::redeem(claimed.code.as_deref()?, "order-1")).await?;
    Some(())
}
