//! What a decision costs in allocations: a refused request must be free of them, however many are refused.
//!
//! Every number is printed: `cargo test -p coupon-core --test allocations -- --nocapture`.

#[path = "instant/mod.rs"]
mod instant;

use coupon_core::batch::StockRow;
use coupon_core::coupon::Definition;
use coupon_core::ids::Millis;
use coupon_core::interface::Input;
use coupon_core::machine::decide::{LiveClaimsKnown, Ruling, claim_any};
use coupon_core::machine::stock::Stock;
use coupon_core::words::Reason;
use instant::{BATCH, World};

/// Batches that are measured, after as many to fill memory.
const BATCHES: i64 = 50;
/// What one batch may allocate whatever it holds: its vectors, its plan, its effects.
const ALLOCATIONS_PER_BATCH: u64 = 40;

fn one_each() -> Definition {
    Definition { claims_per_user: Some(1), ..Definition::default() }
}

/// Allocations of the machine for one record, in batches of claims by these users.
fn allocations_per_record(world: &mut World, user: impl Fn(i64) -> String) -> f64 {
    let mut allocated = 0;
    for batch in 0..2 * BATCHES {
        let records = world.claims(&user);
        world.play(Input::Records(records), &mut |apply| {
            let count = allocation_counter::measure(apply).count_total;
            allocated += if batch < BATCHES { 0 } else { count };
        });
    }
    allocated as f64 / (BATCHES * BATCH) as f64
}

fn assert_all_refused(world: &World, reason: Reason) {
    let batch = world.written.as_ref().expect("a batch was written");
    let refused = |decision: &coupon_core::batch::Decision| {
        decision.verdict == coupon_core::batch::Verdict::Rejected(reason)
    };
    assert!(batch.decisions.iter().all(refused), "{:?}", batch.decisions.first());
}

fn assert_free(what: &str, per_record: f64) {
    println!("{what}: {per_record:.4} allocations a decision");
    let most = ALLOCATIONS_PER_BATCH as f64 / BATCH as f64;
    assert!(per_record <= most, "{what}: {per_record} allocations a decision, at most {most}");
}

#[test]
fn a_claim_of_a_sold_out_coupon_allocates_nothing() {
    let mut world = World::new(one_each(), StockRow::default(), 0);
    let per_record = allocations_per_record(&mut world, |n| format!("user-{n}"));
    assert_all_refused(&world, Reason::SoldOut);
    assert_free("sold_out", per_record);
}

#[test]
fn a_claim_of_a_user_at_their_limit_allocates_nothing() {
    let stock = StockRow { top: 1_000_000, cursor: 10, claimed: 10, ..StockRow::default() };
    let mut world = World::new(one_each(), stock, 1);
    let per_record = allocations_per_record(&mut world, |n| format!("user-{}", n % 10));
    assert_all_refused(&world, Reason::UserLimitReached);
    assert_free("user_limit_reached", per_record);
}

#[test]
fn a_claim_of_a_coupon_that_is_not_open_allocates_nothing_and_reads_nobody() {
    let closed = Definition { expires: Some(Millis(1)), ..one_each() };
    let stock = StockRow { top: 1_000_000, cursor: 10, claimed: 10, ..StockRow::default() };
    let mut world = World::new(closed, stock, 0);
    let per_record = allocations_per_record(&mut world, |n| format!("user-{n}"));
    assert_all_refused(&world, Reason::Expired);
    assert_free("expired", per_record);
    assert_eq!(world.users_read, 0);
}

#[test]
fn an_accepted_claim_allocates_what_is_remembered_of_its_user_and_little_else() {
    let stock = StockRow { top: 1_000_000, ..StockRow::default() };
    let mut world = World::new(one_each(), stock, 0);
    let per_record = allocations_per_record(&mut world, |n| format!("user-{n}"));
    println!("accepted: {per_record:.4} allocations a decision");
    assert!(per_record < 1.1, "{per_record}: one for the user's name in memory, and none for the claim");
    assert_eq!(world.users_read, 0, "of a coupon of which nobody had anything, nobody is read");
}

#[test]
fn a_decision_by_itself_allocates_nothing() {
    let mut stock = Stock::new(StockRow::default(), [], 64);
    let definition = one_each();
    let refusals = allocation_counter::measure(|| {
        let ruling = claim_any(&definition, &mut stock, LiveClaimsKnown::Count(1), Millis(1), 1);
        assert_eq!(ruling, Ruling::Refused(Reason::SoldOut));
    });
    assert_eq!(refusals.count_total, 0);
}
