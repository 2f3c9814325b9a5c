//! What holds for every sequence of events, not only for those that somebody thought of.

use coupon_core::batch::StockRow;
use coupon_core::ids::{CodeNumber, CouponNo, Epoch, Millis, Nonce, RequestId};
use coupon_core::interface::{CacheListName, CodeEntry, Popped, RefillResult};
use coupon_core::machine::duplicates::RecentIds;
use coupon_core::machine::stock::{Source, Stock, Take};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

/// What the world does to a coupon's stock.
#[derive(Clone, Debug)]
enum Event {
    /// A batch wants codes and gets as many as its reservation brings, then gives so many away.
    Batch { want: usize },
    /// A load becomes stock.
    Add { count: i64 },
    /// Redis forgets everything.
    Flush,
    /// Redis answers nothing for a while.
    Silent(bool),
    /// Somebody puts a foreign entry at the head of every list.
    Foreign { number: i64 },
    /// Somebody takes one number by name, if it is free.
    Named { number: i64 },
    /// A number that was taken is free again.
    Back { number: i64 },
    /// The partition's time moves.
    Wait { millis: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_usize..40).prop_map(|want| Event::Batch { want }),
        1 => (1_i64..60).prop_map(|count| Event::Add { count }),
        1 => Just(Event::Flush),
        1 => any::<bool>().prop_map(Event::Silent),
        1 => (1_i64..200).prop_map(|number| Event::Foreign { number }),
        3 => (1_i64..90).prop_map(|number| Event::Named { number }),
        3 => (1_i64..90).prop_map(|number| Event::Back { number }),
        1 => (1_i64..2_000).prop_map(|millis| Event::Wait { millis }),
    ]
}

/// The ledger's and Redis' side of one coupon.
struct World {
    stock: Stock,
    top: i64,
    ahead: BTreeSet<i64>,
    free_again: BTreeSet<i64>,
    list: Option<(CacheListName, VecDeque<CodeEntry>)>,
    silent: bool,
    now: Millis,
    lists: u64,
    given: BTreeSet<i64>,
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

impl World {
    fn read(&self, after: i64, count: usize) -> Vec<CodeEntry> {
        (after + 1..=self.top).filter(|n| !self.ahead.contains(n)).take(count).map(entry).collect()
    }

    fn reserve(&mut self, want: usize) {
        self.stock.expect_batches_of(want);
        loop {
            match self.stock.source(COUPON, want) {
                Source::ReadAhead => return,
                Source::Refilling => unreachable!("fills are answered at once here"),
                Source::Returned { limit } => {
                    let entries = self.free_again.iter().take(limit).copied().map(entry).collect();
                    self.stock.returned_read(entries, self.batch);
                }
                Source::List(name, count) => {
                    let popped = match &mut self.list {
                        _ if self.silent => Popped::Unknown,
                        Some((known, entries)) if *known == name => {
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

    fn fill(&mut self) {
        let lists = &mut self.lists;
        let name = || {
            *lists += 1;
            CacheListName { coupon: COUPON, epoch: Epoch(1), nonce: Nonce(1), generation: *lists }
        };
        let Some(fill) = self.stock.fill(COUPON, self.now, name) else { return };
        let entries = self.read(fill.codes.after.0, fill.codes.count);
        let Some(last) = entries.last().map(|entry| entry.number).filter(|_| !self.silent) else {
            return self.stock.filled(fill.list, RefillResult::Unknown, self.now);
        };
        let result = RefillResult::Refilled { count: entries.len(), last };
        match &mut self.list {
            Some((name, known)) if *name == fill.list => known.extend(entries),
            _ => self.list = Some((fill.list, entries.into())),
        }
        self.stock.filled(fill.list, result, self.now);
    }

    fn give(&mut self, want: usize) -> Result<(), TestCaseError> {
        self.batch += 1;
        let available = self.stock.row().available();
        for n in 0..want {
            match self.stock.take(self.batch) {
                Take::Returned(entry) => {
                    prop_assert!(self.free_again.remove(&entry.number.0), "{entry:?} was not free again");
                }
                Take::Sequence(entry) => {
                    prop_assert!(!self.ahead.contains(&entry.number.0), "{entry:?} was taken ahead");
                    prop_assert!(entry.number.0 <= self.top, "{entry:?} is not stock");
                    prop_assert!(self.given.insert(entry.number.0), "{entry:?} given twice");
                }
                Take::SoldOut => {
                    prop_assert_eq!(n as i64, available, "sold out with codes left");
                    return Ok(());
                }
                Take::Missing => return Err(TestCaseError::fail("reserved, and yet lacking")),
            }
        }
        Ok(())
    }

    fn take_by_name(&mut self, number: i64) {
        let in_sequence = number <= self.top && number > self.cursor() && !self.ahead.contains(&number);
        if in_sequence {
            self.stock.take_number(CodeNumber(number), self.batch);
            self.ahead.insert(number);
        } else if self.free_again.remove(&number) {
            self.stock.take_number(CodeNumber(number), self.batch);
        }
    }

    fn put_back(&mut self, number: i64) {
        if self.ahead.contains(&number) && number > self.cursor() {
            self.stock.put_back(entry(number), self.batch);
            self.ahead.remove(&number);
        } else if number <= self.cursor() && self.free_again.insert(number) {
            self.stock.put_back(entry(number), self.batch);
        }
    }

    fn cursor(&self) -> i64 {
        self.stock.row().cursor
    }

    /// The rows that the stock says have moved are those that were seen to move.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let moved = self.stock.moved(self.batch);
        let cursor = self.cursor();
        let passed = self.rows.ahead.range(..=cursor).count() as i64;
        prop_assert_eq!(moved.passed, passed);
        self.rows.ahead.retain(|number| *number > cursor);
        for number in moved.ahead_taken {
            prop_assert!(self.rows.ahead.insert(number.0), "{number} was ahead already");
        }
        for number in moved.ahead_freed {
            prop_assert!(self.rows.ahead.remove(&number.0), "{number} was not ahead");
        }
        for number in moved.returned_taken {
            prop_assert!(self.rows.returned.remove(&number.0), "{number} was not returned");
        }
        for number in moved.returned_added {
            prop_assert!(self.rows.returned.insert(number.0), "{number} was returned already");
        }
        let row = self.stock.row();
        prop_assert_eq!(&self.rows.returned, &self.free_again);
        prop_assert_eq!(row.returned, self.free_again.len() as i64);
        prop_assert_eq!(row.ahead, self.rows.ahead.len() as i64);
        prop_assert!(self.rows.ahead.iter().all(|number| self.ahead.contains(number)));
        Ok(())
    }

    /// What is free, counted one by one.
    fn free(&self) -> i64 {
        let in_sequence =
            (1..=self.top).filter(|n| !self.ahead.contains(n) && !self.given.contains(n)).count();
        (in_sequence + self.free_again.len()) as i64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_redis_does_no_code_is_given_twice_or_lost_and_available_is_what_is_free(
        top in 0_i64..60,
        ahead in proptest::collection::btree_set(1_i64..60, 0..8),
        returned in proptest::collection::btree_set(1_i64..10, 0..5),
        cursor in 0_i64..10,
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let cursor = cursor.min(top);
        let ahead: BTreeSet<i64> = ahead.into_iter().filter(|n| *n > cursor && *n <= top).collect();
        let free_again: BTreeSet<i64> = returned.into_iter().filter(|n| *n <= cursor).collect();
        let row = StockRow { top, cursor, ahead: ahead.len() as i64, returned: free_again.len() as i64, ..StockRow::default() };
        let stock = Stock::new(row, ahead.iter().map(|n| CodeNumber(*n)), 32);
        let given = (1..=cursor).collect();
        let (list, now) = (None, Millis(0));
        let rows = Rows { ahead: ahead.clone(), returned: free_again.clone() };
        let mut world =
            World { stock, top, ahead, free_again, list, silent: false, now, lists: 0, given, batch: 0, rows };
        for event in events {
            match event {
                Event::Batch { want } => {
                    world.reserve(want);
                    world.give(want)?;
                    world.fill();
                }
                Event::Add { count } => {
                    prop_assert_eq!(world.stock.add(count), world.top);
                    world.top += count;
                }
                Event::Flush => world.list = None,
                Event::Silent(silent) => world.silent = silent,
                Event::Foreign { number } => {
                    if let Some((_, entries)) = &mut world.list {
                        entries.push_front(entry(number));
                    }
                }
                Event::Named { number } => world.take_by_name(number),
                Event::Back { number } => world.put_back(number),
                Event::Wait { millis } => world.now.0 += millis,
            }
            world.settle()?;
            prop_assert_eq!(world.stock.row().available(), world.free());
        }
    }

    #[test]
    fn no_copy_of_a_request_escapes_however_times_jump(
        seed in any::<u64>(),
        times in proptest::collection::vec((0_i64..6, -40_000_i64..40_000, 0_i64..15_000), 2..40),
    ) {
        let mut recent = RecentIds::new(seed, Millis(0));
        let mut seen: BTreeSet<u128> = BTreeSet::new();
        let mut now = Millis(10_000_000);
        for (n, skew, passed) in times {
            now.0 += passed;
            // Each of the six ids has a fixed minting time of its own, early or late against the log.
            let minted = 10_000_000 + n * 20_000 + if n % 2 == 0 { 0 } else { skew.signum() * 15_000 };
            let id = RequestId { identity: ((minted as u128) << 80) | n as u128, body: 0 };
            let suspect = recent.is_possible_duplicate(id, now);
            prop_assert!(suspect || seen.insert(id.identity), "a copy was taken for new");
            seen.insert(id.identity);
        }
    }
}
