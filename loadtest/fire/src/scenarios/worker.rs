//! Our own programs die, freeze, come and go.

use std::time::Duration;

use local_stack::Child;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::field::{Field, Trouble};

/// Longer than a session of the group in a fault run.
const PAST_THE_SESSION: Duration = Duration::from_millis(1_800);

pub(super) fn any_worker(field: &Field, dice: &mut Dice) -> Result<Child, Trouble> {
    let running: Vec<Child> =
        field.workers().into_iter().filter(|worker| field.stack.is_running(*worker)).collect();
    dice.pick(&running).copied().ok_or_else(|| "no worker runs".into())
}

pub(super) fn any_api(field: &Field, dice: &mut Dice) -> Child {
    Child::Api(dice.below(field.apis()))
}

pub(super) async fn kill(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let worker = any_worker(field, dice)?;
    field.stack.kill(worker)?;
    field.revive_meanwhile(worker);
    Ok(())
}

/// It does not come back for a while: somebody else must take over.
pub(super) async fn lose(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let worker = any_worker(field, dice)?;
    field.stack.kill_permanently(worker)?;
    sleep(Duration::from_millis(dice.between(2_500, 5_000))).await;
    field.revive_meanwhile(worker);
    Ok(())
}

/// Nobody is left to take over.
pub(super) async fn kill_all(field: &Field, _: &mut Dice) -> Result<(), Trouble> {
    let workers = field.workers();
    for worker in &workers {
        // One that does not run yet cannot be killed.
        field.stack.kill(*worker).ok();
    }
    for worker in workers {
        field.revive_meanwhile(worker);
    }
    Ok(())
}

pub(super) async fn kill_api(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let api = any_api(field, dice);
    field.stack.kill(api)?;
    field.revive_meanwhile(api);
    Ok(())
}

/// It wakes up with everything that it held when it fell asleep.
pub(super) async fn freeze(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let worker = any_worker(field, dice)?;
    field.stack.freeze(worker)?;
    sleep(PAST_THE_SESSION + Duration::from_millis(dice.between(0, 2_000))).await;
    field.stack.resume(worker)?;
    Ok(())
}

/// Somebody holds the row that a write needs; while the write waits for it its worker falls asleep; then the write
/// goes through, and another worker takes over before its author hears of it.
pub(super) async fn freeze_in_mid_write(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut holder = field.postgres().await?;
    let mut looker = field.postgres().await?;
    let partition = i32::try_from(dice.below(usize::try_from(field.partitions)?))?;
    sqlx::raw_sql("begin").execute(&mut holder).await?;
    let owner: Option<String> =
        sqlx::query_scalar("select owner from stampede.partitions where partition = $1 for update")
            .bind(partition)
            .fetch_one(&mut holder)
            .await?;
    let owner = field.workers().into_iter().find(|worker| Some(worker.to_string()) == owner);
    let owner = owner.ok_or("the partition has no owner")?;
    let waiting = "select count(*) from pg_stat_activity
                    where application_name = $1 and wait_event_type = 'Lock'";
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let waiting: i64 = sqlx::query_scalar(waiting)
            .bind(format!("stampede-partition-{partition}"))
            .fetch_one(&mut looker)
            .await?;
        if waiting > 0 {
            break;
        }
        if Instant::now() > until {
            return Err(format!("nothing was written to partition {partition}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    field.stack.freeze(owner)?;
    let let_go = sqlx::raw_sql("commit").execute(&mut holder).await;
    sleep(PAST_THE_SESSION).await;
    field.stack.resume(owner)?;
    let_go?;
    Ok(())
}

/// Workers come and go, every second one in order.
pub(super) async fn storm(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut gone: Option<Child> = None;
    for round in 0..5 {
        let worker = any_worker(field, dice)?;
        if Some(worker) != gone && field.stack.is_running(worker) {
            if round % 2 == 0 {
                field.stack.terminate(worker)?
            } else {
                field.stack.kill_permanently(worker)?
            }
        }
        if let Some(back) = gone.replace(worker) {
            field.revive_meanwhile(back);
        }
        sleep(Duration::from_millis(dice.between(400, 1_000))).await;
    }
    field.workers().into_iter().for_each(|worker| field.revive_meanwhile(worker));
    Ok(())
}

/// It gets a fifth of the time that it needs.
pub(super) async fn slow(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let worker = any_worker(field, dice)?;
    for _ in 0..15 {
        field.stack.freeze(worker)?;
        sleep(Duration::from_millis(dice.between(100, 300))).await;
        field.stack.resume(worker)?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// One after another of our own programs, in order.
pub(super) async fn rolling_restart(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut ours = field.workers();
    ours.extend((0..field.apis()).map(Child::Api));
    dice.shuffle(&mut ours);
    for child in ours {
        if let Err(error) = field.stack.stop_child(child).await {
            field.score.complain(error.to_string());
        }
        field.stack.restart(child).await?;
    }
    Ok(())
}

/// Takeovers of somebody who has long been dead arrive now: the owners are shut out, and still are the ones to whom the
/// group assigns the partitions.
pub(super) async fn late_takeover(field: &Field, _: &mut Dice) -> Result<(), Trouble> {
    let late =
        "select stampede.take_over(partition, 'somebody late', gen_random_uuid()) from stampede.partitions";
    sqlx::raw_sql(late).execute(&mut field.postgres().await?).await?;
    Ok(())
}
