//! Too many who want too little: faults 43 and 44.

use futures::StreamExt as _;
use futures::future::join_all;
use local_stack::Child;
use schemas::partition_for;
use schemas::topics::REQUESTS;
use sqlx::Connection as _;

use crate::support::faults::until;
use crate::support::foreigner::PARTITIONS;
use crate::support::log::records;
use crate::support::{Ask, Crowd, Field, Kind};
use checker::Told;
use rdkafka::message::Message as _;

#[tokio::test]
async fn fault_43_the_whole_world_asks_for_one_sold_out_coupon_and_hardly_anything_reaches_the_log() {
    const WORLD: usize = 4_000;
    let field = Field::enter(Kind::Faulty).await;
    let coupon = field.coupon(5, 1).await;
    let other = field.coupon(300, 1).await;
    let winners: Vec<String> = (0..5).map(|n| format!("winner-{n}")).collect();
    for user in &winners {
        let told = field.pursue(Ask::of(user, &coupon)).await;
        assert!(matches!(told, Told::Accepted { .. }), "{told:?}");
    }
    // Without a key, because a request with one may be the retry of one that has won.
    let world = futures::stream::iter(0..WORLD).map(|n| {
        let field = &field;
        let coupon = &coupon;
        async move {
            let user = format!("world-{n}");
            field.pursue(Ask::of(&user, coupon).at(n % 2)).await
        }
    });
    let crowd = Crowd::new(&other, 400);
    let (told, tally) = tokio::join!(world.buffer_unordered(64).collect::<Vec<_>>(), crowd.run(&field));
    let by_gate = told.iter().filter(|told| told.is_gate()).count();
    let decided =
        told.iter().filter(|told| matches!(told, Told::Rejected { reason } if &**reason == "sold_out"));
    assert_eq!(by_gate + decided.count(), WORLD, "everybody hears that it is sold out");
    let log = records(&field.stack.endpoints().kafka, REQUESTS).await;
    let asked = log.iter().filter(|record| record.key() == Some(coupon.as_bytes())).count();
    assert!(asked < WORLD / 2, "{asked} records for {WORLD} who were told the same");
    // Whoever has one, and asks again, hears that they have.
    field.expect_all_given(&crowd, tally, 300).await;
    assert_eq!(field.counts(&coupon).await["claimed"], 5);
    field.leave().await;
}

#[tokio::test]
async fn fault_44_one_coupon_takes_all_the_traffic_and_the_others_go_on() {
    const FLOOD: usize = 60;
    const PLACES: usize = 20;
    let field = Field::enter(Kind::Faulty).await;
    let places = PLACES.to_string();
    for api in [Child::Api(0), Child::Api(1)] {
        field.restart_with(api, &[("STAMPEDE_MAX_PENDING_PER_PARTITION", &places)]).await;
    }
    let hot = field.coupon(FLOOD as u64, 1).await;
    let partition = |coupon: &str| partition_for(coupon.as_bytes(), PARTITIONS);
    let mut others = Vec::new();
    while others.len() < 6 {
        let other = field.coupon(20, 1).await;
        if partition(&other) != partition(&hot) {
            others.push(other);
        }
    }
    // Nothing of the hot one can be written until this is let go: its backlog only grows.
    let mut gate = field.postgres().await;
    sqlx::query("select pg_advisory_lock(4711)").execute(&mut gate).await.unwrap();
    let plant = format!(
        "create function stampede.planted() returns trigger language plpgsql as
         $$ begin if new.user_id like '{hot}-%' then perform pg_advisory_xact_lock_shared(4711); end if;
            return new; end $$;
         create trigger planted before insert on stampede.claims
         for each row execute function stampede.planted()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(plant)).execute(&mut field.postgres().await).await.unwrap();

    let users: Vec<String> = (0..FLOOD).map(|n| format!("{hot}-user-{n}")).collect();
    let flood = join_all(users.iter().map(|user| async {
        let asked = field.history.sent(user, &hot, Some("k"));
        field.claim_once(asked, Ask::of(user, &hot).key("k").wait(0)).await.unwrap()
    }))
    .await;
    let refused: Vec<_> = flood.iter().filter(|reply| reply.status == 503).collect();
    assert!(refused.len() >= FLOOD - PLACES, "{} of {FLOOD} are refused", refused.len());
    assert!(refused.iter().all(|reply| reply.header("retry-after") == Some("1")));
    assert!(flood.iter().any(|reply| reply.status == 202), "the hot one has its places");

    // The others sell out meanwhile, through the same instances and by the same workers.
    let crowds: Vec<_> = others.iter().map(|coupon| Crowd::new(coupon, 30)).collect();
    let tallies = join_all(crowds.iter().map(|crowd| crowd.run(&field))).await;
    assert!(tallies.iter().all(|tally| tally.won == 20 && tally.sold_out == 10), "{tallies:?}");
    assert_eq!(field.counts(&hot).await["claimed"], 0, "and nothing of the hot one was decided");

    sqlx::query("select pg_advisory_unlock(4711)").execute(&mut gate).await.unwrap();
    gate.close().await.unwrap();
    let told = join_all(users.iter().map(|user| field.pursue(Ask::of(user, &hot).key("k")))).await;
    assert!(told.iter().all(|told| matches!(told, Told::Accepted { .. })), "{told:?}");
    until("every code of the hot one is given", async || field.counts(&hot).await["claimed"] == FLOOD).await;
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted";
    sqlx::raw_sql(remove).execute(&mut field.postgres().await).await.unwrap();
    for api in [Child::Api(0), Child::Api(1)] {
        field.restart_with(api, &[]).await;
    }
    field.leave().await;
}
