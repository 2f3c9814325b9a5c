//! Performs what the machine of one ownership asks for, and feeds the answers back.
//!
//! Guarantees: every effect is performed in one exhaustive match; nothing is awaited between two inputs, so the next
//! batch is gathered while the last one is written; reads are repeated until they succeed, a write is sent once for
//! each [`Effect::Write`]; answers come back on a channel that belongs to this ownership alone, so what an older one
//! asked can never be answered to a newer one, and dropping the driver ends everything that it had begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::batch::{Batch, Position};
use coupon_core::effect::{
    Effect, Fill, FillResult, Input, PartitionRow, Pop, ReadCodes, Release, Token, Wants,
};
use coupon_core::ids::{EmitSeq, Millis, Offset, Partition, WriteNo};
use coupon_core::machine::{Config, Machine};
use coupon_core::record::Record;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::until_answered;
use crate::consumer::{Delivery, Fetched, InFlight};
use crate::crash_points::{Point, pass};
use crate::decode::{Decode, OwnedRaw};
use crate::lists::{Lists, doubted};
use crate::metrics::{PartitionMetrics, Stage};
use crate::seams::{Ledger, Order, Ownership, World};
use crate::standing::{State, Turn};
use crate::writing::{Call, write_calls};

/// A machine that hears nothing for this long is told so.
const IDLE_AFTER: Duration = Duration::from_millis(200);
/// Inputs taken from the channel at once.
const INPUTS_AT_ONCE: usize = 64;
/// How long an ownership that was told to let go may take to finish what is under way.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a partition that had stopped must have had nothing to do to be shown as running.
const PROVEN_AFTER: Duration = Duration::from_secs(5);

/// What wakes a driver.
#[derive(Debug)]
pub enum Wake {
    /// An answer for the machine.
    Input(Input),
    /// Something from the consumer thread.
    Fetched(Fetched),
    /// A record whose schema had to be looked up.
    Resolved(Box<Record>),
}

/// How an ownership ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to let go, and everything written has been told.
    HandedOver,
    /// It was asked to let go and did not finish in time; the next owner finishes for it.
    Abandoned,
    /// Another owner has taken the partition over.
    Fenced,
    /// It must not go on without an operator, who is told this.
    Stopped(String),
}

/// What all owners of a process share.
#[derive(Clone)]
pub struct Setup {
    /// The world.
    pub world: World,
    /// Bounds of each machine.
    pub machine: Config,
    /// How records are decoded that the consumer thread could not.
    pub decode: Decode,
}

/// One ownership of one partition.
pub struct Driver {
    partition: Partition,
    ownership: Ownership,
    world: World,
    ledger: Arc<dyn Ledger>,
    decode: Decode,
    machine: Machine,
    effects: Vec<Effect>,
    wakes: UnboundedSender<Wake>,
    ear: UnboundedReceiver<Wake>,
    writer: UnboundedSender<Call>,
    tasks: JoinSet<()>,
    in_flight: Arc<InFlight>,
    /// What was fetched behind a record whose schema is being looked up.
    held: Option<VecDeque<Fetched>>,
    /// What this ownership has made in Redis.
    lists: Lists,
    /// The row as the takeover returned it.
    taken: Option<PartitionRow>,
    began: Instant,
    /// When records were taken in last; monotonic, and paused with the tests' clock.
    heard: tokio::time::Instant,
    metrics: PartitionMetrics,
    turn: Turn,
    /// A partition that had stopped is decided again, until a batch has settled: from which record on, and since when,
    /// if no record has come since.
    proving: Option<(Offset, Option<tokio::time::Instant>)>,
    /// Where the last batch that was told has left the partition.
    position: Position,
    /// What was last committed for the group.
    committed: Offset,
    ended: Option<Ended>,
}

impl Driver {
    /// A driver that has not begun; `turn` is told how the partition stands.
    #[must_use]
    pub fn new(setup: &Setup, partition: Partition, ownership: Ownership, turn: Turn) -> Self {
        let (wakes, ear) = unbounded_channel();
        let (writer, calls) = unbounded_channel();
        let (ledger, writing) = setup.world.ledgers.open(partition);
        let metrics = PartitionMetrics::of(partition);
        let mut tasks = JoinSet::new();
        tasks.spawn(write_calls(partition, writing, calls, wakes.clone(), metrics.clone()));
        Self {
            partition,
            ownership,
            world: setup.world.clone(),
            ledger,
            decode: setup.decode.clone(),
            machine: Machine::new(partition, setup.machine.clone(), rand::random()),
            effects: Vec::new(),
            wakes,
            ear,
            writer,
            tasks,
            in_flight: Arc::default(),
            held: None,
            lists: Lists::new(setup.machine.coupons_remembered),
            taken: None,
            began: Instant::now(),
            heard: tokio::time::Instant::now(),
            metrics,
            turn,
            proving: None,
            position: Position::default(),
            committed: Offset(0),
            ended: None,
        }
    }

    /// Takes the partition over, decides, and ends when the machine is done, when it must stop, or some time after
    /// `letting_go`.
    pub async fn run(mut self, letting_go: CancellationToken) -> Ended {
        self.apply(Input::Begin);
        let mut inputs = Vec::with_capacity(INPUTS_AT_ONCE);
        let mut drained = None;
        while self.ended.is_none() {
            let idle = tokio::time::sleep(IDLE_AFTER);
            tokio::select! {
                biased;
                () = letting_go.cancelled(), if drained.is_none() => {
                    drained = Some(tokio::time::Instant::now() + DRAIN);
                    self.let_go();
                }
                _ = self.ear.recv_many(&mut inputs, INPUTS_AT_ONCE) => {
                    inputs.drain(..).for_each(|wake| self.wake(wake));
                }
                () = idle => self.apply(Input::Idle { quiet: self.quiet() }),
            }
            if drained.is_some_and(|until| tokio::time::Instant::now() >= until) {
                self.ended.get_or_insert(Ended::Abandoned);
            }
            self.reap();
            let status = self.machine.status();
            self.metrics.status(&status);
            self.turn.decided(status.next_offset);
            self.prove(status.next_offset);
        }
        self.order(Order::Stop(self.ownership));
        self.bear_witness();
        pass(Point::BeforeRelease).await;
        self.clean_up().await;
        self.ended.unwrap_or(Ended::Abandoned)
    }

    /// A partition that had stopped is shown as running once a batch has settled, or nothing is there to decide for
    /// some time: one that stops again at its first record would otherwise flap.
    fn prove(&mut self, next_offset: Offset) {
        let Some((from, silent_since)) = self.proving else { return };
        let nothing_to_do = silent_since.is_some_and(|since| since.elapsed() >= PROVEN_AFTER);
        if self.ended.is_none() && (next_offset > from || nothing_to_do) {
            self.proving = None;
            self.turn.set(State::Running);
        }
    }

    /// An owner that ends by force may be the only one to know how far Postgres had come, if Postgres was restored to
    /// an older backup. The group's metadata remembers it for whoever comes next. The offset is the one that was told
    /// last, so it runs ahead of nothing.
    fn bear_witness(&self) {
        if matches!(self.ended, Some(Ended::Stopped(_) | Ended::Fenced)) && self.committed > Offset(0) {
            let write_no = self.turn.highest_write();
            self.order(Order::Commit { next_offset: self.committed, write_no });
        }
    }

    /// However it ended, nobody pops from its lists again. A fill that is still under way would bring one back.
    async fn clean_up(&mut self) {
        let lists = self.lists.take_all();
        if !lists.is_empty() {
            self.tasks.shutdown().await;
            self.world.stock.throw_away(lists);
        }
    }

    /// An answer that will never come must not look like one that is late.
    fn reap(&mut self) {
        while let Some(task) = self.tasks.try_join_next() {
            if let Err(error) = task
                && error.is_panic()
            {
                self.stop(format!(
                    "a task of partition {} panicked ({error}): this is a bug",
                    self.partition
                ));
            }
        }
    }

    fn let_go(&mut self) {
        self.order(Order::Stop(self.ownership));
        self.apply(Input::LetGo);
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::Input(Input::TakenOver(row)) => {
                self.taken = Some(row);
                self.apply(Input::TakenOver(row));
                // A takeover that comes late, after the partition went elsewhere, has just shut its owner out.
                if !self.world.log.is_assigned(self.partition) {
                    tracing::warn!(partition = %self.partition, "taken over, but not assigned any more: letting go");
                    self.let_go();
                }
            }
            Wake::Input(input) => self.apply(input),
            Wake::Fetched(fetched) => match &mut self.held {
                Some(held) => held.push_back(fetched),
                None => self.take_in(fetched),
            },
            Wake::Resolved(record) => {
                self.in_flight.take(1);
                self.records(vec![*record]);
                let mut held = self.held.take().unwrap_or_default();
                while self.held.is_none()
                    && let Some(fetched) = held.pop_front()
                {
                    self.take_in(fetched);
                }
                if let Some(rest) = &mut self.held {
                    rest.append(&mut held);
                }
            }
        }
    }

    fn take_in(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Records(records) => {
                self.in_flight.take(records.len());
                self.records(records);
            }
            Fetched::Undecoded(raw) => {
                self.held = Some(VecDeque::new());
                self.resolve(raw);
            }
            Fetched::Doubt(error) => self.doubt(error),
            Fetched::Unreadable(text) => self.stop(text),
        }
    }

    fn records(&mut self, records: Vec<Record>) {
        self.heard = tokio::time::Instant::now();
        if let Some((_, silent_since)) = &mut self.proving {
            *silent_since = None;
        }
        self.apply(Input::Records(records));
    }

    /// How long the log has been silent, as far as we have read it.
    fn quiet(&self) -> Millis {
        Millis(i64::try_from(self.heard.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn apply(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.apply(input, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
    }

    /// The one place where effects become deeds.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::TakeOver { nonce } => self.call(Call::TakeOver(nonce)),
            Effect::Write { batch, backoff } => self.call(Call::Write { batch, backoff }),
            Effect::ReadBack => self.call(Call::ReadBack),
            Effect::CheckLog { position } => self.check_log(position),
            Effect::Consume { from } => self.consume(from),
            Effect::Pause => self.order(Order::Pause(self.ownership)),
            Effect::Resume => self.order(Order::Resume(self.ownership)),
            Effect::CommitOffset { next_offset, write_no } => {
                self.turn.written(write_no);
                self.committed = next_offset;
                self.order(Order::Commit { next_offset, write_no });
            }
            Effect::Load { token, wants } => self.load(token, wants),
            Effect::Reserve { token, pops, reads } => self.reserve(token, pops, reads),
            Effect::Fill(fill) => self.fill(fill),
            Effect::Emit(batch) => self.emit(batch),
            Effect::Reemit { from, to } => self.reemit(from, to),
            Effect::Tick => self.tick(),
            Effect::Released(release) => self.released(release),
        }
    }

    fn order(&self, order: Order) {
        self.world.log.tell(self.partition, order);
    }

    fn call(&self, call: Call) {
        // The writer ends only with the driver.
        drop(self.writer.send(call));
    }

    /// Runs beside everything else; its answer is an input.
    fn answer(&mut self, question: impl Future<Output = Input> + Send + 'static) {
        let wakes = self.wakes.clone();
        self.tasks.spawn(async move { drop(wakes.send(Wake::Input(question.await))) });
    }

    fn consume(&mut self, from: Offset) {
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

    fn check_log(&mut self, position: Position) {
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

    fn load(&mut self, token: Token, wants: Wants) {
        let (ledger, partition, metrics) = (Arc::clone(&self.ledger), self.partition, self.metrics.clone());
        self.answer(async move {
            let (began, wants) = (Instant::now(), Arc::new(wants));
            let answers = until_answered(partition, "load", || ledger.load(Arc::clone(&wants))).await;
            metrics.stage(Stage::Load, began.elapsed());
            pass(Point::AfterLoad).await;
            Input::Loaded { token, answers: Box::new(answers) }
        });
    }

    fn reserve(&mut self, token: Token, pops: Vec<Pop>, reads: Vec<ReadCodes>) {
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

    fn fill(&mut self, fill: Fill) {
        let (ledger, stock) = (Arc::clone(&self.ledger), Arc::clone(&self.world.stock));
        let partition = self.partition;
        stock.throw_away(self.lists.filling(fill.list));
        self.answer(async move {
            let read = until_answered(partition, "codes to fill", || ledger.codes(vec![fill.codes])).await;
            let codes: Vec<_> = read.into_iter().flatten().collect();
            let result = if codes.is_empty() {
                FillResult::Filled { count: 0, last: fill.codes.after }
            } else {
                pass(Point::BeforeFill).await;
                stock.append(fill.list, codes).await
            };
            if result == FillResult::Unknown {
                stock.throw_away(vec![fill.list]);
            }
            pass(Point::AfterFill).await;
            Input::Filled { list: fill.list, result }
        });
    }

    fn emit(&mut self, batch: Arc<Batch>) {
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
            Input::Emitted(seq)
        });
    }

    fn reemit(&mut self, from: EmitSeq, to: EmitSeq) {
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
                drop(wakes.send(Wake::Input(Input::Emitted(seq))));
            }
        });
    }

    /// Nobody waits for it but the machine, which hears of it as a record.
    fn tick(&mut self) {
        let (outlet, partition) = (Arc::clone(&self.world.outlet), self.partition);
        self.tasks.spawn(async move {
            pass(Point::BeforeTick).await;
            outlet.tick(partition).await;
            pass(Point::AfterTick).await;
        });
    }

    fn released(&mut self, release: Release) {
        let ended = match release {
            Release::HandedOver => Ended::HandedOver,
            Release::Fenced => Ended::Fenced,
            Release::Stopped(text) => Ended::Stopped(text),
        };
        self.ended.get_or_insert(ended);
    }

    fn stop(&mut self, text: String) {
        self.ended.get_or_insert(Ended::Stopped(text));
    }

    /// Fetches the schema that a record was written with, and decodes it again. Everything behind it waits, because
    /// it comes after it.
    fn resolve(&mut self, raw: Box<OwnedRaw>) {
        let (ledger, decode) = (Arc::clone(&self.ledger), self.decode.clone());
        let (partition, wakes) = (self.partition, self.wakes.clone());
        self.tasks.spawn(async move {
            let record = resolved(partition, &*ledger, &decode, &raw).await;
            drop(wakes.send(Wake::Resolved(Box::new(record))));
        });
    }

    /// Kafka's client gave up reading something. If the log is still what it was, reading begins again.
    fn doubt(&mut self, error: String) {
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

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
