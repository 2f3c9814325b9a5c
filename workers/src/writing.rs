//! The one task of an ownership that changes the ledger: takeover, writes, reading back, one after another. It runs
//! beside the driver, so that a batch is gathered while the one before it is written.

use std::sync::Arc;
use std::time::Instant;

use coupon_core::batch::Batch;
use coupon_core::ids::{EmitSeq, Nonce, Partition};
use coupon_core::interface::{Input, WriteResult};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::backoff::{before_write, until_answered};
use crate::crash_points::{Point, pass};
use crate::driver::Wake;
use crate::metrics::{self, PartitionMetrics, Stage};
use crate::seams::Writer;

/// What the task is asked to do.
#[derive(Debug)]
pub enum Call {
    /// Become the owner; repeated until it succeeds.
    TakeOver(Nonce),
    /// One call, once.
    Write {
        /// What to write.
        batch: Arc<Batch>,
        /// How many calls failed in a row before this one.
        backoff: u32,
    },
    /// Read the row; repeated until it succeeds.
    ReadBack,
}

/// Performs calls until nobody can make any more.
pub async fn write_calls(
    partition: Partition,
    writer: Arc<dyn Writer>,
    mut calls: UnboundedReceiver<Call>,
    answers: UnboundedSender<Wake>,
    metrics: PartitionMetrics,
) {
    let mut watermark = EmitSeq(0);
    while let Some(call) = calls.recv().await {
        let answer = match call {
            Call::TakeOver(nonce) => {
                pass(Point::BeforeTakeover).await;
                let row = until_answered(partition, "take over", || writer.take_over(nonce)).await;
                pass(Point::AfterTakeover).await;
                tracing::info!(%partition, epoch = %row.epoch, next_offset = %row.position.next_offset, "taken over");
                watermark = row.emitted_seq;
                Input::TakenOver(row)
            }
            Call::Write { batch, backoff } => {
                before_write(backoff).await;
                if batch.watermark > watermark {
                    pass(Point::BeforeWatermark).await;
                }
                let moved = std::mem::replace(&mut watermark, batch.watermark) != batch.watermark;
                let input = write(&*writer, batch, &metrics).await;
                if moved {
                    pass(Point::BeforeCommitOffset).await;
                }
                input
            }
            Call::ReadBack => {
                let row = until_answered(partition, "read back", || writer.read_back()).await;
                pass(Point::AfterReadBack).await;
                Input::ReadBack(row)
            }
        };
        if answers.send(Wake::Input(answer)).is_err() {
            break;
        }
    }
}

async fn write(writer: &dyn Writer, batch: Arc<Batch>, metrics: &PartitionMetrics) -> Input {
    let fence = batch.fence;
    pass(Point::BeforeWrite).await;
    let began = Instant::now();
    let result = writer.write(batch).await;
    metrics.stage(Stage::Write, began.elapsed());
    pass(Point::AfterWrite).await;
    ::metrics::counter!(metrics::WRITES, "result" => word(&result)).increment(1);
    if !matches!(result, WriteResult::Written) {
        tracing::warn!(partition = %fence.partition, write_no = %fence.write_no, ?result, "a write did not go through");
    }
    Input::Written { write_no: fence.write_no, attempt: fence.attempt, result }
}

const fn word(result: &WriteResult) -> &'static str {
    match result {
        WriteResult::Written => "written",
        WriteResult::Unknown => "unknown",
        WriteResult::Fenced => "fenced",
        WriteResult::Retry => "retry",
        WriteResult::DataRejected(_) => "data_refused",
        WriteResult::AlreadyDecided => "already_decided",
        WriteResult::Mismatch(_) => "mismatch",
    }
}
