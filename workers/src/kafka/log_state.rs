//! Comparison of a partition's log with the position that Postgres has recorded.
//!
//! Nothing is repaired or skipped here. A log that was truncated, recreated or has lost what Postgres expects, and a
//! Postgres that was restored to an older backup, stop the partition with a text that names the cause.

use coupon_core::batch::Position;
use coupon_core::ids::{Offset, Partition, WriteNo};
use schemas::topics::REQUESTS;

/// The state of one partition in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogState {
    /// The first offset that is retained.
    pub(crate) low: Offset,
    /// The offset of the next record.
    pub(crate) high: Offset,
    /// The last record that Postgres has consumed, if it should still be retained.
    pub(crate) last: LastRecord,
    /// The write number in the group's committed metadata.
    pub(crate) committed: Option<WriteNo>,
}

/// The record that Postgres has consumed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRecord {
    /// Nothing was consumed yet, or the offset is outside the log's bounds.
    OutOfBounds,
    /// Its digest.
    Digest(i64),
    /// Its offset is within the log's bounds, and no record has it.
    Missing,
}

impl LogState {
    /// Whether the log continues from the recorded position.
    ///
    /// # Errors
    /// The mismatch, for an operator.
    pub(crate) fn verify(
        &self,
        partition: Partition,
        position: &Position,
        write_no: WriteNo,
    ) -> Result<(), String> {
        let Self { low, high, last, committed } = self;
        let next = position.next_offset;
        let log = format!("partition {partition} of {REQUESTS}");
        if next > *high {
            return Err(format!(
                "{log} ends at offset {high}, but Postgres has decided everything below {next}: the topic was \
                 truncated or recreated, or Kafka and Postgres do not belong together; nothing is skipped without \
                 workers repair"
            ));
        }
        if next < *low {
            return Err(format!(
                "{log} begins at offset {low}, but the next offset to decide is {next}: retention has removed {} \
                 records that are not decided; nothing is skipped without workers repair",
                low.0 - next.0
            ));
        }
        match last {
            LastRecord::Missing => {
                return Err(format!(
                    "{log} has lost the record at offset {}, which Postgres consumed last: it is another log; \
                     nothing is decided without workers repair",
                    position.last_offset
                ));
            }
            LastRecord::Digest(digest) if *digest != position.last_digest => {
                return Err(format!(
                    "the record at offset {} of {log} is not the one that Postgres consumed last: the topic was \
                     recreated, or truncated and written again; nothing is decided without workers repair",
                    position.last_offset
                ));
            }
            LastRecord::Digest(_) | LastRecord::OutOfBounds => {}
        }
        match committed {
            Some(committed) if *committed > write_no => Err(format!(
                "Kafka has recorded write {committed} of {log}, but Postgres has {write_no} at most: Postgres was \
                 restored to an older backup; decisions made since then are lost in Postgres, and nothing is decided \
                 again without workers repair"
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

    fn state() -> LogState {
        LogState {
            low: Offset(5),
            high: Offset(30),
            last: LastRecord::Digest(7),
            committed: Some(WriteNo(3)),
        }
    }

    fn verify(state: &LogState) -> Result<(), String> {
        state.verify(Partition(2), &position(), WriteNo(3))
    }

    #[test]
    fn a_log_that_continues_from_the_recorded_position_is_accepted() {
        assert_eq!(verify(&state()), Ok(()));
        assert_eq!(verify(&LogState { high: Offset(20), ..state() }), Ok(()), "no new records");
        let removed = LogState { low: Offset(20), last: LastRecord::OutOfBounds, ..state() };
        assert_eq!(verify(&removed), Ok(()), "retention has removed decided records");
        assert_eq!(
            verify(&LogState { committed: None, ..state() }),
            Ok(()),
            "the group's offset was deleted"
        );
    }

    #[test]
    fn a_log_that_does_not_continue_from_the_recorded_position_stops_the_partition_with_the_cause() {
        let cases = [
            (
                LogState { high: Offset(19), last: LastRecord::OutOfBounds, ..state() },
                "truncated or recreated",
            ),
            (
                LogState { low: Offset(23), last: LastRecord::OutOfBounds, ..state() },
                "removed 3 records that are not decided",
            ),
            (LogState { last: LastRecord::Digest(8), ..state() }, "is not the one"),
            (LogState { last: LastRecord::Missing, ..state() }, "has lost the record"),
            (LogState { committed: Some(WriteNo(4)), ..state() }, "older backup"),
        ];
        for (state, words) in cases {
            let text = verify(&state).expect_err(words);
            assert!(text.contains(words) && text.contains("partition 2"), "{text}");
        }
    }
}
