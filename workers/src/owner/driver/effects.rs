//! The effects that take time. Each runs in a task of its own, and its result returns as an input.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::batch::{Batch, Position};
use coupon_core::ids::{EmitSeq, Offset, Partition, WriteNo};
use coupon_core::interface::{Input, Lookups, Pop, ReadCodes, Refill, RefillResult, Token};
use coupon_core::record::Record;

use super::{Driver, Probation};
use crate::backoff::{TimeLimit, retry_until_ok};
use crate::codec::decode::{OwnedRawRecord, RecordDecoder};
use crate::crash_points::{Point, pass};
use crate::metrics::Stage;
use crate::owner::cache_lists::invalidated_by;
use crate::owner::status::PartitionState;
use crate::ports::{ConsumerCommand, Delivery, DriverEvent, Fetched, Ledger};

/// Time between two readings of Postgres' clock while a record waits for it.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

impl Driver {
    /// Runs a task whose result is an input.
    fn spawn(&mut self, task: impl Future<Output = Input> + Send + 'static) {
        let events = self.events.clone();
        self.tasks.spawn(async move { drop(events.send(DriverEvent::Input(task.await))) });
    }

    pub(super) fn consume(&mut self, from: Offset) {
        let after = self.started_at.elapsed();
        tracing::info!(partition = %self.partition, %from, ?after, "deciding records");
        self.metrics.taken_over(after);
        self.status.set_next_offset(from);
        if self.status.is_stopped() {
            self.probation = Some(Probation { from, idle_since: Some(tokio::time::Instant::now()) });
        } else {
            self.status.set(PartitionState::Running);
        }
        self.commit_takeover_offset(from);
        let delivery = Delivery {
            ownership: self.ownership,
            events: self.events.clone(),
            in_flight: Arc::clone(&self.in_flight),
        };
        self.send_command(ConsumerCommand::Start { from, delivery });
    }

    /// Commits the group's offset at the takeover if everything before it is published: the lag of a group whose offsets
    /// were deleted, or belong to another log, is correct again before the first batch.
    fn commit_takeover_offset(&mut self, from: Offset) {
        let published =
            |row: &coupon_core::interface::PartitionRow| row.emitted_seq.next() == row.next_emit_seq;
        if let Some(row) = self.row_at_takeover.filter(published) {
            self.committed = from;
            self.send_command(ConsumerCommand::Commit { next_offset: from, write_no: row.write_no });
        }
    }

    pub(super) fn check_log(&mut self, position: Position) {
        let (log, partition) = (Arc::clone(&self.ports.log), self.partition);
        let write_no = self.row_at_takeover.map_or_else(Default::default, |row| row.write_no);
        self.position = position;
        let highest_write = self.status.highest_write();
        self.status.record_write(write_no);
        self.spawn(async move {
            let checked = retry_until_ok(partition, "check log", TimeLimit::STEPS, || {
                log.check(partition, position, write_no)
            })
            .await;
            let checked = checked.and_then(|()| check_not_restored(partition, highest_write, write_no));
            pass(Point::AfterCheckLog).await;
            Input::LogChecked(checked)
        });
    }

    pub(super) fn lookup(&mut self, token: Token, lookups: Lookups) {
        let (ledger, partition, metrics) = (Arc::clone(&self.ledger), self.partition, self.metrics.clone());
        self.spawn(async move {
            let (began, lookups) = (Instant::now(), Arc::new(lookups));
            let results =
                retry_until_ok(partition, "lookup", TimeLimit::READ, || ledger.lookup(Arc::clone(&lookups)))
                    .await;
            metrics.stage(Stage::Lookup, began.elapsed());
            pass(Point::AfterLookup).await;
            Input::LookedUp { token, results: Box::new(results) }
        });
    }

    pub(super) fn read_clock(&mut self, offset: Offset, again: bool) {
        let (ledger, partition) = (Arc::clone(&self.ledger), self.partition);
        self.spawn(async move {
            if again {
                tokio::time::sleep(CLOCK_INTERVAL).await;
            }
            let read = retry_until_ok(partition, "clock", TimeLimit::READ, || ledger.clock(offset)).await;
            let (now, rejected_through) = read;
            Input::ClockRead { now, rejected_through }
        });
    }

    pub(super) fn reserve(&mut self, token: Token, pops: Vec<Pop>, reads: Vec<ReadCodes>) {
        let (ledger, stock) = (Arc::clone(&self.ledger), Arc::clone(&self.ports.stock));
        let (partition, metrics) = (self.partition, self.metrics.clone());
        self.spawn(async move {
            let began = Instant::now();
            let requested = pops.clone();
            let popping = async { if pops.is_empty() { Vec::new() } else { stock.pop(pops).await } };
            let reading = async {
                match reads.is_empty() {
                    true => Vec::new(),
                    false => {
                        retry_until_ok(partition, "codes", TimeLimit::READ, || {
                            ledger.read_codes(reads.clone())
                        })
                        .await
                    }
                }
            };
            let (popped, read) = tokio::join!(popping, reading);
            stock.delete_lists(invalidated_by(&requested, &popped));
            metrics.stage(Stage::Reserve, began.elapsed());
            pass(Point::AfterPop).await;
            Input::Reserved { token, popped, read }
        });
    }

    pub(super) fn refill(&mut self, refill: Refill) {
        let (ledger, stock) = (Arc::clone(&self.ledger), Arc::clone(&self.ports.stock));
        let partition = self.partition;
        stock.delete_lists(self.cache_lists.add(refill.list));
        self.spawn(async move {
            let read = retry_until_ok(partition, "refill codes", TimeLimit::READ, || {
                ledger.read_codes(vec![refill.codes])
            })
            .await;
            let codes: Vec<_> = read.into_iter().flatten().collect();
            let result = if codes.is_empty() {
                RefillResult::Refilled { count: 0, last: refill.codes.after }
            } else {
                pass(Point::BeforeRefill).await;
                stock.append(refill.list, codes).await
            };
            if result == RefillResult::Unknown {
                stock.delete_lists(vec![refill.list]);
            }
            pass(Point::AfterRefill).await;
            Input::Refilled { list: refill.list, result }
        });
    }

    pub(super) fn publish(&mut self, batch: Arc<Batch>) {
        let Some(seq) = batch.emit_seq else { return };
        self.status.record_write(batch.fence.write_no);
        self.position = batch.position;
        self.metrics.durable(&batch);
        let batch = self.encoded(batch);
        let (publisher, metrics) = (Arc::clone(&self.ports.publisher), self.metrics.clone());
        self.spawn(async move {
            let began = Instant::now();
            publisher.publish_batch(batch).await;
            metrics.stage(Stage::Publish, began.elapsed());
            pass(Point::AfterPublishAcknowledged).await;
            Input::Published(seq)
        });
    }

    pub(super) fn republish(&mut self, from: EmitSeq, to: EmitSeq) {
        tracing::info!(partition = %self.partition, %from, %to, "publishing outbox entries of an earlier owner");
        let (ledger, publisher) = (Arc::clone(&self.ledger), Arc::clone(&self.ports.publisher));
        let (partition, events) = (self.partition, self.events.clone());
        self.tasks.spawn(async move {
            let entries = retry_until_ok(partition, "outbox", TimeLimit::READ, || ledger.outbox_entries(from, to)).await;
            let missing = (from.0..=to.0).find(|seq| !entries.iter().any(|entry| entry.seq.0 == *seq));
            if let Some(missing) = missing {
                let text = format!(
                    "entry {missing} of the outbox of partition {partition} was deleted before it was published; its \
                     outcomes are in tables claims and outcomes"
                );
                drop(events.send(DriverEvent::Fetched(Fetched::Stop(text))));
                return;
            }
            pass(Point::BeforeRepublish).await;
            for entry in entries {
                let seq = entry.seq;
                publisher.publish_entry(partition, entry).await;
                pass(Point::AfterRepublish).await;
                drop(events.send(DriverEvent::Input(Input::Published(seq))));
            }
        });
    }

    /// Has no result: the machine receives the tick as a record.
    pub(super) fn tick(&mut self) {
        let (publisher, partition) = (Arc::clone(&self.ports.publisher), self.partition);
        self.tasks.spawn(async move {
            pass(Point::BeforeTick).await;
            publisher.tick(partition).await;
            pass(Point::AfterTick).await;
        });
    }

    /// Fetches the schema that a record was written with, and decodes the record again. Deliveries behind it wait, to
    /// keep the order of the log.
    pub(super) fn resolve(&mut self, raw: Box<OwnedRawRecord>) {
        let (ledger, decoder) = (Arc::clone(&self.ledger), self.decoder.clone());
        let (partition, events) = (self.partition, self.events.clone());
        self.tasks.spawn(async move {
            let record = decode_with_schema(partition, &*ledger, &decoder, &raw).await;
            drop(events.send(DriverEvent::Resolved(Box::new(record))));
        });
    }

    /// The log may have changed. Reading is restarted if the log still continues from the position of this owner.
    pub(super) fn revalidate(&mut self, cause: String) {
        let position = Position { next_offset: self.machine.status().next_offset, ..self.position };
        let (log, partition, ownership) = (Arc::clone(&self.ports.log), self.partition, self.ownership);
        let events = self.events.clone();
        self.tasks.spawn(async move {
            tracing::warn!(%partition, cause, "checking the log again");
            // The committed metadata may be newer than the position, so the write number is not compared.
            let any_write = WriteNo(i64::MAX);
            match retry_until_ok(partition, "check log", TimeLimit::STEPS, || {
                log.check(partition, position, any_write)
            })
            .await
            {
                Ok(()) => log.send_command(partition, ConsumerCommand::Restart(ownership)),
                Err(text) => drop(events.send(DriverEvent::Fetched(Fetched::Stop(text)))),
            }
        });
    }
}

/// Compares the highest write that this process has seen committed with the partition's row.
fn check_not_restored(partition: Partition, highest: WriteNo, row: WriteNo) -> Result<(), String> {
    if highest <= row {
        return Ok(());
    }
    Err(format!(
        "Postgres had committed write {highest} of partition {partition}, and has {row} at most now: it was restored to \
         an older backup; nothing is decided without workers repair"
    ))
}

async fn decode_with_schema(
    partition: Partition,
    ledger: &dyn Ledger,
    decoder: &RecordDecoder,
    raw: &OwnedRawRecord,
) -> Record {
    loop {
        let id = raw.schema;
        let Some(definition) =
            retry_until_ok(partition, "schema", TimeLimit::READ, || ledger.schema_definition(id)).await
        else {
            return decoder.record_without_schema(partition, raw);
        };
        match decoder.add_schema(id, &definition) {
            Ok(()) => tracing::info!(%partition, schema = %id, "added a writer's schema"),
            Err(error) => tracing::error!(%partition, schema = %id, %error, "unusable schema"),
        }
        if let Ok(record) = decoder.record(partition, &raw.as_raw(), || raw.headers()) {
            return record;
        }
    }
}
