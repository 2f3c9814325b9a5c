//! Lines that fail without anybody's death: between our programs and each server stands a proxy that cuts, refuses,
//! delays, halts, or swallows answers.

use std::time::Duration;

use local_stack::{ProxiedLink, Proxy};
use tokio::time::sleep;

use super::redis::under_demand;
use crate::dice::Dice;
use crate::field::{Field, Trouble};

const TO_POSTGRES: &[ProxiedLink] = &[ProxiedLink::WorkersToPostgres, ProxiedLink::ApisToPostgres];
const TO_KAFKA: &[ProxiedLink] = &[ProxiedLink::WorkersToKafka, ProxiedLink::ApisToKafka];

/// What is done to a line.
#[derive(Clone, Copy)]
enum Harm {
    /// Cut again and again, some time in the middle of whatever is under way.
    Cut,
    /// Cut, and no new connection for a while.
    Refuse,
    /// Every answer takes longer.
    Delay,
    /// Nothing passes for a while, and nobody is told.
    Halt,
    /// Requests are carried out, and no answer comes back.
    Swallow,
}

async fn hurt(field: &Field, dice: &mut Dice, lines: &[ProxiedLink], harms: &[Harm]) -> Result<(), Trouble> {
    let line = *dice.pick(lines).ok_or("no line to hurt")?;
    let harm = *dice.pick(harms).ok_or("no harm to do")?;
    let proxy = field.stack.proxy(line).ok_or_else(|| format!("no proxy stands on {line}"))?;
    harm.to(&proxy, dice).await;
    proxy.clear_faults();
    Ok(())
}

impl Harm {
    async fn to(self, proxy: &Proxy, dice: &mut Dice) {
        let mut pause = |from, to| sleep(Duration::from_millis(dice.between(from, to)));
        match self {
            Self::Cut => {
                for _ in 0..8 {
                    proxy.cut();
                    pause(20, 300).await;
                }
            }
            Self::Refuse => {
                proxy.refuse(true);
                proxy.cut();
                pause(500, 2_500).await;
            }
            Self::Delay => {
                proxy.delay(Duration::from_millis(200));
                pause(1_500, 3_000).await;
            }
            Self::Halt => {
                proxy.stall(true);
                pause(800, 3_000).await;
            }
            Self::Swallow => {
                for _ in 0..3 {
                    proxy.drop_responses(true);
                    pause(200, 1_000).await;
                    // Cut now: whoever waited has lost an answer, and knows only that.
                    proxy.drop_responses(false);
                    pause(100, 500).await;
                }
            }
        }
    }
}

/// Whether a commit has happened, nobody knows.
pub(super) async fn lost_commits(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    hurt(field, dice, &[ProxiedLink::WorkersToPostgres], &[Harm::Swallow, Harm::Cut]).await
}

pub(super) async fn bad_line_to_postgres(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    hurt(field, dice, TO_POSTGRES, &[Harm::Cut, Harm::Refuse, Harm::Delay, Harm::Halt]).await
}

/// Whether a pop has happened, nobody knows.
pub(super) async fn lost_pops(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let mut chance = dice.fork();
    let harm = hurt(field, &mut chance, &[ProxiedLink::WorkersToRedis], &[Harm::Swallow]);
    under_demand(field, dice, harm).await
}

pub(super) async fn bad_line_to_redis(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let harms = [Harm::Cut, Harm::Refuse, Harm::Delay, Harm::Halt];
    let mut chance = dice.fork();
    let harm = hurt(field, &mut chance, &[ProxiedLink::WorkersToRedis], &harms);
    under_demand(field, dice, harm).await
}

/// Whether a request is in the log, nobody knows.
pub(super) async fn lost_acknowledgements(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    hurt(field, dice, TO_KAFKA, &[Harm::Swallow]).await
}

pub(super) async fn bad_line_to_kafka(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    hurt(field, dice, TO_KAFKA, &[Harm::Cut, Harm::Refuse, Harm::Delay, Harm::Halt]).await
}
