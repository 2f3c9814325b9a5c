//! Writes that take longer than the statement timeout.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use e2e::environment::{OwnStack, WORKERS};
use e2e::{ApiResponse, Request, StackKind};

/// Each claim takes 100 ms to insert, and a statement may take 10 s: one batch of all claims is never written.
#[tokio::test]
async fn a_batch_that_exceeds_the_statement_timeout_is_split_until_it_is_written() {
    const CLAIMS: usize = 120;
    const BOUND: Duration = Duration::from_secs(120);
    let env = OwnStack::of(StackKind::ShortSessions).await;
    let coupon = env.coupon(CLAIMS as u64, 1).await;
    let plant = "create function stampede.planted() returns trigger language plpgsql as
                 $$ begin perform pg_sleep(0.1); return new; end $$;
                 create trigger planted before insert on stampede.claims
                 for each row execute function stampede.planted()";
    sqlx::raw_sql(plant).execute(&mut env.postgres().await).await.unwrap();
    let timed_out = async || env.worker_metric("stampede_writes_total", "result=\"statement_timed_out").await;
    let before = timed_out().await;
    // Everything is in the log before the first batch is formed.
    WORKERS.iter().for_each(|worker| env.stack.freeze(*worker).unwrap());
    let users: Vec<String> = (0..CLAIMS).map(|n| format!("user-{n}")).collect();
    let sent = users.iter().map(|user| async {
        let request = Request::claim(user, &coupon.id).key("k").wait(0);
        env.send_once(env.record_sent(&request), request).await
    });
    drop(join_all(sent).await);
    WORKERS.iter().for_each(|worker| env.stack.resume(*worker).unwrap());
    let claims = users.iter().map(|user| env.final_response(Request::claim(user, &coupon.id).key("k")));
    let responses = timeout(BOUND, join_all(claims)).await.expect("every claim is decided");
    assert!(responses.iter().all(|response| matches!(response, ApiResponse::Accepted { .. })));
    assert!(timed_out().await > before, "no write exceeded the statement timeout");
    let remove = "drop trigger planted on stampede.claims; drop function stampede.planted";
    sqlx::raw_sql(remove).execute(&mut env.postgres().await).await.unwrap();
    env.finish().await;
}
