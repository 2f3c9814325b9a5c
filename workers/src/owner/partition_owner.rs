//! The task of one assigned partition, from assignment to revocation: one ownership after another.
//!
//! Guarantees: an assigned partition never stays without an owner (an ownership that is fenced off is followed by a new
//! one, with back-off); a stopped partition checks periodically whether it may continue, so a repair needs no restart,
//! and is shown as stopped until a batch has committed; a panic is such a stop; a revoked partition is handed over.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coupon_core::ids::Partition;
use futures::future::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::{Driver, Ended, Setup};
use super::status::{PartitionState, StatusHandle};
use crate::backoff::Backoff;
use crate::metrics;
use crate::ports::{ConsumerCommand, Ownership};

/// Shortest and longest pause between two checks of a stopped partition. Each check is a takeover: it increments the
/// epoch.
const CHECK_PAUSE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(15)];

/// Owns a partition until `hand_over` is cancelled; reports its status to `status`.
pub(super) async fn own(
    setup: Arc<Setup>,
    partition: Partition,
    status: StatusHandle,
    hand_over: CancellationToken,
) {
    // Without a pause, two workers to which the group briefly assigns the same partition would fence each other off
    // without end.
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut checks = Backoff::new(CHECK_PAUSE[0], CHECK_PAUSE[1]);
    loop {
        let began = Instant::now();
        let ended = one_ownership(&setup, partition, &status, &hand_over).await;
        backoff.worked_for(began.elapsed());
        match ended {
            Ended::HandedOver => {
                tracing::info!(%partition, "handed over: every written outcome is published");
                break;
            }
            Ended::Abandoned => {
                tracing::warn!(%partition, "handed over with work in flight: the next owner completes it");
                break;
            }
            Ended::Fenced => {
                ::metrics::counter!(metrics::FENCED).increment(1);
                tracing::warn!(%partition, "fenced off: another owner has taken over");
                // A stop ends when a batch has committed, and not before.
                if !status.is_stopped() {
                    status.set(PartitionState::TakingOver);
                }
            }
            Ended::Stopped(text) => {
                tracing::error!(%partition, text, "stopped: this partition waits for an operator");
                if !status.is_stopped() {
                    checks = Backoff::new(CHECK_PAUSE[0], CHECK_PAUSE[1]);
                }
                status.set(PartitionState::Stopped(text));
                tokio::select! {
                    () = hand_over.cancelled() => break,
                    () = checks.pause() => continue,
                }
            }
        }
        tokio::select! {
            () = hand_over.cancelled() => break,
            () = backoff.pause() => {}
        }
    }
    status.remove();
}

async fn one_ownership(
    setup: &Setup,
    partition: Partition,
    status: &StatusHandle,
    hand_over: &CancellationToken,
) -> Ended {
    let ownership = next_ownership();
    let owning = async {
        Box::pin(Driver::new(setup, partition, ownership, status.clone()).run(hand_over.clone())).await
    };
    // No state of the driver is used after a panic: the next ownership starts from Postgres.
    AssertUnwindSafe(owning).catch_unwind().await.unwrap_or_else(|panic| {
        setup.ports.log.send_command(partition, ConsumerCommand::Stop(ownership));
        Ended::Stopped(format!(
            "partition {partition} stopped: its owner panicked ({}): this is a bug, please report it with the log; no \
             data is lost, and the takeover is retried",
            message_of(&*panic)
        ))
    })
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn next_ownership() -> Ownership {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Ownership(NEXT.fetch_add(1, Ordering::Relaxed))
}
