//! Violations that stand neither in rows nor in the topics of outcomes: in what the group has committed, in what clients
//! heard, in what programs tell of themselves, and in what only somebody who keeps looking can see.

use std::time::Duration;

use checker::{CheckConfig, History, Invariant, Received, Report, Watch, check};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::topics::REQUESTS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::expect_broken;
use crate::fixtures::{ASKED, COUPON, World, copy_of_the_forged, id, partition};

/// Where the partition of the forged world stands.
const NEXT: i64 = ASKED.len() as i64;
const WRITE_NO: i64 = 3;

/// The forged world as it is checked if the workers' group is this one, which has committed this.
async fn committed(world: &World, group: &'static str, offset: i64, metadata: &'static str) -> Report {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.config.kafka).set("group.id", group);
    spawn_blocking(move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(REQUESTS, partition(), Offset::Offset(offset)).unwrap();
        list.find_partition(REQUESTS, partition()).unwrap().set_metadata(metadata);
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    check(&CheckConfig { group: group.to_owned(), ..world.config.clone() }, None).await.unwrap()
}

#[tokio::test]
async fn a_group_that_is_ahead_of_postgres_is_found() {
    let world = copy_of_the_forged().await;
    let report = committed(&world, "as-far", NEXT, "write_no=3").await;
    assert!(report.is_clean() && report.line(Invariant::I10).checked == 1, "\n{report}");
    let report = committed(&world, "ahead", NEXT + 1, "").await;
    expect_broken(&report, &[Invariant::I10], "the group has committed 9, but Postgres is at 8");
}

#[tokio::test]
async fn a_row_at_an_earlier_write_than_the_group_has_committed_is_found() {
    assert_eq!(WRITE_NO, 3, "as forged");
    let world = copy_of_the_forged().await;
    let report = committed(&world, "knows-more", NEXT, "write_no=4").await;
    expect_broken(&report, &[Invariant::I7], "the group has committed write 4, but the row is at write 3");
}

#[tokio::test]
async fn an_epoch_that_decreases_is_found_by_the_watch() {
    let world = copy_of_the_forged().await;
    let watch = Watch::begin(&world.config.postgres_url);
    let more_looks = async |more: usize| {
        let wanted = watch.samples() + more;
        while watch.samples() < wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    more_looks(1).await;
    world.sql("update stampede.partitions set epoch = epoch - 1").await;
    // One may be under way.
    more_looks(2).await;
    let mut report = world.check().await;
    assert!(report.is_clean(), "one look cannot tell\n{report}");
    watch.end(&mut report).await;
    expect_broken(&report, &[Invariant::I7], "epoch decreased from 1 to 0");
}

#[tokio::test]
async fn a_duplicate_with_a_different_response_is_found() {
    let world = copy_of_the_forged().await;
    let history = History::new();
    let asked = history.record_sent("dora", COUPON, Some("k"));
    let hear = |reason: &str| {
        let body = format!(
            r#"{{"request_id":"{}.tag","kind":"claim","coupon_id":"{COUPON}","status":"rejected","reason":"{reason}",
                 "decided_at":"2025-11-21T04:40:00Z"}}"#,
            id(7, 0)
        );
        history.record_received(asked, Received::Response { status: 200, body });
    };
    hear("sold_out");
    hear("sold_out");
    let report = check(&world.config, Some(&history)).await.unwrap();
    assert!(report.is_clean(), "\n{report}");
    hear("expired");
    let report = check(&world.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I4, Invariant::I8], "an earlier response was different");

    // The same key, and another request.
    let other = history.record_sent("dora", COUPON, Some("l"));
    for identity in [7, 1] {
        let body = format!(r#"{{"request_id":"{}.tag","status":"pending"}}"#, id(identity, 0));
        history.record_received(other, Received::Response { status: 202, body });
    }
    let report = check(&world.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I4, Invariant::I8], "and received several request ids");
}

/// Something that tells its metrics to everybody who asks, whatever they ask for.
async fn probe(metrics: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            // Whatever came of the request: the answer is the same.
            let _read = socket.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{metrics}",
                metrics.len()
            );
            socket.write_all(answer.as_bytes()).await.ok();
        }
    });
    url
}

#[tokio::test]
async fn a_gauge_beyond_its_bound_is_found_and_an_unreachable_probe_is_reported() {
    let world = copy_of_the_forged().await;
    let modest = probe("stampede_backlog_records{partition=\"0\"} 7\n").await;
    let config = CheckConfig { worker_probes: vec![modest.clone()], ..world.config.clone() };
    let report = check(&config, None).await.unwrap();
    assert!(report.is_clean() && report.line(Invariant::I12).checked == 1, "\n{report}");

    let hoarder = probe("stampede_backlog_records{partition=\"0\"} 1000000\n").await;
    let config =
        CheckConfig { worker_probes: vec![modest], api_probes: vec![hoarder], ..world.config.clone() };
    expect_broken(&check(&config, None).await.unwrap(), &[Invariant::I12], "must stay below 60000");

    let config = CheckConfig { worker_probes: vec!["http://127.0.0.1:1".to_owned()], ..world.config.clone() };
    let report = check(&config, None).await.unwrap();
    assert!(
        report.line(Invariant::I12).not_applicable.is_some() && report.unchecked.len() == 1,
        "\n{report}"
    );
}
