//! The checker as a program during a sale: no violation is reported, however often it runs.

use checker::{CheckConfig, History, check};

use e2e::StackKind;
use e2e::environment::OwnStack;
use e2e::mixed_load::MixedLoad;
use e2e::verify::verify;

/// How often the sale is checked.
const CHECKS: usize = 8;

#[tokio::test]
async fn a_check_during_a_sale_reports_no_violation() {
    let mut env = OwnStack::of(StackKind::Plain).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("history.jsonl");
    env.record_to(History::recording_to(&file).unwrap());
    let data_dir = env.stack.data_dir().to_owned();
    let [data_dir, file] = [data_dir.as_path(), file.as_path()].map(|path| path.to_str().unwrap());

    let load = MixedLoad::new(&env).await;
    let config = CheckConfig::running(&env.stack.endpoints());
    let mut in_flight = 0;
    let outcomes = load.during(async {
        for n in 0..CHECKS {
            load.rounds(12).await;
            let report = check(&config, Some(&env.history)).await.unwrap();
            assert!(
                report.is_clean() && report.unchecked.is_empty() && report.unresolved == 0,
                "check {n}\n{report}"
            );
            in_flight += report.in_flight;
        }
        let result = verify(&["--data-dir", data_dir, "--live", "--history", file]).await;
        assert_eq!(result.code, 0, "{}", result.table);
        assert!(result.json["invariants"][11]["checked"].as_u64() > Some(0), "{}", result.table);
        in_flight += result.json["in_flight"].as_u64().unwrap();
    });
    let outcomes = Box::pin(outcomes).await;
    // Every kind of transition took place during the checks.
    for kind in ["claim accepted", "redeem accepted", "rollback accepted", "lock accepted", "return accepted"]
    {
        assert!(outcomes.contains_key(kind), "{kind} is not in {outcomes:?}");
    }
    eprintln!("{in_flight} requests were in flight during the checks");
    env.history.finish().unwrap();
    let at_rest = verify(&["--data-dir", data_dir, "--history", file, "--settle-timeout", "120"]).await;
    assert_eq!(at_rest.code, 0, "{}", at_rest.table);
    assert_eq!(at_rest.json["unresolved"], 0, "{}", at_rest.table);
    env.finish().await;
}
