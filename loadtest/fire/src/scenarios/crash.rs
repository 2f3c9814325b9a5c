//! Programs that die exactly where it hurts: at the n-th passing of one of their crash points.

use std::time::Duration;

use futures::future::join_all;
use local_stack::Child;
use tokio::time::sleep;

use super::overload::crowd;
use super::worker::{any_api, any_worker};
use crate::dice::Dice;
use crate::field::{Field, Trouble};
use crate::shop::Kind;

const VARIABLE: &str = "STAMPEDE_CRASH_AT";
/// How long it may take until the place is passed for the n-th time.
const CRASHES_WITHIN: Duration = Duration::from_secs(30);
/// Until a worker that was just started owns something.
const OWNS_AFTER: Duration = Duration::from_millis(2_500);
/// Users who want codes of one coupon then, so that its owner keeps a list.
const DEMAND: usize = 12;
/// Other places to try, where one is not passed.
const TRIES: usize = 3;

const BEFORE_THE_WRITE: &[&str] =
    &["after-lookup", "after-pop", "before-refill", "amid-refill", "after-refill", "before-write"];
const AFTER_THE_WRITE: &[&str] = &[
    "after-write",
    "amid-publish",
    "after-publish-sent",
    "after-publish-acknowledged",
    "before-watermark",
    "before-commit-offset",
    "after-commit-offset",
];
const AT_TAKEOVER: &[&str] = &["before-takeover", "after-takeover", "after-check-log", "before-republish"];
const AT_LOADING: &[&str] = &["after-load-chunk", "after-load-sealed", "before-announce"];

/// With codes popped, or a list half filled, and nothing durable.
pub(super) async fn before_the_write(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    worker_at(field, dice, BEFORE_THE_WRITE, 20).await
}

/// With everything durable, and some of it told.
pub(super) async fn after_the_write(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    worker_at(field, dice, AFTER_THE_WRITE, 20).await
}

/// As soon as it has come back.
pub(super) async fn at_takeover(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    worker_at(field, dice, AT_TAKEOVER, 2).await
}

/// Told to go, with everything told and nothing let go of.
pub(super) async fn at_leaving(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let worker = any_worker(field, dice)?;
    field.restart_once_with(worker, &[(VARIABLE, "before-release")]).await?;
    field.stack.wait_healthy(worker).await?;
    // Something to let go of.
    sleep(Duration::from_millis(dice.between(500, 2_000))).await;
    field.stack.terminate(worker)?;
    let ended = field.stack.wait_exit(worker, CRASHES_WITHIN).await;
    field.revive_meanwhile(worker);
    ended.map(drop).map_err(Trouble::from)
}

async fn worker_at(field: &Field, dice: &mut Dice, places: &[&str], passings: u64) -> Result<(), Trouble> {
    let worker = any_worker(field, dice)?;
    for _ in 0..TRIES {
        let place = armed(dice, places, passings);
        field.restart_once_with(worker, &[(VARIABLE, &place)]).await?;
        let (crashed, ()) = tokio::join!(field.stack.wait_exit(worker, CRASHES_WITHIN), demand(field, dice));
        if crashed.is_ok() {
            field.revive_meanwhile(worker);
            return Ok(());
        }
    }
    // Not to be left armed: it would die at a moment that is another fault's.
    field.restart_once_with(worker, &[]).await?;
    Err("none of the places was passed; were the programs built with crash points?".into())
}

/// Codes of coupons of all partitions are wanted, several at once.
async fn demand(field: &Field, dice: &mut Dice) {
    sleep(OWNS_AFTER).await;
    let coupons = field.shop.all(Kind::Cool);
    let mut all = Vec::new();
    for coupon in &coupons {
        let mut chance = dice.fork();
        all.push(async move { crowd(field, coupon, DEMAND, &mut chance).await });
    }
    join_all(all).await;
}

/// Between the broker's acknowledgement and its own answer.
pub(super) async fn api(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let place = armed(dice, &["after-produce-acknowledged"], 40);
    let api = any_api(field, dice);
    field.restart_once_with(api, &[(VARIABLE, &place)]).await?;
    crashed(field, api, &place).await
}

/// While it stores codes, or before it has told their owner.
pub(super) async fn api_at_loading(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let api = any_api(field, dice);
    let place = armed(dice, AT_LOADING, 1);
    let coupon = field.shop.any(Kind::Cool, dice).ok_or("there is no coupon")?;
    field.restart_once_with(api, &[(VARIABLE, &place)]).await?;
    let process = field.stack.pid(api);
    field.stack.wait_healthy(api).await?;
    if field.stack.pid(api) != process {
        // It has crashed already, over a load of somebody else, and was started again.
        return Ok(());
    }
    let (crashed, ()) = tokio::join!(crashed(field, api, &place), async {
        for _ in 0..4 {
            // Through all instances in turn, so one of the loads is its own.
            field.load(&coupon, 50).await.ok();
        }
    });
    crashed
}

/// Waits until it has, and starts it again.
async fn crashed(field: &Field, api: Child, place: &str) -> Result<(), Trouble> {
    let ended = field.stack.wait_exit(api, CRASHES_WITHIN).await;
    if ended.is_err() {
        field.restart_once_with(api, &[]).await?;
        return Err(format!("{place} was not passed; were the programs built with crash points?").into());
    }
    field.revive_meanwhile(api);
    Ok(())
}

fn armed(dice: &mut Dice, places: &[&str], passings: u64) -> String {
    let place = dice.pick(places).copied().unwrap_or_default();
    format!("{place}:{}", dice.between(1, passings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_one_that_the_programs_know() {
        let workers = include_str!("../../../../workers/src/crash_points.rs");
        let api = include_str!("../../../../ingest-api/src/crash_points.rs");
        for place in [BEFORE_THE_WRITE, AFTER_THE_WRITE, AT_TAKEOVER, &["before-release"]].concat() {
            assert!(workers.contains(&format!("\"{place}\"")), "{place}");
        }
        for place in AT_LOADING.iter().chain(&["after-produce-acknowledged"]) {
            assert!(api.contains(&format!("\"{place}\"")), "{place}");
        }
    }
}
