//! The log as the driver sees it: orders to the consumer thread, and the check at a takeover that the log is still
//! the one that Postgres knows.
//!
//! The check never repairs and never skips: a log that was cut, recreated, or has lost what Postgres expects, and a
//! Postgres that was restored to an older backup, stop the partition with a text that says which it is.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use coupon_core::batch::Position;
use coupon_core::ids::{Offset, Partition, WriteNo};
use futures::future::{BoxFuture, FutureExt as _};
use schemas::topics::REQUESTS;

use crate::consumer::{Assigned, Command};
pub use crate::inspector::Inspector;
use crate::seams::{Failure, Log, Order};
use crate::topic_identity::{self, Identities, Identity};

/// What the group's committed metadata begins with; the write number follows.
const METADATA: &str = "write_no=";

/// What is committed beside an offset.
#[must_use]
pub fn metadata_of(write_no: WriteNo) -> String {
    format!("{METADATA}{write_no}")
}

/// The write number in committed metadata, if it is ours.
#[must_use]
pub fn write_no_of(metadata: &str) -> Option<WriteNo> {
    metadata.strip_prefix(METADATA)?.parse().ok().map(WriteNo)
}

/// The log of this process.
pub struct KafkaLog {
    commands: Sender<Command>,
    assigned: Arc<Assigned>,
    inspector: Arc<Inspector>,
    identities: Identities,
}

impl KafkaLog {
    /// `commands` is the consumer thread's ear, `assigned` what it hears from the group.
    #[must_use]
    pub const fn new(
        commands: Sender<Command>,
        assigned: Arc<Assigned>,
        inspector: Arc<Inspector>,
        identities: Identities,
    ) -> Self {
        Self { commands, assigned, inspector, identities }
    }
}

impl Log for KafkaLog {
    fn check(
        &self,
        partition: Partition,
        position: Position,
        write_no: WriteNo,
    ) -> BoxFuture<'_, Result<Result<(), String>, Failure>> {
        let inspector = Arc::clone(&self.inspector);
        async move {
            let look = tokio::task::spawn_blocking(move || inspector.look(partition, position.last_offset));
            let (found, now, recorded) =
                tokio::join!(look, self.identities.now(), self.identities.recorded(partition));
            let recorded = recorded?;
            // Before what Kafka found: of a topic that is gone it finds nothing.
            if let Err(text) = topic_identity::judge(partition, now, recorded) {
                return Ok(Err(text));
            }
            if let Err(text) = found??.judge(partition, &position, write_no) {
                return Ok(Err(text));
            }
            if let (Identity::Is(id), None) = (now, recorded) {
                self.identities.record(partition, id).await?;
            }
            Ok(Ok(()))
        }
        .boxed()
    }

    fn tell(&self, partition: Partition, order: Order) {
        drop(self.commands.send(Command::Partition(partition, order)));
    }

    fn is_assigned(&self, partition: Partition) -> bool {
        self.assigned.contains(partition)
    }
}

/// What is found in Kafka about one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first offset that is still there.
    pub(crate) low: Offset,
    /// The offset that the next record will get.
    pub(crate) high: Offset,
    /// The record that Postgres consumed last, if it should still be there.
    pub(crate) last: Last,
    /// The write number in the group's committed metadata.
    pub(crate) committed: Option<WriteNo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// Nothing was consumed yet, or retention has removed it, or the log ends before it.
    NotThere,
    /// Its digest.
    Digest(i64),
    /// The log begins before it and goes on after it, and it is not there.
    Missing,
}

impl Found {
    /// Whether the log is the one that the row knows.
    pub(crate) fn judge(
        &self,
        partition: Partition,
        position: &Position,
        write_no: WriteNo,
    ) -> Result<(), String> {
        let Self { low, high, last, committed } = self;
        let next = position.next_offset;
        let of = format!("partition {partition} of {REQUESTS}");
        if next > *high {
            return Err(format!(
                "{of} ends at offset {high}, but Postgres has decided everything below {next}: the topic was cut or \
                 recreated, or Kafka and Postgres do not belong together; nothing is skipped until an operator \
                 says so (workers repair)"
            ));
        }
        if next < *low {
            return Err(format!(
                "{of} begins at offset {low}, but {next} is the next to be decided: retention has removed {} \
                 undecided records; nothing is skipped until an operator says so (workers repair)",
                low.0 - next.0
            ));
        }
        match last {
            Last::Missing => {
                return Err(format!(
                    "{of} has lost the record at offset {}, which Postgres consumed last: it is another log; \
                     nothing is decided until an operator says so (workers repair)",
                    position.last_offset
                ));
            }
            Last::Digest(digest) if *digest != position.last_digest => {
                return Err(format!(
                    "the record at offset {} of {of} is not the one that Postgres consumed last: the topic was \
                     recreated, or cut and has grown again; nothing is decided until an operator says so \
                     (workers repair)",
                    position.last_offset
                ));
            }
            Last::Digest(_) | Last::NotThere => {}
        }
        match committed {
            Some(committed) if *committed > write_no => Err(format!(
                "Kafka knows of write {committed} of {of}, but Postgres of {write_no} at most: Postgres was restored \
                 to an older backup; what was decided since is lost to it, and nothing is decided again until an \
                 operator says so (workers repair)"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position { next_offset: Offset(20), last_offset: Offset(19), last_digest: 7, ..Position::default() }
    }

    fn found() -> Found {
        Found { low: Offset(5), high: Offset(30), last: Last::Digest(7), committed: Some(WriteNo(3)) }
    }

    fn judged(found: &Found) -> Result<(), String> {
        found.judge(Partition(2), &position(), WriteNo(3))
    }

    #[test]
    fn a_log_that_goes_on_from_what_postgres_knows_is_accepted() {
        assert_eq!(judged(&found()), Ok(()));
        assert_eq!(judged(&Found { high: Offset(20), ..found() }), Ok(()), "nothing new");
        let removed = Found { low: Offset(20), last: Last::NotThere, ..found() };
        assert_eq!(judged(&removed), Ok(()), "retention has removed what was decided");
        assert_eq!(judged(&Found { committed: None, ..found() }), Ok(()), "the group's offset was deleted");
    }

    #[test]
    fn a_log_that_cannot_be_the_one_that_postgres_knows_stops_the_partition_and_says_why() {
        let cases = [
            (Found { high: Offset(19), last: Last::NotThere, ..found() }, "cut or recreated"),
            (Found { low: Offset(23), last: Last::NotThere, ..found() }, "removed 3 undecided records"),
            (Found { last: Last::Digest(8), ..found() }, "is not the one"),
            (Found { last: Last::Missing, ..found() }, "has lost the record"),
            (Found { committed: Some(WriteNo(4)), ..found() }, "older backup"),
        ];
        for (found, words) in cases {
            let text = judged(&found).expect_err(words);
            assert!(text.contains(words) && text.contains("partition 2"), "{text}");
        }
    }

    #[test]
    fn the_write_number_survives_as_metadata_and_other_metadata_is_ignored() {
        assert_eq!(write_no_of(&metadata_of(WriteNo(77))), Some(WriteNo(77)));
        for foreign in ["", "write_no=", "write_no=x", "77"] {
            assert_eq!(write_no_of(foreign), None);
        }
    }
}
