//! `hot-drain`: how fast one worker empties a topic full of claims of one coupon.

use futures::FutureExt as _;

use super::BenchError;
use super::backlog::{Requests, claim};
use super::drain::{Drain, Rows, blocking, stocked};
use super::ground::Ground;

/// The arm.
pub const HOT_DRAIN: Drain = Drain {
    name: "hot-drain",
    about: "Stampede: one worker empties a full topic of one coupon's claims: each decided in order, durable, and told",
    fill: |ground, claims| async move { Ok(claimed(ground, claims).await?.1) }.boxed_local(),
};

/// Claims of a new coupon that has a code for each of them; answers its number.
///
/// # Errors
/// When something does not come to pass.
pub async fn claimed(ground: &mut Ground, claims: u64) -> Result<(i64, Vec<Rows>), BenchError> {
    let coupon = ground.name();
    let coupon_no = stocked(ground, &coupon, claims).await?;
    let requests = Requests::open(&ground.kafka(), &mut ground.connection).await?;
    blocking(move || requests.fill((0..claims).map(|n| claim(&coupon, n)))).await?;
    let count = format!("select count(*) from stampede.claims where coupon_no = {coupon_no}");
    Ok((coupon_no, vec![Rows { what: "rows of claims", count }]))
}
