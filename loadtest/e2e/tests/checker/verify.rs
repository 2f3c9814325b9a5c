//! The checker as a program: `loadtest verify` and its exit codes.

use std::path::Path;

use serde_json::Value;

use e2e::verify::{VerifyResult, verify};

use crate::fixtures::{Fixture, claims_fixture};

/// Verifies a fixture, with further arguments.
async fn verify_fixture(fixture: &Fixture, more: &[&str]) -> VerifyResult {
    let servers = ["--postgres", &fixture.config.postgres_url, "--kafka", &fixture.config.kafka];
    verify(&[&servers[..], more].concat()).await
}

#[tokio::test]
async fn verify_exits_with_0_if_clean_and_with_1_and_the_offender_if_not() {
    let fixture = claims_fixture().await;
    let clean = verify_fixture(&fixture, &["--live"]).await;
    assert_eq!((clean.code, &clean.json["violations"]), (0, &Value::from(0)), "{}", clean.table);
    assert_eq!(clean.json["in_flight"], 1, "{}", clean.table);
    let ids: Vec<&str> = clean.json["invariants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12"]);
    assert_eq!(clean.json["invariants"][11]["checked"], Value::Null, "no probes were named");

    fixture.sql("update stampede.stock set claimed = 2, redeemed = 1").await;
    let violated = verify_fixture(&fixture, &["--live"]).await;
    assert_eq!(violated.code, 1, "{}", violated.table);
    let line = &violated.json["invariants"][0];
    assert_eq!((&line["violations"], &violated.json["violations"]), (&Value::from(2), &Value::from(2)));
    assert_eq!(line["offenders"][0], "spring: claimed is 2, but 3 rows are claimed");
    assert!(violated.table.contains("VIOLATED: 2 of"), "{}", violated.table);
}

#[tokio::test]
async fn verify_exits_with_2_and_the_reason_if_it_cannot_check() {
    let fixture = claims_fixture().await;
    let directory = tempfile::tempdir().unwrap();
    let rubbish = directory.path().join("history.jsonl");
    std::fs::write(&rubbish, "rubbish\n").unwrap();
    let rubbish = rubbish.to_str().unwrap();
    let nowhere = directory.path().to_str().unwrap();
    let (postgres, kafka) = (&*fixture.config.postgres_url, &*fixture.config.kafka);
    let closed = "postgres://user@127.0.0.1:1/stampede";
    for (args, why) in [
        (&["--data-dir", nowhere][..], "has no Stampede stack"),
        (&["--postgres", postgres], "Postgres is given without Kafka: add --kafka"),
        (&["--postgres", closed, "--kafka", kafka, "--live"], "Postgres: "),
        (&["--postgres", postgres, "--kafka", kafka, "--history", rubbish], "line 1: "),
        (
            &["--postgres", postgres, "--kafka", kafka, "--live", "--redis", "redis://127.0.0.1:1/"],
            "the lists in Redis",
        ),
        // A record is pending, and no worker runs.
        (&["--postgres", postgres, "--kafka", kafka, "--settle-timeout", "1"], "without progress for 1s"),
    ] {
        let result = verify(args).await;
        assert_eq!((result.code, &result.json["violations"]), (2, &Value::from(0)), "{}", result.table);
        assert!(result.unchecked().contains(why), "{} instead of {why}", result.json);
    }
    fixture.sql("insert into stampede._sqlx_migrations values (99, true)").await;
    let result = verify_fixture(&fixture, &["--live"]).await;
    assert_eq!(result.code, 2, "{}", result.table);
    assert!(result.unchecked().contains("tables of version 99"), "{}", result.json);
    assert_eq!(result.json["invariants"][0]["checked"], Value::Null, "{}", result.json);
}

#[test]
fn every_planted_violation_in_the_readme_has_a_test_and_every_invariant_has_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("../README.md")).unwrap();
    let mut planted: Vec<&str> = Vec::new();
    for row in readme.lines().filter(|line| line.starts_with("| I")) {
        for (file, test) in row.split('`').filter_map(|word| word.split_once(".rs::")) {
            let text = std::fs::read_to_string(root.join(format!("tests/checker/{file}.rs"))).unwrap();
            let exists = text.contains(&format!("fn {test}(")) || text.contains(&format!("    {test}:\n"));
            assert!(exists, "{file}.rs has no test {test}");
            planted.extend(row.split(' ').nth(1));
        }
    }
    planted.dedup();
    assert_eq!(planted, ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12"]);
}
