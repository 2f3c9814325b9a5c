//! What the topics say: the log of requests, and what was told.

use coupon_core::ids::RequestId;
use rdkafka::message::Message as _;
use schemas::topics::{DEAD_LETTERS, EVENTS, HEADER_REQUEST_ID, REQUESTS, RESPONSES};
use schemas::{CouponEvent, CouponRequest, CouponResponse, Decoder, Message, SchemaId, kinds};
use std::collections::BTreeMap;

use super::ledger::{Map, Registered, Set};
use super::told::write_response;
use super::topics::{Kafka, Spans, TopicsUnread, header};

/// One record of `coupon.requests`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logged {
    pub(super) offset: i64,
    pub(super) says: Says,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Somebody asks for something.
    Request(RequestId),
    /// A load is announced.
    StockAdded(i64),
    /// Nothing that asks for an outcome: ticks, changed definitions.
    Internal,
    /// It cannot be read, or its id cannot; the id of its headers, if there is one.
    Unreadable(Option<RequestId>),
}

/// The log of requests, by partition, in order.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) spans: Spans,
    pub(super) records: BTreeMap<i32, Vec<Logged>>,
    pub(super) count: usize,
}

impl Log {
    pub(super) fn read(
        kafka: &Kafka,
        spans: Spans,
        decoder: &Decoder<CouponRequest>,
    ) -> Result<Self, TopicsUnread> {
        let mut log = Self { spans, ..Self::default() };
        let (records, count) = (&mut log.records, &mut log.count);
        kafka.read(REQUESTS, &log.spans, |record| {
            let says = match decoder.decode(record.payload().unwrap_or_default()) {
                Ok(request) => says(&request),
                Err(_) => Says::Unreadable(None),
            };
            let says = match says {
                Says::Unreadable(_) => Says::Unreadable(
                    header(record, HEADER_REQUEST_ID).and_then(|id| RequestId::parse(id).ok()),
                ),
                says => says,
            };
            records.entry(record.partition()).or_default().push(Logged { offset: record.offset(), says });
            *count += 1;
        })?;
        Ok(log)
    }

    /// All records, with their partitions.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, &Logged)> {
        self.records.iter().flat_map(|(partition, records)| records.iter().map(|record| (*partition, record)))
    }
}

fn says(request: &CouponRequest) -> Says {
    match request.kind.as_str() {
        kinds::TICK | kinds::DEFINITION_CHANGED => Says::Internal,
        kinds::STOCK_ADDED => request.load_id.map_or(Says::Unreadable(None), Says::StockAdded),
        _ => RequestId::parse(&request.request_id).map_or(Says::Unreadable(None), Says::Request),
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

/// What was told beside the responses.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Records at which a load became stock.
    pub(super) restocked: Set<(i32, i64)>,
    /// Coupons that were said to be sold out.
    pub(super) sold_out: Set<Box<str>>,
    pub(super) events: usize,
    /// Events that cannot be read, for people.
    pub(super) unreadable: Vec<String>,
    /// Dead letters by their origin, with their reasons.
    pub(super) letters: Map<(i32, i64), Box<str>>,
    pub(super) letter_count: u64,
    /// Dead letters that do not say where they are from.
    pub(super) without_origin: u64,
}

impl Aside {
    pub(super) fn read(
        kafka: &Kafka,
        [events, letters]: [&Spans; 2],
        decoder: &Decoder<CouponEvent>,
    ) -> Result<Self, TopicsUnread> {
        let mut aside = Self::default();
        kafka.read(EVENTS, events, |record| {
            aside.events += 1;
            match decoder.decode(record.payload().unwrap_or_default()) {
                Ok(event) => aside.add(event),
                Err(error) => {
                    let place = (record.partition(), record.offset());
                    aside.unreadable.push(format!("{EVENTS} {place:?} cannot be read: {error}"));
                }
            }
        })?;
        kafka.read(DEAD_LETTERS, letters, |record| {
            aside.letter_count += 1;
            let number = |name| header(record, name).and_then(|text| text.parse::<i64>().ok());
            let origin = number("partition").and_then(|p| i32::try_from(p).ok()).zip(number("offset"));
            match origin {
                Some(origin) => {
                    let reason = header(record, "reason").unwrap_or_default();
                    aside.letters.insert(origin, reason.into());
                }
                None => aside.without_origin += 1,
            }
        })?;
        Ok(aside)
    }

    fn add(&mut self, event: CouponEvent) {
        match event.kind.as_str() {
            kinds::RESTOCKED => drop(self.restocked.insert((event.partition, event.offset))),
            kinds::SOLD_OUT => drop(self.sold_out.insert(event.coupon_id.into())),
            _ => {}
        }
    }
}

/// A decoder that knows every schema that is registered.
pub(super) fn decoder<T: Message>(registered: &[Registered]) -> Decoder<T> {
    let newest = T::SUBJECT.newest();
    let own = registered.iter().find(|(_, fingerprint, _)| *fingerprint == newest.fingerprint);
    let decoder = Decoder::new(SchemaId(own.map_or(-1, |(id, ..)| *id)));
    for (id, _, definition) in registered {
        // Those of other subjects are of no use here, and what is written with them cannot be read.
        decoder.learn(SchemaId(*id), definition).ok();
    }
    decoder
}
