//! Users who change their minds, or forget.

use std::time::Duration;

use tokio::time::sleep;

use super::User;
use crate::shop::Kind;
use stampede_client::deed::Deed;

/// Redeems, and cancels the order.
pub(super) async fn cancel_the_order(user: &mut User<'_>) -> Option<()> {
    let coupon = user.field.shop.any(Kind::Cool, &mut user.dice)?;
    let claimed = user.get(Deed::Claim(&coupon)).await?;
    let code = claimed.code()?;
    let redeemed = user.get(Deed::Pay(code, "order-1", ["59.90", "EUR"])).await?;
    let redemption = redeemed.redemption()?;
    user.ask(Deed::RollBack(redemption)).await?;
    if user.dice.percent(30) {
        user.ask(Deed::RollBack(redemption)).await?;
    }
    user.get(Deed::Return(code)).await?;
    user.field.shop.remember(&coupon, code);
    Some(())
}

/// Locks, releases, gives back, and takes the same code again by its name.
pub(super) async fn give_back(user: &mut User<'_>) -> Option<()> {
    let kind = *user.dice.pick(&[Kind::Strict, Kind::Cool, Kind::Hot])?;
    let coupon = user.field.shop.any(kind, &mut user.dice)?;
    let claimed = user.get(Deed::Claim(&coupon)).await?;
    let code = claimed.code()?;
    if user.dice.percent(60) {
        user.get(Deed::Lock(code)).await?;
        user.get(Deed::Unlock(code)).await?;
    }
    user.get(Deed::Return(code)).await?;
    user.field.shop.remember(&coupon, code);
    if user.dice.percent(50) {
        user.get(Deed::ClaimNamed(&coupon, code)).await?;
        user.get(Deed::Return(code)).await?;
    }
    Some(())
}

/// Claims what is held for two seconds, may lock it, and comes back about when it is too late.
pub(super) async fn let_lapse(user: &mut User<'_>) -> Option<()> {
    let coupon = user.field.shop.any(Kind::Brief, &mut user.dice)?;
    let claimed = user.get(Deed::Claim(&coupon)).await?;
    let code = claimed.code()?;
    user.field.shop.remember(&coupon, code);
    if user.dice.percent(50) {
        user.get(Deed::Lock(code)).await?;
    }
    if user.dice.percent(70) {
        sleep(Duration::from_millis(user.dice.between(1_000, 4_000))).await;
        user.ask(Deed::Redeem(code, "order-late")).await?;
    }
    Some(())
}

/// Has a code that turns out to be a wrong one.
pub(super) async fn have_revoked(user: &mut User<'_>) -> Option<()> {
    let coupon = user.field.shop.any(Kind::Cool, &mut user.dice)?;
    let claimed = user.get(Deed::Claim(&coupon)).await?;
    let code = claimed.code()?;
    user.get(Deed::Revoke(code)).await?;
    user.ask(Deed::Redeem(code, "order-1")).await?;
    Some(())
}
