//! How the assigned partitions stand, for readiness and metrics: ready means that every one of them is decided.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coupon_core::ids::{Offset, Partition, WriteNo};
use runtime::lifecycle::Readiness;

use crate::metrics;

/// The readiness part of the group's membership.
pub const GROUP: &str = "group";
/// The readiness part of the assigned partitions.
pub const PARTITIONS: &str = "partitions";

/// How one partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Assigned, not decided yet.
    TakingOver,
    /// Its records are decided.
    Running,
    /// Waits for an operator; the text says why.
    Stopped(String),
}

/// One owner's place in the book: the partition may be assigned again while an earlier owner still lets go, and what
/// the earlier one says then is not heard.
#[derive(Clone, Debug)]
pub struct Turn {
    standing: Arc<Standing>,
    partition: Partition,
    number: u64,
    decided: Arc<AtomicI64>,
    /// The highest write that this turn knows to be durable.
    written: Arc<AtomicI64>,
}

impl Turn {
    /// Whether the partition waits for an operator, as far as this turn has said.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let book = self.standing.book.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = book.partitions.get(&self.partition).filter(|entry| entry.number == self.number);
        entry.is_some_and(|entry| matches!(entry.state, State::Stopped(_)))
    }

    /// A write of this number is durable.
    pub fn written(&self, write_no: WriteNo) {
        self.written.fetch_max(write_no.0, Ordering::Relaxed);
    }

    /// The highest write that was ever durable in this turn: a row that has fewer has gone back in time.
    #[must_use]
    pub fn highest_write(&self) -> WriteNo {
        WriteNo(self.written.load(Ordering::Relaxed))
    }

    /// How the partition stands.
    pub fn set(&self, state: State) {
        self.standing.change(|book| {
            if let Some(entry) = book.partitions.get_mut(&self.partition)
                && entry.number == self.number
            {
                entry.state = state;
            }
        });
    }

    /// The first record that is not decided yet. Takes no lock: this is said after every batch.
    pub fn decided(&self, next_offset: Offset) {
        self.decided.store(next_offset.0, Ordering::Relaxed);
    }

    /// The owner is gone.
    pub fn leave(&self) {
        self.standing.change(|book| {
            if book.partitions.get(&self.partition).is_some_and(|entry| entry.number == self.number) {
                drop(book.partitions.remove(&self.partition));
            }
        });
    }
}

/// The book.
#[derive(Debug)]
pub struct Standing {
    readiness: Arc<Readiness>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    turns: u64,
    partitions: BTreeMap<Partition, Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    state: State,
    decided: Arc<AtomicI64>,
}

impl Standing {
    /// An empty book that tells `readiness`.
    #[must_use]
    pub fn new(readiness: Arc<Readiness>) -> Arc<Self> {
        Arc::new(Self { readiness, book: Mutex::default() })
    }

    /// The group has told what is ours.
    pub fn joined(&self) {
        self.readiness.set(GROUP, Ok(()));
        self.change(|_| {});
    }

    /// The process stops.
    pub fn leaving(&self) {
        self.readiness.set(GROUP, Err("leaving".to_owned()));
    }

    /// A partition gets an owner.
    #[must_use]
    pub fn enter(self: &Arc<Self>, partition: Partition) -> Turn {
        let mut number = 0;
        let decided = Arc::new(AtomicI64::new(0));
        self.change(|book| {
            book.turns += 1;
            number = book.turns;
            let entry = Entry { number, state: State::TakingOver, decided: Arc::clone(&decided) };
            drop(book.partitions.insert(partition, entry));
        });
        Turn { standing: Arc::clone(self), partition, number, decided, written: Arc::default() }
    }

    /// The partitions that are decided, each with its first record that is not decided yet.
    #[must_use]
    pub fn running(&self) -> Vec<(Partition, Offset)> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let running = book.partitions.iter().filter(|(_, entry)| entry.state == State::Running);
        running
            .map(|(partition, entry)| (*partition, Offset(entry.decided.load(Ordering::Relaxed))))
            .collect()
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut book);
        let count = |wanted: fn(&State) -> bool| {
            book.partitions.values().filter(|entry| wanted(&entry.state)).count()
        };
        let stopped = count(|state| matches!(state, State::Stopped(_)));
        #[expect(clippy::cast_precision_loss, reason = "a few thousand partitions at most")]
        {
            let running = count(|state| *state == State::Running);
            ::metrics::gauge!(metrics::PARTITIONS_RUNNING).set(running as f64);
            ::metrics::gauge!(metrics::PARTITIONS_STOPPED).set(stopped as f64);
        }
        self.readiness.set(PARTITIONS, book.summary());
    }
}

impl Book {
    fn summary(&self) -> Result<(), String> {
        let stopped: Vec<&str> = self
            .partitions
            .values()
            .filter_map(
                |entry| if let State::Stopped(text) = &entry.state { Some(text.as_str()) } else { None },
            )
            .collect();
        if !stopped.is_empty() {
            return Err(format!("stopped: {}", stopped.join("; ")));
        }
        // Without their numbers: every change of this text is a line in the log.
        let waiting = self.partitions.values().any(|entry| entry.state == State::TakingOver);
        if waiting { Err("taking partitions over".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_joined_and_every_assigned_partition_decided() {
        let readiness = Readiness::new(&[GROUP, PARTITIONS]);
        let standing = Standing::new(Arc::clone(&readiness));
        assert_eq!(readiness.check().map_err(|parts| parts.len()), Err(2));
        standing.joined();
        assert_eq!(readiness.check(), Ok(()), "a spare worker is ready");
        let (one, two) = (standing.enter(Partition(1)), standing.enter(Partition(2)));
        assert_eq!(readiness.check(), Err(vec!["partitions: taking partitions over".to_owned()]));
        one.set(State::Running);
        two.set(State::Stopped("the log was cut".to_owned()));
        assert_eq!(readiness.check(), Err(vec!["partitions: stopped: the log was cut".to_owned()]));
        two.leave();
        assert_eq!(readiness.check(), Ok(()));
        one.decided(Offset(9));
        assert_eq!(standing.running(), [(Partition(1), Offset(9))]);
    }

    #[test]
    fn an_owner_that_was_followed_by_another_says_nothing_any_more() {
        let readiness = Readiness::new(&[PARTITIONS]);
        let standing = Standing::new(Arc::clone(&readiness));
        let earlier = standing.enter(Partition(1));
        let later = standing.enter(Partition(1));
        earlier.set(State::Stopped("old news".to_owned()));
        later.set(State::Running);
        earlier.leave();
        assert_eq!(standing.running(), [(Partition(1), Offset(0))]);
    }
}
