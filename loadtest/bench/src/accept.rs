//! `accept`: how many claims an API can take. Each is answered 202 when every in-sync replica has it.
//!
//! The worker does not run meanwhile: what deciding costs is another arm's business. It decides all of them
//! afterwards, and the checker reads the outcome of each.

use futures::FutureExt as _;

use super::BenchError;
use super::arm::Sample;
use super::front::{CONNECTIONS, Door, Front, only, sample};
use super::ground::Ground;
use super::http_load::Pace;

/// The arm.
pub const ACCEPT: Front = Front {
    name: "accept",
    about: "Stampede: claims over HTTP, 256 connections, each answered 202 once Kafka has it (acks = all)",
    share: 5,
    measure: |ground, requests| measure(ground, requests).boxed_local(),
};

async fn measure(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    // Nobody decides meanwhile: there must be room for all.
    let room = [("STAMPEDE_MAX_PENDING", requests * 2), ("STAMPEDE_MAX_PENDING_PER_PARTITION", requests * 2)];
    let mut door = Door::open(ground, requests, false, &room).await?;
    ground.stop_workers().await?;
    let (answers, cpu) = door.ask_and_look(ground, CONNECTIONS, Pace::Closed, requests).await?;
    only(&answers, &[202])?;
    ground.start_worker().await?;
    door.close(ground).await?;
    Ok(sample(&answers, 202, cpu))
}
