//! The assigned partitions of this process: one task each, begun when the group assigns it, told to let go when the
//! group revokes it or the process stops.

use std::collections::BTreeMap;
use std::sync::Arc;

use coupon_core::ids::Partition;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::consumer::Assignment;
use crate::driver::Setup;
use crate::owner::own;
use crate::standing::Standing;

/// Follows the group's assignments until `shutdown`; then every partition is handed over before this returns.
pub async fn follow(
    setup: Arc<Setup>,
    mut assignments: UnboundedReceiver<Assignment>,
    standing: Arc<Standing>,
    shutdown: CancellationToken,
) {
    let mut owners: JoinSet<()> = JoinSet::new();
    let mut letting_go: BTreeMap<Partition, CancellationToken> = BTreeMap::new();
    loop {
        let assignment = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            assignment = assignments.recv() => assignment,
            Some(ended) = owners.join_next() => {
                report(ended);
                continue;
            }
        };
        match assignment {
            None => break, // The consumer thread is gone.
            Some(Assignment::Assigned(partitions)) => {
                for partition in partitions {
                    let turn = standing.enter(partition);
                    let token = CancellationToken::new();
                    if let Some(earlier) = letting_go.insert(partition, token.clone()) {
                        earlier.cancel();
                    }
                    owners.spawn(own(Arc::clone(&setup), partition, turn, token));
                }
                standing.joined();
            }
            Some(Assignment::Revoked(partitions)) => {
                for partition in partitions {
                    if let Some(token) = letting_go.remove(&partition) {
                        token.cancel();
                    }
                }
            }
        }
    }
    standing.leaving();
    letting_go.values().for_each(CancellationToken::cancel);
    while let Some(ended) = owners.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the owner of a partition ended in a panic; its partition waits for the next rebalance");
    }
}
