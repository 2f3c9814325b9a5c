//! Users who want what others want at the same time, and impatient ones.

use futures::future::join_all;

use super::User;
use crate::client::{Pursuit, Way};
use crate::shop::Kind;
use stampede_client::deed::Deed;

/// Redeems a code that is printed on a poster.
pub(super) async fn use_a_shared_code(user: &mut User<'_>) -> Option<()> {
    let code = user.field.shop.any_shared_code(&mut user.dice)?;
    let redeemed = user.get(Deed::Redeem(&code, "order-1")).await?;
    if user.dice.percent(20) {
        user.ask(Deed::RollBack(redeemed.redemption()?)).await?;
    }
    Some(())
}

/// One request under one key, several times at once, on all instances.
pub(super) async fn send_several_times_at_once(user: &mut User<'_>) -> Option<()> {
    let coupon = user.field.shop.any(Kind::Cool, &mut user.dice)?;
    let key = user.key();
    let first = Pursuit::of(user.field, &user.name, Deed::Claim(&coupon), key, Way::any(&mut user.dice));
    let times = user.dice.between(2, 5);
    let all = (0..times).map(|_| {
        let (mut same, mut dice) = (first.again(Way::any(&mut user.dice)), user.dice.fork());
        async move { same.to_the_end(&mut dice).await }
    });
    // What each was told is in the history, as answers to one request.
    let told = join_all(all.collect::<Vec<_>>()).await;
    if told.iter().any(Option::is_some) {
        user.field.score.decide();
    }
    let code = told.iter().flatten().find_map(|outcome| outcome.code())?;
    user.get(Deed::Redeem(code, "order-1")).await?;
    Some(())
}

/// Mostly there is nothing left.
pub(super) async fn come_to_what_is_scarce(user: &mut User<'_>) -> Option<()> {
    let coupon = user.field.shop.any(Kind::Scarce, &mut user.dice)?;
    let claimed = user.get(Deed::Claim(&coupon)).await?;
    user.get(Deed::Redeem(claimed.code()?, "order-1")).await?;
    Some(())
}
