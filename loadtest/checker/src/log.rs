//! What the topics say: the log of requests, and what was told.

use coupon_core::ids::RequestId;
use rdkafka::message::Message as _;
use schemas::topics::{HEADER_REQUEST_ID, REQUESTS, RESPONSES};
use schemas::{CouponRequest, CouponResponse, Decoder, Message, SchemaId, kinds};
use std::collections::BTreeMap;

use super::ledger::{Map, Registered};
use super::told::write_response;
use super::topics::{Kafka, Spans, TopicsUnread, header};

/// One record of `coupon.requests`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logged {
    pub(super) offset: i64,
    /// The partition's time once it is consumed: the largest append time so far.
    pub(super) time: i64,
    pub(super) says: Says,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Somebody asks for something.
    Request(RequestId),
    /// A load is announced.
    StockAdded(i64),
    /// The time is told, and nothing else.
    Tick,
    /// Nothing that asks for an outcome: a changed definition.
    Internal,
    /// It cannot be read, or its id cannot; the id of its headers, if there is one.
    Unreadable(Option<RequestId>),
}

/// What a request says beyond asking for any code of a coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) kind: Box<str>,
    pub(super) user: Box<str>,
    /// The code, normalised.
    pub(super) code: Option<Box<str>>,
    pub(super) order: Option<Box<str>>,
    pub(super) amount: Option<Box<str>>,
    pub(super) currency: Option<Box<str>>,
    pub(super) redemption: Option<RequestId>,
}

/// The log of requests, by partition, in order.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) spans: Spans,
    pub(super) records: BTreeMap<i32, Vec<Logged>>,
    /// What was asked for at which record, where it was not any code of a coupon.
    pub(super) wishes: Map<(i32, i64), Wish>,
    pub(super) count: usize,
}

impl Log {
    pub(super) fn read(
        kafka: &Kafka,
        spans: Spans,
        decoder: &Decoder<CouponRequest>,
    ) -> Result<Self, TopicsUnread> {
        let mut log = Self { spans, ..Self::default() };
        let Self { spans, records, wishes, count } = &mut log;
        kafka.read(REQUESTS, spans, |record| {
            let (partition, offset) = (record.partition(), record.offset());
            let mut says = Says::Unreadable(None);
            if let Ok(request) = decoder.decode(record.payload().unwrap_or_default()) {
                says = what_it_says(&request);
                if matches!(says, Says::Request(_))
                    && (request.kind != kinds::CLAIM || request.code.is_some())
                {
                    wishes.insert((partition, offset), wish(request));
                }
            }
            if matches!(says, Says::Unreadable(_)) {
                let id = header(record, HEADER_REQUEST_ID).and_then(|id| RequestId::parse(id).ok());
                says = Says::Unreadable(id);
            }
            let records = records.entry(partition).or_default();
            let before = records.last().map_or(0, |before: &Logged| before.time);
            let time = before.max(record.timestamp().to_millis().unwrap_or(0));
            records.push(Logged { offset, time, says });
            *count += 1;
        })?;
        Ok(log)
    }

    /// All records, with their partitions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, &Logged)> {
        self.records.iter().flat_map(|(partition, records)| records.iter().map(|record| (*partition, record)))
    }

    /// The time of a partition once the record at an offset, or the last one before it, was taken in; `None` where
    /// the log no longer begins with its beginning.
    pub(super) fn time_at(&self, partition: i32, offset: i64) -> Option<i64> {
        let records = self.records.get(&partition)?;
        let upto = records.partition_point(|record| record.offset <= offset);
        let last = records.get(upto.checked_sub(1)?)?;
        self.spans.get(&partition).filter(|span| span.from == 0).map(|_| last.time)
    }
}

fn what_it_says(request: &CouponRequest) -> Says {
    match request.kind.as_str() {
        kinds::TICK => Says::Tick,
        kinds::DEFINITION_CHANGED => Says::Internal,
        kinds::STOCK_ADDED => request.load_id.map_or(Says::Unreadable(None), Says::StockAdded),
        _ => RequestId::parse(&request.request_id).map_or(Says::Unreadable(None), Says::Request),
    }
}

fn wish(request: CouponRequest) -> Wish {
    let text = |text: Option<String>| text.map(Into::into);
    Wish {
        kind: request.kind.into(),
        user: request.user_id.into(),
        code: text(request.code),
        order: text(request.order_id),
        amount: text(request.order_amount),
        currency: text(request.currency),
        redemption: request.redemption_id.and_then(|id| RequestId::parse(&id).ok()),
    }
}

/// One response event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// Which request's; `None` where the event cannot be read.
    pub(super) id: Option<RequestId>,
    pub(super) digest: u64,
    /// What it says, for people.
    pub(super) text: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whether its key is its user.
    pub(super) keyed_by_user: bool,
}

/// Hands every response event to `each`.
pub(super) fn responses(
    kafka: &Kafka,
    spans: &Spans,
    decoder: &Decoder<CouponResponse>,
    mut each: impl FnMut(Told<'_>),
) -> Result<(), TopicsUnread> {
    let mut text = String::new();
    kafka.read(RESPONSES, spans, |record| {
        let (partition, offset) = (record.partition(), record.offset());
        let (id, digest, keyed_by_user) = match decoder.decode(record.payload().unwrap_or_default()) {
            Ok(response) => {
                let keyed = record.key() == Some(response.user_id.as_bytes());
                (RequestId::parse(&response.request_id).ok(), write_response(&response, &mut text), keyed)
            }
            Err(error) => {
                text = error.to_string();
                (None, 0, false)
            }
        };
        each(Told { id, digest, text: &text, partition, offset, keyed_by_user });
    })
}

/// A decoder that knows every schema that is registered.
pub(super) fn decoder<T: Message>(registered: &[Registered]) -> Decoder<T> {
    let newest = T::SUBJECT.newest();
    let own = registered.iter().find(|(_, fingerprint, _)| *fingerprint == newest.fingerprint);
    let decoder = Decoder::new(SchemaId(own.map_or(-1, |(id, ..)| *id)));
    for (id, _, definition) in registered {
        // Those of other subjects are of no use here, and what is written with them cannot be read.
        decoder.add_schema(SchemaId(*id), definition).ok();
    }
    decoder
}
