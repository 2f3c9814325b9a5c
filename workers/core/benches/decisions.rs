//! How fast the core is, on one thread: `cargo bench -p coupon-core`.
//!
//! `machine` is everything that an owner does with a batch of 2,000 claims, from the delivered records to the batch
//! that is written and told; what the world around it does is not timed. `decide` is the decision alone. Divide the
//! elements by the time for decisions per second; the goal is 2,000,000. Allocations are counted by the test
//! `allocations`.

#[path = "../tests/instant/mod.rs"]
mod instant;

use coupon_core::batch::StockRow;
use coupon_core::coupon::Definition;
use coupon_core::ids::{CodeNumber, Millis};
use coupon_core::interface::{CodeEntry, Input};
use coupon_core::machine::decide::{LiveClaimsKnown, claim_any};
use coupon_core::machine::stock::Stock;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use instant::{BATCH, InstantOwner};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// More than any run gives away.
const PLENTY: i64 = 1 << 40;

fn one_each() -> Definition {
    Definition { claims_per_user: Some(1), ..Definition::default() }
}

/// The time that the machine takes for so many batches of claims by these users.
#[expect(clippy::disallowed_methods, reason = "the core knows no clock; who measures it needs one")]
fn batches(owner: &mut InstantOwner, count: u64, user: impl Fn(i64) -> String) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..count {
        let records = owner.claims(&user);
        owner.apply(Input::Records(records), &mut |step| {
            let started = Instant::now();
            step();
            taken += started.elapsed();
        });
    }
    taken
}

fn machine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machine");
    group.throughput(Throughput::Elements(BATCH.unsigned_abs()));
    let untouched = StockRow { top: PLENTY, ..StockRow::default() };
    let used = StockRow { top: PLENTY, cursor: 10, claimed: 10, ..StockRow::default() };
    let everybody = |n: i64| format!("user-{n:07}");
    for (name, stock, has) in
        [("accepted", untouched, 0), ("accepted_users_read", used, 0), ("sold_out", StockRow::default(), 0)]
    {
        let mut owner = InstantOwner::new(one_each(), stock, has);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| batches(&mut owner, count, everybody));
        });
    }
    let mut owner = InstantOwner::new(one_each(), used, 1);
    group.bench_function("limit_reached", |bencher| {
        bencher.iter_custom(|count| batches(&mut owner, count, |n| format!("user-{:07}", n % 1_000)));
    });
    group.finish();
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(BATCH.unsigned_abs()));
    let definition = one_each();
    let stocked = || {
        let mut stock = Stock::new(StockRow { top: BATCH, ..StockRow::default() }, [], 64);
        let entry = |n| CodeEntry { number: CodeNumber(n), code: "2F8F-XDV5-VJPE".into() };
        stock.read((1..=BATCH).map(entry).collect());
        stock
    };
    let cases = [("accepted", 0, true), ("sold_out", 0, false), ("limit_reached", 1, true)];
    for (name, live, has_stock) in cases {
        group.bench_function(name, |bencher| {
            let stock = || if has_stock { stocked() } else { Stock::new(StockRow::default(), [], 64) };
            bencher.iter_batched(
                || (stock(), Vec::with_capacity(BATCH as usize)),
                |(mut stock, mut rulings)| {
                    for _ in 0..BATCH {
                        let live = LiveClaimsKnown::Count(black_box(live));
                        rulings.push(claim_any(&definition, &mut stock, live, Millis(1), 1));
                    }
                    (stock, rulings)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, machine, decide);
criterion_main!(benches);
