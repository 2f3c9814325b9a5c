//! Dead letters, listed and replayed with the commands.

use std::collections::BTreeMap;

use schemas::topics::REQUESTS;
use serde_json::Value;

use e2e::environment::OwnStack;
use e2e::foreign_producer::ForeignProducer;
use e2e::kafka::{Record, records};
use e2e::operator::workers;
use e2e::{Environment, StackKind};

/// Letters by the places of their records.
async fn letters(env: &Environment) -> BTreeMap<(i64, i64), Value> {
    env.settle().await;
    let listed = workers(env, &["dead-letters", "list", "--limit", "100000", "--json"]).await.objects();
    let place = |letter: &Value| {
        (letter["from_partition"].as_i64().unwrap(), letter["from_offset"].as_i64().unwrap())
    };
    listed.into_iter().map(|letter| (place(&letter), letter)).collect()
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
    let good = producer.record(&request);
    let hostile = b"\x1b]0;owned\x07\x1b[2J\r\nfine\xff".to_vec();
    let planted = [
        Record { partition: producer.other_partition(), ..good.clone() },
        // More than is kept of a dead letter.
        Record { value: Some(vec![b'x'; 950_000]), ..good.clone() },
        Record { value: None, ..good.clone() },
        Record { key: None, ..good.clone() },
        Record { key: None, value: None, ..good.clone() },
        Record {
            key: Some(hostile.clone()),
            value: Some(hostile.clone()),
            headers: vec![("request_id", "\x1b[31m".to_owned()), ("reason", "\x1b[2J".to_owned())],
            ..good.clone()
        },
    ];
    let mut places = Vec::new();
    for planted in &planted {
        let (partition, offset) = producer.produce(planted).await;
        places.push((i64::from(partition), offset));
    }
    producer.until_decided().await;
    let listed = letters(&env).await;
    let found: Vec<&Value> = places.iter().map(|place| &listed[place]).collect();
    let expected = [
        ("wrong_partition", None),
        ("too_large", Some("truncated")),
        ("empty", Some("no value")),
        ("no_key", Some("no key")),
        ("no_key", Some("no value")),
    ];
    for (letter, (reason, why_not)) in found.iter().zip(expected) {
        assert_eq!(letter["reason"], reason, "{letter}");
        assert_eq!(letter["replayable"], why_not.is_none(), "{letter}");
        let why = letter["not_replayable_because"].as_str().unwrap_or_default();
        assert!(why.contains(why_not.unwrap_or_default()), "{letter}");
    }
    assert_eq!(found[1]["length"], 950_000);
    let shown = workers(&env, &["dead-letters", "list", "--limit", "100000"]).await.stdout;
    assert!(shown.contains("\\u{1b}]0;owned\\u{7}"), "{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    assert_eq!(shown.lines().count(), listed.len(), "one line each");

    // Saying what would be done does nothing.
    let before = appended(&env).await;
    let said = workers(&env, &["dead-letters", "replay", "--offset", id(found[0]), "--dry-run"]).await;
    assert!(said.succeeded && said.stdout.contains(&format!("partition {}", producer.partition)), "{said:?}");
    assert_eq!((appended(&env).await, producer.result(&request).await), (before, None));
    // What is not whole is refused by name, and is no reason not to replay the rest.
    let ids: Vec<&str> = found[..5].iter().map(|letter| id(letter)).collect();
    let said = workers(&env, &["dead-letters", "replay", "--offset", &ids.join(",")]).await;
    assert!(!said.succeeded && said.stderr.contains("4 of the dead letters"), "{said:?}");
    assert_eq!(said.stdout.lines().filter(|line| line.contains("not replayed")).count(), 4, "{said:?}");
    producer.until_decided().await;
    assert_eq!(producer.result(&request).await.as_deref(), Some("accepted"));
    // Once more, in bulk: it was decided, and is not decided again.
    let all = ["dead-letters", "replay", "--all", "--reason", "wrong_partition"];
    let said = workers(&env, &all).await;
    assert!(said.succeeded && said.stdout.contains(id(found[0])), "{said:?}");
    let said = workers(&env, &["dead-letters", "replay", "--offset", "0:999999999"]).await;
    assert!(!said.succeeded && said.stdout.contains("no such dead letter"), "{said:?}");
    producer.until_decided().await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 1);
    env.finish().await;
}
