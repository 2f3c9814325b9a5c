//! Violations outside rows and topics: in the offsets that the group has committed, in the responses that clients
//! received, in the gauges of the programs, and over time.

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
use crate::fixtures::{COUPON, Fixture, LOG, claims_fixture, id, partition};

/// The next offset of the partition of the fixture.
const NEXT: i64 = LOG.len() as i64;
const WRITE_NO: i64 = 3;

/// Checks the fixture with this consumer group, after the group has committed this offset and metadata.
async fn committed(fixture: &Fixture, group: &'static str, offset: i64, metadata: &'static str) -> Report {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &fixture.config.kafka).set("group.id", group);
    spawn_blocking(move || {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(REQUESTS, partition(), Offset::Offset(offset)).unwrap();
        list.find_partition(REQUESTS, partition()).unwrap().set_metadata(metadata);
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    check(&CheckConfig { group: group.to_owned(), ..fixture.config.clone() }, None).await.unwrap()
}

#[tokio::test]
async fn a_group_that_is_ahead_of_postgres_is_found() {
    let fixture = claims_fixture().await;
    let report = committed(&fixture, "as-far", NEXT, "write_no=3").await;
    assert!(report.is_clean() && report.line(Invariant::I10).checked == 1, "\n{report}");
    let report = committed(&fixture, "ahead", NEXT + 1, "").await;
    expect_broken(&report, &[Invariant::I10], "the group has committed 9, but Postgres is at 8");
}

#[tokio::test]
async fn a_row_at_an_earlier_write_than_the_group_has_committed_is_found() {
    assert_eq!(WRITE_NO, 3, "as in the fixture");
    let fixture = claims_fixture().await;
    let report = committed(&fixture, "has-committed-more", NEXT, "write_no=4").await;
    expect_broken(&report, &[Invariant::I7], "the group has committed write 4, but the row is at write 3");
}

#[tokio::test]
async fn an_epoch_that_decreases_is_found_by_the_watch() {
    let fixture = claims_fixture().await;
    let watch = Watch::begin(&fixture.config.postgres_url);
    let more_samples = async |more: usize| {
        let wanted = watch.samples() + more;
        while watch.samples() < wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    more_samples(1).await;
    fixture.sql("update stampede.partitions set epoch = epoch - 1").await;
    // One sample may be under way.
    more_samples(2).await;
    let mut report = fixture.check().await;
    assert!(report.is_clean(), "a single check cannot find it\n{report}");
    watch.end(&mut report).await;
    expect_broken(&report, &[Invariant::I7], "epoch decreased from 1 to 0");
}

#[tokio::test]
async fn a_duplicate_with_a_different_response_is_found() {
    let fixture = claims_fixture().await;
    let history = History::new();
    let handle = history.record_sent("dora", COUPON, Some("k"));
    let receive = |reason: &str| {
        let body = format!(
            r#"{{"request_id":"{}.tag","kind":"claim","coupon_id":"{COUPON}","status":"rejected","reason":"{reason}",
                 "decided_at":"2025-11-21T04:40:00Z"}}"#,
            id(7, 0)
        );
        history.record_received(handle, Received::Response { status: 200, body });
    };
    receive("sold_out");
    receive("sold_out");
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    assert!(report.is_clean(), "\n{report}");
    receive("expired");
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I4, Invariant::I8], "an earlier response was different");

    // One key with two request ids.
    let other = history.record_sent("dora", COUPON, Some("l"));
    for identity in [7, 1] {
        let body = format!(r#"{{"request_id":"{}.tag","status":"pending"}}"#, id(identity, 0));
        history.record_received(other, Received::Response { status: 202, body });
    }
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I4, Invariant::I8], "and received several request ids");
}

/// A server that returns these metrics for any request.
async fn probe(metrics: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            // The response does not depend on the request.
            let _read = socket.read(&mut request).await;
            let response = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{metrics}",
                metrics.len()
            );
            socket.write_all(response.as_bytes()).await.ok();
        }
    });
    url
}

#[tokio::test]
async fn a_gauge_beyond_its_bound_is_found_and_an_unreachable_probe_is_reported() {
    let fixture = claims_fixture().await;
    let within_bound = probe("stampede_backlog_records{partition=\"0\"} 7\n").await;
    let config = CheckConfig { worker_probes: vec![within_bound.clone()], ..fixture.config.clone() };
    let report = check(&config, None).await.unwrap();
    assert!(report.is_clean() && report.line(Invariant::I12).checked == 1, "\n{report}");

    let beyond_bound = probe("stampede_backlog_records{partition=\"0\"} 1000000\n").await;
    let config = CheckConfig {
        worker_probes: vec![within_bound],
        api_probes: vec![beyond_bound],
        ..fixture.config.clone()
    };
    expect_broken(&check(&config, None).await.unwrap(), &[Invariant::I12], "must stay below 60000");

    let config =
        CheckConfig { worker_probes: vec!["http://127.0.0.1:1".to_owned()], ..fixture.config.clone() };
    let report = check(&config, None).await.unwrap();
    assert!(
        report.line(Invariant::I12).not_applicable.is_some() && report.unchecked.len() == 1,
        "\n{report}"
    );
}
