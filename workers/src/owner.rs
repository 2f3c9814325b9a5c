//! The owner of one assigned partition, from assignment to revocation: one ownership after another.
//!
//! Guarantees: a partition that the group assigns to us never stays without an owner (an ownership that is fenced
//! off is followed by a new one, with back-off); one that must wait for an operator looks from time to time whether
//! it still must, so that a repair needs no restart, and is shown as stopped until a batch has settled; a panic is
//! such a stop, and no silent gap; a revoked partition is let go.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coupon_core::ids::Partition;
use futures::future::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::driver::{Driver, Ended, Setup};
use crate::metrics;
use crate::seams::{Order, Ownership};
use crate::standing::{State, Turn};

/// How soon a stopped partition looks again whether it may go on, and how seldom it does so in the end. Each look is
/// a takeover: it moves the epoch.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// Owns a partition until `letting_go`; `turn` is told how it stands.
pub async fn own(setup: Arc<Setup>, partition: Partition, turn: Turn, letting_go: CancellationToken) {
    // Two workers that the group assigns the same partition for a moment must not shut each other out in a circle.
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut looking = Backoff::new(LOOK_AGAIN[0], LOOK_AGAIN[1]);
    loop {
        match one_ownership(&setup, partition, &turn, &letting_go).await {
            Ended::HandedOver => {
                tracing::info!(%partition, "handed over: everything written is told");
                break;
            }
            Ended::Abandoned => {
                tracing::warn!(%partition, "let go with something under way: the next owner finishes it");
                break;
            }
            Ended::Fenced => {
                ::metrics::counter!(metrics::FENCED).increment(1);
                tracing::warn!(%partition, "another owner has taken the partition over");
                // A stop is over when a batch has settled, and not before.
                if !turn.is_stopped() {
                    turn.set(State::TakingOver);
                }
            }
            Ended::Stopped(text) => {
                tracing::error!(%partition, text, "stopped: this partition waits for an operator");
                if !turn.is_stopped() {
                    looking = Backoff::new(LOOK_AGAIN[0], LOOK_AGAIN[1]);
                }
                turn.set(State::Stopped(text));
                tokio::select! {
                    () = letting_go.cancelled() => break,
                    () = looking.pause() => continue,
                }
            }
        }
        tokio::select! {
            () = letting_go.cancelled() => break,
            () = backoff.pause() => {}
        }
    }
    turn.leave();
}

async fn one_ownership(
    setup: &Setup,
    partition: Partition,
    turn: &Turn,
    letting_go: &CancellationToken,
) -> Ended {
    let ownership = next_ownership();
    let owning = async {
        Box::pin(Driver::new(setup, partition, ownership, turn.clone()).run(letting_go.clone())).await
    };
    // Nothing of the driver is looked at after a panic: the next ownership begins from Postgres.
    AssertUnwindSafe(owning).catch_unwind().await.unwrap_or_else(|panic| {
        setup.world.log.tell(partition, Order::Stop(ownership));
        Ended::Stopped(format!(
            "partition {partition} stopped: its owner panicked ({}): this is a bug, please report it with the log; \
             nothing is lost, and it is tried again",
            words(&*panic)
        ))
    })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

fn next_ownership() -> Ownership {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Ownership(NEXT.fetch_add(1, Ordering::Relaxed))
}
