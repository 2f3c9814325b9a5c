//! Redis loses everything, some of it, or its answers; or somebody else puts a hand into the lists.

use std::time::Duration;

use local_stack::Child;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::overload::crowd;
use crate::dice::Dice;
use crate::field::{Field, Trouble};
use crate::shop::Kind;

/// Users who want codes meanwhile.
const DEMAND: usize = 120;
/// How many such crowds come, until there is a list.
const CROWDS: usize = 10;

async fn connect(field: &Field) -> Result<MultiplexedConnection, Trouble> {
    let client = redis::Client::open(field.endpoints.redis_url.as_str())?;
    Ok(client.get_multiplexed_async_connection().await?)
}

/// Names of lists of codes. There may be none: who has few codes to give reads them where they lie.
async fn lists(redis: &mut MultiplexedConnection) -> Result<Vec<String>, Trouble> {
    Ok(redis.keys("stampede:stock:*").await?)
}

/// Does harm while a crowd wants codes, so that lists are there and in use.
pub(super) async fn under_demand<T>(
    field: &Field,
    dice: &mut Dice,
    harm: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let coupon = field.shop.any(Kind::Hot, dice).ok_or("there is no coupon")?;
    tokio::join!(crowd(field, &coupon, DEMAND, dice), harm).1
}

/// What is done to a list.
#[derive(Clone, Copy)]
enum Harm {
    Disorder,
    Pop,
    OtherType,
}

/// Does something to every list, some times in a row. An owner has none until many of its codes are wanted.
async fn to_lists(field: &Field, dice: &mut Dice, harm: Harm) -> Result<(), Trouble> {
    for _ in 0..CROWDS {
        let mut dice_of_the_harm = dice.fork();
        if under_demand(field, dice, harm.to_all(field, &mut dice_of_the_harm)).await? > 0 {
            return Ok(());
        }
    }
    Err("there was no list to hurt".into())
}

impl Harm {
    /// Answers how many it was done to.
    async fn to_all(self, field: &Field, dice: &mut Dice) -> Result<u32, Trouble> {
        let mut redis = connect(field).await?;
        let mut hurt = 0_u32;
        for _ in 0..8 {
            let all = lists(&mut redis).await?;
            for list in &all {
                hurt += 1;
                let done = match self {
                    Harm::Disorder => put_into_disorder(&mut redis, &all, list).await,
                    Harm::Pop => redis::cmd("LPOP").arg(list).arg(3).exec_async(&mut redis).await,
                    Harm::OtherType => {
                        redis::pipe().del(list).set_ex(list, "not a list", 60).exec_async(&mut redis).await
                    }
                };
                // What another fault made of it may be of another type.
                done.ok();
            }
            sleep(Duration::from_millis(dice.between(50, 300))).await;
        }
        Ok(hurt)
    }
}

/// Entries of a list once more at its head, entries of another one, and one that somebody has made up.
async fn put_into_disorder(
    redis: &mut MultiplexedConnection,
    all: &[String],
    list: &String,
) -> redis::RedisResult<()> {
    let mut entries: Vec<String> = redis.lrange(list, 0, 1).await?;
    if let Some(other) = all.iter().rev().find(|other| *other != list) {
        let foreign: Vec<String> = redis.lrange(other, 0, 1).await?;
        entries.extend(foreign);
    }
    let next = entries.first().and_then(|entry| entry.split('|').next()).unwrap_or("1").to_owned();
    entries.push(format!("{next}|FORGED"));
    for entry in entries {
        redis.lpush_exists::<_, _, i64>(list, entry).await?;
    }
    Ok(())
}

pub(super) async fn flush(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut redis = connect(field).await?;
    let mut chance = dice.fork();
    let harm = async {
        for _ in 0..5 {
            sleep(Duration::from_millis(chance.between(50, 300))).await;
            redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
        }
        Ok(())
    };
    under_demand(field, dice, harm).await
}

/// It comes back empty.
pub(super) async fn kill(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let [before, after] = [dice.between(50, 300), dice.between(200, 1_500)].map(Duration::from_millis);
    let harm = async {
        sleep(before).await;
        field.stack.kill_permanently(Child::Redis)?;
        sleep(after).await;
        field.revive(&[Child::Redis]).await?;
        Ok(())
    };
    under_demand(field, dice, harm).await
}

/// It has hardly any room, and throws away whatever it likes.
pub(super) async fn evict(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut redis = connect(field).await?;
    let policy = *dice.pick(&["allkeys-random", "noeviction"]).unwrap_or(&"allkeys-random");
    let length = Duration::from_millis(dice.between(1_500, 3_000));
    let harm = async {
        configure(&mut redis, "maxmemory-policy", policy).await?;
        configure(&mut redis, "maxmemory", "1mb").await?;
        sleep(length).await;
        configure(&mut redis, "maxmemory", "0").await?;
        configure(&mut redis, "maxmemory-policy", "noeviction").await?;
        Ok(())
    };
    under_demand(field, dice, harm).await
}

async fn configure(redis: &mut MultiplexedConnection, name: &str, value: &str) -> redis::RedisResult<()> {
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(redis).await
}

/// Duplicates, foreign codes, and codes that somebody has made up, where codes are popped.
pub(super) async fn disorder(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    to_lists(field, dice, Harm::Disorder).await
}

/// It carries commands out after those who sent them have gone.
pub(super) async fn freeze(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let [before, length] = [dice.between(50, 300), dice.between(800, 2_500)].map(Duration::from_millis);
    let harm = async {
        sleep(before).await;
        field.stack.freeze(Child::Redis)?;
        sleep(length).await;
        field.stack.resume(Child::Redis)?;
        Ok(())
    };
    under_demand(field, dice, harm).await
}

/// Somebody pops, as an owner would that does not know that it is one no more.
pub(super) async fn pop(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    to_lists(field, dice, Harm::Pop).await
}

/// The names of lists, and under them something else.
pub(super) async fn wrong_types(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    to_lists(field, dice, Harm::OtherType).await
}
