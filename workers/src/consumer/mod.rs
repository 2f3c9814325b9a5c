//! The one thread that talks to Kafka's consumers. It never waits for anybody but Kafka, and for that only
//! milliseconds.
//!
//! Two clients: [`membership`] belongs to the group, to be told which partitions are ours and to commit offsets for
//! lag monitoring; it never fetches a record. [`reader`] belongs to no group and reads from where Postgres says.
//! The two are apart because an assignment comes before the takeover that tells where to begin, and because a
//! rebalance must not throw away what other partitions have fetched.
//!
//! In: [`Command`]s, over a channel. Out: assignments to the fleet, records to the task of their partition, both over
//! channels that never block. Back-pressure: a partition whose task has too many records waiting is held back here, and
//! its machine holds it back before that by its own bounds.

mod membership;
mod reader;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, Partition, WriteNo};
use coupon_core::record::Record;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use runtime::supervised::SupervisedClient;
use tokio::sync::mpsc::UnboundedSender;

use crate::crash_points::{Point, pass_by};
use crate::decode::{Decode, OwnedRaw};
use crate::driver::Wake;
use crate::seams::{Order, Ownership};
pub use membership::Assignment;
use membership::Membership;
use reader::Reader;

/// How long a call of Kafka waits when nothing is there; also how late a command may be heard by an idle thread.
const IDLE_WAIT: Duration = Duration::from_millis(5);
/// Offsets are committed in this rhythm: they are for monitoring only.
const COMMIT_RHYTHM: Duration = Duration::from_millis(250);

/// What the thread is told.
#[derive(Debug)]
pub enum Command {
    /// Do something about one partition.
    Partition(Partition, Order),
    /// The log may be another one than it was: every owner looks at its partition again. The text says why.
    Doubt(String),
    /// Leave the group and end.
    Shutdown,
}

/// What the task of a partition gets.
#[derive(Debug)]
pub enum Fetched {
    /// Records in the order of the log.
    Records(Vec<Record>),
    /// The next record; its writer's schema is not known here.
    Undecoded(Box<OwnedRaw>),
    /// Kafka's client gave up reading some partition, maybe this one: is the log still what it was?
    Doubt(String),
    /// This partition cannot be read on; the text says why and what to do.
    Unreadable(String),
}

/// Where the records of one ownership go.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Whose they are.
    pub ownership: Ownership,
    /// The task's channel.
    pub wakes: UnboundedSender<Wake>,
    /// Records sent and not taken in yet.
    pub in_flight: Arc<InFlight>,
}

/// Counts the records on their way to a task.
#[derive(Debug, Default)]
pub struct InFlight(AtomicUsize);

impl InFlight {
    /// So many are sent.
    pub fn add(&self, records: usize) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }

    /// So many are taken in.
    pub fn take(&self, records: usize) {
        self.0.fetch_sub(records, Ordering::Relaxed);
    }

    /// How many are on their way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The partitions that the group assigns to this process, as the thread heard last.
#[derive(Debug, Default)]
pub struct Assigned(Mutex<Vec<i32>>);

impl Assigned {
    /// Whether a partition is ours.
    #[must_use]
    pub fn contains(&self, partition: Partition) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition.0)
    }

    fn add(&self, partitions: &[Partition]) {
        let mut assigned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            if !assigned.contains(&partition.0) {
                assigned.push(partition.0);
            }
        }
    }

    fn remove(&self, partitions: &[Partition]) {
        let mut assigned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assigned.retain(|partition| !partitions.contains(&Partition(*partition)));
    }
}

/// What the thread needs.
pub struct Settings {
    /// Settings of the client that joins the group.
    pub membership: ClientConfig,
    /// Settings of the client that reads.
    pub reader: ClientConfig,
    /// How records are decoded.
    pub decode: Decode,
    /// Where assignments go.
    pub assignments: UnboundedSender<Assignment>,
    /// What is assigned, for everybody.
    pub assigned: Arc<Assigned>,
}

/// The running thread.
pub struct ConsumerThread {
    /// Its ear.
    pub commands: Sender<Command>,
    /// Both clients, to be watched.
    pub watched: [Arc<dyn SupervisedClient>; 2],
    thread: std::thread::JoinHandle<()>,
}

impl ConsumerThread {
    /// Makes both clients, joins the group and starts.
    ///
    /// # Errors
    /// What librdkafka has against the settings, or the system against a thread.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let (commands, ear) = std::sync::mpsc::channel();
        let reader = Reader::new(&settings.reader, settings.decode)?;
        let membership = Membership::join(&settings.membership, settings.assignments, settings.assigned)?;
        let watched = [reader.watched(), membership.watched(commands.clone())];
        let consumer = Consumer {
            membership,
            reader,
            commands: ear,
            commits: BTreeMap::new(),
            committed: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("consumer".to_owned()).spawn(|| consumer.run())?;
        Ok(Self { commands, watched, thread })
    }

    /// Leaves the group and ends the thread. Blocks until it has.
    pub fn stop(self) {
        drop(self.commands.send(Command::Shutdown));
        if self.thread.join().is_err() {
            tracing::error!("the consumer thread panicked");
        }
    }

    /// Whether the thread has ended by itself, which it never should.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Kafka's client.
    #[error("Kafka's client cannot be made: {0}")]
    Kafka(#[from] KafkaError),
    /// The system.
    #[error("no thread for the consumer: {0}")]
    Thread(#[from] std::io::Error),
}

struct Consumer {
    membership: Membership,
    reader: Reader,
    commands: Receiver<Command>,
    /// The newest offset to be committed, by partition.
    commits: BTreeMap<Partition, (Offset, WriteNo)>,
    committed: Instant,
}

impl Consumer {
    fn run(mut self) {
        self.reader.find_leaders();
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Partition(partition, order)) => self.obey(partition, order),
                    Ok(Command::Doubt(why)) => self.reader.doubt_all(&why),
                    Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return self.leave(),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.membership.serve(Duration::ZERO);
            self.reader.read(IDLE_WAIT);
            if self.committed.elapsed() >= COMMIT_RHYTHM {
                self.commit();
            }
        }
    }

    fn obey(&mut self, partition: Partition, order: Order) {
        match order {
            Order::Start { from, delivery } => self.reader.start(partition, from, delivery),
            Order::Restart(ownership) => self.reader.restart(partition, ownership),
            Order::Stop(ownership) => self.reader.stop(partition, ownership),
            Order::Pause(ownership) => self.reader.hold(partition, ownership, true),
            Order::Resume(ownership) => self.reader.hold(partition, ownership, false),
            Order::Commit { next_offset, write_no } => {
                self.commits.insert(partition, (next_offset, write_no));
            }
        }
    }

    fn commit(&mut self) {
        self.committed = Instant::now();
        let commits = std::mem::take(&mut self.commits);
        if !commits.is_empty() {
            self.membership.commit(&commits);
            pass_by(Point::AfterCommitOffset);
        }
    }

    fn leave(mut self) {
        let began = Instant::now();
        self.commit();
        self.membership.leave();
        tracing::info!(took = ?began.elapsed(), "left the group");
    }
}
