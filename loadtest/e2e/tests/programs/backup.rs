//! Fault 21: Postgres is restored to an older backup, with the commands of `deploy/docs/operations.md`.

use std::path::{Path, PathBuf};
use std::process::Command;

use local_stack::Child;
use tokio::task::spawn_blocking;

use e2e::environment::{APIS, OwnStack, PARTITIONS, WORKERS};
use e2e::foreign_producer::ForeignProducer;
use e2e::operator::{partition, partitions, repair, repairs, until_ready, until_stopped};
use e2e::{ApiResponse, Environment, Request, StackKind};

/// Claims for so many users; returns their codes.
async fn claims(env: &Environment, coupon: &str, prefix: &str, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let user = format!("{prefix}-{n}");
        let response = env.final_response(Request::claim(&user, coupon).key("once").wait(5)).await;
        let ApiResponse::Accepted { code } = response else { panic!("{user}: {response:?}") };
        codes.push(code.into());
    }
    codes
}

/// Copies a directory with owners and modes. Postgres does not run meanwhile.
async fn copy(from: PathBuf, to: PathBuf) {
    let copied = spawn_blocking(move || {
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        Command::new("cp").arg("-a").arg(from).arg(to).status()
    });
    assert!(copied.await.unwrap().unwrap().success());
}

async fn with_postgres_down(env: &Environment, copied: impl Future<Output = ()>) {
    env.stack.stop_child(Child::Postgres).await.unwrap();
    copied.await;
    env.stack.restart(Child::Postgres).await.unwrap();
}

fn directories(env: &Environment) -> (PathBuf, PathBuf) {
    let data: &Path = env.stack.data_dir();
    (data.join("postgres"), data.join("backup"))
}

#[tokio::test]
async fn fault_21_postgres_restored_to_an_older_backup_stops_its_partitions_until_a_repair() {
    let env = OwnStack::of(StackKind::Disposable).await;
    let coupon = env.coupon(50, 1).await;
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    let number = producer.partition;
    let (data, backup) = directories(&env);
    let before = claims(&env, &coupon.id, "before", 3).await;
    producer.until_decided().await;
    with_postgres_down(&env, copy(data.clone(), backup.clone())).await;
    until_ready(&env).await;
    let after = claims(&env, &coupon.id, "after", 4).await;
    producer.until_decided().await;
    let before_restore = partition(&env, number).await;
    // While the workers run, which is the worst case.
    with_postgres_down(&env, copy(backup, data)).await;
    // The owner notices when it writes the next batch.
    producer.send(&producer.request("claim", "later", None)).await;
    let text = until_stopped(&env, &[&format!("partition {number}"), "restored to an older backup"]).await;
    assert!(text.contains("workers repair"), "{text}");
    let restored = partition(&env, number).await;
    assert!(
        restored["next_offset"].as_i64() < before_restore["next_offset"].as_i64(),
        "{restored} {before_restore}"
    );
    // A worker that starts now finds it in the metadata of the committed offset.
    for worker in WORKERS {
        env.stack.stop_child(worker).await.unwrap();
        env.stack.start_child(worker).await.unwrap();
    }
    until_stopped(&env, &[&format!("partition {number}"), "restored to an older backup"]).await;
    let output = repair(&env, number, "recorded").await;
    assert!(output.succeeded && output.stdout.contains("nothing is skipped"), "{output:?}");
    for api in APIS {
        env.restart_with(api, &[]).await;
    }
    // Other partitions may have lost something as well, and are repaired the same way.
    for (other, state) in (0..PARTITIONS).zip(partitions(&env).await) {
        if state["healthy"] == false {
            assert!(repair(&env, other, "recorded").await.succeeded);
        }
    }
    until_ready(&env).await;
    // The log still has every request in order: each is decided again, here with the same outcome.
    assert_eq!(claims(&env, &coupon.id, "before", 3).await, before);
    assert_eq!(claims(&env, &coupon.id, "after", 4).await, after);
    claims(&env, &coupon.id, "new", 2).await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 10);
    let recorded = repairs(&env, number).await;
    assert!(recorded.len() == 1 && recorded[0].2.contains("older backup"), "{recorded:?}");
    assert!(partition(&env, number).await["write_no"].as_i64() > before_restore["write_no"].as_i64());
}
