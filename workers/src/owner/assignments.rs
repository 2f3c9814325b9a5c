//! Follows the group's assignment: one task per assigned partition. The task starts when the partition is assigned, and
//! hands it over when the partition is revoked or the process stops.

use std::collections::BTreeMap;
use std::sync::Arc;

use coupon_core::ids::Partition;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::driver::Setup;
use super::partition_owner::own;
use super::status::StatusRegistry;
use crate::ports::Assignment;

/// Follows the assignment until `shutdown`; every partition is handed over before this returns.
pub async fn follow(
    setup: Arc<Setup>,
    mut assignments: UnboundedReceiver<Assignment>,
    statuses: Arc<StatusRegistry>,
    shutdown: CancellationToken,
) {
    let mut owners: JoinSet<()> = JoinSet::new();
    let mut hand_overs: BTreeMap<Partition, CancellationToken> = BTreeMap::new();
    loop {
        let assignment = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            assignment = assignments.recv() => assignment,
            Some(ended) = owners.join_next() => {
                report_panic(ended);
                continue;
            }
        };
        match assignment {
            None => break, // The consumer thread has ended.
            Some(Assignment::Assigned(partitions)) => {
                for partition in partitions {
                    let status = statuses.register(partition);
                    let hand_over = CancellationToken::new();
                    if let Some(earlier) = hand_overs.insert(partition, hand_over.clone()) {
                        earlier.cancel();
                    }
                    owners.spawn(own(Arc::clone(&setup), partition, status, hand_over));
                }
                statuses.set_group_joined();
            }
            Some(Assignment::Revoked(partitions)) => {
                for partition in partitions {
                    if let Some(hand_over) = hand_overs.remove(&partition) {
                        hand_over.cancel();
                    }
                }
            }
        }
    }
    statuses.set_group_leaving();
    hand_overs.values().for_each(CancellationToken::cancel);
    while let Some(ended) = owners.join_next().await {
        report_panic(ended);
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a partition panicked; the partition has no owner until the next rebalance");
    }
}
