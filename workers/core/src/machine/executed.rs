//! A batch that is executed and not settled, and its records, in case it is undone.

use super::Head;
use crate::domain::batch::{Batch, Decision};
use crate::domain::ids::{Millis, Offset};
use crate::domain::record::{Payload, Record};
use std::sync::Arc;

/// An executed batch.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) batch: Arc<Batch>,
    /// Its records.
    pub(super) records: ExecutedRecords,
    /// The head after this batch.
    pub(super) after: Head,
}

/// The records of an executed batch. The requests that were decided are owned by their decisions.
#[derive(Debug, Default)]
pub(super) struct ExecutedRecords {
    headers: Vec<Header>,
    /// Payloads that no decision owns: ticks, loads, duplicates, unreadable records.
    others: Vec<(Offset, Payload)>,
}

/// A record without its payload.
#[derive(Clone, Copy, Debug)]
struct Header {
    offset: Offset,
    appended: Millis,
    digest: i64,
    bytes: usize,
}

impl ExecutedRecords {
    pub(super) fn with_capacity(records: usize) -> Self {
        Self { headers: Vec::with_capacity(records), others: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.headers.len()
    }

    /// Offset of the first record.
    pub(super) fn first(&self) -> Option<Offset> {
        self.headers.first().map(|header| header.offset)
    }

    /// Adds a record. Its payload is moved into its decision, or kept.
    pub(super) fn push(&mut self, record: &Record) {
        let Record { offset, appended, digest, bytes, .. } = *record;
        self.headers.push(Header { offset, appended, digest, bytes });
    }

    /// Keeps the payload of the record that was pushed last.
    pub(super) fn keep(&mut self, record: Option<Record>) {
        self.others.extend(record.map(|record| (record.offset, record.payload)));
    }

    /// The records as they were received; requests are copied from their decisions.
    fn restore(self, decisions: &[Decision]) -> Vec<Record> {
        let count = self.headers.len();
        let mut others = self.others.into_iter().peekable();
        let mut decisions = decisions.iter();
        let mut payload_at = |offset| {
            if let Some((_, payload)) = others.next_if(|(other, _)| *other == offset) {
                return Some(payload);
            }
            let decision = decisions.find(|decision| decision.offset == offset)?;
            Some(Payload::Request(decision.request.clone()))
        };
        let records = self.headers.into_iter().filter_map(|header| {
            let Header { offset, appended, digest, bytes } = header;
            Some(Record { offset, appended, digest, bytes, payload: payload_at(offset)? })
        });
        let records: Vec<Record> = records.collect();
        debug_assert_eq!(records.len(), count, "every record is kept, or owned by its decision");
        records
    }
}

impl Executed {
    /// The records of an undone batch.
    pub(super) fn into_records(self) -> Vec<Record> {
        self.records.restore(&self.batch.decisions)
    }
}
