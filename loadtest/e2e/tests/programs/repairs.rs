//! Clear stops, and the commands that get over them: faults 12 (topic recreated) and 14 (retention overtakes the
//! offset; the log was cut and grew again). Backups are in `backup.rs`.

use std::fs::OpenOptions;
use std::time::Duration;

use checker::Told;
use local_stack::{Admin, Child};
use schemas::topics::REQUESTS;
use tokio::time::sleep;

use crate::support::foreigner::{Foreigner, PARTITIONS};
use crate::support::operator::{goes_on, partition, repair, repairs, stops_with, workers};
use crate::support::{Ask, Field, Kind};

const BOTH: [Child; 2] = [Child::Worker(0), Child::Worker(1)];
const PATIENCE: Duration = Duration::from_secs(60);

fn admin(field: &Field) -> Admin {
    Admin::new(&field.stack.endpoints().kafka).unwrap()
}

async fn claims(field: &Field, coupon: &str, prefix: &str, count: usize) {
    for n in 0..count {
        let user = format!("{prefix}-{n}");
        let told = field.pursue(Ask::of(&user, coupon).key("once").wait(5)).await;
        assert!(matches!(told, Told::Accepted { .. }), "{user}: {told:?}");
    }
}

async fn position(field: &Field, partition: i32) -> (i64, i64) {
    let sql = "select next_offset, write_no from stampede.partitions where partition = $1";
    sqlx::query_as(sql).bind(partition).fetch_one(&mut field.postgres().await).await.unwrap()
}

#[tokio::test]
async fn fault_14_retention_that_overtakes_a_running_owner_stops_it_and_a_command_goes_on() {
    let field = Field::enter(Kind::Doomed).await;
    let coupon = field.coupon(100, 1).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let number = foreigner.partition;
    claims(&field, &coupon, "before", 3).await;
    foreigner.heard(&field).await;
    // In order, so nothing is to be repaired.
    assert_eq!(partition(&field, number).await["healthy"], true);
    let said = repair(&field, number, "latest").await;
    assert!(!said.done && said.complaint.contains("no fault found"), "{said:?}");
    // The owner sleeps for a moment, shorter than its session; what comes meanwhile is gone before it looks.
    for worker in BOTH {
        field.stack.freeze(worker).unwrap();
    }
    // Longer than the broker holds an answer back: what was asked for before is answered, with nothing.
    sleep(Duration::from_secs(2)).await;
    for user in ["lost-1", "lost-2"] {
        foreigner.send(&foreigner.request("claim", user, None)).await;
    }
    // As retention does.
    admin(&field).delete_records(REQUESTS, number).await.unwrap();
    for worker in BOTH {
        field.stack.resume(worker).unwrap();
    }
    let text =
        stops_with(&field, &[&format!("partition {number} of {REQUESTS}"), "retention has removed 2"]).await;
    assert!(text.contains("workers repair"), "{text}");
    let (next_offset, _) = position(&field, number).await;
    let seen = partition(&field, number).await;
    assert_eq!((&seen["healthy"], &seen["log_start"]), (&false.into(), &(next_offset + 2).into()), "{seen}");
    // It says what it would do, and does it only when that is confirmed.
    let name = number.to_string();
    let asked = ["repair", "--partition", &name, "--resume-from", "earliest", "--reason", "why"];
    let said = workers(&field, &asked).await;
    assert!(!said.done && said.text.contains("2 offsets are skipped"), "{said:?}");
    let said = repair(&field, number, "recorded").await;
    assert!(!said.done && said.complaint.contains("cannot resume"), "{said:?}");
    assert_eq!(position(&field, number).await.0, next_offset, "nothing has changed");
    let said = repair(&field, number, "earliest").await;
    assert!(said.done, "{said:?}");
    goes_on(&field).await;
    claims(&field, &coupon, "after", 3).await;
    let recorded = repairs(&field, number).await;
    let [(who, why, finding, from, to)] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!((who.as_str(), why.as_str(), *from, *to), ("olga", "a test", next_offset, next_offset + 2));
    assert!(finding.contains("retention"), "{finding}");
    assert_eq!(field.counts(&coupon).await["claimed"], 6, "the two that were lost are not among them");
}

#[tokio::test]
async fn fault_14_a_log_that_was_cut_and_grew_again_stops_its_partition_and_a_command_goes_on() {
    let field = Field::enter(Kind::Doomed).await;
    let coupon = field.coupon(100, 1).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let number = foreigner.partition;
    claims(&field, &coupon, "before", 4).await;
    foreigner.heard(&field).await;
    let (next_offset, _) = position(&field, number).await;
    // A broker that lost the end of its log: killed, and the file cut in the middle of the last records.
    for child in [Child::Api(0), Child::Api(1), BOTH[0], BOTH[1]] {
        field.stack.stop_child(child).await.unwrap();
    }
    field.stack.kill(Child::Kafka).unwrap();
    field.stack.wait_exit(Child::Kafka, PATIENCE).await.unwrap();
    let segment = format!("kafka/logs/{REQUESTS}-{number}/00000000000000000000.log");
    let file = OpenOptions::new().write(true).open(field.stack.data_dir().join(segment)).unwrap();
    file.set_len(file.metadata().unwrap().len() - 300).unwrap();
    drop(file);
    field.stack.restart(Child::Kafka).await.unwrap();
    let cut = partition(&field, number).await;
    assert_eq!(cut["healthy"], false, "{cut}");
    assert!(cut["stopped_because"].as_str().unwrap().contains("truncated or recreated"), "{cut}");
    // Others write where it was: the offsets are there again, and the records are not the same.
    let mut grown = cut["log_end"].as_i64().unwrap();
    while grown < next_offset + 2 {
        let request = foreigner.request("claim", &format!("new-{grown}"), None);
        grown = foreigner.produce(&foreigner.record(&request)).await.1 + 1;
    }
    for worker in BOTH {
        field.stack.start_child(worker).await.unwrap();
    }
    let text = stops_with(&field, &["is not the one that Postgres consumed last"]).await;
    assert!(text.contains("written again"), "{text}");
    assert_eq!(position(&field, number).await.0, next_offset, "nothing is decided, and nothing is skipped");
    // From the first record that Postgres does not know: what it knows of the others keeps its outcome.
    let said = repair(&field, number, &cut["log_end"].to_string()).await;
    assert!(said.done && said.text.contains("read again"), "{said:?}");
    goes_on(&field).await;
    field.heal().await;
    claims(&field, &coupon, "after", 2).await;
    assert_eq!(repairs(&field, number).await.len(), 1);
    let claimed = usize::try_from(grown - cut["log_end"].as_i64().unwrap()).unwrap() + 4 + 2;
    assert_eq!(
        field.counts(&coupon).await["claimed"],
        claimed,
        "every record that is there was decided once"
    );
}

#[tokio::test]
async fn fault_12_a_topic_that_was_recreated_stops_its_running_owners_and_a_command_goes_on() {
    let field = Field::enter(Kind::Doomed).await;
    let coupon = field.coupon(100, 1).await;
    let foreigner = Foreigner::at(&field, &coupon).await;
    let number = foreigner.partition;
    claims(&field, &coupon, "before", 3).await;
    foreigner.heard(&field).await;
    let (next_offset, write_no) = position(&field, number).await;
    // The same name, the same number of partitions, another topic.
    let settings = [("message.timestamp.type", "LogAppendTime")];
    admin(&field).recreate_topic(REQUESTS, PARTITIONS, 1, &settings).await.unwrap();
    let of = format!("partition {number} of {REQUESTS} was recreated: its topic id is ");
    stops_with(&field, &[&of, "workers repair"]).await;
    // It grows past the old offsets: by bounds alone it looks like the old log.
    for n in 0..next_offset + 5 {
        foreigner.send(&foreigner.request("claim", &format!("new-{n}"), None)).await;
    }
    for worker in BOTH {
        field.stack.stop_child(worker).await.unwrap();
        field.stack.start_child(worker).await.unwrap();
    }
    stops_with(&field, &[&of]).await;
    let seen = workers(&field, &["partitions"]).await;
    assert!(seen.text.lines().skip(1).all(|line| line.contains("STOPPED: ")), "{}", seen.text);
    assert_eq!(position(&field, number).await.0, next_offset, "nothing is decided, and nothing is skipped");
    let all: Vec<String> = (0..PARTITIONS).map(|number| number.to_string()).collect();
    let all = all.join(",");
    let said = workers(
        &field,
        &["repair", "--partition", &all, "--resume-from", "earliest", "--reason", "recreated", "--confirm"],
    )
    .await;
    assert!(said.done, "{said:?}");
    goes_on(&field).await;
    // What an instance of the API remembers of the old offsets says nothing about the new ones.
    for n in 0..2 {
        field.restart_with(Child::Api(n), &[]).await;
    }
    claims(&field, &coupon, "after", 3).await;
    let claimed = usize::try_from(next_offset).unwrap() + 5 + 3 + 3;
    assert_eq!(field.counts(&coupon).await["claimed"], claimed);
    assert!(position(&field, number).await.1 > write_no, "write numbers only grow");
    let seen = workers(&field, &["partitions"]).await;
    assert!(!seen.text.contains("STOPPED"), "{}", seen.text);
}
