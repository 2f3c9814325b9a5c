//! The benchmark with few claims: every arm runs, is counted and checked, and has figures. No figure is asserted, because
//! machines differ.

use std::time::Duration;

use benchmark::arm::{Arm, Sample};
use benchmark::arms::ALL;
use benchmark::arms::drains::HOT_DRAIN;
use benchmark::host::environment::Environment;
use benchmark::results::{html, report};
use benchmark::{BenchError, Plan, measure};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use load_support::progress::Console;
use local_stack::testing;
use sqlx::{Executor as _, PgConnection};

use e2e::stacks;

const CLAIMS: u64 = 2_000;
/// Arms that differ from another one by numbers only. The full tier runs them too.
const LIKE_ANOTHER: [&str; 9] = [
    "hot-drain-8",
    "coupons-10",
    "coupons-100",
    "coupons-1000",
    "stock-10000",
    "stock-100000",
    "stock-1000000",
    "scaling-4",
    "takeover-million",
];
/// The seventh code goes to a user who never claimed.
const THEFT: &str = "
    create function stampede.theft() returns trigger language plpgsql as $$
    begin
        if new.number = 7 then new.user_id := 'thief'; end if;
        return new;
    end $$;
    create trigger theft before insert on stampede.claims for each row execute function stampede.theft()";

/// `hot-drain` with a violation in Postgres.
struct Robbed;

impl Arm for Robbed {
    fn name(&self) -> &'static str {
        "robbed-drain"
    }

    fn about(&self) -> &'static str {
        "hot-drain, and one code goes to a thief"
    }

    fn run<'a>(
        &'a self,
        env: &'a mut Environment,
        requests: u64,
    ) -> LocalBoxFuture<'a, Result<Sample, BenchError>> {
        async move {
            let theft = tokio::spawn(rob(env.connect().await?));
            let sample = HOT_DRAIN.run(env, requests).await;
            theft.await.unwrap();
            sample
        }
        .boxed_local()
    }
}

/// As soon as the tables exist, which is before the first claim: the codes are generated first.
async fn rob(mut connection: PgConnection) {
    let made = "select to_regclass('stampede.redemptions') is not null";
    while !sqlx::query_scalar::<_, bool>(made).fetch_one(&mut connection).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    connection.execute(THEFT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_arm_of_the_benchmark_has_figures_and_a_violation_voids_an_arm() {
    let _slot = stacks::slot().await;
    let programs = testing::programs().await.unwrap();
    let full_tier = std::env::var("STAMPEDE_TIER").is_ok_and(|tier| tier == "full");
    let in_tier = |arm: &&dyn Arm| full_tier || !LIKE_ANOTHER.contains(&arm.name());
    let mut arms: Vec<&'static dyn Arm> = ALL.iter().copied().filter(in_tier).collect();
    arms.push(&Robbed);
    let plan = Plan { arms: &arms, rounds: 1, claims: CLAIMS, partial: true };
    let measured = Box::pin(measure(&plan, &programs, &Console::default())).await.unwrap();

    let figures = &measured.figures;
    let (robbed, honest) = figures.arms.split_last().unwrap();
    for arm in honest {
        assert_eq!(arm.void, None, "{}", arm.name);
        assert!(arm.per_second.is_some() || arm.p50_ms.is_some(), "{} has no figure", arm.name);
    }
    assert_eq!(robbed.name, "robbed-drain");
    assert!(robbed.void.as_ref().unwrap().contains("an invariant is violated"), "{:?}", robbed.void);
    assert_eq!((robbed.per_second, robbed.cpu_us), (None, None));

    let json = serde_json::to_value(report::json(figures)).unwrap();
    assert_eq!(json["arms"].as_array().unwrap().len(), arms.len());
    assert!(json["ratios"]["hot-drain/pg-ceiling"].is_number());
    assert!(json["ratios"]["scaling-2/scaling-1 cpu"].is_number());
    let table = report::table(figures, measured.rounds);
    let page = html::page(figures, measured.rounds, &measured.env);
    for arm in &arms {
        assert!(table.contains(arm.name()) && page.contains(arm.name()), "{}", arm.name());
    }
    assert!(
        page.contains("fsync = on")
            && page.contains("synchronous_commit = on")
            && page.contains("acks = all")
    );
}
