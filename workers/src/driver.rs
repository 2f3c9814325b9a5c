//! Performs what the machine of one ownership asks for, and feeds the answers back.
//!
//! Guarantees: every effect is performed in one exhaustive match; nothing is awaited between two inputs, so the next
//! batch is gathered while the last one is written; reads are repeated until they succeed, a write is sent once for
//! each [`Effect::Write`]; answers come back on a channel that belongs to this ownership alone, so what an older one
//! asked can never be answered to a newer one, and dropping the driver ends everything that it had begun.

mod performing;
#[cfg(test)]
mod script;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::batch::Position;
use coupon_core::ids::{Millis, Offset, Partition};
use coupon_core::interface::{Effect, Input, PartitionRow, Release};
use coupon_core::machine::{Config, Machine};
use coupon_core::record::Record;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::consumer::{Fetched, InFlight};
use crate::crash_points::{Point, pass};
use crate::decode::Decode;
use crate::lists::Lists;
use crate::metrics::PartitionMetrics;
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
            lists: Lists::new(setup.machine.max_cached_coupons),
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
                () = idle => self.apply(Input::Idle { since_last_record: self.quiet() }),
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
        self.apply(Input::HandOver);
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
            Effect::Lookup { token, lookups: wants } => self.load(token, wants),
            Effect::Reserve { token, pops, reads } => self.reserve(token, pops, reads),
            Effect::Refill(fill) => self.fill(fill),
            Effect::Publish(batch) => self.emit(batch),
            Effect::Republish { from, to } => self.reemit(from, to),
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
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
