//! Partitions that stop, and the command that repairs them: faults 12 (topic recreated) and 14 (retention overtakes the
//! offset; the log was truncated and written again). Backups are in `backup.rs`.

use std::fs::OpenOptions;
use std::time::Duration;

use local_stack::{Admin, Child};
use schemas::topics::REQUESTS;
use tokio::time::sleep;

use e2e::environment::{OwnStack, PARTITIONS, WORKERS};
use e2e::foreign_producer::ForeignProducer;
use e2e::operator::{partition, repair, repairs, until_ready, until_stopped, workers};
use e2e::{ApiResponse, Environment, Request, StackKind};

const TIMEOUT: Duration = Duration::from_secs(60);

fn admin(env: &Environment) -> Admin {
    Admin::new(&env.stack.endpoints().kafka).unwrap()
}

async fn claims(env: &Environment, coupon: &str, prefix: &str, count: usize) {
    for n in 0..count {
        let user = format!("{prefix}-{n}");
        let response = env.final_response(Request::claim(&user, coupon).key("once").wait(5)).await;
        assert!(matches!(response, ApiResponse::Accepted { .. }), "{user}: {response:?}");
    }
}

async fn position(env: &Environment, partition: i32) -> (i64, i64) {
    let sql = "select next_offset, write_no from stampede.partitions where partition = $1";
    sqlx::query_as(sql).bind(partition).fetch_one(&mut env.postgres().await).await.unwrap()
}

#[tokio::test]
async fn fault_14_retention_that_overtakes_a_running_owner_stops_its_partition_until_a_repair() {
    let env = OwnStack::of(StackKind::Disposable).await;
    let coupon = env.coupon(100, 1).await;
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    let number = producer.partition;
    claims(&env, &coupon.id, "before", 3).await;
    producer.until_decided().await;
    // A healthy partition is not repaired.
    assert_eq!(partition(&env, number).await["healthy"], true);
    let output = repair(&env, number, "latest").await;
    assert!(!output.succeeded && output.stderr.contains("no fault found"), "{output:?}");
    // The owner is frozen for less than its session. Records that are appended meanwhile are removed before it reads
    // them.
    for worker in WORKERS {
        env.stack.freeze(worker).unwrap();
    }
    // Longer than the broker delays a fetch: the fetch under way is complete, and empty.
    sleep(Duration::from_secs(2)).await;
    for user in ["lost-1", "lost-2"] {
        producer.send(&producer.request("claim", user, None)).await;
    }
    // As retention removes records.
    admin(&env).delete_records(REQUESTS, number).await.unwrap();
    for worker in WORKERS {
        env.stack.resume(worker).unwrap();
    }
    let text =
        until_stopped(&env, &[&format!("partition {number} of {REQUESTS}"), "retention has removed 2"]).await;
    assert!(text.contains("workers repair"), "{text}");
    let (next_offset, _) = position(&env, number).await;
    let shown = partition(&env, number).await;
    assert_eq!(
        (&shown["healthy"], &shown["log_start"]),
        (&false.into(), &(next_offset + 2).into()),
        "{shown}"
    );
    // Without --confirm the command only states what it would do.
    let name = number.to_string();
    let unconfirmed = ["repair", "--partition", &name, "--resume-from", "earliest", "--reason", "why"];
    let output = workers(&env, &unconfirmed).await;
    assert!(!output.succeeded && output.stdout.contains("2 offsets are skipped"), "{output:?}");
    let output = repair(&env, number, "recorded").await;
    assert!(!output.succeeded && output.stderr.contains("cannot resume"), "{output:?}");
    assert_eq!(position(&env, number).await.0, next_offset, "nothing is changed");
    let output = repair(&env, number, "earliest").await;
    assert!(output.succeeded, "{output:?}");
    until_ready(&env).await;
    claims(&env, &coupon.id, "after", 3).await;
    let recorded = repairs(&env, number).await;
    let [(who, reason, finding, from, to)] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!((who.as_str(), reason.as_str(), *from, *to), ("olga", "a test", next_offset, next_offset + 2));
    assert!(finding.contains("retention"), "{finding}");
    assert_eq!(env.counts(&coupon.id).await["claimed"], 6, "the two lost requests are not among them");
}

#[tokio::test]
async fn fault_14_a_log_that_was_truncated_and_written_again_stops_its_partition_until_a_repair() {
    let env = OwnStack::of(StackKind::Disposable).await;
    let coupon = env.coupon(100, 1).await;
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    let number = producer.partition;
    claims(&env, &coupon.id, "before", 4).await;
    producer.until_decided().await;
    let (next_offset, _) = position(&env, number).await;
    // A broker that lost the end of its log: killed, and the file truncated in the middle of the last records.
    for child in [Child::Api(0), Child::Api(1), WORKERS[0], WORKERS[1]] {
        env.stack.stop_child(child).await.unwrap();
    }
    env.stack.kill(Child::Kafka).unwrap();
    env.stack.wait_exit(Child::Kafka, TIMEOUT).await.unwrap();
    let segment = format!("kafka/logs/{REQUESTS}-{number}/00000000000000000000.log");
    let file = OpenOptions::new().write(true).open(env.stack.data_dir().join(segment)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 300).unwrap();
    drop(file);
    env.stack.restart(Child::Kafka).await.unwrap();
    let cut = partition(&env, number).await;
    assert_eq!(cut["healthy"], false, "{cut}");
    assert!(cut["stopped_because"].as_str().unwrap().contains("truncated or recreated"), "{cut}");
    // New records take the same offsets.
    let mut grown = cut["log_end"].as_i64().unwrap();
    while grown < next_offset + 2 {
        let request = producer.request("claim", &format!("new-{grown}"), None);
        grown = producer.produce(&producer.record(&request)).await.1 + 1;
    }
    for worker in WORKERS {
        env.stack.start_child(worker).await.unwrap();
    }
    let text = until_stopped(&env, &["is not the one that Postgres consumed last"]).await;
    assert!(text.contains("written again"), "{text}");
    assert_eq!(position(&env, number).await.0, next_offset, "nothing is decided and nothing is skipped");
    // From the first new record on: requests before it keep their outcome.
    let output = repair(&env, number, &cut["log_end"].to_string()).await;
    assert!(output.succeeded && output.stdout.contains("read again"), "{output:?}");
    until_ready(&env).await;
    env.heal().await;
    claims(&env, &coupon.id, "after", 2).await;
    assert_eq!(repairs(&env, number).await.len(), 1);
    let claimed = usize::try_from(grown - cut["log_end"].as_i64().unwrap()).unwrap() + 4 + 2;
    assert_eq!(env.counts(&coupon.id).await["claimed"], claimed, "every record is decided once");
}

#[tokio::test]
async fn fault_12_a_recreated_topic_stops_its_partitions_until_a_repair() {
    let env = OwnStack::of(StackKind::Disposable).await;
    let coupon = env.coupon(100, 1).await;
    let producer = ForeignProducer::of(&env, &coupon.id).await;
    let number = producer.partition;
    claims(&env, &coupon.id, "before", 3).await;
    producer.until_decided().await;
    let (next_offset, write_no) = position(&env, number).await;
    // The same name and number of partitions, but another topic.
    let settings = [("message.timestamp.type", "LogAppendTime")];
    admin(&env).recreate_topic(REQUESTS, PARTITIONS, 1, &settings).await.unwrap();
    let of = format!("partition {number} of {REQUESTS} was recreated: its topic id is ");
    until_stopped(&env, &[&of, "workers repair"]).await;
    // It grows past the old offsets, so that its bounds are like those of the old log.
    for n in 0..next_offset + 5 {
        producer.send(&producer.request("claim", &format!("new-{n}"), None)).await;
    }
    for worker in WORKERS {
        env.stack.stop_child(worker).await.unwrap();
        env.stack.start_child(worker).await.unwrap();
    }
    until_stopped(&env, &[&of]).await;
    let shown = workers(&env, &["partitions"]).await;
    assert!(shown.stdout.lines().skip(1).all(|line| line.contains("STOPPED: ")), "{}", shown.stdout);
    assert_eq!(position(&env, number).await.0, next_offset, "nothing is decided and nothing is skipped");
    let all: Vec<String> = (0..PARTITIONS).map(|number| number.to_string()).collect();
    let all = all.join(",");
    let output = workers(
        &env,
        &["repair", "--partition", &all, "--resume-from", "earliest", "--reason", "recreated", "--confirm"],
    )
    .await;
    assert!(output.succeeded, "{output:?}");
    until_ready(&env).await;
    // The outcome caches of the APIs refer to the old offsets.
    for n in 0..2 {
        env.restart_with(Child::Api(n), &[]).await;
    }
    claims(&env, &coupon.id, "after", 3).await;
    let claimed = usize::try_from(next_offset).unwrap() + 5 + 3 + 3;
    assert_eq!(env.counts(&coupon.id).await["claimed"], claimed);
    assert!(position(&env, number).await.1 > write_no, "write numbers only grow");
    let shown = workers(&env, &["partitions"]).await;
    assert!(!shown.stdout.contains("STOPPED"), "{}", shown.stdout);
}
