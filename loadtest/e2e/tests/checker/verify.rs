//! The checker as a program: its exit codes, and that it accuses nobody in mid-sale.

use std::path::Path;
use std::process::Stdio;

use checker::{CheckConfig, History, check};
use serde_json::Value;
use tokio::process::Command;

use crate::forged::{World, copy_of_the_forged};
use crate::support::lives::Lives;
use crate::support::{Field, Kind};

/// What a run of the program ended with.
struct Verdict {
    code: i32,
    json: Value,
    /// What people see.
    table: String,
}

impl Verdict {
    fn unchecked(&self) -> &str {
        self.json["unchecked"][0].as_str().unwrap_or_default()
    }
}

async fn verify(args: &[&str]) -> Verdict {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg("verify").args(args).arg("--json").stdin(Stdio::null());
    // Nothing of whoever runs the tests.
    for variable in
        ["STAMPEDE_POSTGRES_URL", "STAMPEDE_KAFKA_BROKERS", "STAMPEDE_REDIS_URL", "STAMPEDE_GROUP"]
    {
        command.env_remove(variable);
    }
    let output = command.output().await.unwrap();
    let (out, table) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let last = out.lines().last().unwrap_or_else(|| panic!("nothing was printed\n{table}"));
    let json = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
    Verdict { code: output.status.code().unwrap(), json, table }
}

/// Of a forged world, with what else is asked for.
async fn verify_forged(world: &World, more: &[&str]) -> Verdict {
    let servers = ["--postgres", &world.config.postgres_url, "--kafka", &world.config.kafka];
    verify(&[&servers[..], more].concat()).await
}

#[tokio::test]
async fn what_is_in_order_is_0_and_what_is_not_is_1_with_the_offender_in_the_last_line() {
    let world = copy_of_the_forged().await;
    let clean = verify_forged(&world, &["--live"]).await;
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

    world.sql("update stampede.stock set claimed = 2, redeemed = 1").await;
    let violated = verify_forged(&world, &["--live"]).await;
    assert_eq!(violated.code, 1, "{}", violated.table);
    let line = &violated.json["invariants"][0];
    assert_eq!((&line["violations"], &violated.json["violations"]), (&Value::from(2), &Value::from(2)));
    assert_eq!(line["offenders"][0], "spring: claimed is 2, and 3 rows are claimed");
    assert!(violated.table.contains("VIOLATED: 2 of"), "{}", violated.table);
}

#[tokio::test]
async fn what_cannot_be_told_is_2_and_says_why() {
    let world = copy_of_the_forged().await;
    let directory = tempfile::tempdir().unwrap();
    let rubbish = directory.path().join("history.jsonl");
    std::fs::write(&rubbish, "rubbish\n").unwrap();
    let rubbish = rubbish.to_str().unwrap();
    let nowhere = directory.path().to_str().unwrap();
    let (postgres, kafka) = (&*world.config.postgres_url, &*world.config.kafka);
    let closed = "postgres://nobody@127.0.0.1:1/stampede";
    for (args, why) in [
        (&["--data-dir", nowhere][..], "has no stack of Stampede"),
        (&["--postgres", postgres], "not where Kafka is: name it with --kafka"),
        (&["--postgres", closed, "--kafka", kafka, "--live"], "Postgres: "),
        (&["--postgres", postgres, "--kafka", kafka, "--history", rubbish], "line 1: "),
        (
            &["--postgres", postgres, "--kafka", kafka, "--live", "--redis", "redis://127.0.0.1:1/"],
            "the lists in Redis",
        ),
        // Somebody waits there, and no worker comes.
        (&["--postgres", postgres, "--kafka", kafka, "--patience", "1"], "and nothing has moved for 1s"),
    ] {
        let verdict = verify(args).await;
        assert_eq!((verdict.code, &verdict.json["violations"]), (2, &Value::from(0)), "{}", verdict.table);
        assert!(verdict.unchecked().contains(why), "{} instead of {why}", verdict.json);
    }
    world.sql("insert into stampede._sqlx_migrations values (99, true)").await;
    let verdict = verify_forged(&world, &["--live"]).await;
    assert_eq!(verdict.code, 2, "{}", verdict.table);
    assert!(verdict.unchecked().contains("tables of version 99"), "{}", verdict.json);
    assert_eq!(verdict.json["invariants"][0]["checked"], Value::Null, "{}", verdict.json);
}

/// How often the sale is looked at.
const LOOKS: usize = 8;

#[tokio::test]
async fn in_mid_sale_nothing_is_reported_however_often_it_is_looked_at() {
    let mut field = Field::enter(Kind::Calm).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.jsonl");
    field.history = History::recorded(&file).unwrap();
    let data_dir = field.stack.data_dir().to_owned();
    let paths = [data_dir.as_path(), file.as_path()].map(|path| path.to_str().unwrap());
    let [data_dir, file] = paths;

    let lives = Lives::of(&field).await;
    let config = CheckConfig::running(&field.stack.endpoints());
    let mut in_flight = 0;
    let words = lives.during(async {
        for look in 0..LOOKS {
            lives.lived(12).await;
            let report = check(&config, Some(&field.history)).await.unwrap();
            assert!(
                report.is_clean() && report.unchecked.is_empty() && report.unresolved == 0,
                "{look}\n{report}"
            );
            in_flight += report.in_flight;
        }
        let verdict = verify(&["--data-dir", data_dir, "--live", "--history", file]).await;
        assert_eq!(verdict.code, 0, "{}", verdict.table);
        assert!(verdict.json["invariants"][11]["checked"].as_u64() > Some(0), "{}", verdict.table);
        in_flight += verdict.json["in_flight"].as_u64().unwrap();
    });
    let words = Box::pin(words).await;
    // Everything that a life is made of was going on.
    for kind in ["claim accepted", "redeem accepted", "rollback accepted", "lock accepted", "return accepted"]
    {
        assert!(words.contains_key(kind), "nobody did: {kind}; {words:?}");
    }
    eprintln!("{in_flight} requests were in flight when they were looked at");
    field.history.finish().unwrap();
    let at_rest = verify(&["--data-dir", data_dir, "--history", file, "--patience", "120"]).await;
    assert_eq!(at_rest.code, 0, "{}", at_rest.table);
    assert_eq!(at_rest.json["unresolved"], 0, "{}", at_rest.table);
    assert!(Path::new(file).exists());
    field.leave().await;
}

#[test]
fn every_plant_that_the_readme_names_is_there_and_every_invariant_has_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut planted: Vec<&str> = Vec::new();
    for row in readme.lines().filter(|line| line.starts_with("| I")) {
        for (file, test) in row.split('`').filter_map(|word| word.split_once(".rs::")) {
            let text = std::fs::read_to_string(root.join(format!("e2e/{file}.rs"))).unwrap();
            let is_there = text.contains(&format!("fn {test}(")) || text.contains(&format!("    {test}:\n"));
            assert!(is_there, "{file}.rs has no test {test}");
            planted.extend(row.split(' ').nth(1));
        }
    }
    planted.dedup();
    assert_eq!(planted, ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12"]);
}
