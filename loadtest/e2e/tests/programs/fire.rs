//! Fault runs: a short one that ends without violations, and one with a planted violation.

use std::sync::Arc;
use std::time::Duration;

use checker::Invariant;
use coupon_core::ids::RequestId;
use fire::environment::{Environment as FaultEnvironment, FaultError};
use fire::rng::Rng;
use fire::scenarios::{Scenario, all};
use fire::verdict::Verdict;
use fire::{Settings, config, run_faults};
use load_support::progress::Console;
use local_stack::{Stack, StackConfig, testing};
use schemas::topics::RESPONSES;
use schemas::{CouponResponse, Encoder, Subject, partition_for};
use serde_json::Value;

use e2e::kafka::{Producer, Record, schema_id};
use e2e::stacks;

/// Independent of the speed of the machine: a run ends when every scenario was injected.
const SETTINGS: Settings = Settings {
    under_fire: Duration::from_secs(1),
    calm: Duration::from_secs(2),
    seed: 20_251_129,
    rate: 30.0,
    every: Duration::from_millis(200),
    history: None,
};

async fn fire(settings: &Settings, scenarios: &[Scenario]) -> Verdict {
    let slot = stacks::slot().await;
    let config = StackConfig { workers: 2, ..config(testing::programs().await.unwrap()) };
    let stack = Arc::new(Stack::start(config).await.unwrap());
    let verdict = Box::pin(run_faults(settings, scenarios, &stack, &Console::default())).await;
    stack.stop().await.unwrap();
    drop(slot);
    verdict.unwrap()
}

fn named(names: &[&str]) -> Vec<Scenario> {
    let chosen: Vec<Scenario> = all().into_iter().filter(|scenario| names.contains(&scenario.name)).collect();
    assert_eq!(chosen.len(), names.len());
    chosen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_fault_run_ends_without_unresolved_requests_and_violations() {
    let chosen = named(&[
        "kill-worker",
        "kill-api",
        "flush-redis",
        "cut-connections",
        "late-takeover",
        "foreign-producer",
        "key-a-hundred-times",
        "deep-json",
        "bad-tokens",
    ]);
    let history = tempfile_path();
    let settings = Settings { history: Some(history.clone()), ..SETTINGS };
    let verdict = fire(&settings, &chosen).await;
    std::fs::remove_file(history).unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    let json: Value = serde_json::to_value(&verdict).unwrap();
    for scenario in &chosen {
        assert!(json["scenarios"][scenario.name].as_u64().is_some_and(|times| times >= 1), "{verdict}");
        assert!(json["recovery_seconds"][scenario.name].as_f64().is_some(), "{verdict}");
    }
    for (key, wanted) in [("scenarios_skipped", 0), ("unresolved", 0), ("violations", 0)] {
        assert_eq!(json[key], wanted, "{key}: {verdict}");
    }
    assert!(json["faults_injected"].as_u64().is_some_and(|count| count >= 9), "{json}");
    assert!(json["requests"].as_u64().is_some_and(|count| count > 50), "{json}");
    assert!(json["throughput_kept"].as_f64().is_some(), "{json}");
}

/// A file for the history of the run.
fn tempfile_path() -> std::path::PathBuf {
    let name = format!("fire-{}-{:x}.jsonl", std::process::id(), rand::random::<u64>());
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Publishes a second response to a request, with another outcome.
async fn publish_a_second_response(environment: &FaultEnvironment, _: &mut Rng) -> Result<(), FaultError> {
    let mut postgres = environment.postgres().await?;
    let sql = "select c.identity, c.body, c.user_id, u.coupon_id from stampede.claims c
                  join stampede.coupons u using (coupon_no) where c.user_id like 'probe-%' limit 1";
    let claim: Option<(uuid::Uuid, i64, String, String)> =
        sqlx::query_as(sql).fetch_optional(&mut postgres).await?;
    let (identity, body, user_id, coupon_id) = claim.ok_or("no request has an outcome")?;
    let own = schema_id(&mut postgres, Subject::Response).await;
    let partition = partition_for(user_id.as_bytes(), environment.partitions);
    let second = CouponResponse {
        request_id: RequestId { identity: identity.as_u128(), body }.to_string(),
        kind: "claim".to_owned(),
        coupon_id,
        user_id: user_id.clone(),
        status: "rejected".to_owned(),
        reason: Some("sold_out".to_owned()),
        decided_at_ms: 1,
        ..CouponResponse::default()
    };
    let value = Encoder::new(own).encode_to_vec(&second)?;
    let planted =
        Record { partition, key: Some(user_id.into_bytes()), value: Some(value), ..Record::default() };
    Producer::to(&environment.endpoints.kafka).produce(RESPONSES, &planted).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_run_with_a_planted_second_response_ends_with_a_violation() {
    let planted = Scenario {
        name: "planted",
        faults: &[],
        needs: &[],
        inject: |environment, rng| Box::pin(publish_a_second_response(environment, rng)),
    };
    // After one fault and its probe, which has an outcome.
    let settings = Settings { calm: Duration::ZERO, ..SETTINGS };
    let verdict = fire(&settings, &[named(&["flush-redis"]), vec![planted]].concat()).await;
    assert!(!verdict.is_clean(), "{verdict}");
    let report = verdict.report();
    assert_eq!(report.line(Invariant::I4).violations, verdict.scenarios["planted"], "\n{report}");
    let json = serde_json::to_value(&verdict).unwrap();
    assert!(json["violations"].as_u64().is_some_and(|count| count > 0), "{json}");
    assert_eq!(json["throughput_kept"], Value::Null, "there was no time without faults");
}
