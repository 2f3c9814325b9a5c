//! Fault 21: Postgres is restored to an older backup, as `deploy/docs/operations.md` tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

use checker::Told;
use local_stack::Child;
use tokio::task::spawn_blocking;

use crate::support::foreigner::Foreigner;
use crate::support::operator::{goes_on, partition, repair, repairs, stops_with};
use crate::support::{Ask, Field, Kind};

const WORKERS: [Child; 2] = [Child::Worker(0), Child::Worker(1)];
const APIS: [Child; 2] = [Child::Api(0), Child::Api(1)];

/// Codes by the users who were told them.
async fn claims(field: &Field, coupon: &str, prefix: &str, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for n in 0..count {
        let user = format!("{prefix}-{n}");
        let told = field.pursue(Ask::of(&user, coupon).key("once").wait(5)).await;
        let Told::Accepted { code } = told else { panic!("{user}: {told:?}") };
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

async fn with_postgres_down(field: &Field, copied: impl Future<Output = ()>) {
    field.stack.stop_child(Child::Postgres).await.unwrap();
    copied.await;
    field.stack.restart(Child::Postgres).await.unwrap();
}

fn directories(field: &Field) -> (PathBuf, PathBuf) {
    let data: &Path = field.stack.data_dir();
    (data.join("postgres"), data.join("backup"))
}

#[tokio::test]
async fn fault_21_a_postgres_restored_to_an_older_backup_is_noticed_and_a_command_decides_again() {
    let field = Field::enter(Kind::Doomed).await;
    let coupon = field.coupon(50, 1).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let number = foreigner.partition;
    let (data, backup) = directories(&field);
    let before = claims(&field, &coupon, "before", 3).await;
    foreigner.heard(&field).await;
    with_postgres_down(&field, copy(data.clone(), backup.clone())).await;
    goes_on(&field).await;
    let after = claims(&field, &coupon, "after", 4).await;
    foreigner.heard(&field).await;
    let knew = partition(&field, number).await;
    // Under running workers: the worst way to do it, and noticed even so.
    with_postgres_down(&field, copy(backup, data)).await;
    // Its owner has nothing to write, and notices when it has.
    foreigner.send(&foreigner.request("claim", "later", None)).await;
    let text = stops_with(&field, &[&format!("partition {number}"), "restored to an older backup"]).await;
    assert!(text.contains("workers repair"), "{text}");
    let knows = partition(&field, number).await;
    assert!(knows["next_offset"].as_i64() < knew["next_offset"].as_i64(), "{knows} {knew}");
    // A worker that knows nothing of it is told by Kafka.
    for worker in WORKERS {
        field.stack.stop_child(worker).await.unwrap();
        field.stack.start_child(worker).await.unwrap();
    }
    stops_with(&field, &[&format!("partition {number}"), "restored to an older backup"]).await;
    let said = repair(&field, number, "recorded").await;
    assert!(said.done && said.text.contains("nothing is skipped"), "{said:?}");
    for api in APIS {
        field.restart_with(api, &[]).await;
    }
    // Other partitions may have had something to lose as well, and are repaired the same way.
    for other in 0..8 {
        if partition(&field, other).await["healthy"] == false {
            assert!(repair(&field, other, "recorded").await.done);
        }
    }
    goes_on(&field).await;
    // The log still has every request, in its order: each is decided again, here as it was the first time.
    assert_eq!(claims(&field, &coupon, "before", 3).await, before);
    assert_eq!(claims(&field, &coupon, "after", 4).await, after);
    claims(&field, &coupon, "new", 2).await;
    assert_eq!(field.counts(&coupon).await["claimed"], 10);
    let recorded = repairs(&field, number).await;
    assert!(recorded.len() == 1 && recorded[0].2.contains("older backup"), "{recorded:?}");
    assert!(partition(&field, number).await["write_no"].as_i64() > knew["write_no"].as_i64());
}
