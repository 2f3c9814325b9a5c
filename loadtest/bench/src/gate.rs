//! `gate`: how many claims of a sold-out coupon an API can turn away. One a second passes, and renews the lease.

use futures::FutureExt as _;

use super::BenchError;
use super::arm::Sample;
use super::drain::SETTLE_WITHIN;
use super::front::{CONNECTIONS, Door, Front, only, sample};
use super::ground::Ground;
use super::http_load::Pace;

/// Claims until it is known that the one code is gone.
const FIRST: u64 = 100;

/// The arm.
pub const GATE: Front = Front {
    name: "gate",
    about: "Stampede: claims over HTTP of a coupon that is sold out, 256 connections, answered 409 at the door",
    share: 5,
    measure: |ground, requests| measure(ground, requests).boxed_local(),
};

async fn measure(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    let mut door = Door::open(ground, 1, false, &[]).await?;
    door.ask(1, Pace::Closed, FIRST).await?;
    ground.settle(SETTLE_WITHIN).await?;
    let (answers, cpu) = door.ask_and_look(ground, CONNECTIONS, Pace::Closed, requests).await?;
    only(&answers, &[202, 409])?;
    door.close(ground).await?;
    Ok(sample(&answers, 409, cpu))
}
