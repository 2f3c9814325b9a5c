//! More requests than codes or capacity: faults 43 and 44.

use futures::StreamExt as _;
use futures::future::join_all;
use schemas::topics::REQUESTS;
use sqlx::Connection as _;

use e2e::environment::{APIS, OwnStack};
use e2e::kafka::{count_with_key, records};
use e2e::wait::until;
use e2e::{ApiResponse, Claimants, Request, StackKind};

#[tokio::test]
async fn fault_43_claims_of_a_sold_out_coupon_are_rejected_by_the_gate_and_few_reach_the_log() {
    const USERS: usize = 4_000;
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(5, 1).await;
    let other = env.coupon(300, 1).await;
    let winners: Vec<String> = (0..5).map(|n| format!("winner-{n}")).collect();
    for user in &winners {
        let response = env.final_response(Request::claim(user, &coupon.id)).await;
        assert!(matches!(response, ApiResponse::Accepted { .. }), "{response:?}");
    }
    // Without a key: a request with a key may be the retry of a winner.
    let late = futures::stream::iter(0..USERS).map(|n| {
        let (env, coupon) = (&env, &coupon);
        async move { env.final_response(Request::claim(&format!("late-{n}"), &coupon.id).at(n % 2)).await }
    });
    let claimants = Claimants::new(&other.id, 400);
    let (responses, tally) = tokio::join!(late.buffer_unordered(64).collect::<Vec<_>>(), claimants.run(&env));
    let by_gate = responses.iter().filter(|response| response.is_gate()).count();
    let is_sold_out = |response: &&ApiResponse| matches!(response, ApiResponse::Rejected { reason } if &**reason == "sold_out");
    let decided = responses.iter().filter(is_sold_out).count();
    assert_eq!(by_gate + decided, USERS, "every user receives sold_out");
    let logged = count_with_key(&records(&env.stack.endpoints().kafka, REQUESTS).await, &coupon.id);
    assert!(logged < USERS / 2, "{logged} records for {USERS} identical rejections");
    // The other coupon is sold meanwhile.
    claimants.expect_all_claimed(&env, tally, 300).await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 5);
    env.finish().await;
}

#[tokio::test]
async fn fault_44_while_one_coupon_takes_all_the_traffic_the_others_are_sold() {
    const FLOOD: usize = 60;
    const MAX_PENDING: usize = 20;
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let max_pending = MAX_PENDING.to_string();
    for api in APIS {
        env.restart_with(api, &[("STAMPEDE_MAX_PENDING_PER_PARTITION", &max_pending)]).await;
    }
    let hot = env.coupon(FLOOD as u64, 1).await;
    let mut others = Vec::new();
    while others.len() < 6 {
        let other = env.coupon(20, 1).await;
        if env.partition_of(&other.id) != env.partition_of(&hot.id) {
            others.push(other);
        }
    }
    // No claim of the hot coupon can be written before this lock is released: its backlog only grows.
    let mut gate = env.postgres().await;
    sqlx::query("select pg_advisory_lock(4711)").execute(&mut gate).await.unwrap();
    let plant = "create function stampede.planted() returns trigger language plpgsql as
         $$ begin if new.user_id like '%.hot-user-%' then perform pg_advisory_xact_lock_shared(4711); end if;
            return new; end $$;
         create trigger planted before insert on stampede.claims
         for each row execute function stampede.planted()";
    sqlx::raw_sql(plant).execute(&mut env.postgres().await).await.unwrap();

    let users: Vec<String> = (0..FLOOD).map(|n| format!("hot-user-{n}")).collect();
    let flood = users.iter().map(|user| env.send(Request::claim(user, &hot.id).key("k").wait(0)));
    let flood = join_all(flood).await;
    let rejected: Vec<_> = flood.iter().filter(|reply| reply.status == 503).collect();
    assert!(rejected.len() >= FLOOD - MAX_PENDING, "{} of {FLOOD} are rejected", rejected.len());
    assert!(rejected.iter().all(|reply| reply.header("retry-after") == Some("1")));
    assert!(flood.iter().any(|reply| reply.status == 202), "up to {MAX_PENDING} are accepted");

    // The others sell out meanwhile, through the same APIs and by the same workers.
    let claimants: Vec<_> = others.iter().map(|coupon| Claimants::new(&coupon.id, 30)).collect();
    let tallies = join_all(claimants.iter().map(|claimants| claimants.run(&env))).await;
    assert!(tallies.iter().all(|tally| tally.won == 20 && tally.sold_out == 10), "{tallies:?}");
    assert_eq!(env.counts(&hot.id).await["claimed"], 0, "no claim of the hot coupon is written");

    sqlx::query("select pg_advisory_unlock(4711)").execute(&mut gate).await.unwrap();
    gate.close().await.unwrap();
    let claims = users.iter().map(|user| env.final_response(Request::claim(user, &hot.id).key("k")));
    let responses = join_all(claims).await;
    assert!(
        responses.iter().all(|response| matches!(response, ApiResponse::Accepted { .. })),
        "{responses:?}"
    );
    until("every code of the hot coupon is claimed", async || env.counts(&hot.id).await["claimed"] == FLOOD)
        .await;
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted";
    sqlx::raw_sql(remove).execute(&mut env.postgres().await).await.unwrap();
    env.finish().await;
}
