//! Users who cancel, return, or let a claim lapse.

use std::time::Duration;

use tokio::time::sleep;

use super::User;
use crate::fixtures::Kind;
use stampede_client::raw_operation::RawOperation;

/// Redeems, and cancels the order.
pub(super) async fn cancel_the_order(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Cool, &mut user.rng)?;
    let claimed = user.send_accepted(RawOperation::Claim(&coupon)).await?;
    let code = claimed.code()?;
    let redeemed = user.send_accepted(RawOperation::Pay(code, "order-1", ["59.90", "EUR"])).await?;
    let redemption = redeemed.redemption()?;
    user.send(RawOperation::RollBack(redemption)).await?;
    if user.rng.percent(30) {
        user.send(RawOperation::RollBack(redemption)).await?;
    }
    user.send_accepted(RawOperation::Return(code)).await?;
    user.env.fixtures.record_code(&coupon, code);
    Some(())
}

/// Locks, releases, returns, and claims the same code again by name.
pub(super) async fn give_back(user: &mut User<'_>) -> Option<()> {
    let kind = *user.rng.pick(&[Kind::Strict, Kind::Cool, Kind::Hot])?;
    let coupon = user.env.fixtures.any(kind, &mut user.rng)?;
    let claimed = user.send_accepted(RawOperation::Claim(&coupon)).await?;
    let code = claimed.code()?;
    if user.rng.percent(60) {
        user.send_accepted(RawOperation::Lock(code)).await?;
        user.send_accepted(RawOperation::Unlock(code)).await?;
    }
    user.send_accepted(RawOperation::Return(code)).await?;
    user.env.fixtures.record_code(&coupon, code);
    if user.rng.percent(50) {
        user.send_accepted(RawOperation::ClaimNamed(&coupon, code)).await?;
        user.send_accepted(RawOperation::Return(code)).await?;
    }
    Some(())
}

/// Claims a code that is held for two seconds, may lock it, and redeems around the end of the hold.
pub(super) async fn let_lapse(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Brief, &mut user.rng)?;
    let claimed = user.send_accepted(RawOperation::Claim(&coupon)).await?;
    let code = claimed.code()?;
    user.env.fixtures.record_code(&coupon, code);
    if user.rng.percent(50) {
        user.send_accepted(RawOperation::Lock(code)).await?;
    }
    if user.rng.percent(70) {
        sleep(Duration::from_millis(user.rng.between(1_000, 4_000))).await;
        user.send(RawOperation::Redeem(code, "order-late")).await?;
    }
    Some(())
}

/// Has a code that is revoked.
pub(super) async fn have_revoked(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Cool, &mut user.rng)?;
    let claimed = user.send_accepted(RawOperation::Claim(&coupon)).await?;
    let code = claimed.code()?;
    user.send_accepted(RawOperation::Revoke(code)).await?;
    user.send(RawOperation::Redeem(code, "order-1")).await?;
    Some(())
}
