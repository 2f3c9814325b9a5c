//! `coupon.events` and `coupon.dead-letters`, together with what the outbox still holds of them.

use rdkafka::message::Message as _;
use schemas::topics::{DEAD_LETTERS, EVENTS};
use schemas::{CouponEvent, Decoder, kinds};
use xxhash_rust::xxh3::xxh3_64;

use super::topics::{Kafka, OffsetRanges, TopicReadError, header, is_before_end};
use crate::collections::{Map, Set};
use crate::postgres::Ledger;

/// A coupon at a record of the log: partition, offset, digest of the coupon id.
pub(crate) type CouponAt = (i32, i64, u64);

/// The beginning of the error of a record that was rejected because of its append time.
const TOO_FAR_AHEAD: &str = "its append time is too far ahead";

/// The digest of a coupon id in a [`CouponAt`].
pub(crate) fn coupon_digest(coupon: &str) -> u64 {
    xxh3_64(coupon.as_bytes())
}

/// A `hold_lapsed` or `lock_lapsed` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LapseEvent {
    /// Whether a hold lapsed; otherwise a lock.
    pub(crate) of_hold: bool,
    pub(crate) coupon: Box<str>,
    pub(crate) code: Box<str>,
    pub(crate) user: Box<str>,
    pub(crate) partition: i32,
    /// The first record that was not decided at the time of the lapse.
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) available: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct PublishedLapse {
    pub(crate) event: LapseEvent,
    /// Whether the snapshot must show it: it was published before the snapshot, or is in the outbox of the snapshot.
    /// Any other lapse may have happened after the snapshot.
    pub(crate) is_durable: bool,
}

/// Identifies a lapse that is published again: kind, partition, offset, time, digest of the code.
type LapseKey = (bool, i32, i64, i64, u64);

#[derive(Debug, Default)]
pub(crate) struct EventsAndDeadLetters {
    /// Every `restocked` event.
    pub(crate) restocked: Set<CouponAt>,
    /// Coupons with a `sold_out` event.
    pub(crate) sold_out: Set<Box<str>>,
    /// Every lapse once, however often it was published.
    pub(crate) lapses: Vec<PublishedLapse>,
    lapse_index: Map<LapseKey, u32>,
    /// Messages about events that were published again with other content.
    pub(crate) contradictions: Vec<String>,
    /// Whether retention has deleted events.
    pub(crate) incomplete: bool,
    /// Messages about events that cannot be decoded.
    pub(crate) unreadable: Vec<String>,
    /// By origin (partition and offset): whether the dead letter was published before the snapshot, or is in its outbox.
    /// The record of any other dead letter may have been consumed after the snapshot.
    pub(crate) dead_letters: Map<(i32, i64), bool>,
    /// Origins of the records that an operator has had rejected: they do not move the time.
    pub(crate) too_far_ahead: Set<(i32, i64)>,
    pub(crate) dead_letter_count: u64,
    /// Dead letters without an origin in their headers.
    pub(crate) without_origin: u64,
}

impl EventsAndDeadLetters {
    /// Reads both topics up to `ranges`, then the outbox. `before` are the ends of the topics before the snapshot.
    pub(crate) fn read(
        kafka: &Kafka,
        ranges: [&OffsetRanges; 2],
        before: [&OffsetRanges; 2],
        ledger: &Ledger,
        decoder: &Decoder<CouponEvent>,
    ) -> Result<Self, TopicReadError> {
        let mut read =
            Self { incomplete: ranges[0].values().any(|range| range.start > 0), ..Self::default() };
        read.read_events(kafka, ranges[0], before[0], decoder)?;
        for value in &ledger.unpublished_events {
            match decoder.decode(value) {
                Ok(event) => read.add(event, true),
                Err(error) => {
                    read.unreadable.push(format!("an event in the outbox cannot be read: {error}"));
                }
            }
        }
        read.read_dead_letters(kafka, ranges[1], before[1])?;
        read.dead_letters.extend(ledger.unpublished_dead_letters.iter().map(|origin| (*origin, true)));
        read.lapse_index = Map::default();
        Ok(read)
    }

    fn read_events(
        &mut self,
        kafka: &Kafka,
        ranges: &OffsetRanges,
        before: &OffsetRanges,
        decoder: &Decoder<CouponEvent>,
    ) -> Result<(), TopicReadError> {
        kafka.read(EVENTS, ranges, |record| match decoder.decode(record.payload().unwrap_or_default()) {
            Ok(event) => self.add(event, is_before_end(before, record.partition(), record.offset())),
            Err(error) => {
                let (partition, offset) = (record.partition(), record.offset());
                self.unreadable.push(format!("{EVENTS} {partition}@{offset} cannot be read: {error}"));
            }
        })
    }

    fn read_dead_letters(
        &mut self,
        kafka: &Kafka,
        ranges: &OffsetRanges,
        before: &OffsetRanges,
    ) -> Result<(), TopicReadError> {
        kafka.read(DEAD_LETTERS, ranges, |record| {
            self.dead_letter_count += 1;
            let number = |name| header(record, name).and_then(|text| text.parse::<i64>().ok());
            let partition = number("partition").and_then(|partition| i32::try_from(partition).ok());
            match partition.zip(number("offset")) {
                Some(origin) => {
                    let is_durable = is_before_end(before, record.partition(), record.offset());
                    *self.dead_letters.entry(origin).or_default() |= is_durable;
                    if header(record, "error").is_some_and(|error| error.starts_with(TOO_FAR_AHEAD)) {
                        self.too_far_ahead.insert(origin);
                    }
                }
                None => self.without_origin += 1,
            }
        })
    }

    fn add(&mut self, event: CouponEvent, is_durable: bool) {
        match event.kind.as_str() {
            kinds::RESTOCKED => {
                self.restocked.insert((event.partition, event.offset, coupon_digest(&event.coupon_id)));
            }
            kinds::SOLD_OUT => drop(self.sold_out.insert(event.coupon_id.into())),
            kinds::HOLD_LAPSED | kinds::LOCK_LAPSED => self.add_lapse(event, is_durable),
            _ => {}
        }
    }

    fn add_lapse(&mut self, event: CouponEvent, is_durable: bool) {
        let (Some(code), Some(user)) = (event.code, event.user_id) else {
            let CouponEvent { kind, coupon_id, .. } = event;
            return self.unreadable.push(format!("a {kind} event of {coupon_id} has no code or no user"));
        };
        let lapse = LapseEvent {
            of_hold: event.kind == kinds::HOLD_LAPSED,
            coupon: event.coupon_id.into(),
            code: code.into(),
            user: user.into(),
            partition: event.partition,
            offset: event.offset,
            at: event.at_ms,
            available: event.available.unwrap_or(-1),
        };
        let key = (lapse.of_hold, lapse.partition, lapse.offset, lapse.at, xxh3_64(lapse.code.as_bytes()));
        let next = u32::try_from(self.lapses.len()).unwrap_or(u32::MAX);
        let first = *self.lapse_index.entry(key).or_insert(next);
        match self.lapses.get_mut(first as usize) {
            None => self.lapses.push(PublishedLapse { event: lapse, is_durable }),
            Some(other) if other.event == lapse => other.is_durable |= is_durable,
            Some(PublishedLapse { event: other, .. }) => {
                self.contradictions.push(format!("{lapse:?} was published before as {other:?}"));
            }
        }
    }
}
