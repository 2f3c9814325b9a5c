//! The load: users who come whether those before have been answered or not, and each lead one of many lives.
//!
//! A new kind of life is a function and a line in [`LIVES`].

mod buying;
mod changing;
mod crowding;
mod looking;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::client::{Outcome, Pursuit, Way};
use super::dice::Dice;
use super::field::Field;
use stampede_client::deed::Deed;

/// Users under way at the same time; who comes then goes away again, and is counted.
const ROOM: usize = 3_000;
const TICK: Duration = Duration::from_millis(10);
/// Requests of a user, before anybody has counted.
const USUAL_REQUESTS: f64 = 2.5;
/// Users who come back again and again, so that limits are reached.
const REGULARS: usize = 200;

type Live = for<'u> fn(&'u mut User<'_>) -> BoxFuture<'u, Option<()>>;

/// A kind of life, and how many of a hundred users lead it.
struct Life {
    share: usize,
    live: Live,
}

/// Shares add up to 100; a test says so.
const LIVES: &[Life] = &[
    Life { share: 24, live: |user| Box::pin(buying::take_any(user)) },
    Life { share: 6, live: |user| Box::pin(buying::take_any_without_a_key(user)) },
    Life { share: 8, live: |user| Box::pin(buying::take_by_name(user)) },
    Life { share: 18, live: |user| Box::pin(buying::check_out(user)) },
    Life { share: 8, live: |user| Box::pin(changing::cancel_the_order(user)) },
    Life { share: 8, live: |user| Box::pin(changing::give_back(user)) },
    Life { share: 8, live: |user| Box::pin(changing::let_lapse(user)) },
    Life { share: 1, live: |user| Box::pin(changing::have_revoked(user)) },
    Life { share: 8, live: |user| Box::pin(crowding::use_a_shared_code(user)) },
    Life { share: 5, live: |user| Box::pin(crowding::send_several_times_at_once(user)) },
    Life { share: 2, live: |user| Box::pin(crowding::come_to_what_is_scarce(user)) },
    Life { share: 4, live: |user| Box::pin(looking::look_around(user)) },
];

/// Somebody who leads a life.
pub struct User<'f> {
    field: &'f Field,
    name: String,
    dice: Dice,
    keys: u32,
}

impl<'f> User<'f> {
    fn new(field: &'f Field, n: u64, mut dice: Dice) -> Self {
        let name =
            if dice.percent(10) { format!("regular-{}", dice.below(REGULARS)) } else { format!("user-{n}") };
        // Regulars must not use a key twice: it would be the same request.
        let keys = u32::try_from(n & 0xffff).unwrap_or(0) << 8;
        Self { field, name, dice, keys }
    }

    fn key(&mut self) -> Option<String> {
        self.keys += 1;
        Some(format!("key-{}-{:x}", self.keys, self.dice.any()))
    }

    /// Asks for something with a key of its own, waits in any way, and hears the outcome.
    async fn ask(&mut self, deed: Deed<'_>) -> Option<Outcome> {
        let (key, way) = (self.key(), Way::any(&mut self.dice));
        let name = match deed.role() {
            "service" => "shop",
            "admin" => "admin",
            _ => &self.name,
        };
        let mut pursuit = Pursuit::of(self.field, name, deed, key, way).of_the_load();
        pursuit.to_the_end(&mut self.dice).await
    }

    /// The same; only an accepted outcome goes on.
    async fn get(&mut self, deed: Deed<'_>) -> Option<Outcome> {
        self.ask(deed).await.filter(Outcome::is_accepted)
    }

    async fn lead_a_life(&mut self) {
        let mut throw = self.dice.below(100);
        for life in LIVES {
            if throw < life.share {
                // Where something is refused, a life ends early.
                (life.live)(self).await.unwrap_or_default();
                return;
            }
            throw -= life.share;
        }
    }
}

/// Lets users come at this rate of requests per second until told to stop, then waits until all of them have left.
pub async fn run(field: Arc<Field>, seed: u64, rate: f64, stop: CancellationToken) {
    let mut dice = Dice::new(seed);
    let mut users = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut owed, mut last, mut coming) = (0.0, Instant::now(), 0_u64);
    while !stop.is_cancelled() {
        let now = tick.tick().await;
        let per_user = requests_per_user(&field);
        owed += rate / per_user * now.saturating_duration_since(last).as_secs_f64();
        last = now;
        while owed >= 1.0 {
            owed -= 1.0;
            coming += 1;
            if users.len() >= ROOM {
                field.score.shed();
                continue;
            }
            field.score.begin_life();
            let (field, dice) = (Arc::clone(&field), dice.fork());
            users.spawn(async move { User::new(&field, coming, dice).lead_a_life().await });
        }
        while users.try_join_next().is_some() {}
    }
    while users.join_next().await.is_some() {}
}

/// As counted until now, so that the rate is one of requests, whatever lives there are.
fn requests_per_user(field: &Field) -> f64 {
    let lives = field.score.lives();
    if lives < 100 {
        return USUAL_REQUESTS;
    }
    (field.history.len() as f64 / lives as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_leads_a_life() {
        assert_eq!(LIVES.iter().map(|life| life.share).sum::<usize>(), 100);
    }
}
