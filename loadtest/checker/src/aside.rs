//! What was told beside the responses: events and dead letters.

use rdkafka::message::Message as _;
use schemas::topics::{DEAD_LETTERS, EVENTS};
use schemas::{CouponEvent, Decoder, kinds};
use xxhash_rust::xxh3::xxh3_64;

use super::ledger::{Ledger, Map, Set};
use super::topics::{Kafka, Spans, TopicsUnread, covers, header};

/// A record of the log, and a coupon.
pub(super) type At = (i32, i64, u64);

/// A coupon's id in an [`At`].
pub(super) fn digest_of(coupon: &str) -> u64 {
    xxh3_64(coupon.as_bytes())
}

/// An event that tells of a lapse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lapse {
    /// Of a hold; else of a lock.
    pub(super) of_hold: bool,
    pub(super) coupon: Box<str>,
    pub(super) code: Box<str>,
    pub(super) user: Box<str>,
    pub(super) partition: i32,
    /// The first record that was not decided when it happened.
    pub(super) offset: i64,
    pub(super) at: i64,
    pub(super) available: i64,
}

/// A lapse, and whether the rows that were read must show it.
#[derive(Clone, Debug)]
pub(super) struct ToldLapse {
    pub(super) lapse: Lapse,
    /// It was told before the snapshot, or is still owed by it; else it may have happened after it.
    pub(super) is_durable: bool,
}

/// What makes an event the same one, told again: kind, partition, offset, time, code.
type Telling = (bool, i32, i64, i64, u64);

/// What was told beside the responses.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Records at which codes of a coupon that had none became stock.
    pub(super) restocked: Set<At>,
    /// Coupons that were said to be sold out.
    pub(super) sold_out: Set<Box<str>>,
    /// Every lapse once, however often it was told.
    pub(super) lapses: Vec<ToldLapse>,
    tellings: Map<Telling, u32>,
    /// Events that were told again, otherwise; for people.
    pub(super) contradictions: Vec<String>,
    /// Whether events of before were dropped by age.
    pub(super) incomplete: bool,
    pub(super) events: usize,
    /// Events that cannot be read, for people.
    pub(super) unreadable: Vec<String>,
    /// Dead letters by their origin; and whether they were told before the snapshot, or are still owed by it. Of any other
    /// the record may have been consumed after it.
    pub(super) letters: Map<(i32, i64), bool>,
    pub(super) letter_count: u64,
    /// Dead letters that do not say where they are from.
    pub(super) without_origin: u64,
}

impl Aside {
    /// Reads the topics up to these ends, and after them what lies in the outbox. `before` are the ends that they had
    /// before the snapshot.
    pub(super) fn read(
        kafka: &Kafka,
        [events, letters]: [&Spans; 2],
        before: [&Spans; 2],
        ledger: &Ledger,
        decoder: &Decoder<CouponEvent>,
    ) -> Result<Self, TopicsUnread> {
        let mut aside = Self { incomplete: events.values().any(|span| span.from > 0), ..Self::default() };
        kafka.read(EVENTS, events, |record| {
            aside.events += 1;
            match decoder.decode(record.payload().unwrap_or_default()) {
                Ok(event) => aside.add(event, covers(before[0], record.partition(), record.offset())),
                Err(error) => {
                    let place = (record.partition(), record.offset());
                    aside.unreadable.push(format!("{EVENTS} {place:?} cannot be read: {error}"));
                }
            }
        })?;
        for value in &ledger.owed_events {
            match decoder.decode(value) {
                Ok(event) => aside.add(event, true),
                Err(error) => {
                    aside.unreadable.push(format!("an event in the outbox cannot be read: {error}"))
                }
            }
        }
        kafka.read(DEAD_LETTERS, letters, |record| {
            aside.letter_count += 1;
            let number = |name| header(record, name).and_then(|text| text.parse::<i64>().ok());
            let origin = number("partition").and_then(|p| i32::try_from(p).ok()).zip(number("offset"));
            match origin {
                Some(origin) => {
                    let is_durable = covers(before[1], record.partition(), record.offset());
                    *aside.letters.entry(origin).or_default() |= is_durable;
                }
                None => aside.without_origin += 1,
            }
        })?;
        aside.letters.extend(ledger.owed_letters.iter().map(|origin| (*origin, true)));
        aside.tellings = Map::default();
        Ok(aside)
    }

    fn add(&mut self, event: CouponEvent, is_durable: bool) {
        match event.kind.as_str() {
            kinds::RESTOCKED => {
                self.restocked.insert((event.partition, event.offset, digest_of(&event.coupon_id)));
            }
            kinds::SOLD_OUT => drop(self.sold_out.insert(event.coupon_id.into())),
            kinds::HOLD_LAPSED | kinds::LOCK_LAPSED => self.add_lapse(event, is_durable),
            _ => {}
        }
    }

    fn add_lapse(&mut self, event: CouponEvent, is_durable: bool) {
        let (Some(code), Some(user)) = (event.code, event.user_id) else {
            let CouponEvent { kind, coupon_id, .. } = event;
            return self
                .unreadable
                .push(format!("a {kind} of {coupon_id} says neither whose code nor which"));
        };
        let lapse = Lapse {
            of_hold: event.kind == kinds::HOLD_LAPSED,
            coupon: event.coupon_id.into(),
            code: code.into(),
            user: user.into(),
            partition: event.partition,
            offset: event.offset,
            at: event.at_ms,
            available: event.available.unwrap_or(-1),
        };
        let telling =
            (lapse.of_hold, lapse.partition, lapse.offset, lapse.at, xxh3_64(lapse.code.as_bytes()));
        let next = u32::try_from(self.lapses.len()).unwrap_or(u32::MAX);
        let first = *self.tellings.entry(telling).or_insert(next);
        match self.lapses.get_mut(first as usize) {
            None => self.lapses.push(ToldLapse { lapse, is_durable }),
            Some(other) if other.lapse == lapse => other.is_durable |= is_durable,
            Some(ToldLapse { lapse: other, .. }) => {
                self.contradictions.push(format!("{lapse:?} was told before as {other:?}"));
            }
        }
    }
}
