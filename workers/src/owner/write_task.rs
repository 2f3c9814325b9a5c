//! The one task of an ownership that changes the ledger: takeover, writes and reading back, one after another. It runs
//! beside the driver, so that a batch is prefetched while the previous one is written.

use std::sync::Arc;
use std::time::Instant;

use coupon_core::ids::{EmitSeq, Nonce, Partition};
use coupon_core::interface::{Input, WriteResult};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::backoff::{TimeLimit, pause_before_write, retry_until_ok};
use crate::codec::messages::EncodedBatch;
use crate::crash_points::{Point, pass};
use crate::metrics::{self, PartitionMetrics, Stage};
use crate::ports::{DriverEvent, Writer};

/// A call for the task.
#[derive(Debug)]
pub(super) enum Call {
    /// Become the owner; retried until it succeeds.
    TakeOver(Nonce),
    /// One call, sent once.
    Write {
        /// The batch.
        batch: Arc<EncodedBatch>,
        /// How many calls in a row failed before this one.
        backoff: u32,
    },
    /// Read the partition's row; retried until it succeeds.
    ReadBack,
}

/// Performs calls until their sender is dropped.
pub(super) async fn perform_calls(
    partition: Partition,
    writer: Arc<dyn Writer>,
    mut calls: UnboundedReceiver<Call>,
    results: UnboundedSender<DriverEvent>,
    metrics: PartitionMetrics,
) {
    let mut watermark = EmitSeq(0);
    while let Some(call) = calls.recv().await {
        let result = match call {
            Call::TakeOver(nonce) => {
                pass(Point::BeforeTakeover).await;
                let row =
                    retry_until_ok(partition, "take over", TimeLimit::STEPS, || writer.take_over(nonce))
                        .await;
                pass(Point::AfterTakeover).await;
                tracing::info!(%partition, epoch = %row.epoch, next_offset = %row.position.next_offset, "taken over");
                watermark = row.emitted_seq;
                Input::TakenOver(row)
            }
            Call::Write { batch, backoff } => {
                pause_before_write(backoff).await;
                let next_watermark = batch.batch().watermark;
                if next_watermark > watermark {
                    pass(Point::BeforeWatermark).await;
                }
                let moved = std::mem::replace(&mut watermark, next_watermark) != next_watermark;
                let input = write(&*writer, batch, &metrics).await;
                if moved {
                    pass(Point::BeforeCommitOffset).await;
                }
                input
            }
            Call::ReadBack => {
                let row =
                    retry_until_ok(partition, "read back", TimeLimit::STEPS, || writer.read_back()).await;
                pass(Point::AfterReadBack).await;
                Input::ReadBack(row)
            }
        };
        if results.send(DriverEvent::Input(result)).is_err() {
            break;
        }
    }
}

async fn write(writer: &dyn Writer, batch: Arc<EncodedBatch>, metrics: &PartitionMetrics) -> Input {
    let fence = batch.batch().fence;
    pass(Point::BeforeWrite).await;
    let began = Instant::now();
    let result = writer.write(batch).await;
    metrics.stage(Stage::Write, began.elapsed());
    pass(Point::AfterWrite).await;
    ::metrics::counter!(metrics::WRITES, "result" => label(&result)).increment(1);
    if !matches!(result, WriteResult::Written) {
        tracing::warn!(partition = %fence.partition, write_no = %fence.write_no, ?result, "write failed");
    }
    Input::Written { write_no: fence.write_no, attempt: fence.attempt, result }
}

const fn label(result: &WriteResult) -> &'static str {
    match result {
        WriteResult::Written => "written",
        WriteResult::Unknown => "unknown",
        WriteResult::Fenced => "fenced",
        WriteResult::Retry => "retry",
        WriteResult::StatementTimedOut => "statement_timed_out",
        WriteResult::DataRejected(_) => "data_rejected",
        WriteResult::AlreadyDecided => "already_decided",
        WriteResult::Mismatch(_) => "mismatch",
    }
}
