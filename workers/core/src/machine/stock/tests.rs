use super::supply::{BATCHES_PER_POP, BATCHES_PER_REFILL, LIST_RETRY_MS, MIN_REFILL};
use super::*;
use crate::domain::ids::CouponNo;
use crate::domain::ids::{Epoch, Nonce};
use crate::interface::{CacheListName, Popped, RefillResult};

fn entry(number: i64) -> CodeEntry {
    CodeEntry { number: CodeNumber(number), code: format!("CODE-{number}").into() }
}

fn entries(numbers: impl IntoIterator<Item = i64>) -> Vec<CodeEntry> {
    numbers.into_iter().map(entry).collect()
}

fn list(generation: u64) -> CacheListName {
    CacheListName { coupon: CouponNo(1), epoch: Epoch(1), nonce: Nonce(1), generation }
}

fn stock(top: i64, ahead: &[i64]) -> Stock {
    let row = StockRow { top, ahead: ahead.len() as i64, ..StockRow::default() };
    Stock::new(row, ahead.iter().map(|number| CodeNumber(*number)), 64)
}

fn with_list(top: i64) -> Stock {
    let mut stock = stock(top, &[]);
    stock.record_demand(MIN_REFILL);
    assert!(stock.refill(CouponNo(1), Millis(0), || list(1)).is_some());
    stock.refilled(list(1), RefillResult::Refilled { count: 10, last: CodeNumber(10) }, Millis(0));
    stock
}

#[test]
fn returned_codes_are_given_before_the_sequence() {
    let mut stock = Stock::new(StockRow { top: 5, cursor: 2, returned: 1, ..StockRow::default() }, [], 64);
    assert_eq!(stock.source(CouponNo(1), 2), Source::Returned { from: CodeNumber(0), limit: 2 });
    stock.returned_read(entries([1]), 0);
    stock.read(entries([3]));
    assert_eq!(stock.take(1), Take::Returned(entry(1)));
    assert_eq!(stock.take(1), Take::Sequence(entry(3)));
    assert_eq!(stock.row().available(), 2);
}

#[test]
fn a_returned_code_given_by_an_unsettled_batch_is_not_given_again_by_a_late_read() {
    let mut stock = Stock::new(StockRow { top: 2, cursor: 2, returned: 2, ..StockRow::default() }, [], 64);
    stock.returned_read(entries([1, 2]), 6);
    assert_eq!(stock.take(7), Take::Returned(entry(1)));
    stock.returned_read(entries([1, 2]), 6);
    assert_eq!(stock.take(8), Take::Returned(entry(2)));
    assert_eq!(stock.take(8), Take::SoldOut);
}

/// The lower bound of the next read for `want` claims.
fn bound(stock: &Stock, want: usize) -> i64 {
    let Source::Returned { from, .. } = stock.source(CouponNo(1), want) else {
        unreachable!("{:?}", stock.source(CouponNo(1), want))
    };
    from.0
}

#[test]
fn returned_codes_are_read_from_the_lowest_that_may_be_free() {
    let row = StockRow { top: 9, cursor: 9, returned: 4, claimed: 5, ..StockRow::default() };
    let mut stock = Stock::new(row, [], 64);
    assert_eq!(bound(&stock, 4), 0, "nothing is known");
    stock.returned_read(entries([4, 5]), 0);
    assert_eq!(bound(&stock, 4), 4, "the lowest that was read");
    assert_eq!(stock.take(1), Take::Returned(entry(4)));
    stock.returned_read(entries([6]), 1);
    assert_eq!(bound(&stock, 4), 6, "the batch that took 4 is settled, and 5 was taken elsewhere");
}

#[test]
fn a_code_that_is_returned_below_the_lowest_read_one_is_read_again() {
    let row = StockRow { top: 9, cursor: 9, returned: 4, claimed: 5, ..StockRow::default() };
    let mut stock = Stock::new(row, [], 2);
    stock.returned_read(entries([6, 7]), 0);
    stock.put_back(entry(2), 1);
    assert_eq!(bound(&stock, 4), 2, "the buffer is full: 2 is found by a read only");
    stock.returned_read(entries([6, 7]), 0);
    assert_eq!(bound(&stock, 4), 2, "the read may show the state before batch 1");
    stock.returned_read(entries([2, 6]), 1);
    assert_eq!(bound(&stock, 4), 2);
}

#[test]
fn a_read_whose_entries_an_unsettled_batch_took_skips_no_number_behind_them() {
    let row = StockRow { top: 9, cursor: 9, returned: 3, claimed: 6, ..StockRow::default() };
    let mut stock = Stock::new(row, [], 64);
    stock.returned_read(entries([1]), 0);
    assert_eq!(stock.take(1), Take::Returned(entry(1)));
    stock.put_back(entry(8), 1);
    stock.returned_read(entries([1]), 0);
    assert!(bound(&stock, 3) <= 2, "2 is free and was not read, though the lowest cached one is 8");
}

#[test]
fn the_cursor_passes_numbers_ahead_of_it_and_available_stays_right() {
    let mut stock = stock(6, &[2, 3, 5]);
    assert_eq!(stock.row().available(), 3);
    stock.read(entries([1, 4, 6]));
    for (number, available) in [(1, 2), (4, 1), (6, 0)] {
        assert_eq!(stock.take(1), Take::Sequence(entry(number)));
        assert_eq!(stock.row().available(), available);
    }
    assert_eq!(stock.row().ahead, 0);
    assert_eq!(stock.take(1), Take::SoldOut);
}

#[test]
fn one_pop_serves_several_small_batches_and_a_large_one_pops_no_more_than_it_needs() {
    let mut stock = stock(1_000, &[]);
    stock.busy = true;
    stock.record_demand(2);
    assert!(stock.refill(CouponNo(1), Millis(0), || list(1)).is_some());
    stock.refilled(list(1), RefillResult::Refilled { count: 1_000, last: CodeNumber(1_000) }, Millis(0));
    assert_eq!(stock.source(CouponNo(1), 100), Source::List(list(1), 100));
    assert_eq!(stock.source(CouponNo(1), 2), Source::List(list(1), 2 * BATCHES_PER_POP));
    stock.popped(list(1), 32, Popped::Codes(entries(1..=32)), Millis(0));
    for batch in 1..=16 {
        assert_eq!(stock.source(CouponNo(1), 2), Source::ReadAhead);
        assert!(matches!((stock.take(batch), stock.take(batch)), (Take::Sequence(_), Take::Sequence(_))));
    }
    assert!(matches!(stock.source(CouponNo(1), 2), Source::List(_, 32)));
}

#[test]
fn popped_entries_count_as_long_as_each_is_the_next_free_number() {
    let mut stock = with_list(10);
    stock.popped(list(1), 4, Popped::Codes(entries([1, 2, 4, 5])), Millis(0));
    assert_eq!(stock.read_ahead, entries([1, 2]));
    assert!(stock.list.is_none(), "a list that skipped a number is invalidated");
    assert!(matches!(stock.source(CouponNo(1), 3), Source::Ledger(read) if read.after == CodeNumber(2)));
}

#[test]
fn an_empty_or_unknown_pop_invalidates_the_list() {
    for popped in [Popped::Codes(Vec::new()), Popped::Unknown] {
        let mut stock = with_list(10);
        stock.popped(list(1), 2, popped, Millis(0));
        assert!(stock.list.is_none());
        assert!(stock.refill(CouponNo(1), Millis(0), || list(2)).is_none(), "no list for some time");
        let refill = stock.refill(CouponNo(1), Millis(LIST_RETRY_MS), || list(2));
        assert_eq!(refill.map(|refill| refill.list), Some(list(2)), "then a list with a new name");
    }
}

#[test]
fn late_results_of_an_invalidated_list_are_ignored() {
    let mut stock = with_list(10);
    stock.popped(list(1), 1, Popped::Unknown, Millis(0));
    stock.refilled(list(1), RefillResult::Refilled { count: 5, last: CodeNumber(15) }, Millis(0));
    stock.popped(list(1), 1, Popped::Codes(entries([1])), Millis(0));
    assert!(stock.list.is_none() && stock.read_ahead.is_empty());
}

#[test]
fn a_claim_waits_for_a_refill_in_flight_instead_of_reading_past_the_list() {
    let mut stock = stock(10, &[]);
    stock.record_demand(MIN_REFILL);
    let refill = stock.refill(CouponNo(1), Millis(0), || list(1));
    assert!(refill.is_some());
    assert_eq!(stock.source(CouponNo(1), 1), Source::Refilling);
}

#[test]
fn no_more_codes_are_requested_than_are_free() {
    let stock = stock(0, &[]);
    assert_eq!(stock.source(CouponNo(1), 5), Source::ReadAhead);
}

#[test]
fn a_coupon_gets_a_list_after_its_second_read() {
    let mut stock = stock(40, &[]);
    stock.read(entries(1..=16));
    assert!(stock.refill(CouponNo(1), Millis(0), || list(1)).is_none());
    stock.read(entries(17..=32));
    let refill = stock.refill(CouponNo(1), Millis(0), || list(1));
    let codes = refill.map(|refill| (refill.codes.after, refill.codes.count));
    assert_eq!(codes, Some((CodeNumber(32), 8)), "the free numbers after the read-ahead buffer");
}

#[test]
fn a_refill_follows_the_demand_of_recent_batches() {
    let mut stock = Stock::new(StockRow { top: 1_000_000, ..StockRow::default() }, [], 32_768);
    let mut refill_after = |demands: &[usize]| {
        demands.iter().for_each(|demand| stock.record_demand(*demand));
        let mut stock = stock.clone();
        stock.refill(CouponNo(1), Millis(0), || list(1)).map(|refill| refill.codes.count)
    };
    assert_eq!(refill_after(&[1]), None, "so few are read from Postgres");
    assert_eq!(refill_after(&[100, 1, 1]), Some(BATCHES_PER_REFILL * 77));
    assert_eq!(refill_after(&[2_000]), Some(16_384), "half of the window at most");
    assert_eq!(refill_after(&[1; 60]), Some(BATCHES_PER_REFILL * 7), "a peak decays");
}
