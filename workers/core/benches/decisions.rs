//! Throughput of the core on one thread: `cargo bench -p coupon-core`.
//!
//! `machine` is everything that an owner does for a batch of 2,000 claims, from the received records to the batch that is
//! written and published; the environment is not timed. `decide` is the decision alone. Decisions per second are the
//! elements divided by the time; the goal is 2,000,000. The test `allocations` counts allocations.

#[path = "../tests/instant/mod.rs"]
mod instant;

use coupon_core::batch::StockRow;
use coupon_core::coupon::Definition;
use coupon_core::decide::{check_any_code, check_claim};
use coupon_core::ids::{CodeNumber, Millis};
use coupon_core::interface::{CodeEntry, Input};
use coupon_core::machine::stock::{Stock, Take};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use instant::{BATCH, InstantOwner};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// More codes than any run gives.
const PLENTY: i64 = 1 << 40;

fn one_claim_per_user() -> Definition {
    Definition { claims_per_user: Some(1), ..Definition::default() }
}

/// Time of the machine for this number of batches of claims by these users.
#[expect(clippy::disallowed_methods, reason = "the core has no clock; its benchmark needs one")]
fn batches(owner: &mut InstantOwner, count: u64, user: impl Fn(i64) -> String) -> Duration {
    let mut elapsed = Duration::ZERO;
    for _ in 0..count {
        let records = owner.claims(&user);
        owner.apply(Input::Records(records), &mut |step| {
            let started = Instant::now();
            step();
            elapsed += started.elapsed();
        });
    }
    elapsed
}

fn machine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(BATCH.unsigned_abs()));
    let unused = StockRow { top: PLENTY, ..StockRow::default() };
    let used = StockRow { top: PLENTY, cursor: 10, claimed: 10, ..StockRow::default() };
    let user = |n: i64| format!("user-{n:07}");
    for (name, stock) in
        [("accepted", unused), ("accepted_users_read", used), ("sold_out", StockRow::default())]
    {
        let mut owner = InstantOwner::new(one_claim_per_user(), stock, 0);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| batches(&mut owner, count, user));
        });
    }
    let mut owner = InstantOwner::new(one_claim_per_user(), used, 1);
    group.bench_function("limit_reached", |bencher| {
        bencher.iter_custom(|count| batches(&mut owner, count, |n| format!("user-{:07}", n % 1_000)));
    });
    group.finish();
}

fn stock_of_a_batch() -> Stock {
    let mut stock = Stock::new(StockRow { top: BATCH, ..StockRow::default() }, [], 64);
    let entry = |n| CodeEntry { number: CodeNumber(n), code: "2F8F-XDV5-VJPE".into() };
    stock.read((1..=BATCH).map(entry).collect());
    stock
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(BATCH.unsigned_abs()));
    let definition = one_claim_per_user();
    let empty = || Stock::new(StockRow::default(), [], 64);
    let cases: [(&str, u32, &dyn Fn() -> Stock); 3] = [
        ("accepted", 0, &stock_of_a_batch),
        ("sold_out", 0, &empty),
        ("limit_reached", 1, &stock_of_a_batch),
    ];
    for (name, live_claims, stock) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (stock(), Vec::with_capacity(BATCH as usize)),
                |(mut stock, mut results)| {
                    for _ in 0..BATCH {
                        let available = stock.row().available();
                        let code = || check_any_code(&definition, available);
                        let checked =
                            check_claim(&definition, Millis(1), code, || Some(black_box(live_claims)));
                        results.push(checked.map(|()| stock.take(1)).unwrap_or(Take::SoldOut));
                    }
                    (stock, results)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, machine, decide);
criterion_main!(benches);
