//! `overload`: what becomes of those who are accepted when ten times as many come as can be served. The rest are
//! refused at once: 503, with Retry-After.
//!
//! How long an accepted claim takes is decided by how many are before it. Behind the front door that is the room of a
//! partition, here set for short answers (`STAMPEDE_MAX_PENDING_PER_PARTITION`): to what is decided in some 10 ms. More
//! would be decided a little faster, and wait much longer; the default is set for taking in a rush. The highest load is
//! found with as many under way as there is room for. Before the front door it is everybody who has sent: refusing
//! takes its time too. Requests are due at a fixed rate; one that finds no connection within a few milliseconds is not
//! sent (on two cores nobody can send so many and be refused as well; what was sent is reported).

use std::time::Duration;

use futures::FutureExt as _;

use super::arm::{Sample, millis, rank};
use super::claim_to_outcome::{highest, steady, whole};
use super::front::{Door, Front, only, sample};
use super::ground::Ground;
use super::{BenchError, MARK_HIGHEST};

/// Undecided requests of the one partition.
const ROOM: usize = 128;
const TIMES: f64 = 10.0;
const SECONDS: f64 = 3.0;
/// Connections: half of those who have sent can be let in.
const MANY: usize = 2 * ROOM;
const PATIENCE: Duration = Duration::from_millis(5);

/// The arm.
pub const OVERLOAD: Front = Front {
    name: "overload",
    about: "Stampede: ten times too many claims, room for 128 undecided, twice as many clients; those accepted until their outcome",
    share: 10,
    measure: |ground, requests| measure(ground, requests).boxed_local(),
};

async fn measure(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    let room =
        [("STAMPEDE_MAX_PENDING", 2 * ROOM as u64), ("STAMPEDE_MAX_PENDING_PER_PARTITION", ROOM as u64)];
    let mut door = Door::open(ground, requests * 5, true, &room).await?;
    let highest = highest(&mut door, ROOM, requests / 4).await?;
    let half = highest / 2.0;
    let count = whole(half * SECONDS).min(requests / 2);
    let calm = door.ask(MANY, steady(half, Duration::from_secs(60), count), count).await?;
    only(&calm, &[200, 503])?;
    let offered = highest * TIMES;
    let count = whole(offered * SECONDS).min(requests * 4);
    let pace = steady(offered, PATIENCE, count);
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
