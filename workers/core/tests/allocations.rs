//! Allocations of a decision: a rejected request allocates nothing, so a flood of rejected requests costs no memory.
//!
//! `cargo test -p coupon-core --test allocations -- --nocapture` prints every number.

#[path = "instant/mod.rs"]
mod instant;

use coupon_core::batch::{Decision, StockRow, Verdict};
use coupon_core::coupon::Definition;
use coupon_core::decide::{NotAccepted, check_any_code, check_claim};
use coupon_core::ids::Millis;
use coupon_core::interface::Input;
use coupon_core::machine::stock::Stock;
use coupon_core::words::Reason;
use instant::{BATCH, InstantOwner};

/// Measured batches. The same number of batches before them fills the caches.
const BATCHES: i64 = 50;
/// Allocations of one batch, whatever its size: its vectors, its plan and its effects.
const ALLOCATIONS_PER_BATCH: u64 = 40;

fn one_claim_per_user() -> Definition {
    Definition { claims_per_user: Some(1), ..Definition::default() }
}

/// Allocations of the machine per record, for batches of claims by these users.
fn allocations_per_record(owner: &mut InstantOwner, user: impl Fn(i64) -> String) -> f64 {
    let mut allocated = 0;
    for batch in 0..2 * BATCHES {
        let records = owner.claims(&user);
        owner.apply(Input::Records(records), &mut |step| {
            let count = allocation_counter::measure(step).count_total;
            allocated += if batch < BATCHES { 0 } else { count };
        });
    }
    allocated as f64 / (BATCHES * BATCH) as f64
}

fn assert_all_rejected(owner: &InstantOwner, reason: Reason) {
    let batch = owner.written.as_ref().expect("a batch is written");
    let rejected = |decision: &Decision| decision.verdict == Verdict::Rejected(reason);
    assert!(batch.decisions.iter().all(rejected), "{:?}", batch.decisions.first());
}

fn assert_no_allocation(reason: &str, per_record: f64) {
    println!("{reason}: {per_record:.4} allocations per decision");
    let max = ALLOCATIONS_PER_BATCH as f64 / BATCH as f64;
    assert!(per_record <= max, "{reason}: {per_record} allocations per decision, at most {max}");
}

#[test]
fn a_claim_of_a_sold_out_coupon_allocates_nothing() {
    let mut owner = InstantOwner::new(one_claim_per_user(), StockRow::default(), 0);
    let per_record = allocations_per_record(&mut owner, |n| format!("user-{n}"));
    assert_all_rejected(&owner, Reason::SoldOut);
    assert_no_allocation("sold_out", per_record);
}

#[test]
fn a_claim_of_a_user_at_the_limit_allocates_nothing() {
    let stock = StockRow { top: 1_000_000, cursor: 10, claimed: 10, ..StockRow::default() };
    let mut owner = InstantOwner::new(one_claim_per_user(), stock, 1);
    let per_record = allocations_per_record(&mut owner, |n| format!("user-{}", n % 10));
    assert_all_rejected(&owner, Reason::UserLimitReached);
    assert_no_allocation("user_limit_reached", per_record);
}

#[test]
fn a_claim_of_a_coupon_that_is_not_open_allocates_nothing_and_reads_no_user() {
    let closed = Definition { expires: Some(Millis(1)), ..one_claim_per_user() };
    let stock = StockRow { top: 1_000_000, cursor: 10, claimed: 10, ..StockRow::default() };
    let mut owner = InstantOwner::new(closed, stock, 0);
    let per_record = allocations_per_record(&mut owner, |n| format!("user-{n}"));
    assert_all_rejected(&owner, Reason::Expired);
    assert_no_allocation("expired", per_record);
    assert_eq!(owner.users_read, 0);
}

#[test]
fn an_accepted_claim_allocates_the_cached_user_name_and_little_else() {
    let stock = StockRow { top: 1_000_000, ..StockRow::default() };
    let mut owner = InstantOwner::new(one_claim_per_user(), stock, 0);
    let per_record = allocations_per_record(&mut owner, |n| format!("user-{n}"));
    println!("accepted: {per_record:.4} allocations per decision");
    assert!(per_record < 1.1, "{per_record}: one for the cached user name and none for the claim");
    assert_eq!(owner.users_read, 0, "a coupon without claims needs no lookup of users");
}

#[test]
fn a_decision_by_itself_allocates_nothing() {
    let stock = Stock::new(StockRow::default(), [], 64);
    let definition = one_claim_per_user();
    let rejection = allocation_counter::measure(|| {
        let code = || check_any_code(&definition, stock.row().available());
        let checked = check_claim(&definition, Millis(1), code, || Some(1));
        assert_eq!(checked, Err(NotAccepted::Rejected(Reason::SoldOut)));
    });
    assert_eq!(rejection.count_total, 0);
}
