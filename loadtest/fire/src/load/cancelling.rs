//! Users who cancel, return, or let a claim lapse.

use std::time::Duration;

use tokio::time::sleep;

use super::User;
use crate::fixtures::Kind;
use load_support::orders;
use stampede_client::{Operation, Order};

/// Redeems, and cancels the order.
pub(super) async fn cancel_the_order(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Cool, &mut user.rng)?;
    let claimed = user.send_accepted(Operation::claim(&coupon)).await?;
    let code = claimed.code.as_deref()?;
    let redeemed = user.send_accepted(Operation::redeem(code, Order::new("order-1", "59.90", "EUR"))).await?;
    let redemption = &redeemed.redemption.as_ref()?.redemption_id;
    user.send(Operation::roll_back(redemption)).await?;
    if user.rng.percent(30) {
        user.send(Operation::roll_back(redemption)).await?;
    }
    user.send_accepted(Operation::return_code(code)).await?;
    user.env.fixtures.record_code(&coupon, code);
    Some(())
}

/// Locks, releases, returns, and claims the same code again by name.
pub(super) async fn give_back(user: &mut User<'_>) -> Option<()> {
    let kind = *user.rng.pick(&[Kind::Strict, Kind::Cool, Kind::Hot])?;
    let coupon = user.env.fixtures.any(kind, &mut user.rng)?;
    let claimed = user.send_accepted(Operation::claim(&coupon)).await?;
    let code = claimed.code.as_deref()?;
    if user.rng.percent(60) {
        user.send_accepted(Operation::lock(code)).await?;
        user.send_accepted(Operation::unlock(code)).await?;
    }
    user.send_accepted(Operation::return_code(code)).await?;
    user.env.fixtures.record_code(&coupon, code);
    if user.rng.percent(50) {
        user.send_accepted(Operation::claim_code(&coupon, code)).await?;
        user.send_accepted(Operation::return_code(code)).await?;
    }
    Some(())
}

/// Claims a code that is held for two seconds, may lock it, and redeems around the end of the hold.
pub(super) async fn let_lapse(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Brief, &mut user.rng)?;
    let claimed = user.send_accepted(Operation::claim(&coupon)).await?;
    let code = claimed.code.as_deref()?;
    user.env.fixtures.record_code(&coupon, code);
    if user.rng.percent(50) {
        user.send_accepted(Operation::lock(code)).await?;
    }
    if user.rng.percent(70) {
        sleep(Duration::from_millis(user.rng.between(1_000, 4_000))).await;
        user.send(orders::redeem(code, "order-late")).await?;
    }
    Some(())
}

/// Has a code that is revoked.
pub(super) async fn have_revoked(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Cool, &mut user.rng)?;
    let claimed = user.send_accepted(Operation::claim(&coupon)).await?;
    let code = claimed.code.as_deref()?;
    user.send_accepted(Operation::revoke(code)).await?;
    user.send(orders::redeem(code, "order-1")).await?;
    Some(())
}
