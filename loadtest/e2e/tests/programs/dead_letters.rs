//! Dead letters, listed and replayed with the commands of `workers`.

use std::collections::BTreeMap;

use schemas::topics::REQUESTS;
use serde_json::Value;

use e2e::environment::OwnStack;
use e2e::foreign_producer::ForeignProducer;
use e2e::kafka::{Record, records};
use e2e::operator::workers;
use e2e::{Environment, StackKind};

/// Dead letters by the positions of their records.
async fn letters(env: &Environment) -> BTreeMap<(i64, i64), Value> {
    env.settle().await;
    let listed = workers(env, &["dead-letters", "list", "--limit", "100000", "--json"]).await.objects();
    let position = |letter: &Value| {
        (letter["from_partition"].as_i64().unwrap(), letter["from_offset"].as_i64().unwrap())
    };
    listed.into_iter().map(|letter| (position(&letter), letter)).collect()
}

async fn appended(env: &Environment) -> usize {
    records(&env.stack.endpoints().kafka, REQUESTS).await.len()
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().unwrap()
}

#[tokio::test]
async fn dead_letters_are_listed_escaped_and_replayed_if_their_records_are_complete() {
    let env = OwnStack::of(StackKind::Plain).await;
    let coupon = env.coupon(20, 1).await;
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    let request = producer.request("claim", "ann", None);
    let complete = producer.record(&request);
    let hostile = b"\x1b]0;owned\x07\x1b[2J\r\nfine\xff".to_vec();
    let planted = [
        Record { partition: producer.other_partition(), ..complete.clone() },
        // Larger than a dead letter keeps.
        Record { value: Some(vec![b'x'; 950_000]), ..complete.clone() },
        Record { value: None, ..complete.clone() },
        Record { key: None, ..complete.clone() },
        Record { key: None, value: None, ..complete.clone() },
        Record {
            key: Some(hostile.clone()),
            value: Some(hostile.clone()),
            headers: vec![("request_id", "\x1b[31m".to_owned()), ("reason", "\x1b[2J".to_owned())],
            ..complete.clone()
        },
    ];
    let mut positions = Vec::new();
    for planted in &planted {
        let (partition, offset) = producer.produce(planted).await;
        positions.push((i64::from(partition), offset));
    }
    producer.until_decided().await;
    let listed = letters(&env).await;
    let found: Vec<&Value> = positions.iter().map(|position| &listed[position]).collect();
    let expected = [
        ("wrong_partition", None),
        ("too_large", Some("truncated")),
        ("empty", Some("no value")),
        ("no_key", Some("no key")),
        ("no_key", Some("no value")),
    ];
    for (letter, (reason, reason_against)) in found.iter().zip(expected) {
        assert_eq!(letter["reason"], reason, "{letter}");
        assert_eq!(letter["replayable"], reason_against.is_none(), "{letter}");
        let why = letter["not_replayable_because"].as_str().unwrap_or_default();
        assert!(why.contains(reason_against.unwrap_or_default()), "{letter}");
    }
    assert_eq!(found[1]["length"], 950_000);
    let shown = workers(&env, &["dead-letters", "list", "--limit", "100000"]).await.stdout;
    assert!(shown.contains("\\u{1b}]0;owned\\u{7}"), "{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    assert_eq!(shown.lines().count(), listed.len(), "one line for each");

    // A dry run does nothing.
    let before = appended(&env).await;
    let output = workers(&env, &["dead-letters", "replay", "--offset", id(found[0]), "--dry-run"]).await;
    assert!(
        output.succeeded && output.stdout.contains(&format!("partition {}", producer.partition)),
        "{output:?}"
    );
    assert_eq!((appended(&env).await, producer.result(&request).await), (before, None));
    // Incomplete records are rejected by id, and the others are replayed.
    let ids: Vec<&str> = found[..5].iter().map(|letter| id(letter)).collect();
    let output = workers(&env, &["dead-letters", "replay", "--offset", &ids.join(",")]).await;
    assert!(!output.succeeded && output.stderr.contains("4 of the dead letters"), "{output:?}");
    assert_eq!(output.stdout.lines().filter(|line| line.contains("not replayed")).count(), 4, "{output:?}");
    producer.until_decided().await;
    assert_eq!(producer.result(&request).await.as_deref(), Some("accepted"));
    // Again, in bulk: the request has its outcome and is not decided again.
    let all = ["dead-letters", "replay", "--all", "--reason", "wrong_partition"];
    let output = workers(&env, &all).await;
    assert!(output.succeeded && output.stdout.contains(id(found[0])), "{output:?}");
    let output = workers(&env, &["dead-letters", "replay", "--offset", "0:999999999"]).await;
    assert!(!output.succeeded && output.stdout.contains("no such dead letter"), "{output:?}");
    producer.until_decided().await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 1);
    env.finish().await;
}
