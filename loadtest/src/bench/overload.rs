//! `overload`: what becomes of those who are accepted when ten times as many come as can be served. The rest are
//! refused at once: 503, with Retry-After.
//!
//! How long an accepted claim takes is decided by how many are let in before it: the room of a partition, here set for
//! short answers (`STAMPEDE_UNDECIDED_PER_PARTITION`); the default is set for taking in a rush. Requests are due at a
//! fixed rate; one that finds no connection within a few milliseconds is not sent (the generator's limit, reported).

use std::time::Duration;

use futures::FutureExt as _;

use super::arm::{Sample, millis, rank};
use super::claim_to_outcome::{highest, whole};
use super::front::{Door, Front, only, sample};
use super::ground::Ground;
use super::http_load::Pace;
use super::{BenchError, MARK_HIGHEST};

/// Undecided requests of the one partition.
const ROOM: u64 = 400;
const TIMES: f64 = 10.0;
const SECONDS: f64 = 3.0;
const MANY: usize = 1_500;
const PATIENCE: Duration = Duration::from_millis(5);

/// The arm.
pub const OVERLOAD: Front = Front {
    name: "overload",
    about: "Stampede: ten times too many claims, room for 400 undecided; those accepted until their outcome",
    share: 10,
    measure: |ground, requests| measure(ground, requests).boxed_local(),
};

async fn measure(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    let room = [("STAMPEDE_UNDECIDED", ROOM * 2), ("STAMPEDE_UNDECIDED_PER_PARTITION", ROOM)];
    let mut door = Door::open(ground, requests * 5, true, &room).await?;
    let highest = highest(&mut door, requests / 4).await?;
    let half = Pace::Open { per_second: highest / 2.0, patience: Duration::from_secs(60) };
    let calm = door.ask(MANY, half, whole(highest / 2.0 * SECONDS).min(requests / 2)).await?;
    only(&calm, &[200, 503])?;
    let offered = highest * TIMES;
    let pace = Pace::Open { per_second: offered, patience: PATIENCE };
    let count = whole(offered * SECONDS).min(requests * 4);
    let (answers, cpu) = door.ask_and_look(ground, MANY, pace, count).await?;
    only(&answers, &[200, 503])?;
    door.close(ground).await?;
    let marks = vec![
        (MARK_HIGHEST, highest),
        ("p99 at half of it, ms", millis(rank(calm.times(200), 99))),
        ("sent, requests/s", answers.sent_per_second()),
        ("refused, p50 ms", millis(rank(answers.times(503), 50))),
        ("refused, p99 ms", millis(rank(answers.times(503), 99))),
    ];
    Ok(Sample { marks, ..sample(&answers, 200, cpu) })
}
