//! The owner of one assigned partition, from assignment to revocation: one ownership after another.
//!
//! Guarantees: a partition that the group assigns to us never stays without an owner (an ownership that is fenced
//! off is followed by a new one, with back-off), unless it must wait for an operator; a revoked one is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coupon_core::ids::Partition;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::driver::{Driver, Ended, Setup};
use crate::metrics;
use crate::seams::Ownership;
use crate::standing::{State, Turn};

/// Owns a partition until `letting_go`; `turn` is told how it stands.
pub async fn own(setup: Arc<Setup>, partition: Partition, turn: Turn, letting_go: CancellationToken) {
    // Two workers that the group assigns the same partition for a moment must not shut each other out in a circle.
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let driver = Driver::new(&setup, partition, next_ownership(), turn.clone());
        match Box::pin(driver.run(letting_go.clone())).await {
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
                turn.set(State::TakingOver);
            }
            Ended::Stopped(text) => {
                tracing::error!(%partition, text, "stopped: this partition waits for an operator");
                turn.set(State::Stopped(text));
                letting_go.cancelled().await;
                break;
            }
        }
        tokio::select! {
            () = letting_go.cancelled() => break,
            () = backoff.pause() => {}
        }
    }
    turn.leave();
}

fn next_ownership() -> Ownership {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Ownership(NEXT.fetch_add(1, Ordering::Relaxed))
}
