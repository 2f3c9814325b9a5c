//! A worker on the real stack: claims put on Kafka are decided, written and told, whoever owns the partition.

#![expect(clippy::unwrap_used, reason = "tests")]

mod shop;

use std::time::{Duration, Instant};

use local_stack::Child;
use schemas::{CouponRequest, kinds};
use shop::{claim, open};

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_decided_once_while_workers_come_and_go() {
    let mut shop = open(2, Vec::new()).await;
    shop.coupon("summer", 500).await;
    shop.coupon("winter", 2_000).await;
    let mut ids = shop.claim("summer", 0..400);
    shop.settle(&ids);
    assert_eq!(shop.won(&ids), 400);

    // Handed over in order: nothing is told twice.
    ids.extend(shop.claim("summer", 400..800));
    shop.stack.stop_child(Child::Worker(0)).await.unwrap();
    ids.extend(shop.claim("winter", 0..300));
    shop.settle(&ids);
    assert_eq!(shop.won(&ids), 800);

    // Killed: the other one takes over what the group gives it.
    shop.stack.restart(Child::Worker(0)).await.unwrap();
    ids.extend(shop.claim("winter", 300..900));
    shop.stack.kill(Child::Worker(1)).unwrap();
    ids.extend(shop.claim("winter", 900..1_200));
    shop.settle(&ids);
    assert_eq!(shop.won(&ids), 1_700);
    assert_eq!(shop.count("select count(*) from stampede.claims").await, 1_700);
    assert_eq!(shop.count("select count(*) from stampede.outcomes where reason = 'sold_out'").await, 300);
    shop.until("everything told is recorded as told", "select count(*) from stampede.outbox", 0).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_answered_or_put_aside_and_the_partition_goes_on() {
    let mut shop = open(1, Vec::new()).await;
    shop.coupon("summer", 10).await;
    let good = claim("summer", "ann");
    let unreadable = claim("summer", "bob");
    let nul = claim("summer", "eve\0");
    let unknown = CouponRequest { kind: "dance".to_owned(), ..claim("summer", "dan") };
    let nowhere = claim("nowhere", "ann");
    shop.send_raw("summer", b"", "?", "?");
    shop.send_raw("summer", &[0, 0, 0, 0, 1, 200], &unreadable.request_id, &unreadable.user_id);
    shop.send_raw("summer", &[0, 0, 0, 99, 99, 2, 2], "no id", "nobody");
    shop.send(&CouponRequest { kind: kinds::TICK.to_owned(), ..CouponRequest::default() });
    for request in [&nul, &unknown, &nowhere, &good, &good] {
        shop.send(request);
    }
    let answered = [&unreadable, &unknown, &nowhere, &good].map(|request| request.request_id.clone());
    shop.settle(&answered);
    shop.send(&good);
    // Told once more, exactly as then: `won` compares the events of a request with each other.
    let until = Instant::now() + Duration::from_secs(300);
    while shop.told[&good.request_id].len() < 2 {
        assert!(Instant::now() < until, "the repetition was not told");
        shop.listen(Duration::from_millis(50));
    }
    let reason = |id: &String| shop.told[id][0].reason.clone();
    assert_eq!(reason(&unreadable.request_id).as_deref(), Some("unprocessable"));
    assert_eq!(reason(&unknown.request_id).as_deref(), Some("unprocessable"));
    assert_eq!(reason(&nowhere.request_id).as_deref(), Some("coupon_unknown"));
    assert_eq!(shop.won(&answered), 1);
    assert!(!shop.told.contains_key(&nul.request_id), "whom to tell, if the user cannot be stored?");
    shop.close().await;
}
