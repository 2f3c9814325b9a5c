//! The one thread that uses Kafka's consumers. It waits for nothing but Kafka, and for that only milliseconds.
//!
//! It has two clients. [`membership`] joins the group, receives the assignment and commits offsets for lag monitoring;
//! it never fetches a record. [`reader`] belongs to no group and reads from the offset that Postgres has recorded. The
//! two are separate because an assignment arrives before the takeover that returns the offset, and because a rebalance
//! must not discard what was fetched of other partitions.
//!
//! Input: [`Command`]s over a channel. Output: assignments and records, both over channels that never block.
//! Back-pressure: a partition with too many records in flight to its driver is paused here; its machine pauses it
//! earlier by its own bounds.

mod membership;
mod reader;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, Partition, WriteNo};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::sync::mpsc::UnboundedSender;

use crate::codec::decode::RecordDecoder;
use crate::crash_points::{Point, pass_blocking};
use crate::ports::{Assignment, ConsumerCommand};
use membership::Membership;
use reader::Reader;

/// How long a poll waits when there is no record; also the maximum delay of a command to an idle thread.
const IDLE_WAIT: Duration = Duration::from_millis(5);
/// Offsets are committed at this interval: they serve monitoring only.
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

/// A command to the thread.
#[derive(Debug)]
pub enum Command {
    /// For one partition.
    Partition(Partition, ConsumerCommand),
    /// The log may have changed: every owner checks its partition again. The text is the cause.
    Revalidate(String),
    /// Leave the group and end.
    Shutdown,
}

/// The partitions that the group assigns to this process, by the last rebalance.
#[derive(Debug, Default)]
pub struct Assigned(Mutex<Vec<i32>>);

impl Assigned {
    /// Whether a partition is assigned.
    #[must_use]
    pub fn contains(&self, partition: Partition) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition.0)
    }

    fn all(&self) -> Vec<Partition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().map(Partition).collect()
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

/// Settings of the thread.
pub struct Settings {
    /// Settings of the client that joins the group.
    pub membership: ClientConfig,
    /// Settings of the client that reads.
    pub reader: ClientConfig,
    /// Decodes the records.
    pub decoder: RecordDecoder,
    /// Receives changes of the assignment.
    pub assignments: UnboundedSender<Assignment>,
    /// The current assignment, shared with the log port.
    pub assigned: Arc<Assigned>,
}

/// The running thread.
pub struct ConsumerThread {
    /// Its command channel.
    pub commands: Sender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl ConsumerThread {
    /// Creates both clients, joins the group and starts. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Settings that librdkafka rejects, or a thread that cannot be created.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let (commands, receiver) = std::sync::mpsc::channel();
        let reader = Reader::new(&settings.reader, settings.decoder)?;
        let membership = Membership::join(settings.membership, settings.assignments, settings.assigned)?;
        let consumer = Consumer {
            membership,
            reader,
            commands: receiver,
            commits: BTreeMap::new(),
            committed_at: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("consumer".to_owned()).spawn(|| consumer.run())?;
        Ok(Self { commands, thread })
    }

    /// Leaves the group and ends the thread. Blocks until both are done.
    pub fn stop(self) {
        drop(self.commands.send(Command::Shutdown));
        if self.thread.join().is_err() {
            tracing::error!("consumer thread panicked");
        }
    }
}

/// The thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka rejects the settings.
    #[error("cannot create the Kafka client: {0}")]
    Kafka(#[from] KafkaError),
    /// The operating system creates no thread.
    #[error("cannot start the consumer thread: {0}")]
    Thread(#[from] std::io::Error),
}

struct Consumer {
    membership: Membership,
    reader: Reader,
    commands: Receiver<Command>,
    /// The newest offset to commit, by partition.
    commits: BTreeMap<Partition, (Offset, WriteNo)>,
    committed_at: Instant,
}

impl Consumer {
    fn run(mut self) {
        self.reader.find_leaders();
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Partition(partition, command)) => self.apply(partition, command),
                    Ok(Command::Revalidate(cause)) => self.reader.revalidate_all(&cause),
                    Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return self.leave(),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.membership.serve(Duration::ZERO);
            self.reader.read(IDLE_WAIT);
            if self.committed_at.elapsed() >= COMMIT_INTERVAL {
                self.commit();
            }
        }
    }

    fn apply(&mut self, partition: Partition, command: ConsumerCommand) {
        match command {
            ConsumerCommand::Start { from, delivery } => self.reader.start(partition, from, delivery),
            ConsumerCommand::Restart(ownership) => self.reader.restart(partition, ownership),
            ConsumerCommand::Stop(ownership) => self.reader.stop(partition, ownership),
            ConsumerCommand::Pause(ownership) => self.reader.set_paused(partition, ownership, true),
            ConsumerCommand::Resume(ownership) => self.reader.set_paused(partition, ownership, false),
            ConsumerCommand::Commit { next_offset, write_no } => {
                self.commits.insert(partition, (next_offset, write_no));
            }
        }
    }

    fn commit(&mut self) {
        self.committed_at = Instant::now();
        let commits = std::mem::take(&mut self.commits);
        if !commits.is_empty() {
            self.membership.commit(&commits);
            pass_blocking(Point::AfterCommitOffset);
        }
    }

    fn leave(mut self) {
        let began = Instant::now();
        self.commit();
        self.membership.leave();
        tracing::info!(took = ?began.elapsed(), "left the group");
    }
}
