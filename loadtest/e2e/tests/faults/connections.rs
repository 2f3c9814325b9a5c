//! Lines that fail while both ends live: faults 9, 10, 17, 20 and 26. Every program of ours comes to every server through
//! a proxy that can cut, halt and swallow.

use std::time::Duration;

use checker::Told;
use futures::future::join_all;
use local_stack::{Child, ProxiedLink, Proxy};
use schemas::topics::REQUESTS;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use crate::support::faults::{WORKERS, until};
use crate::support::log::{header, records};
use crate::support::{Ask, Crowd, Field, Kind};

impl Field {
    fn line(&self, link: ProxiedLink) -> Proxy {
        self.stack.proxy(link).unwrap()
    }

    /// How many records of this user stand in the log.
    async fn asked_for_by(&self, user: &str) -> usize {
        let log = records(&self.stack.endpoints().kafka, REQUESTS).await;
        log.iter()
            .filter(|record| header(record, schemas::topics::HEADER_USER_ID).as_deref() == Some(user))
            .count()
    }
}

/// Nobody decides anything, and nobody takes over, until they are resumed.
fn freeze_workers(field: &Field) {
    WORKERS.iter().for_each(|worker| field.stack.freeze(*worker).unwrap());
}

fn resume_workers(field: &Field) {
    WORKERS.iter().for_each(|worker| field.stack.resume(*worker).unwrap());
}

#[tokio::test]
async fn fault_9_a_request_whose_acknowledgement_was_lost_is_asked_again_and_is_one_request() {
    let field = Field::enter(Kind::Lines).await;
    let coupon = field.coupon(9, 5).await;
    let line = field.line(ProxiedLink::ApisToKafka);
    // One instance gives up before the test does, the other one does not.
    field.restart_with(Child::Api(0), &[("STAMPEDE_PRODUCE_TIMEOUT_MS", "1000")]).await;
    field.restart_with(Child::Api(1), &[("STAMPEDE_PRODUCE_TIMEOUT_MS", "60000")]).await;
    // Both producers have their connection.
    for api in [0, 1] {
        let user = format!("{coupon}-first-{api}");
        let told = field.pursue(Ask::of(&user, &coupon).at(api)).await;
        assert!(matches!(told, Told::Accepted { .. }), "{told:?}");
    }
    let [ann, bob] = ["ann", "bob"].map(|name| format!("{coupon}-{name}"));
    // Whoever asks again must not find the outcome: nothing is decided meanwhile.
    freeze_workers(&field);

    // The API says that it does not know. Its client asks again, another instance: two records, one request.
    let ask = Ask::of(&ann, &coupon).key("k").wait(0);
    let asked = field.history.sent(&ann, &coupon, Some("k"));
    line.drop_responses(true);
    let (first, ()) = tokio::join!(field.claim_once(asked, ask), async {
        until("the request is in the log", async || field.asked_for_by(&ann).await == 1).await;
    });
    line.drop_responses(false);
    // Where the test's own client lost patience, nothing is known, and nothing is wrong.
    if let Some(first) = first {
        assert_eq!((first.status, first.header("retry-after")), (503, Some("1")), "{}", first.body);
    }
    until("it is accepted", async || {
        let again = field.claim_once(asked, ask.at(1)).await;
        again.is_some_and(|again| again.status == 202)
    })
    .await;
    assert!(field.asked_for_by(&ann).await >= 2, "it was appended again");

    // The producer itself sends again what may be lost: again two records, one request.
    let ask = Ask::of(&bob, &coupon).key("k").wait(0).at(1);
    let asked = field.history.sent(&bob, &coupon, Some("k"));
    line.drop_responses(true);
    let (answer, ()) = tokio::join!(field.claim_once(asked, ask), async {
        until("the request is in the log", async || field.asked_for_by(&bob).await == 1).await;
        line.drop_responses(false);
    });
    if let Some(answer) = answer {
        assert_eq!(answer.status, 202, "{}", answer.body);
        assert_eq!(
            field.asked_for_by(&bob).await,
            2,
            "no acknowledgement passes before the connection is cut"
        );
    }

    resume_workers(&field);
    for user in [&ann, &bob] {
        let told = field.pursue(Ask::of(user, &coupon).key("k")).await;
        assert!(matches!(told, Told::Accepted { .. }), "{user}: {told:?}");
        let of_user =
            sqlx::query_scalar("select count(*) from stampede.claims where user_id = $1").bind(user);
        let claims: i64 = of_user.fetch_one(&mut field.postgres().await).await.unwrap();
        assert_eq!(claims, 1, "{user} may have five, and asked for one");
    }
    for api in [Child::Api(0), Child::Api(1)] {
        field.restart_with(api, &[]).await;
    }
    field.leave().await;
}

#[tokio::test]
async fn fault_10_a_full_queue_to_kafka_is_said_at_once_and_nothing_is_lost() {
    const USERS: usize = 40;
    let field = Field::enter(Kind::Lines).await;
    let coupon = field.coupon(USERS as u64, 1).await;
    let queue = [("STAMPEDE_PRODUCER_QUEUE_RECORDS", "10"), ("STAMPEDE_PRODUCE_TIMEOUT_MS", "60000")];
    field.restart_with(Child::Api(0), &queue).await;
    let line = field.line(ProxiedLink::ApisToKafka);
    line.stall(true);
    // Nobody is answered until the queue is full: those in it wait for Kafka, and the others must not.
    let users: Vec<String> = (0..USERS).map(|n| format!("user-{n}")).collect();
    let first_tries = users.iter().map(|user| async {
        let asked = field.history.sent(user, &coupon, Some("k"));
        field.claim_once(asked, Ask::of(user, &coupon).key("k").wait(0)).await
    });
    let (answers, ()) = tokio::join!(join_all(first_tries), async {
        until("the queue is full", async || {
            field.metric(Child::Api(0), "stampede_api_requests_rejected_total", "queue_full").await
                >= (USERS - 10) as f64
        })
        .await;
        line.stall(false);
    });
    let refused = answers.iter().flatten().filter(|answer| answer.status == 503);
    let mut overloaded = 0;
    for answer in refused.filter(|answer| answer.json()["code"] == "overloaded") {
        assert_eq!(answer.header("retry-after"), Some("1"), "{}", answer.body);
        overloaded += 1;
    }
    assert!(overloaded >= USERS - 10, "ten have a place");
    // The same requests again: everybody gets one code, whether they were in the queue or not.
    let told = join_all(users.iter().map(|user| field.pursue(Ask::of(user, &coupon).key("k")))).await;
    assert!(told.iter().all(|told| matches!(told, Told::Accepted { .. })), "{told:?}");
    field.restart_with(Child::Api(0), &[]).await;
    field.leave().await;
}

#[tokio::test]
async fn fault_17_a_connection_that_is_cut_during_a_commit_leaves_no_doubt_in_the_end() {
    const CODES: usize = 1_500;
    let field = Field::enter(Kind::Lines).await;
    let coupon = field.coupon(CODES as u64, 1).await;
    let crowd = Crowd::new(&coupon, CODES + 500);
    let line = field.line(ProxiedLink::WorkersToPostgres);
    // A write that takes its time now and then: it is under way when its connection is cut, and commits afterwards.
    let plant = "create sequence stampede.planted_calls;
                 create function stampede.planted() returns trigger language plpgsql as
                 $$ begin if nextval('stampede.planted_calls') % 300 = 100 then perform pg_sleep(2); end if;
                    return new; end $$;
                 create trigger planted before insert on stampede.claims
                 for each row execute function stampede.planted()";
    sqlx::raw_sql(plant).execute(&mut field.postgres().await).await.unwrap();
    let unknown = async || field.of_workers("stampede_writes_total", "result=\"unknown").await;
    let before = unknown().await;
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        let mut postgres = field.postgres().await;
        let mut sleeping = async || {
            let sql = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut postgres).await.unwrap() > 0
        };
        let is_over = || *crowd.progress().borrow() == crowd.users;
        for _ in 0..3 {
            until("a write is under way", async || is_over() || sleeping().await).await;
            line.cut();
            until("it has ended, one way or the other", async || !sleeping().await).await;
        }
        // And a commit that is there, whose answer is not. Between two of them the workers find their feet again.
        for _ in 0..4 {
            let flowing = field.writes().await;
            until("batches are written", async || is_over() || field.writes().await > flowing).await;
            line.drop_responses(true);
            let swallowing = field.writes().await;
            let pulse = Instant::now() + Duration::from_secs(1);
            while field.writes().await == swallowing && Instant::now() < pulse {
                sleep(Duration::from_millis(10)).await;
            }
            line.drop_responses(false);
        }
    });
    assert!(unknown().await > before, "no worker was in doubt");
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted;
                  drop sequence stampede.planted_calls";
    sqlx::raw_sql(remove).execute(&mut field.postgres().await).await.unwrap();
    field.expect_all_given(&crowd, tally, CODES).await;
    field.leave().await;
}

/// Takes every connection that Postgres has to give.
async fn take_all_connections(field: &Field) -> Vec<PgConnection> {
    let url = field.stack.endpoints().postgres_url;
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
async fn fault_20_workers_that_get_no_connection_wait_for_one_and_go_on() {
    const REFUSED: &str = "too many clients";
    let field = Field::enter(Kind::Lines).await;
    let coupon = field.coupon(400, 1).await;
    let crowd = Crowd::new(&coupon, 600);
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        crowd.answered(100).await;
        // While they cannot connect again, theirs are taken by somebody else.
        freeze_workers(&field);
        field.line(ProxiedLink::WorkersToPostgres).cut();
        until("their connections are free", async || {
            let sql = "select count(*) from pg_stat_activity
                        where application_name ~ '^stampede-(worker|partition)-'";
            let asked = sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut field.postgres().await).await;
            asked.unwrap() == 0
        })
        .await;
        let taken = take_all_connections(&field).await;
        let before = WORKERS.map(|worker| field.logged(&[worker], REFUSED));
        resume_workers(&field);
        until("they are refused", async || {
            let now = WORKERS.map(|worker| field.logged(&[worker], REFUSED));
            now.iter().zip(before).any(|(now, before)| *now > before)
        })
        .await;
        for connection in taken {
            connection.close().await.ok();
        }
    });
    field.expect_all_given(&crowd, tally, 400).await;
    field.leave().await;
}

#[tokio::test]
async fn fault_26_a_pop_whose_answer_is_lost_on_its_way_gives_no_code_twice() {
    const CODES: usize = 3_000;
    let field = Field::enter(Kind::Lines).await;
    let coupon = field.coupon(CODES as u64, 1).await;
    let crowd = Crowd::new(&coupon, CODES + 300);
    let line = field.line(ProxiedLink::WorkersToRedis);
    let failures = async || field.of_workers("stampede_redis_failures_total", "").await;
    let before = failures().await;
    let (tally, ()) = tokio::join!(crowd.run(&field), async {
        for count in [300, 1_000, 1_700, 2_400] {
            crowd.answered(count).await;
            let swallowed = line.dropped_bytes();
            line.drop_responses(true);
            // Longer than a worker waits; if nothing was popped in that time, the next one is.
            let over = Instant::now() + Duration::from_secs(1);
            while Instant::now() < over
                || (line.dropped_bytes() == swallowed && Instant::now() < over + Duration::from_secs(4))
            {
                sleep(Duration::from_millis(20)).await;
            }
            line.drop_responses(false);
        }
    });
    assert!(line.dropped_bytes() > 0 && failures().await > before, "nobody noticed");
    field.expect_all_given(&crowd, tally, CODES).await;
    field.leave().await;
}
