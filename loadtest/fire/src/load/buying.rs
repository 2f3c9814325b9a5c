//! Users who want a code, and those who use it.

use super::User;
use crate::client::{Pursuit, Way};
use crate::shop::Kind;
use stampede_client::deed::Deed;

/// Where codes are claimed without more ado: half of all users want the same coupon.
fn wanted(user: &mut User<'_>) -> Option<String> {
    let kind = if user.dice.percent(50) { Kind::Hot } else { Kind::Cool };
    user.field.shop.any(kind, &mut user.dice)
}

/// Any code.
pub(super) async fn take_any(user: &mut User<'_>) -> Option<()> {
    let coupon = wanted(user)?;
    let outcome = user.get(Deed::Claim(&coupon)).await?;
    user.field.shop.remember(&coupon, outcome.code()?);
    Some(())
}

/// Any code, by a client that does not know what keys are for.
pub(super) async fn take_any_without_a_key(user: &mut User<'_>) -> Option<()> {
    let coupon = wanted(user)?;
    let way = Way::any(&mut user.dice);
    let mut pursuit = Pursuit::of(user.field, &user.name, Deed::Claim(&coupon), None, way).of_the_load();
    pursuit.to_the_end(&mut user.dice).await.map(drop)
}

/// One that somebody else has or had.
pub(super) async fn take_by_name(user: &mut User<'_>) -> Option<()> {
    let (coupon, code) = user.field.shop.any_name(&mut user.dice)?;
    user.get(Deed::ClaimNamed(&coupon, &code)).await?;
    user.get(Deed::Redeem(&code, "order-by-name")).await?;
    Some(())
}

/// Claims, locks for an order, and redeems with it.
pub(super) async fn check_out(user: &mut User<'_>) -> Option<()> {
    let kind = *user.dice.pick(&[Kind::Strict, Kind::Strict, Kind::Cool, Kind::Hot])?;
    let coupon = user.field.shop.any(kind, &mut user.dice)?;
    let claimed = user.get(Deed::Claim(&coupon)).await?;
    let code = claimed.code()?;
    if kind == Kind::Strict || user.dice.percent(50) {
        user.get(Deed::LockFor(code, "order-1")).await?;
    }
    user.get(Deed::Redeem(code, "order-1")).await?;
    if user.dice.percent(10) {
        // Once more, with another order: it is too late for that.
        user.ask(Deed::Redeem(code, "order-2")).await?;
    }
    Some(())
}
