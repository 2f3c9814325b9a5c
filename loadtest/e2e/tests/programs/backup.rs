//! Fault 21: Postgres is restored to an older backup, as `deploy/docs/operations.md` tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

use local_stack::Child;
use tokio::task::spawn_blocking;

use e2e::environment::{APIS, OwnStack, PARTITIONS, WORKERS};
use e2e::foreign_producer::ForeignProducer;
use e2e::operator::{partition, partitions, repair, repairs, until_ready, until_stopped};
use e2e::{ApiResponse, Environment, Request, StackKind};

/// Codes by the users who received them.
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

/// A cold copy, with owners and modes kept: Postgres is down meanwhile.
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
    let knew = partition(&env, number).await;
    // Under running workers: the worst way to do it, and noticed even so.
    with_postgres_down(&env, copy(backup, data)).await;
    // Its owner has nothing to write, and notices when it has.
    producer.send(&producer.request("claim", "later", None)).await;
    let text = until_stopped(&env, &[&format!("partition {number}"), "restored to an older backup"]).await;
    assert!(text.contains("workers repair"), "{text}");
    let knows = partition(&env, number).await;
    assert!(knows["next_offset"].as_i64() < knew["next_offset"].as_i64(), "{knows} {knew}");
    // A worker that knows nothing of it is response by Kafka.
    for worker in WORKERS {
        env.stack.stop_child(worker).await.unwrap();
        env.stack.start_child(worker).await.unwrap();
    }
    until_stopped(&env, &[&format!("partition {number}"), "restored to an older backup"]).await;
    let said = repair(&env, number, "recorded").await;
    assert!(said.succeeded && said.stdout.contains("nothing is skipped"), "{said:?}");
    for api in APIS {
        env.restart_with(api, &[]).await;
    }
    // Other partitions may have had something to lose as well, and are repaired the same way.
    for (other, state) in (0..PARTITIONS).zip(partitions(&env).await) {
        if state["healthy"] == false {
            assert!(repair(&env, other, "recorded").await.succeeded);
        }
    }
    until_ready(&env).await;
    // The log still has every request, in its order: each is decided again, here as it was the first time.
    assert_eq!(claims(&env, &coupon.id, "before", 3).await, before);
    assert_eq!(claims(&env, &coupon.id, "after", 4).await, after);
    claims(&env, &coupon.id, "new", 2).await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 10);
    let recorded = repairs(&env, number).await;
    assert!(recorded.len() == 1 && recorded[0].2.contains("older backup"), "{recorded:?}");
    assert!(partition(&env, number).await["write_no"].as_i64() > knew["write_no"].as_i64());
}
