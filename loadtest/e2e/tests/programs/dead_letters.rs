//! Dead letters, listed and replayed with the commands.

use std::collections::BTreeMap;

use schemas::topics::REQUESTS;
use serde_json::Value;

use crate::support::foreigner::{Foreigner, PARTITIONS};
use crate::support::log::{Planted, records};
use crate::support::operator::workers;
use crate::support::{Field, Kind};

/// Letters by the places of their records.
async fn letters(field: &Field) -> BTreeMap<(i64, i64), Value> {
    field.checked().await;
    let listed = workers(field, &["dead-letters", "list", "--limit", "100000", "--json"]).await.objects();
    let place = |letter: &Value| {
        (letter["from_partition"].as_i64().unwrap(), letter["from_offset"].as_i64().unwrap())
    };
    listed.into_iter().map(|letter| (place(&letter), letter)).collect()
}

async fn appended(field: &Field) -> usize {
    records(&field.stack.endpoints().kafka, REQUESTS).await.len()
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().unwrap()
}

#[tokio::test]
async fn dead_letters_are_listed_harmlessly_and_replayed_where_their_records_are_whole() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.coupon(20, 1).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let request = foreigner.request("claim", "ann", None);
    let good = foreigner.record(&request);
    let elsewhere = (foreigner.partition + 1) % PARTITIONS;
    let hostile = b"\x1b]0;owned\x07\x1b[2J\r\nfine\xff".to_vec();
    let planted = [
        Planted { partition: elsewhere, ..good.clone() },
        // More than is kept of a dead letter.
        Planted { value: Some(vec![b'x'; 950_000]), ..good.clone() },
        Planted { value: None, ..good.clone() },
        Planted { key: None, ..good.clone() },
        Planted { key: None, value: None, ..good.clone() },
        Planted {
            key: Some(hostile.clone()),
            value: Some(hostile.clone()),
            headers: vec![("request_id", "\x1b[31m".to_owned()), ("reason", "\x1b[2J".to_owned())],
            ..good.clone()
        },
    ];
    let mut places = Vec::new();
    for planted in &planted {
        let (partition, offset) = foreigner.produce(planted).await;
        places.push((i64::from(partition), offset));
    }
    foreigner.heard(&field).await;
    let listed = letters(&field).await;
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
    let shown = workers(&field, &["dead-letters", "list", "--limit", "100000"]).await.text;
    assert!(shown.contains("\\u{1b}]0;owned\\u{7}"), "{shown}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    assert_eq!(shown.lines().count(), listed.len(), "one line each");

    // Saying what would be done does nothing.
    let before = appended(&field).await;
    let said = workers(&field, &["dead-letters", "replay", "--offset", id(found[0]), "--dry-run"]).await;
    assert!(said.done && said.text.contains(&format!("partition {}", foreigner.partition)), "{said:?}");
    assert_eq!((appended(&field).await, foreigner.outcome(&field, &request).await), (before, None));
    // What is not whole is refused by name, and is no reason not to replay the rest.
    let ids: Vec<&str> = found[..5].iter().map(|letter| id(letter)).collect();
    let said = workers(&field, &["dead-letters", "replay", "--offset", &ids.join(",")]).await;
    assert!(!said.done && said.complaint.contains("4 of the dead letters"), "{said:?}");
    assert_eq!(said.text.lines().filter(|line| line.contains("not replayed")).count(), 4, "{said:?}");
    foreigner.heard(&field).await;
    assert_eq!(foreigner.outcome(&field, &request).await.as_deref(), Some("accepted"));
    // Once more, in bulk: it was decided, and is not decided again.
    let all = ["dead-letters", "replay", "--all", "--reason", "wrong_partition"];
    let said = workers(&field, &all).await;
    assert!(said.done && said.text.contains(id(found[0])), "{said:?}");
    let said = workers(&field, &["dead-letters", "replay", "--offset", "0:999999999"]).await;
    assert!(!said.done && said.text.contains("no such dead letter"), "{said:?}");
    foreigner.heard(&field).await;
    assert_eq!(field.counts(&coupon).await["claimed"], 1);
    field.leave().await;
}
