//! What each effect of the machine does to the world. Whatever takes time runs beside the driver, and its answer comes
//! back as an input.

use std::sync::Arc;
use std::time::Instant;

use coupon_core::batch::{Batch, Position};
use coupon_core::ids::{EmitSeq, Offset, Partition, WriteNo};
use coupon_core::interface::{Input, Lookups, Pop, ReadCodes, Refill, RefillResult, Token};
use coupon_core::record::Record;

use super::{Driver, Wake};
use crate::backoff::until_answered;
use crate::consumer::{Delivery, Fetched};
use crate::crash_points::{Point, pass};
use crate::decode::{Decode, OwnedRaw};
use crate::lists::doubted;
use crate::metrics::Stage;
use crate::seams::{Ledger, Order};
use crate::standing::State;

impl Driver {
    /// Runs beside everything else; its answer is an input.
    fn answer(&mut self, question: impl Future<Output = Input> + Send + 'static) {
        let wakes = self.wakes.clone();
        self.tasks.spawn(async move { drop(wakes.send(Wake::Input(question.await))) });
    }

    pub(super) fn consume(&mut self, from: Offset) {
        let after = self.began.elapsed();
        tracing::info!(partition = %self.partition, %from, ?after, "deciding");
        self.metrics.taken_over(after);
        self.turn.decided(from);
        if self.turn.is_stopped() {
            self.proving = Some((from, Some(tokio::time::Instant::now())));
        } else {
            self.turn.set(State::Running);
        }
        self.commit_what_is_told(from);
        let delivery = Delivery {
            ownership: self.ownership,
            wakes: self.wakes.clone(),
            in_flight: Arc::clone(&self.in_flight),
        };
        self.order(Order::Start { from, delivery });
    }

    /// A group whose offsets were deleted, or are those of another log, shows the right lag again at once.
    fn commit_what_is_told(&mut self, from: Offset) {
        if let Some(row) = self.taken.filter(|row| row.emitted_seq.next() == row.next_emit_seq) {
            self.committed = from;
            self.order(Order::Commit { next_offset: from, write_no: row.write_no });
        }
    }

    pub(super) fn check_log(&mut self, position: Position) {
        let (log, partition) = (Arc::clone(&self.world.log), self.partition);
        let write_no = self.taken.map_or_else(Default::default, |row| row.write_no);
        self.position = position;
        let known = self.turn.highest_write();
        self.turn.written(write_no);
        self.answer(async move {
            let checked =
                until_answered(partition, "check log", || log.check(partition, position, write_no)).await;
            let checked = checked.and_then(|()| gone_back(partition, known, write_no));
            pass(Point::AfterCheckLog).await;
            Input::LogChecked(checked)
        });
    }

    pub(super) fn load(&mut self, token: Token, wants: Lookups) {
        let (ledger, partition, metrics) = (Arc::clone(&self.ledger), self.partition, self.metrics.clone());
        self.answer(async move {
            let (began, wants) = (Instant::now(), Arc::new(wants));
            let answers = until_answered(partition, "load", || ledger.load(Arc::clone(&wants))).await;
            metrics.stage(Stage::Load, began.elapsed());
            pass(Point::AfterLoad).await;
            Input::LookedUp { token, results: Box::new(answers) }
        });
    }

    pub(super) fn reserve(&mut self, token: Token, pops: Vec<Pop>, reads: Vec<ReadCodes>) {
        let (ledger, stock) = (Arc::clone(&self.ledger), Arc::clone(&self.world.stock));
        let (partition, metrics) = (self.partition, self.metrics.clone());
        self.answer(async move {
            let began = Instant::now();
            let asked = pops.clone();
            let popping = async { if pops.is_empty() { Vec::new() } else { stock.pop(pops).await } };
            let reading = async {
                match reads.is_empty() {
                    true => Vec::new(),
                    false => until_answered(partition, "codes", || ledger.codes(reads.clone())).await,
                }
            };
            let (popped, read) = tokio::join!(popping, reading);
            stock.throw_away(doubted(&asked, &popped));
            metrics.stage(Stage::Reserve, began.elapsed());
            pass(Point::AfterPop).await;
            Input::Reserved { token, popped, read }
        });
    }

    pub(super) fn fill(&mut self, fill: Refill) {
        let (ledger, stock) = (Arc::clone(&self.ledger), Arc::clone(&self.world.stock));
        let partition = self.partition;
        stock.throw_away(self.lists.filling(fill.list));
        self.answer(async move {
            let read = until_answered(partition, "codes to fill", || ledger.codes(vec![fill.codes])).await;
            let codes: Vec<_> = read.into_iter().flatten().collect();
            let result = if codes.is_empty() {
                RefillResult::Refilled { count: 0, last: fill.codes.after }
            } else {
                pass(Point::BeforeFill).await;
                stock.append(fill.list, codes).await
            };
            if result == RefillResult::Unknown {
                stock.throw_away(vec![fill.list]);
            }
            pass(Point::AfterFill).await;
            Input::Refilled { list: fill.list, result }
        });
    }

    pub(super) fn emit(&mut self, batch: Arc<Batch>) {
        let Some(seq) = batch.emit_seq else { return };
        self.turn.written(batch.fence.write_no);
        self.position = batch.position;
        self.metrics.durable(&batch);
        let (outlet, metrics) = (Arc::clone(&self.world.outlet), self.metrics.clone());
        self.answer(async move {
            let began = Instant::now();
            outlet.emit_batch(batch).await;
            metrics.stage(Stage::Emit, began.elapsed());
            pass(Point::AfterEmitAcknowledged).await;
            Input::Published(seq)
        });
    }

    pub(super) fn reemit(&mut self, from: EmitSeq, to: EmitSeq) {
        tracing::info!(partition = %self.partition, %from, %to, "telling again what an earlier owner wrote");
        let (ledger, outlet) = (Arc::clone(&self.ledger), Arc::clone(&self.world.outlet));
        let (partition, wakes) = (self.partition, self.wakes.clone());
        self.tasks.spawn(async move {
            let entries = until_answered(partition, "outbox", || ledger.entries(from, to)).await;
            if let Some(lost) = (from.0..=to.0).find(|seq| !entries.iter().any(|entry| entry.seq.0 == *seq)) {
                let text = format!(
                    "entry {lost} of the outbox of partition {partition} is gone before it was told: somebody \
                     deleted it; its outcomes are in claims and outcomes"
                );
                drop(wakes.send(Wake::Fetched(Fetched::Unreadable(text))));
                return;
            }
            pass(Point::BeforeReemit).await;
            for entry in entries {
                let seq = entry.seq;
                outlet.emit_entry(partition, entry).await;
                pass(Point::AfterReemit).await;
                drop(wakes.send(Wake::Input(Input::Published(seq))));
            }
        });
    }

    /// Nobody waits for it but the machine, which hears of it as a record.
    pub(super) fn tick(&mut self) {
        let (outlet, partition) = (Arc::clone(&self.world.outlet), self.partition);
        self.tasks.spawn(async move {
            pass(Point::BeforeTick).await;
            outlet.tick(partition).await;
            pass(Point::AfterTick).await;
        });
    }

    /// Fetches the schema that a record was written with, and decodes it again. Everything behind it waits, because
    /// it comes after it.
    pub(super) fn resolve(&mut self, raw: Box<OwnedRaw>) {
        let (ledger, decode) = (Arc::clone(&self.ledger), self.decode.clone());
        let (partition, wakes) = (self.partition, self.wakes.clone());
        self.tasks.spawn(async move {
            let record = resolved(partition, &*ledger, &decode, &raw).await;
            drop(wakes.send(Wake::Resolved(Box::new(record))));
        });
    }

    /// Kafka's client gave up reading something. If the log is still what it was, reading begins again.
    pub(super) fn doubt(&mut self, error: String) {
        let position = Position { next_offset: self.machine.status().next_offset, ..self.position };
        let (log, partition, ownership) = (Arc::clone(&self.world.log), self.partition, self.ownership);
        let wakes = self.wakes.clone();
        self.tasks.spawn(async move {
            tracing::warn!(%partition, error, "reading has ended: is the log still what it was?");
            let newest = WriteNo(i64::MAX);
            match until_answered(partition, "check log", || log.check(partition, position, newest)).await {
                Ok(()) => log.tell(partition, Order::Restart(ownership)),
                Err(text) => drop(wakes.send(Wake::Fetched(Fetched::Unreadable(text)))),
            }
        });
    }
}

/// This process itself has seen a later write than Postgres now knows of.
fn gone_back(partition: Partition, known: WriteNo, row: WriteNo) -> Result<(), String> {
    if known <= row {
        return Ok(());
    }
    Err(format!(
        "Postgres had confirmed write {known} of partition {partition}, and knows of {row} at most now: it was \
         restored to an older backup; nothing is decided until an operator says so (workers repair)"
    ))
}

async fn resolved(partition: Partition, ledger: &dyn Ledger, decode: &Decode, raw: &OwnedRaw) -> Record {
    loop {
        let id = raw.schema;
        let Some(definition) = until_answered(partition, "schema", || ledger.definition(id)).await else {
            return decode.without_a_schema(partition, raw);
        };
        match decode.learn(id, &definition) {
            Ok(()) => tracing::info!(%partition, schema = %id, "learnt a writer's schema"),
            Err(error) => tracing::error!(%partition, schema = %id, %error, "a schema cannot be used"),
        }
        if let Ok(record) = decode.record(partition, &raw.as_raw(), || raw.asker()) {
            return record;
        }
    }
}
