//! Connections that fail while both ends run: faults 9, 10, 17, 20 and 26. Each connection of our programs to a server
//! leads through a proxy that can cut it, stall it, or drop responses.

use std::time::Duration;

use futures::future::join_all;
use local_stack::{ProxiedLink, Proxy};
use schemas::topics::{HEADER_USER_ID, REQUESTS};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use e2e::environment::{APIS, OwnStack, WORKERS};
use e2e::kafka::{header, records};
use e2e::wait::until;
use e2e::{ApiResponse, Claimants, Environment, Request, StackKind};

fn proxy(env: &Environment, link: ProxiedLink) -> Proxy {
    env.stack.proxy(link).unwrap()
}

/// How many records of this user are in the log.
async fn records_of(env: &Environment, user: &str) -> usize {
    let user = env.user(user);
    let log = records(&env.stack.endpoints().kafka, REQUESTS).await;
    log.iter().filter(|record| header(record, HEADER_USER_ID).as_ref() == Some(&user)).count()
}

/// No request is decided and no partition taken over until the workers are resumed.
fn freeze_workers(env: &Environment) {
    WORKERS.iter().for_each(|worker| env.stack.freeze(*worker).unwrap());
}

fn resume_workers(env: &Environment) {
    WORKERS.iter().for_each(|worker| env.stack.resume(*worker).unwrap());
}

/// How many batches have been written, in all partitions together. On a new connection each time: Postgres may have
/// been unreachable.
async fn batches(env: &Environment) -> i64 {
    let sql = "select coalesce(sum(write_no), 0)::bigint from stampede.partitions";
    sqlx::query_scalar(sql).fetch_one(&mut env.postgres().await).await.unwrap()
}

async fn until_in_the_log(env: &Environment, user: &str) {
    until("the request is in the log", async || records_of(env, user).await == 1).await;
}

#[tokio::test]
async fn fault_9_a_request_whose_acknowledgement_was_lost_is_appended_again_and_is_one_request() {
    let env = OwnStack::of(StackKind::Proxied).await;
    let coupon = env.coupon(9, 5).await;
    let proxy = proxy(&env, ProxiedLink::ApisToKafka);
    // One API times out before the test does, the other one does not.
    env.restart_with(APIS[0], &[("STAMPEDE_PRODUCE_TIMEOUT_MS", "1000")]).await;
    env.restart_with(APIS[1], &[("STAMPEDE_PRODUCE_TIMEOUT_MS", "60000")]).await;
    // Both producers have a connection.
    for (api, user) in ["first-0", "first-1"].into_iter().enumerate() {
        let response = env.final_response(Request::claim(user, &coupon.id).at(api)).await;
        assert!(matches!(response, ApiResponse::Accepted { .. }), "{response:?}");
    }
    // A repeated request must not find the outcome, so nothing is decided meanwhile.
    freeze_workers(&env);

    // The API responds that delivery is not confirmed. The client repeats the request at the other API: two records, one
    // request.
    let request = Request::claim("ann", &coupon.id).key("k").wait(0);
    let handle = env.record_sent(&request);
    proxy.drop_responses(true);
    let (first, ()) = tokio::join!(env.send_once(handle, request), until_in_the_log(&env, "ann"));
    proxy.drop_responses(false);
    // There is no response if the client of this test timed out first.
    if let Some(first) = first {
        assert_eq!((first.status, first.header("retry-after")), (503, Some("1")), "{}", first.body);
    }
    until("it is accepted", async || {
        let repeated = env.send_once(handle, request.at(1)).await;
        repeated.is_some_and(|repeated| repeated.status == 202)
    })
    .await;
    assert!(records_of(&env, "ann").await >= 2, "it is appended again");

    // The producer itself sends again what may be lost: again two records, one request.
    let request = Request::claim("bob", &coupon.id).key("k").wait(0).at(1);
    proxy.drop_responses(true);
    let handle = env.record_sent(&request);
    let (response, ()) = tokio::join!(env.send_once(handle, request), async {
        until_in_the_log(&env, "bob").await;
        proxy.drop_responses(false);
    });
    if let Some(response) = response {
        assert_eq!(response.status, 202, "{}", response.body);
        assert_eq!(
            records_of(&env, "bob").await,
            2,
            "no acknowledgement passes before the connection is cut"
        );
    }

    resume_workers(&env);
    for user in ["ann", "bob"] {
        let response = env.final_response(Request::claim(user, &coupon.id).key("k")).await;
        assert!(matches!(response, ApiResponse::Accepted { .. }), "{user}: {response:?}");
        let claims = sqlx::query_scalar("select count(*) from stampede.claims where user_id = $1");
        let claims: i64 = claims.bind(env.user(user)).fetch_one(&mut env.postgres().await).await.unwrap();
        assert_eq!(claims, 1, "{user} may have five and requested one");
    }
    env.finish().await;
}

#[tokio::test]
async fn fault_10_requests_beyond_a_full_producer_queue_are_rejected_immediately_and_none_is_lost() {
    const USERS: usize = 40;
    const QUEUE: usize = 10;
    let env = OwnStack::of(StackKind::Proxied).await;
    let coupon = env.coupon(USERS as u64, 1).await;
    let variables = [("STAMPEDE_PRODUCER_QUEUE_RECORDS", "10"), ("STAMPEDE_PRODUCE_TIMEOUT_MS", "60000")];
    env.restart_with(APIS[0], &variables).await;
    let proxy = proxy(&env, ProxiedLink::ApisToKafka);
    proxy.stall(true);
    // Requests in the queue wait for Kafka. The others must be rejected while it is stalled.
    let users: Vec<String> = (0..USERS).map(|n| format!("user-{n}")).collect();
    let first_attempts = users.iter().map(|user| async {
        let request = Request::claim(user, &coupon.id).key("k").wait(0);
        env.send_once(env.record_sent(&request), request).await
    });
    let (responses, ()) = tokio::join!(join_all(first_attempts), async {
        until("the queue is full", async || {
            let rejected = env.metric(APIS[0], "stampede_api_requests_rejected_total", "queue_full").await;
            rejected >= (USERS - QUEUE) as f64
        })
        .await;
        proxy.stall(false);
    });
    let mut overloaded = 0;
    for response in responses.iter().flatten().filter(|response| response.status == 503) {
        if response.json()["code"] == "overloaded" {
            assert_eq!(response.header("retry-after"), Some("1"), "{}", response.body);
            overloaded += 1;
        }
    }
    assert!(overloaded >= USERS - QUEUE, "the queue holds {QUEUE} records");
    // The same requests again: every user gets one code, whether the first attempt was in the queue or not.
    let claims = users.iter().map(|user| env.final_response(Request::claim(user, &coupon.id).key("k")));
    let responses = join_all(claims).await;
    assert!(
        responses.iter().all(|response| matches!(response, ApiResponse::Accepted { .. })),
        "{responses:?}"
    );
    env.finish().await;
}

#[tokio::test]
async fn fault_17_the_result_of_a_commit_whose_connection_was_cut_is_read_back() {
    const CODES: usize = 1_500;
    let env = OwnStack::of(StackKind::Proxied).await;
    let coupon = env.coupon(CODES as u64, 1).await;
    let claimants = Claimants::new(&coupon.id, CODES + 500);
    let proxy = proxy(&env, ProxiedLink::WorkersToPostgres);
    // Some writes take two seconds: they are under way when their connection is cut, and commit afterwards.
    let plant = "create sequence stampede.planted_calls;
                 create function stampede.planted() returns trigger language plpgsql as
                 $$ begin if nextval('stampede.planted_calls') % 300 = 100 then perform pg_sleep(2); end if;
                    return new; end $$;
                 create trigger planted before insert on stampede.claims
                 for each row execute function stampede.planted()";
    sqlx::raw_sql(plant).execute(&mut env.postgres().await).await.unwrap();
    let unknown = async || env.worker_metric("stampede_writes_total", "result=\"unknown").await;
    let before = unknown().await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        let mut postgres = env.postgres().await;
        let mut is_sleeping = async || {
            let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut postgres).await.unwrap() > 0
        };
        for _ in 0..3 {
            until("a write is under way", async || claimants.are_done() || is_sleeping().await).await;
            proxy.cut();
            until("it has committed or failed", async || !is_sleeping().await).await;
        }
        // And commits whose response is lost. Between two of them the workers recover.
        for _ in 0..4 {
            let written = batches(&env).await;
            until("batches are written", async || claimants.are_done() || batches(&env).await > written)
                .await;
            proxy.drop_responses(true);
            let written = batches(&env).await;
            let deadline = Instant::now() + Duration::from_secs(1);
            while batches(&env).await == written && Instant::now() < deadline {
                sleep(Duration::from_millis(10)).await;
            }
            proxy.drop_responses(false);
        }
    });
    assert!(unknown().await > before, "no worker had a commit with unknown result");
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted;
                  drop sequence stampede.planted_calls";
    sqlx::raw_sql(remove).execute(&mut env.postgres().await).await.unwrap();
    claimants.expect_all_claimed(&env, tally, CODES).await;
    env.finish().await;
}

/// Opens every connection that Postgres allows.
async fn take_all_connections(env: &Environment) -> Vec<PgConnection> {
    let url = env.stack.endpoints().postgres_url;
    let mut taken = Vec::new();
    loop {
        match PgConnection::connect(&url).await {
            Ok(connection) => taken.push(connection),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("53300") => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn fault_20_workers_that_get_no_connection_retry_and_continue() {
    const REJECTED: &str = "too many clients";
    let env = OwnStack::of(StackKind::Proxied).await;
    let coupon = env.coupon(400, 1).await;
    let claimants = Claimants::new(&coupon.id, 600);
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        claimants.until_done(100).await;
        // While the workers are frozen and cannot reconnect, their connections are taken.
        freeze_workers(&env);
        proxy(&env, ProxiedLink::WorkersToPostgres).cut();
        until("their connections are free", async || {
            let sql = "select count(*) from pg_stat_activity
                        where application_name ~ '^stampede-(worker|partition)-'";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut env.postgres().await).await.unwrap() == 0
        })
        .await;
        let taken = take_all_connections(&env).await;
        let before = WORKERS.map(|worker| env.count_in_logs(&[worker], REJECTED));
        resume_workers(&env);
        until("they are rejected", async || {
            let now = WORKERS.map(|worker| env.count_in_logs(&[worker], REJECTED));
            now.iter().zip(before).any(|(now, before)| *now > before)
        })
        .await;
        for connection in taken {
            connection.close().await.ok();
        }
    });
    claimants.expect_all_claimed(&env, tally, 400).await;
    env.finish().await;
}

#[tokio::test]
async fn fault_26_a_pop_whose_response_is_lost_gives_no_code_twice() {
    const CODES: usize = 3_000;
    let env = OwnStack::of(StackKind::Proxied).await;
    let coupon = env.coupon(CODES as u64, 1).await;
    let claimants = Claimants::new(&coupon.id, CODES + 300);
    let proxy = proxy(&env, ProxiedLink::WorkersToRedis);
    let failures = async || env.worker_metric("stampede_redis_failures_total", "").await;
    let before = failures().await;
    let (tally, ()) = tokio::join!(claimants.run(&env), async {
        for count in [300, 1_000, 1_700, 2_400] {
            claimants.until_done(count).await;
            let dropped = proxy.dropped_bytes();
            proxy.drop_responses(true);
            // Longer than the timeout of a worker. If no code was popped in that time, until the next pop.
            let over = Instant::now() + Duration::from_secs(1);
            while Instant::now() < over
                || (proxy.dropped_bytes() == dropped && Instant::now() < over + Duration::from_secs(4))
            {
                sleep(Duration::from_millis(20)).await;
            }
            proxy.drop_responses(false);
        }
    });
    assert!(proxy.dropped_bytes() > 0 && failures().await > before, "no worker noticed the fault");
    claimants.expect_all_claimed(&env, tally, CODES).await;
    env.finish().await;
}
