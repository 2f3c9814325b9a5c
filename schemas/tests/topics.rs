//! `topics.yaml` (for people) and `schemas::topics` (for the code) describe the same topics.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use apache_avro::Schema;
use schemas::topics::{self, DEFAULT_PARTITIONS};
use schemas::versions;
use serde::Deserialize;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const PROGRAMS: [&str; 2] = ["ingest-api", "workers"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    key: String,
    value: String,
    partitions: i32,
    retention_days: i64,
    timestamp: String,
    max_message_bytes: i32,
    #[serde(default)]
    headers: Vec<String>,
    producers: Vec<String>,
    consumers: Vec<String>,
}

fn entries() -> Vec<Entry> {
    serde_yaml_ng::from_str(topics::YAML).unwrap()
}

#[test]
fn the_yaml_and_the_constants_describe_the_same_topics() {
    let entries = entries();
    assert_eq!(entries.len(), topics::ALL.len());
    for (entry, topic) in entries.iter().zip(topics::ALL) {
        assert_eq!(entry.name, topic.name);
        assert_eq!(entry.partitions, DEFAULT_PARTITIONS, "{}", topic.name);
        assert_eq!(entry.retention_days * DAY_MS, topic.retention_ms, "{}", topic.name);
        assert_eq!(entry.max_message_bytes, topic.max_message_bytes, "{}", topic.name);
        let append_time = match entry.timestamp.as_str() {
            "LogAppendTime" => true,
            "CreateTime" => false,
            other => unreachable!("no timestamp type {other}"),
        };
        assert_eq!(append_time, topic.log_append_time, "{}", topic.name);
        assert_eq!(append_time, topic.name == topics::REQUESTS, "only requests have the time that decides");
    }
    assert_eq!(entries[0].headers, [topics::HEADER_REQUEST_ID, topics::HEADER_USER_ID]);
}

#[test]
fn every_topic_names_its_schema_its_key_and_its_programs() {
    for (entry, topic) in entries().iter().zip(topics::ALL) {
        assert!(!entry.producers.is_empty(), "{}", entry.name);
        for program in entry.producers.iter().chain(&entry.consumers) {
            assert!(PROGRAMS.contains(&program.as_str()), "{program}");
        }
        let Some(subject) = topic.subject else {
            assert_eq!((entry.key.as_str(), entry.value.as_str()), ("as received", "as received"));
            continue;
        };
        assert_eq!(subject.topic(), topic.name);
        let Schema::Record(record) = Schema::parse_str(subject.newest().definition).unwrap() else {
            unreachable!("a subject's schema is a record");
        };
        assert!(
            record.fields.iter().any(|field| field.name == entry.key),
            "{} has no {}",
            entry.name,
            entry.key
        );
        let file = format!("{}.v{}.avsc", entry.value, subject.newest().version);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("avro").join(&file);
        assert_eq!(std::fs::read_to_string(path).unwrap(), subject.newest().definition, "{file}");
    }
}

#[test]
fn exactly_the_files_in_avro_are_shipped() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("avro");
    let files: BTreeSet<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let shipped: BTreeSet<String> = versions().iter().map(|schema| schema.definition.to_owned()).collect();
    assert_eq!(files, shipped);
}
