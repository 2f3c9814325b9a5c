//! Faults of network links while both ends run: a proxy between our programs and each server cuts, refuses, delays or
//! stalls connections, or drops responses.

use std::time::Duration;

use local_stack::{ProxiedLink, Proxy};
use tokio::time::sleep;

use super::redis::during_claims;
use crate::environment::{Environment, FaultError};
use crate::rng::Rng;

const TO_POSTGRES: &[ProxiedLink] = &[ProxiedLink::WorkersToPostgres, ProxiedLink::ApisToPostgres];
const TO_KAFKA: &[ProxiedLink] = &[ProxiedLink::WorkersToKafka, ProxiedLink::ApisToKafka];

const BLACK_HOLE: Duration = Duration::from_secs(20);

/// A fault of a link.
#[derive(Clone, Copy)]
enum Fault {
    /// Connections are cut repeatedly, some of them in the middle of a call.
    Cut,
    /// Connections are cut, and new ones refused for a while.
    Refuse,
    /// Every response is delayed.
    Delay,
    /// Nothing passes for a while; connections stay open.
    Stall,
    /// Requests are executed, and their responses dropped.
    DropResponses,
    /// Packets in one direction are lost for longer than every time limit; no connection is reset.
    BlackHole,
}

async fn inject_link_fault(
    env: &Environment,
    rng: &mut Rng,
    lines: &[ProxiedLink],
    faults: &[Fault],
) -> Result<(), FaultError> {
    let line = *rng.pick(lines).ok_or("no link is given")?;
    let fault = *rng.pick(faults).ok_or("no fault is given")?;
    let proxy = env.stack.proxy(line).ok_or_else(|| format!("there is no proxy on {line}"))?;
    fault.to(&proxy, rng).await;
    proxy.clear_faults();
    Ok(())
}

impl Fault {
    async fn to(self, proxy: &Proxy, rng: &mut Rng) {
        let requests = rng.below(2) == 0;
        let mut pause = |from, to| sleep(Duration::from_millis(rng.between(from, to)));
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
            Self::Stall => {
                proxy.stall(true);
                pause(800, 3_000).await;
            }
            Self::BlackHole => {
                proxy.black_hole(requests, !requests);
                sleep(BLACK_HOLE).await;
            }
            Self::DropResponses => {
                for _ in 0..3 {
                    proxy.drop_responses(true);
                    pause(200, 1_000).await;
                    // Cuts now: the callers see a lost response and nothing else.
                    proxy.drop_responses(false);
                    pause(100, 500).await;
                }
            }
        }
    }
}

/// The result of a commit is unknown to the worker.
pub(super) async fn lost_commits(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    inject_link_fault(env, rng, &[ProxiedLink::WorkersToPostgres], &[Fault::DropResponses, Fault::Cut]).await
}

pub(super) async fn bad_link_to_postgres(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    inject_link_fault(env, rng, TO_POSTGRES, &[Fault::Cut, Fault::Refuse, Fault::Delay, Fault::Stall]).await
}

/// The result of a pop is unknown to the worker.
pub(super) async fn lost_pops(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let mut chance = rng.fork();
    let fault = inject_link_fault(env, &mut chance, &[ProxiedLink::WorkersToRedis], &[Fault::DropResponses]);
    during_claims(env, rng, fault).await
}

pub(super) async fn bad_link_to_redis(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let faults = [Fault::Cut, Fault::Refuse, Fault::Delay, Fault::Stall];
    let mut chance = rng.fork();
    let fault = inject_link_fault(env, &mut chance, &[ProxiedLink::WorkersToRedis], &faults);
    during_claims(env, rng, fault).await
}

/// Whether a record is in the log is unknown to its producer.
pub(super) async fn lost_acknowledgements(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    inject_link_fault(env, rng, TO_KAFKA, &[Fault::DropResponses]).await
}

pub(super) async fn bad_link_to_kafka(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    inject_link_fault(env, rng, TO_KAFKA, &[Fault::Cut, Fault::Refuse, Fault::Delay, Fault::Stall]).await
}

pub(super) async fn black_hole(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    inject_link_fault(env, rng, &ProxiedLink::ALL, &[Fault::BlackHole]).await
}
