//! Ports for the tests of the driver: they return scripted results and record every call.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coupon_core::batch::{Batch, Position};
use coupon_core::coupon::Definition;
use coupon_core::ids::{CodeNumber, CouponNo, EmitSeq, Epoch, Millis, Nonce, Offset, Partition, WriteNo};
use coupon_core::interface::{
    CacheListName, CodeEntry, LookupResults, Lookups, PartitionRow, Pop, Popped, ReadCodes, RefillResult,
    StoredCoupon, WriteResult,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use schemas::SchemaId;
use tokio::sync::Notify;

use crate::codec::messages::EncodedBatch;
use crate::ports::{
    ConsumerCommand, Delivery, DriverEvent, Fetched, Ledger, Ledgers, Log, OutboxEntry, PortError, Publisher,
    Stock, Writer,
};

pub(super) const HOME: Partition = Partition(0);
pub(super) const OWN: SchemaId = SchemaId(1);

/// Scripted results and recorded calls.
#[derive(Default)]
pub(super) struct Script {
    pub(super) not_assigned: AtomicBool,
    pub(super) log_mismatch: Mutex<Option<String>>,
    pub(super) delivery: Mutex<Option<Delivery>>,
    pub(super) started: Notify,
    pub(super) write_results: Mutex<Vec<WriteResult>>,
    /// While set, writes do not complete.
    pub(super) writes_hang: AtomicBool,
    pub(super) written: Mutex<Vec<Arc<Batch>>>,
    pub(super) lookups: AtomicUsize,
    pub(super) published: Mutex<Vec<EmitSeq>>,
    pub(super) committed: Mutex<Vec<Offset>>,
    pub(super) ticks: Mutex<Vec<Partition>>,
    pub(super) refilled: Mutex<Vec<CacheListName>>,
    pub(super) deleted: Mutex<Vec<CacheListName>>,
    pub(super) schema_failures: AtomicUsize,
    /// While set, starting to consume panics.
    pub(super) panics: AtomicBool,
    pub(super) changed: Notify,
}

impl Script {
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..60_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the condition does not hold within a minute");
    }

    pub(super) fn send(&self, fetched: Fetched) {
        let delivery = self.delivery.lock().unwrap();
        let delivery = delivery.as_ref().unwrap();
        if let Fetched::Records(records) = &fetched {
            delivery.in_flight.add(records.len());
        } else {
            delivery.in_flight.add(1);
        }
        delivery.events.send(DriverEvent::Fetched(fetched)).unwrap();
    }

    pub(super) fn decided(&self) -> Vec<i64> {
        let written = self.written.lock().unwrap();
        written.iter().flat_map(|batch| batch.decisions.iter().map(|d| d.offset.0)).collect()
    }
}

pub(super) struct ScriptedPorts(pub(super) Arc<Script>);

impl Log for ScriptedPorts {
    fn check(
        &self,
        _: Partition,
        _: Position,
        _: WriteNo,
    ) -> BoxFuture<'_, Result<Result<(), String>, PortError>> {
        async { Ok(self.0.log_mismatch.lock().unwrap().clone().map_or(Ok(()), Err)) }.boxed()
    }

    fn send_command(&self, _: Partition, command: ConsumerCommand) {
        match command {
            ConsumerCommand::Start { delivery, .. } => {
                assert!(!self.0.panics.load(Ordering::Relaxed), "planted");
                *self.0.delivery.lock().unwrap() = Some(delivery);
                self.0.started.notify_one();
            }
            ConsumerCommand::Commit { next_offset, .. } => self.0.committed.lock().unwrap().push(next_offset),
            _ => {}
        }
    }

    fn is_assigned(&self, _: Partition) -> bool {
        !self.0.not_assigned.load(Ordering::Relaxed)
    }
}

impl Stock for ScriptedPorts {
    fn pop(&self, pops: Vec<Pop>) -> BoxFuture<'_, Vec<Popped>> {
        async move { vec![Popped::Unknown; pops.len()] }.boxed()
    }

    fn append(&self, list: CacheListName, codes: Vec<CodeEntry>) -> BoxFuture<'_, RefillResult> {
        self.0.refilled.lock().unwrap().push(list);
        let last = codes.last().unwrap().number;
        async move { RefillResult::Refilled { count: codes.len(), last } }.boxed()
    }

    fn delete_lists(&self, lists: Vec<CacheListName>) {
        self.0.deleted.lock().unwrap().extend(lists);
    }
}

impl Ledger for ScriptedPorts {
    fn lookup(&self, lookups: Arc<Lookups>) -> BoxFuture<'_, Result<LookupResults, PortError>> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        let coupons = lookups.coupons.iter().filter(|id| id.starts_with('c')).map(|id| StoredCoupon {
            coupon_id: id.clone(),
            coupon: CouponNo(id.len() as i64),
            definition: Definition::default(),
            stock: coupon_core::batch::StockRow { top: 100, ..Default::default() },
            ahead: Vec::new(),
        });
        let results = LookupResults { coupons: coupons.collect(), ..LookupResults::default() };
        async { Ok(results) }.boxed()
    }

    fn read_codes(&self, reads: Vec<ReadCodes>) -> BoxFuture<'_, Result<Vec<Vec<CodeEntry>>, PortError>> {
        let list = |read: &ReadCodes| {
            (read.after.0 + 1..=(read.after.0 + read.count as i64).min(100))
                .map(|n| CodeEntry { number: CodeNumber(n), code: format!("code-{n}").into() })
                .collect()
        };
        let codes = reads.iter().map(list).collect();
        async { Ok(codes) }.boxed()
    }

    fn clock(&self, _: Offset) -> BoxFuture<'_, Result<(Millis, Option<Offset>), PortError>> {
        async { Ok((Millis(i64::MAX / 2), None)) }.boxed()
    }

    fn outbox_entries(
        &self,
        from: EmitSeq,
        to: EmitSeq,
    ) -> BoxFuture<'_, Result<Vec<OutboxEntry>, PortError>> {
        let entry = |seq| OutboxEntry {
            seq: EmitSeq(seq),
            next_offset: Offset(seq),
            decisions: Vec::new(),
            messages: Vec::new(),
        };
        let entries = (from.0..=to.0).map(entry).collect();
        async { Ok(entries) }.boxed()
    }

    fn schema_definition(&self, id: SchemaId) -> BoxFuture<'_, Result<Option<String>, PortError>> {
        let left = self.0.schema_failures.load(Ordering::Relaxed);
        async move {
            if left > 0 {
                self.0.schema_failures.store(left - 1, Ordering::Relaxed);
                return Err("Postgres is down".into());
            }
            Ok((id == SchemaId(2)).then(|| schemas::Subject::Request.newest().definition.to_owned()))
        }
        .boxed()
    }
}

impl Writer for ScriptedPorts {
    fn take_over(&self, nonce: Nonce) -> BoxFuture<'_, Result<PartitionRow, PortError>> {
        let row = PartitionRow {
            epoch: Epoch(3),
            nonce,
            write_no: WriteNo(10),
            attempt: None,
            position: Position { last_offset: Offset(-1), ..Position::default() },
            next_emit_seq: EmitSeq(8),
            emitted_seq: EmitSeq(5),
            next_deadline: None,
        };
        async move { Ok(row) }.boxed()
    }

    fn write(&self, batch: Arc<EncodedBatch>) -> BoxFuture<'_, WriteResult> {
        async move {
            self.0.until(|script| !script.writes_hang.load(Ordering::Relaxed)).await;
            let result = self.0.write_results.lock().unwrap().pop().unwrap_or(WriteResult::Written);
            if result == WriteResult::Written {
                self.0.written.lock().unwrap().push(Arc::clone(batch.batch()));
                self.0.changed.notify_waiters();
            }
            result
        }
        .boxed()
    }

    fn read_back(&self) -> BoxFuture<'_, Result<PartitionRow, PortError>> {
        let row = PartitionRow {
            epoch: Epoch(4),
            nonce: Nonce(4),
            write_no: WriteNo(10),
            attempt: None,
            position: Position::default(),
            next_emit_seq: EmitSeq(8),
            emitted_seq: EmitSeq(5),
            next_deadline: None,
        };
        async move { Ok(row) }.boxed()
    }
}

impl Publisher for ScriptedPorts {
    fn publish_batch(&self, batch: Arc<EncodedBatch>) -> BoxFuture<'_, ()> {
        async move { self.0.published.lock().unwrap().extend(batch.batch().emit_seq) }.boxed()
    }

    fn publish_entry(&self, _: Partition, entry: OutboxEntry) -> BoxFuture<'_, ()> {
        async move { self.0.published.lock().unwrap().push(entry.seq) }.boxed()
    }

    fn tick(&self, partition: Partition) -> BoxFuture<'_, ()> {
        async move { self.0.ticks.lock().unwrap().push(partition) }.boxed()
    }
}

impl Ledgers for ScriptedPorts {
    fn open(&self, _: Partition) -> (Arc<dyn Ledger>, Arc<dyn Writer>) {
        (Arc::new(Self(Arc::clone(&self.0))), Arc::new(Self(Arc::clone(&self.0))))
    }
}
