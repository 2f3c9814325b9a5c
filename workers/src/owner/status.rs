//! The status of every assigned partition, for readiness and metrics. A worker is ready when it has joined the group and
//! every assigned partition is running.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coupon_core::ids::{Offset, Partition, WriteNo};
use runtime::lifecycle::Readiness;

use super::progress::Progress;
use crate::metrics;

/// The readiness component of the group's membership.
pub const GROUP: &str = "group";
/// The readiness component of the assigned partitions.
pub const PARTITIONS: &str = "partitions";

/// The state of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Assigned; its records are not decided yet.
    TakingOver,
    /// Its records are decided.
    Running,
    /// It waits for an operator; the text is the reason.
    Stopped(String),
}

/// One owner's handle to the status of its partition. A partition may be assigned again while its earlier owner is still
/// handing over; changes by the earlier owner are then ignored.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    registry: Arc<StatusRegistry>,
    partition: Partition,
    slot: u64,
    next_offset: Arc<AtomicI64>,
    highest_write: Arc<AtomicI64>,
    progress: Arc<Progress>,
}

impl StatusHandle {
    /// Whether the partition is stopped, as set through this handle.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let slots = self.registry.lock();
        let slot = slots.partitions.get(&self.partition).filter(|slot| slot.number == self.slot);
        slot.is_some_and(|slot| matches!(slot.state, PartitionState::Stopped(_)))
    }

    /// A write with this number is durable.
    pub fn record_write(&self, write_no: WriteNo) {
        self.highest_write.fetch_max(write_no.0, Ordering::Relaxed);
    }

    /// The highest write number recorded through this handle. A partition's row with a lower number was restored from an
    /// older backup.
    #[must_use]
    pub fn highest_write(&self) -> WriteNo {
        WriteNo(self.highest_write.load(Ordering::Relaxed))
    }

    /// Changes the state.
    pub fn set(&self, state: PartitionState) {
        self.registry.change(|slots| {
            if let Some(slot) = slots.partitions.get_mut(&self.partition)
                && slot.number == self.slot
            {
                if state != PartitionState::Running {
                    slot.waiting = None;
                }
                slot.state = state;
            }
        });
    }

    /// The first record that is not decided yet. Takes no lock: it is set after every batch.
    pub fn set_next_offset(&self, next_offset: Offset) {
        self.next_offset.store(next_offset.0, Ordering::Relaxed);
    }

    /// What is durable, and whether anything waits for a decision. Takes no lock.
    pub fn set_progress(&self, durable: (WriteNo, Offset), has_work: bool) {
        self.progress.set(durable, has_work, Instant::now());
    }

    /// The partition waits for the reason given, and continues by itself; `None`: it does not wait.
    pub fn set_waiting(&self, reason: Option<String>) {
        self.registry.change(|slots| {
            if let Some(slot) = slots.partitions.get_mut(&self.partition)
                && slot.number == self.slot
            {
                slot.waiting = reason;
            }
        });
    }

    /// The owner has ended.
    pub fn remove(&self) {
        self.registry.change(|slots| {
            if slots.partitions.get(&self.partition).is_some_and(|slot| slot.number == self.slot) {
                drop(slots.partitions.remove(&self.partition));
            }
        });
    }
}

/// The statuses of all assigned partitions.
#[derive(Debug)]
pub struct StatusRegistry {
    readiness: Arc<Readiness>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    last_number: u64,
    partitions: BTreeMap<Partition, Slot>,
    /// Partitions without progress, although what they depend on responds.
    stalled: usize,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    state: PartitionState,
    /// Why it waits, although it is running.
    waiting: Option<String>,
    next_offset: Arc<AtomicI64>,
    progress: Arc<Progress>,
}

impl StatusRegistry {
    /// An empty registry that updates `readiness`.
    #[must_use]
    pub fn new(readiness: Arc<Readiness>) -> Arc<Self> {
        Arc::new(Self { readiness, slots: Mutex::default() })
    }

    /// The group has sent an assignment.
    pub fn set_group_joined(&self) {
        self.readiness.set(GROUP, Ok(()));
        self.change(|_| {});
    }

    /// The process leaves the group.
    pub fn set_group_leaving(&self) {
        self.readiness.set(GROUP, Err("leaving".to_owned()));
    }

    /// Adds a partition, or replaces the handle of its earlier owner.
    #[must_use]
    pub fn register(self: &Arc<Self>, partition: Partition) -> StatusHandle {
        let mut number = 0;
        let (next_offset, progress) = (Arc::new(AtomicI64::new(0)), Arc::<Progress>::default());
        self.change(|slots| {
            slots.last_number += 1;
            number = slots.last_number;
            let slot = Slot {
                number,
                state: PartitionState::TakingOver,
                waiting: None,
                next_offset: Arc::clone(&next_offset),
                progress: Arc::clone(&progress),
            };
            drop(slots.partitions.insert(partition, slot));
        });
        StatusHandle {
            registry: Arc::clone(self),
            partition,
            slot: number,
            next_offset,
            highest_write: Arc::default(),
            progress,
        }
    }

    /// Sets which running partitions are stalled: records wait for longer than `limit`, for which everything that they
    /// depend on has responded.
    pub(super) fn set_stalled(&self, now: Instant, limit: Duration) {
        self.change(|slots| {
            let stalled = |slot: &&Slot| {
                slot.state == PartitionState::Running && slot.progress.waiting_for(now) >= limit
            };
            slots.stalled = slots.partitions.values().filter(stalled).count();
        });
    }

    /// Nothing is stalled: what the partitions depend on does not respond.
    pub(super) fn clear_stalled(&self) {
        self.change(|slots| slots.stalled = 0);
    }

    /// The running partitions, each with its first record that is not decided yet.
    #[must_use]
    pub fn running(&self) -> Vec<(Partition, Offset)> {
        let slots = self.lock();
        let running = slots.partitions.iter().filter(|(_, slot)| slot.state == PartitionState::Running);
        running
            .map(|(partition, slot)| (*partition, Offset(slot.next_offset.load(Ordering::Relaxed))))
            .collect()
    }

    fn change(&self, change: impl FnOnce(&mut Slots)) {
        let mut slots = self.lock();
        change(&mut slots);
        let count = |matches: fn(&PartitionState) -> bool| {
            slots.partitions.values().filter(|slot| matches(&slot.state)).count()
        };
        let stopped = count(|state| matches!(state, PartitionState::Stopped(_)));
        #[expect(clippy::cast_precision_loss, reason = "a few thousand partitions at most")]
        {
            let running = count(|state| *state == PartitionState::Running);
            ::metrics::gauge!(metrics::PARTITIONS_RUNNING).set(running as f64);
            ::metrics::gauge!(metrics::PARTITIONS_STOPPED).set(stopped as f64);
            let waiting = slots.partitions.values().filter(|slot| slot.waiting.is_some()).count();
            ::metrics::gauge!(metrics::PARTITIONS_WAITING).set(waiting as f64);
            ::metrics::gauge!(metrics::PARTITIONS_STALLED).set(slots.stalled as f64);
        }
        self.readiness.set(PARTITIONS, slots.readiness());
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn readiness(&self) -> Result<(), String> {
        let stopped: Vec<&str> = self
            .partitions
            .values()
            .filter_map(|slot| match &slot.state {
                PartitionState::Stopped(text) => Some(text.as_str()),
                PartitionState::TakingOver | PartitionState::Running => None,
            })
            .collect();
        if !stopped.is_empty() {
            return Err(format!("stopped: {}", stopped.join("; ")));
        }
        let waiting: Vec<&str> =
            self.partitions.values().filter_map(|slot| slot.waiting.as_deref()).collect();
        if !waiting.is_empty() {
            return Err(waiting.join("; "));
        }
        if self.stalled > 0 {
            return Err("records wait without progress, although Postgres and Kafka respond".to_owned());
        }
        // Without partition numbers: every change of this text is a line in the log.
        let waiting = self.partitions.values().any(|slot| slot.state == PartitionState::TakingOver);
        if waiting { Err("taking partitions over".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_joined_and_every_assigned_partition_running() {
        let readiness = Readiness::new(&[GROUP, PARTITIONS]);
        let statuses = StatusRegistry::new(Arc::clone(&readiness));
        assert_eq!(readiness.check().map_err(|parts| parts.len()), Err(2));
        statuses.set_group_joined();
        assert_eq!(readiness.check(), Ok(()), "a worker on standby is ready");
        let (one, two) = (statuses.register(Partition(1)), statuses.register(Partition(2)));
        assert_eq!(readiness.check(), Err(vec!["partitions: taking partitions over".to_owned()]));
        one.set(PartitionState::Running);
        two.set(PartitionState::Stopped("the log was truncated".to_owned()));
        assert_eq!(readiness.check(), Err(vec!["partitions: stopped: the log was truncated".to_owned()]));
        two.remove();
        assert_eq!(readiness.check(), Ok(()));
        one.set_next_offset(Offset(9));
        assert_eq!(statuses.running(), [(Partition(1), Offset(9))]);
    }

    #[test]
    fn the_handle_of_an_owner_that_was_replaced_changes_nothing() {
        let readiness = Readiness::new(&[PARTITIONS]);
        let statuses = StatusRegistry::new(Arc::clone(&readiness));
        let earlier = statuses.register(Partition(1));
        let later = statuses.register(Partition(1));
        earlier.set(PartitionState::Stopped("stale".to_owned()));
        later.set(PartitionState::Running);
        earlier.remove();
        assert_eq!(statuses.running(), [(Partition(1), Offset(0))]);
    }
}
