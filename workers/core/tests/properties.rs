//! Properties of the stock and of duplicate detection, for random sequences of events.
//!
//! [`StockModel`] runs one coupon's stock against its rows and its cache list. After every event it compares the stock
//! with a count of the free codes one by one.

use coupon_core::batch::StockRow;
use coupon_core::ids::{CodeNumber, CouponNo, Epoch, Millis, Nonce, RequestId};
use coupon_core::interface::{CacheListName, CodeEntry, Popped, RefillResult};
use coupon_core::machine::duplicates::RecentIds;
use coupon_core::machine::stock::{Source, Stock, Take};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

/// What happens to the stock of a coupon.
#[derive(Clone, Debug)]
enum Event {
    /// A batch reserves this many codes and takes them.
    Batch { want: usize },
    /// A load becomes stock.
    AddLoad { count: i64 },
    /// Redis loses all lists.
    Flush,
    /// Redis returns no response, or responds again.
    Unavailable(bool),
    /// A code that is not the next one appears at the head of the list.
    ForeignEntry { number: i64 },
    /// One number is taken by its code, if it is free.
    TakeNumber { number: i64 },
    /// One taken number becomes free again.
    PutBack { number: i64 },
    /// The partition's time advances.
    Wait { millis: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_usize..40).prop_map(|want| Event::Batch { want }),
        1 => (1_i64..60).prop_map(|count| Event::AddLoad { count }),
        1 => Just(Event::Flush),
        1 => any::<bool>().prop_map(Event::Unavailable),
        1 => (1_i64..200).prop_map(|number| Event::ForeignEntry { number }),
        3 => (1_i64..90).prop_map(|number| Event::TakeNumber { number }),
        3 => (1_i64..90).prop_map(|number| Event::PutBack { number }),
        1 => (1_i64..2_000).prop_map(|millis| Event::Wait { millis }),
    ]
}

/// One coupon's stock, with its rows in the ledger and its cache list in Redis.
struct StockModel {
    stock: Stock,
    top: i64,
    ahead: BTreeSet<i64>,
    returned: BTreeSet<i64>,
    list: Option<(CacheListName, VecDeque<CodeEntry>)>,
    redis_unavailable: bool,
    now: Millis,
    lists_created: u64,
    /// Numbers taken in sequence.
    taken: BTreeSet<i64>,
    batch: u64,
    rows: Rows,
}

/// What the ledger holds after each batch.
struct Rows {
    ahead: BTreeSet<i64>,
    returned: BTreeSet<i64>,
}

const COUPON: CouponNo = CouponNo(1);

fn entry(number: i64) -> CodeEntry {
    CodeEntry { number: CodeNumber(number), code: format!("CODE-{number}").into() }
}

impl StockModel {
    fn new(top: i64, cursor: i64, ahead: BTreeSet<i64>, returned: BTreeSet<i64>) -> Self {
        let counts = (ahead.len() as i64, returned.len() as i64);
        let row = StockRow { top, cursor, ahead: counts.0, returned: counts.1, ..StockRow::default() };
        Self {
            stock: Stock::new(row, ahead.iter().map(|number| CodeNumber(*number)), 32),
            top,
            rows: Rows { ahead: ahead.clone(), returned: returned.clone() },
            ahead,
            returned,
            list: None,
            redis_unavailable: false,
            now: Millis(0),
            lists_created: 0,
            taken: (1..=cursor).collect(),
            batch: 0,
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Batch { want } => {
                self.reserve(want);
                self.take(want)?;
                self.refill();
            }
            Event::AddLoad { count } => {
                prop_assert_eq!(self.stock.add(count), self.top);
                self.top += count;
            }
            Event::Flush => self.list = None,
            Event::Unavailable(unavailable) => self.redis_unavailable = unavailable,
            Event::ForeignEntry { number } => {
                if let Some((_, entries)) = &mut self.list {
                    entries.push_front(entry(number));
                }
            }
            Event::TakeNumber { number } => self.take_number(number),
            Event::PutBack { number } => self.put_back(number),
            Event::Wait { millis } => self.now.0 += millis,
        }
        self.write_rows()?;
        prop_assert_eq!(self.stock.row().available(), self.count_free());
        Ok(())
    }

    fn read(&self, after: i64, count: usize) -> Vec<CodeEntry> {
        (after + 1..=self.top).filter(|n| !self.ahead.contains(n)).take(count).map(entry).collect()
    }

    fn reserve(&mut self, want: usize) {
        self.stock.record_demand(want);
        loop {
            match self.stock.source(COUPON, want) {
                Source::ReadAhead => return,
                Source::Refilling => unreachable!("refills complete immediately here"),
                Source::Returned { from, limit } => {
                    let entries = self.returned.range(from.0..).take(limit).copied().map(entry).collect();
                    self.stock.returned_read(entries, self.batch);
                }
                Source::List(name, count) => {
                    let popped = match &mut self.list {
                        _ if self.redis_unavailable => Popped::Unknown,
                        Some((existing, entries)) if *existing == name => {
                            let count = count.min(entries.len());
                            Popped::Codes(entries.drain(..count).collect())
                        }
                        _ => Popped::Codes(Vec::new()),
                    };
                    self.stock.popped(name, count, popped, self.now);
                }
                Source::Ledger(read) => self.stock.read(self.read(read.after.0, read.count)),
            }
        }
    }

    fn refill(&mut self) {
        let lists_created = &mut self.lists_created;
        let name = || {
            *lists_created += 1;
            CacheListName { coupon: COUPON, epoch: Epoch(1), nonce: Nonce(1), generation: *lists_created }
        };
        let Some(refill) = self.stock.refill(COUPON, self.now, name) else { return };
        let entries = self.read(refill.codes.after.0, refill.codes.count);
        let last = entries.last().map(|entry| entry.number).filter(|_| !self.redis_unavailable);
        let Some(last) = last else {
            return self.stock.refilled(refill.list, RefillResult::Unknown, self.now);
        };
        let result = RefillResult::Refilled { count: entries.len(), last };
        match &mut self.list {
            Some((name, existing)) if *name == refill.list => existing.extend(entries),
            _ => self.list = Some((refill.list, entries.into())),
        }
        self.stock.refilled(refill.list, result, self.now);
    }

    fn take(&mut self, want: usize) -> Result<(), TestCaseError> {
        self.batch += 1;
        let available = self.stock.row().available();
        for n in 0..want {
            match self.stock.take(self.batch) {
                Take::Returned(entry) => {
                    prop_assert!(self.returned.remove(&entry.number.0), "{entry:?} was not returned");
                }
                Take::Sequence(entry) => {
                    prop_assert!(!self.ahead.contains(&entry.number.0), "{entry:?} was taken ahead");
                    prop_assert!(entry.number.0 <= self.top, "{entry:?} is not stock");
                    prop_assert!(self.taken.insert(entry.number.0), "{entry:?} is given twice");
                }
                Take::SoldOut => {
                    prop_assert_eq!(n as i64, available, "sold out with free codes");
                    return Ok(());
                }
                Take::Missing => return Err(TestCaseError::fail("a reserved code is missing")),
            }
        }
        Ok(())
    }

    fn take_number(&mut self, number: i64) {
        let in_sequence = number <= self.top && number > self.cursor() && !self.ahead.contains(&number);
        if in_sequence {
            self.stock.take_number(CodeNumber(number), self.batch);
            self.ahead.insert(number);
        } else if self.returned.remove(&number) {
            self.stock.take_number(CodeNumber(number), self.batch);
        }
    }

    fn put_back(&mut self, number: i64) {
        if self.ahead.contains(&number) && number > self.cursor() {
            self.stock.put_back(entry(number), self.batch);
            self.ahead.remove(&number);
        } else if number <= self.cursor() && self.returned.insert(number) {
            self.stock.put_back(entry(number), self.batch);
        }
    }

    fn cursor(&self) -> i64 {
        self.stock.row().cursor
    }

    /// Applies the row changes that the stock reports, and compares the rows with the model.
    fn write_rows(&mut self) -> Result<(), TestCaseError> {
        let moved = self.stock.take_moved(self.batch);
        let cursor = self.cursor();
        let passed = self.rows.ahead.range(..=cursor).count() as i64;
        prop_assert_eq!(moved.passed, passed);
        self.rows.ahead.retain(|number| *number > cursor);
        for number in moved.ahead_taken {
            prop_assert!(self.rows.ahead.insert(number.0), "{number} was already ahead");
        }
        for number in moved.ahead_freed {
            prop_assert!(self.rows.ahead.remove(&number.0), "{number} was not ahead");
        }
        for number in moved.returned_taken {
            prop_assert!(self.rows.returned.remove(&number.0), "{number} was not returned");
        }
        for number in moved.returned_added {
            prop_assert!(self.rows.returned.insert(number.0), "{number} was already returned");
        }
        let row = self.stock.row();
        prop_assert_eq!(&self.rows.returned, &self.returned);
        prop_assert_eq!(row.returned, self.returned.len() as i64);
        prop_assert_eq!(row.ahead, self.rows.ahead.len() as i64);
        prop_assert!(self.rows.ahead.iter().all(|number| self.ahead.contains(number)));
        Ok(())
    }

    /// The number of free codes, counted one by one.
    fn count_free(&self) -> i64 {
        let in_sequence =
            (1..=self.top).filter(|n| !self.ahead.contains(n) && !self.taken.contains(n)).count();
        (in_sequence + self.returned.len()) as i64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_code_is_given_twice_or_lost_and_every_free_code_is_available_whatever_redis_does(
        top in 0_i64..60,
        ahead in proptest::collection::btree_set(1_i64..60, 0..8),
        returned in proptest::collection::btree_set(1_i64..10, 0..5),
        cursor in 0_i64..10,
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let cursor = cursor.min(top);
        let ahead = ahead.into_iter().filter(|number| (cursor + 1..=top).contains(number)).collect();
        let returned = returned.into_iter().filter(|number| *number <= cursor).collect();
        let mut model = StockModel::new(top, cursor, ahead, returned);
        for event in events {
            model.apply(event)?;
        }
    }

    #[test]
    fn every_duplicate_is_detected_whatever_jumps_the_clocks_make(
        seed in any::<u64>(),
        times in proptest::collection::vec((0_i64..6, -40_000_i64..40_000, 0_i64..15_000), 2..40),
    ) {
        let mut recent = RecentIds::new(seed, Millis(0), (seed % 8 + 1) as usize);
        let mut seen: BTreeSet<u128> = BTreeSet::new();
        let mut now = Millis(10_000_000);
        for (n, skew, passed) in times {
            now.0 += passed;
            // Each of the six ids has a fixed minting time, early or late relative to the log.
            let minted = 10_000_000 + n * 20_000 + if n % 2 == 0 { 0 } else { skew.signum() * 15_000 };
            let id = RequestId { identity: ((minted as u128) << 80) | n as u128, body: 0 };
            let possible_duplicate = recent.is_possible_duplicate(id, now);
            prop_assert!(possible_duplicate || seen.insert(id.identity), "a duplicate is taken for new");
            seen.insert(id.identity);
        }
    }
}
