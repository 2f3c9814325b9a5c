//! What a run does to the ledger, in order. `workers/tests/replay` repeats it on the real functions and compares rows.

use super::Run;
use crate::environment::ledger::tables::Load;
use coupon_core::batch::Batch;
use coupon_core::ids::Nonce;
use coupon_core::interface::{PartitionRow, WriteResult};
use std::sync::Arc;

/// One call, with its result in memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Recorded {
    TakeOver(Nonce, PartitionRow),
    Write {
        batch: Arc<Batch>,
        result: WriteResult,
        /// Coupons and loads as they were then: the API adds some during a run.
        coupons: usize,
        loads: Vec<Load>,
    },
}

impl Run {
    /// Records calls from now on.
    pub(crate) fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    pub(super) fn record_takeover(&mut self, nonce: Nonce, row: PartitionRow) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(Recorded::TakeOver(nonce, row));
        }
    }

    /// Call it before the batch is written.
    pub(super) fn record_write(&mut self, batch: &Arc<Batch>, result: &WriteResult) {
        if let Some(recorded) = &mut self.recorded {
            let ledger = &self.environment.ledger;
            let (coupons, loads) = (ledger.coupons.len(), ledger.loads.clone());
            recorded.push(Recorded::Write {
                batch: Arc::clone(batch),
                result: result.clone(),
                coupons,
                loads,
            });
        }
    }
}
