//! Users who claim a code, and may redeem it.

use super::User;
use crate::client::{ClientRequest, WaitMode};
use crate::fixtures::Kind;
use load_support::orders;
use stampede_client::Operation;

/// A coupon to claim from: half of all users claim from the same one.
fn coupon_to_claim(user: &mut User<'_>) -> Option<String> {
    let kind = if user.rng.percent(50) { Kind::Hot } else { Kind::Cool };
    user.env.fixtures.any(kind, &mut user.rng)
}

/// Any code.
pub(super) async fn take_any(user: &mut User<'_>) -> Option<()> {
    let coupon = coupon_to_claim(user)?;
    let outcome = user.send_accepted(Operation::claim(&coupon)).await?;
    user.env.fixtures.record_code(&coupon, outcome.code.as_deref()?);
    Some(())
}

/// Any code, by a client without an Idempotency-Key.
pub(super) async fn take_any_without_a_key(user: &mut User<'_>) -> Option<()> {
    let coupon = coupon_to_claim(user)?;
    let mode = WaitMode::any(&mut user.rng);
    let request = ClientRequest::new(user.env, &user.name, Operation::claim(&coupon), None, mode).counted();
    request.until_final(&mut user.rng).await.map(drop)
}

/// A named code that another user has or had.
pub(super) async fn take_by_name(user: &mut User<'_>) -> Option<()> {
    let (coupon, code) = user.env.fixtures.any_code(&mut user.rng)?;
    user.send_accepted(Operation::claim_code(&coupon, &code)).await?;
    user.send_accepted(orders::redeem(&code, "order-by-name")).await?;
    Some(())
}

/// Claims, locks for an order, and redeems with it.
pub(super) async fn check_out(user: &mut User<'_>) -> Option<()> {
    let kind = *user.rng.pick(&[Kind::Strict, Kind::Strict, Kind::Cool, Kind::Hot])?;
    let coupon = user.env.fixtures.any(kind, &mut user.rng)?;
    let claimed = user.send_accepted(Operation::claim(&coupon)).await?;
    let code = claimed.code.as_deref()?;
    if kind == Kind::Strict || user.rng.percent(50) {
        user.send_accepted(Operation::lock_for(code, "order-1")).await?;
    }
    user.send_accepted(orders::redeem(code, "order-1")).await?;
    if user.rng.percent(10) {
        // Again with another order: rejected.
        user.send(orders::redeem(code, "order-2")).await?;
    }
    Some(())
}
