//! Workers on the real stack: claims produced to Kafka are decided, written and published, whichever worker owns the
//! partition.

#![expect(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::time::{Duration, Instant};

use harness::{claim, start};
use local_stack::Child;
use schemas::{CouponRequest, kinds};

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_decided_once_while_workers_stop_and_start() {
    let mut harness = start(2, Vec::new()).await;
    harness.coupon("summer", 500).await;
    harness.coupon("winter", 2_000).await;
    let mut ids = harness.claim("summer", 0..400);
    harness.settle(&ids);
    assert_eq!(harness.won(&ids), 400);

    // An orderly hand-over publishes no response twice.
    ids.extend(harness.claim("summer", 400..800));
    harness.stack.stop_child(Child::Worker(0)).await.unwrap();
    ids.extend(harness.claim("winter", 0..300));
    harness.settle(&ids);
    assert_eq!(harness.won(&ids), 800);

    // After a kill the other worker takes over.
    harness.stack.restart(Child::Worker(0)).await.unwrap();
    ids.extend(harness.claim("winter", 300..900));
    harness.stack.kill(Child::Worker(1)).unwrap();
    ids.extend(harness.claim("winter", 900..1_200));
    harness.settle(&ids);
    assert_eq!(harness.won(&ids), 1_700);
    assert_eq!(harness.count("select count(*) from stampede.claims").await, 1_700);
    assert_eq!(harness.count("select count(*) from stampede.outcomes where reason = 'sold_out'").await, 300);
    harness
        .until("everything published is recorded as published", "select count(*) from stampede.outbox", 0)
        .await;
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_records_are_rejected_or_dead_letters_and_the_partition_continues() {
    let mut harness = start(1, Vec::new()).await;
    harness.coupon("summer", 10).await;
    let good = claim("summer", "ann");
    let unreadable = claim("summer", "bob");
    let nul = claim("summer", "eve\0");
    let unknown = CouponRequest { kind: "dance".to_owned(), ..claim("summer", "dan") };
    let nowhere = claim("nowhere", "ann");
    harness.send_raw("summer", b"", "?", "?");
    harness.send_raw("summer", &[0, 0, 0, 0, 1, 200], &unreadable.request_id, &unreadable.user_id);
    harness.send_raw("summer", &[0, 0, 0, 99, 99, 2, 2], "no id", "no user");
    harness.send(&CouponRequest { kind: kinds::TICK.to_owned(), ..CouponRequest::default() });
    for request in [&nul, &unknown, &nowhere, &good, &good] {
        harness.send(request);
    }
    let with_outcome = [&unreadable, &unknown, &nowhere, &good].map(|request| request.request_id.clone());
    harness.settle(&with_outcome);
    harness.send(&good);
    // Published again, with the same content: `won` compares the responses of a request.
    let until = Instant::now() + Duration::from_secs(300);
    while harness.responses[&good.request_id].len() < 2 {
        assert!(Instant::now() < until, "the duplicate was not published");
        harness.poll_responses(Duration::from_millis(50));
    }
    let reason = |id: &String| harness.responses[id][0].reason.clone();
    assert_eq!(reason(&unreadable.request_id).as_deref(), Some("unprocessable"));
    assert_eq!(reason(&unknown.request_id).as_deref(), Some("unprocessable"));
    assert_eq!(reason(&nowhere.request_id).as_deref(), Some("coupon_unknown"));
    assert_eq!(harness.won(&with_outcome), 1);
    assert!(
        !harness.responses.contains_key(&nul.request_id),
        "a user that cannot be stored gets no response"
    );
    harness.close().await;
}
