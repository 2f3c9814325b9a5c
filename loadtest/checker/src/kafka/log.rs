//! `coupon.requests`, the log: every record in order, with the partition's time at each.

use coupon_core::ids::RequestId;
use rdkafka::message::Message as _;
use schemas::topics::{HEADER_REQUEST_ID, REQUESTS};
use schemas::{CouponRequest, Decoder, kinds};
use std::collections::BTreeMap;

use super::topics::{Kafka, OffsetRanges, TopicReadError, header};
use crate::collections::{Map, Set};

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRecord {
    pub(crate) offset: i64,
    appended: i64,
    /// The partition's time after this record: the largest append time so far.
    pub(crate) time: i64,
    pub(crate) kind: RecordKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Request(RequestId),
    /// Announces a load.
    StockAdded(i64),
    /// Carries only the time.
    Tick,
    /// A record without an outcome: a changed definition.
    Internal,
    /// The record, or its request id, cannot be decoded. Contains the request id of its headers, if there is one.
    Unreadable(Option<RequestId>),
}

/// The fields of a request that names more than a coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestFields {
    pub(crate) kind: Box<str>,
    pub(crate) user: Box<str>,
    /// The code, normalised.
    pub(crate) code: Option<Box<str>>,
    pub(crate) order: Option<Box<str>>,
    pub(crate) amount: Option<Box<str>>,
    pub(crate) currency: Option<Box<str>>,
    pub(crate) redemption: Option<RequestId>,
}

/// The log of requests, by partition, in order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) ranges: OffsetRanges,
    pub(crate) records: BTreeMap<i32, Vec<LogRecord>>,
    /// By partition and offset: the fields of every request but a claim of any code.
    pub(crate) fields: Map<(i32, i64), RequestFields>,
    pub(crate) count: usize,
}

impl Log {
    pub(crate) fn read(
        kafka: &Kafka,
        ranges: OffsetRanges,
        decoder: &Decoder<CouponRequest>,
    ) -> Result<Self, TopicReadError> {
        let mut log = Self { ranges, ..Self::default() };
        let Self { ranges, records, fields, count } = &mut log;
        kafka.read(REQUESTS, ranges, |record| {
            let (partition, offset) = (record.partition(), record.offset());
            let mut kind = RecordKind::Unreadable(None);
            if let Ok(request) = decoder.decode(record.payload().unwrap_or_default()) {
                kind = kind_of(&request);
                let names_more = request.kind != kinds::CLAIM || request.code.is_some();
                if matches!(kind, RecordKind::Request(_)) && names_more {
                    fields.insert((partition, offset), fields_of(request));
                }
            }
            if matches!(kind, RecordKind::Unreadable(_)) {
                let id = header(record, HEADER_REQUEST_ID).and_then(|id| RequestId::parse(id).ok());
                kind = RecordKind::Unreadable(id);
            }
            let records = records.entry(partition).or_default();
            let before = records.last().map_or(0, |before: &LogRecord| before.time);
            let appended = record.timestamp().to_millis().unwrap_or(0);
            records.push(LogRecord { offset, appended, time: before.max(appended), kind });
            *count += 1;
        })?;
        Ok(log)
    }

    /// These records do not move the time: an operator has had them rejected.
    pub(crate) fn ignore_times_of(&mut self, rejected: &Set<(i32, i64)>) {
        if rejected.is_empty() {
            return;
        }
        for (partition, records) in &mut self.records {
            let mut time = 0;
            for record in records {
                if !rejected.contains(&(*partition, record.offset)) {
                    time = time.max(record.appended);
                }
                record.time = time;
            }
        }
    }

    /// All records, with their partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, &LogRecord)> {
        self.records.iter().flat_map(|(partition, records)| records.iter().map(|record| (*partition, record)))
    }

    /// The record at an offset.
    pub(crate) fn record_at(&self, partition: i32, offset: i64) -> Option<&LogRecord> {
        let records = self.records.get(&partition)?;
        records.get(records.binary_search_by_key(&offset, |record| record.offset).ok()?)
    }

    /// The time of a partition after the record at an offset, or after the last one before it; `None` if the beginning
    /// of the log was deleted.
    pub(crate) fn time_at(&self, partition: i32, offset: i64) -> Option<i64> {
        let records = self.records.get(&partition)?;
        let count = records.partition_point(|record| record.offset <= offset);
        let last = records.get(count.checked_sub(1)?)?;
        self.ranges.get(&partition).filter(|range| range.start == 0).map(|_| last.time)
    }

    /// Whether the beginning of a partition was deleted.
    pub(crate) fn is_truncated(&self, partition: i32) -> bool {
        self.ranges.get(&partition).is_some_and(|range| range.start > 0)
    }

    /// The records that announce each load, by partition and offset.
    pub(crate) fn announcements(&self) -> Map<i64, Vec<(i32, i64)>> {
        let mut announcements: Map<i64, Vec<(i32, i64)>> = Map::default();
        for (partition, record) in self.iter() {
            if let RecordKind::StockAdded(load) = record.kind {
                announcements.entry(load).or_default().push((partition, record.offset));
            }
        }
        announcements
    }
}

fn kind_of(request: &CouponRequest) -> RecordKind {
    match request.kind.as_str() {
        kinds::TICK => RecordKind::Tick,
        kinds::DEFINITION_CHANGED => RecordKind::Internal,
        kinds::STOCK_ADDED => request.load_id.map_or(RecordKind::Unreadable(None), RecordKind::StockAdded),
        _ => {
            let id = RequestId::parse(&request.request_id);
            id.map_or(RecordKind::Unreadable(None), RecordKind::Request)
        }
    }
}

fn fields_of(request: CouponRequest) -> RequestFields {
    let text = |text: Option<String>| text.map(Into::into);
    RequestFields {
        kind: request.kind.into(),
        user: request.user_id.into(),
        code: text(request.code),
        order: text(request.order_id),
        amount: text(request.order_amount),
        currency: text(request.currency),
        redemption: request.redemption_id.and_then(|id| RequestId::parse(&id).ok()),
    }
}
