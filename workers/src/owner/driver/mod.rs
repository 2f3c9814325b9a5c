//! The driver of one ownership: performs the effects of its state machine and returns their results as inputs.
//!
//! Guarantees: every effect is performed in one exhaustive match; nothing is awaited between two inputs, so the next
//! batch is prefetched while the previous one is written; reads are retried until they succeed, and a write is sent once
//! per [`Effect::Write`]; results arrive on a channel that belongs to this ownership alone, so a result of an earlier
//! ownership never reaches a later one; dropping the driver ends every task that it has started.

mod effects;
#[cfg(test)]
mod scripted_ports;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::batch::{Batch, Position};
use coupon_core::ids::{Millis, Offset, Partition};
use coupon_core::interface::{Effect, Input, PartitionRow, Release};
use coupon_core::machine::{Ahead, Config, Machine};
use coupon_core::record::Record;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache_lists::CacheLists;
use super::status::{PartitionState, StatusHandle};
use super::write_task::{Call, perform_calls};
use crate::codec::decode::RecordDecoder;
use crate::codec::messages::{EncodedBatch, Messages};
use crate::crash_points::{Point, pass};
use crate::metrics::PartitionMetrics;
use crate::ports::{ConsumerCommand, DriverEvent, Fetched, InFlight, Ledger, Ownership, Ports};

/// A machine without an input for this long receives [`Input::Idle`].
const IDLE_AFTER: Duration = Duration::from_millis(200);
/// Events received from the channel at a time.
const MAX_EVENTS: usize = 64;
/// Time limit of a hand-over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// A partition on probation counts as running after this long without a record to decide.
const PROBATION: Duration = Duration::from_secs(5);

/// How an ownership ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Handed over on request: every written outcome is published.
    HandedOver,
    /// Handed over on request, but not in time; the next owner completes its work.
    Abandoned,
    /// Another owner has taken the partition over.
    Fenced,
    /// It must not continue without an operator; the text is the reason.
    Stopped(String),
}

/// What all owners of a process share.
#[derive(Clone)]
pub struct Setup {
    /// The ports.
    pub ports: Ports,
    /// Bounds of each machine.
    pub machine: Config,
    /// Decodes records whose schema the consumer thread did not have.
    pub decoder: RecordDecoder,
    /// Encodes events and dead letters.
    pub messages: Messages,
}

/// One ownership of one partition.
pub struct Driver {
    partition: Partition,
    ownership: Ownership,
    ports: Ports,
    ledger: Arc<dyn Ledger>,
    decoder: RecordDecoder,
    messages: Messages,
    /// The batch of the last write; its messages are encoded once for writes and publication.
    last_write: Option<Arc<EncodedBatch>>,
    machine: Machine,
    effects: Vec<Effect>,
    events: UnboundedSender<DriverEvent>,
    receiver: UnboundedReceiver<DriverEvent>,
    write_calls: UnboundedSender<Call>,
    tasks: JoinSet<()>,
    in_flight: Arc<InFlight>,
    /// Deliveries behind a record whose schema is being fetched.
    held: Option<VecDeque<Fetched>>,
    /// The lists that this ownership has created in Redis.
    cache_lists: CacheLists,
    /// The partition's row as the takeover returned it.
    row_at_takeover: Option<PartitionRow>,
    started_at: Instant,
    /// When the last records were received; monotonic, and paused with the clock of tests.
    last_records_at: tokio::time::Instant,
    metrics: PartitionMetrics,
    status: StatusHandle,
    probation: Option<Probation>,
    /// The partition's position after the last batch that was published.
    position: Position,
    /// The group's offset that was committed last.
    committed: Offset,
    /// The record that waits for Postgres' clock, as reported.
    ahead: Option<Ahead>,
    ended: Option<Ended>,
}

/// A partition that had stopped is decided again, but shown as stopped until a batch has committed.
#[derive(Clone, Copy)]
struct Probation {
    /// The first record to decide.
    from: Offset,
    /// Since when there is no record to decide; `None` once one has arrived.
    idle_since: Option<tokio::time::Instant>,
}

impl Driver {
    /// A driver that has not started; it reports to `status`.
    #[must_use]
    pub fn new(setup: &Setup, partition: Partition, ownership: Ownership, status: StatusHandle) -> Self {
        let (events, receiver) = unbounded_channel();
        let (write_calls, calls) = unbounded_channel();
        let (ledger, writer) = setup.ports.ledgers.open(partition);
        let metrics = PartitionMetrics::of(partition);
        let mut tasks = JoinSet::new();
        tasks.spawn(perform_calls(partition, writer, calls, events.clone(), metrics.clone()));
        Self {
            partition,
            ownership,
            ports: setup.ports.clone(),
            ledger,
            decoder: setup.decoder.clone(),
            messages: setup.messages,
            last_write: None,
            machine: Machine::new(partition, setup.machine.clone(), rand::random()),
            effects: Vec::new(),
            events,
            receiver,
            write_calls,
            tasks,
            in_flight: Arc::default(),
            held: None,
            cache_lists: CacheLists::new(setup.machine.max_cached_coupons),
            row_at_takeover: None,
            started_at: Instant::now(),
            last_records_at: tokio::time::Instant::now(),
            metrics,
            status,
            probation: None,
            position: Position::default(),
            committed: Offset(0),
            ahead: None,
            ended: None,
        }
    }

    /// Takes the partition over and decides its records. Returns when the machine releases the partition, when it must
    /// stop, or at most [`HAND_OVER_TIMEOUT`] after `hand_over` is cancelled.
    pub async fn run(mut self, hand_over: CancellationToken) -> Ended {
        self.apply(Input::Begin);
        let mut events = Vec::with_capacity(MAX_EVENTS);
        let mut deadline = None;
        while self.ended.is_none() {
            let idle = tokio::time::sleep(IDLE_AFTER);
            tokio::select! {
                biased;
                () = hand_over.cancelled(), if deadline.is_none() => {
                    deadline = Some(tokio::time::Instant::now() + HAND_OVER_TIMEOUT);
                    self.begin_hand_over();
                }
                _ = self.receiver.recv_many(&mut events, MAX_EVENTS) => {
                    events.drain(..).for_each(|event| self.handle(event));
                }
                () = idle => self.apply(Input::Idle { since_last_record: self.since_last_records() }),
            }
            if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
                self.ended.get_or_insert(Ended::Abandoned);
            }
            self.check_tasks();
            let status = self.machine.status();
            self.metrics.status(&status);
            self.status.set_next_offset(status.next_offset);
            let has_work = status.has_work || self.held.is_some() || self.in_flight.count() > 0;
            // What waits for the clock is reported as such.
            let has_work = has_work && status.ahead.is_none();
            self.status.set_progress((status.write_no, status.next_offset), has_work);
            self.report_ahead(status.ahead);
            self.check_probation(status.next_offset);
        }
        self.send_command(ConsumerCommand::Stop(self.ownership));
        self.commit_high_water_mark();
        pass(Point::BeforeRelease).await;
        self.delete_cache_lists().await;
        self.ended.unwrap_or(Ended::Abandoned)
    }

    /// Reports the record that waits for Postgres' clock, or that none waits any more.
    fn report_ahead(&mut self, ahead: Option<Ahead>) {
        if ahead == self.ahead {
            return;
        }
        self.ahead = ahead;
        self.status.set_waiting(ahead.map(|Ahead { offset, by }| {
            format!(
                "partition {} waits: the append time of the record at offset {offset} is {} s ahead of Postgres' clock; \
                 correct the broker's clock; the partition continues when Postgres' clock has caught up, or after \
                 workers reject",
                self.partition,
                by / 1_000
            )
        }));
    }

    /// Ends the probation once a batch has committed, or no record has arrived for some time. Without probation a
    /// partition that stops again at its first record would flap.
    fn check_probation(&mut self, next_offset: Offset) {
        let Some(Probation { from, idle_since }) = self.probation else { return };
        let is_idle = idle_since.is_some_and(|since| since.elapsed() >= PROBATION);
        if self.ended.is_none() && (next_offset > from || is_idle) {
            self.probation = None;
            self.status.set(PartitionState::Running);
        }
    }

    /// Stores the highest write number in the group's metadata when the ownership ends by force: if Postgres was restored
    /// to an older backup, this process may be the only one that has it, and the next takeover must see it. The offset is
    /// the last one whose outcomes are published, so it runs ahead of nothing.
    fn commit_high_water_mark(&self) {
        if matches!(self.ended, Some(Ended::Stopped(_) | Ended::Fenced)) && self.committed > Offset(0) {
            let write_no = self.status.highest_write();
            self.send_command(ConsumerCommand::Commit { next_offset: self.committed, write_no });
        }
    }

    /// No list of this ownership is popped from again. Running tasks end first: a refill would create its list again.
    async fn delete_cache_lists(&mut self) {
        let lists = self.cache_lists.take_all();
        if !lists.is_empty() {
            self.tasks.shutdown().await;
            self.ports.stock.delete_lists(lists);
        }
    }

    /// A panicked task stops the partition: its result will never arrive.
    fn check_tasks(&mut self) {
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

    fn begin_hand_over(&mut self) {
        self.send_command(ConsumerCommand::Stop(self.ownership));
        self.apply(Input::HandOver);
    }

    fn handle(&mut self, event: DriverEvent) {
        match event {
            DriverEvent::Input(Input::TakenOver(row)) => self.taken_over(row),
            DriverEvent::Input(input) => self.apply(input),
            DriverEvent::Fetched(fetched) => match &mut self.held {
                Some(held) => held.push_back(fetched),
                None => self.receive(fetched),
            },
            DriverEvent::Resolved(record) => self.resolved(*record),
        }
    }

    fn taken_over(&mut self, row: PartitionRow) {
        self.row_at_takeover = Some(row);
        self.apply(Input::TakenOver(row));
        // A takeover that completes after the partition was reassigned has just fenced off its new owner.
        if !self.ports.log.is_assigned(self.partition) {
            tracing::warn!(partition = %self.partition, "taken over, but no longer assigned: handing over");
            self.begin_hand_over();
        }
    }

    /// A record whose schema was fetched; the deliveries behind it follow until one needs a schema, too.
    fn resolved(&mut self, record: Record) {
        self.in_flight.remove(1);
        self.apply_records(vec![record]);
        let mut held = self.held.take().unwrap_or_default();
        while self.held.is_none()
            && let Some(fetched) = held.pop_front()
        {
            self.receive(fetched);
        }
        if let Some(rest) = &mut self.held {
            rest.append(&mut held);
        }
    }

    fn receive(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Records(records) => {
                self.in_flight.remove(records.len());
                self.apply_records(records);
            }
            Fetched::Undecoded(raw) => {
                self.held = Some(VecDeque::new());
                self.resolve(raw);
            }
            Fetched::Revalidate(cause) => self.revalidate(cause),
            Fetched::Stop(text) => self.stop(text),
        }
    }

    fn apply_records(&mut self, records: Vec<Record>) {
        self.last_records_at = tokio::time::Instant::now();
        if let Some(probation) = &mut self.probation {
            probation.idle_since = None;
        }
        self.apply(Input::Records(records));
    }

    /// Time since the last records were received.
    fn since_last_records(&self) -> Millis {
        Millis(i64::try_from(self.last_records_at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn apply(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.machine.apply(input, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects = effects;
    }

    /// Performs one effect. What takes time runs in a task of its own.
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::TakeOver { nonce } => self.call(Call::TakeOver(nonce)),
            Effect::Write { batch, backoff } => {
                let batch = self.encoded(batch);
                self.last_write = Some(Arc::clone(&batch));
                self.call(Call::Write { batch, backoff });
            }
            Effect::ReadBack => self.call(Call::ReadBack),
            Effect::ReadClock { offset, again } => self.read_clock(offset, again),
            Effect::CheckLog { position } => self.check_log(position),
            Effect::Consume { from } => self.consume(from),
            Effect::Pause => self.send_command(ConsumerCommand::Pause(self.ownership)),
            Effect::Resume => self.send_command(ConsumerCommand::Resume(self.ownership)),
            Effect::CommitOffset { next_offset, write_no } => {
                self.status.record_write(write_no);
                self.committed = next_offset;
                self.send_command(ConsumerCommand::Commit { next_offset, write_no });
            }
            Effect::Lookup { token, lookups: wants } => self.lookup(token, wants),
            Effect::Reserve { token, pops, reads } => self.reserve(token, pops, reads),
            Effect::Refill(refill) => self.refill(refill),
            Effect::Publish(batch) => self.publish(batch),
            Effect::Republish { from, to } => self.republish(from, to),
            Effect::Tick => self.tick(),
            Effect::Released(release) => self.released(release),
        }
    }

    /// The batch of the last write, or else a new one.
    fn encoded(&mut self, batch: Arc<Batch>) -> Arc<EncodedBatch> {
        self.last_write
            .take()
            .filter(|last| Arc::ptr_eq(last.batch(), &batch))
            .unwrap_or_else(|| Arc::new(EncodedBatch::new(batch, self.messages)))
    }

    fn send_command(&self, command: ConsumerCommand) {
        self.ports.log.send_command(self.partition, command);
    }

    fn call(&self, call: Call) {
        // The write task ends only with the driver.
        drop(self.write_calls.send(call));
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
