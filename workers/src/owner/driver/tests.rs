use super::scripted_ports::{HOME, OWN, Script, ScriptedPorts};
use super::*;
use coupon_core::batch::Verdict;
use coupon_core::ids::{CodeNumber, EmitSeq, Millis, RequestId};
use coupon_core::interface::WriteResult;
use coupon_core::record::{Payload, Request};
use coupon_core::words::{Kind, Reason};
use runtime::lifecycle::Readiness;
use schemas::{CouponRequest, Encoder, SchemaId, kinds, partition_for};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use crate::codec::decode::{RawRecord, RequestHeaders};
use crate::owner::partition_owner::own;
use crate::owner::status::{GROUP, PARTITIONS, StatusRegistry};
use crate::ports::Ports;

struct Running {
    script: Arc<Script>,
    hand_over: CancellationToken,
    end: tokio::task::JoinHandle<Ended>,
}

fn setup(script: &Arc<Script>) -> Setup {
    let scripted = || ScriptedPorts(Arc::clone(script));
    let ports = Ports {
        log: Arc::new(scripted()),
        stock: Arc::new(scripted()),
        ledgers: Arc::new(scripted()),
        publisher: Arc::new(scripted()),
    };
    Setup {
        ports,
        machine: Config::default(),
        decoder: RecordDecoder::new(OWN, 1),
        messages: Messages::new(OWN),
    }
}

fn driver(script: &Arc<Script>) -> Driver {
    let setup = setup(script);
    let status = StatusRegistry::new(Readiness::new(&[GROUP, PARTITIONS])).register(HOME);
    Driver::new(&setup, HOME, Ownership(1), status)
}

fn run(script: Script) -> Running {
    let script = Arc::new(script);
    let hand_over = CancellationToken::new();
    let end = tokio::spawn(driver(&script).run(hand_over.clone()));
    Running { script, hand_over, end }
}

fn claim(offset: i64, coupon_id: &str) -> Record {
    Record {
        offset: Offset(offset),
        appended: Millis(1_000 + offset),
        digest: offset,
        bytes: 100,
        payload: Payload::Request(Request {
            id: RequestId { identity: offset.unsigned_abs().into(), body: 0 },
            kind: Kind::Claim,
            coupon_id: coupon_id.into(),
            user: format!("user-{offset}").into(),
            code: None,
            details: None,
        }),
    }
}

fn record_with_schema(schema: SchemaId, offset: i64) -> Fetched {
    let message = CouponRequest {
        request_id: RequestId { identity: offset.unsigned_abs().into(), body: 0 }.to_string(),
        kind: kinds::CLAIM.to_owned(),
        coupon_id: "c".to_owned(),
        user_id: "ann".to_owned(),
        ..CouponRequest::default()
    };
    assert_eq!(partition_for(b"c", 1), 0);
    let value = Encoder::new(schema).encode_to_vec(&message).unwrap();
    let raw =
        RawRecord { offset: Offset(offset), appended: Millis(1_000), key: Some(b"c"), value: Some(&value) };
    Fetched::Undecoded(raw.to_owned_record(schema, RequestHeaders::default()))
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_decided_written_published_and_committed_before_the_hand_over() {
    let Running { script, hand_over, end } = run(Script::default());
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c"), claim(1, "nowhere")]));
    script.until(|script| script.published.lock().unwrap().len() == 3).await;
    assert_eq!(
        *script.published.lock().unwrap(),
        [6, 7, 8].map(EmitSeq),
        "entries of the earlier owner come first"
    );
    let verdicts: Vec<_> =
        script.written.lock().unwrap()[0].decisions.iter().map(|d| d.verdict.clone()).collect();
    let code = "code-1".into();
    assert_eq!(
        verdicts,
        [
            Verdict::Claimed { number: CodeNumber(1), code, hold_until: None },
            Verdict::Rejected(Reason::CouponUnknown)
        ]
    );
    hand_over.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
    let newest = script.written.lock().unwrap().last().unwrap().watermark;
    assert_eq!(newest, EmitSeq(8), "the watermark is written before the release");
    assert_eq!(script.committed.lock().unwrap().last(), Some(&Offset(2)));
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_is_prefetched_while_a_write_is_in_flight() {
    let Running { script, hand_over, end } = run(Script::default());
    script.started.notified().await;
    script.writes_hang.store(true, Ordering::Relaxed);
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.until(|script| script.lookups.load(Ordering::Relaxed) == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    script.send(Fetched::Records(vec![claim(1, "cc")]));
    script.until(|script| script.lookups.load(Ordering::Relaxed) == 2).await;
    assert_eq!(script.decided(), [0; 0], "the first batch is still being written");
    script.writes_hang.store(false, Ordering::Relaxed);
    script.until(|script| script.decided() == [0, 1]).await;
    hand_over.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
}

#[tokio::test(start_paused = true)]
async fn a_retryable_write_is_sent_again_after_a_pause() {
    let script = Script { write_results: Mutex::new(vec![WriteResult::Retry; 3]), ..Script::default() };
    let Running { script, hand_over, end } = run(script);
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.until(|script| script.decided() == [0]).await;
    hand_over.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_fenced_off_ends() {
    let script = Script { write_results: Mutex::new(vec![WriteResult::Fenced]), ..Script::default() };
    let Running { script, end, .. } = run(script);
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    assert_eq!(end.await.unwrap(), Ended::Fenced);
    assert_eq!(*script.published.lock().unwrap(), [6, 7].map(EmitSeq), "only written batches are published");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_completes_after_a_reassignment_is_handed_over() {
    let Running { script, end, .. } = run(Script { not_assigned: true.into(), ..Script::default() });
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
    assert!(script.delivery.lock().unwrap().is_none(), "no record was requested");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_match_postgres_stops_the_partition() {
    let mismatch = Mutex::new(Some("the topic was recreated".to_owned()));
    let Running { end, .. } = run(Script { log_mismatch: mismatch, ..Script::default() });
    let Ended::Stopped(text) = end.await.unwrap() else { unreachable!("it must stop") };
    assert!(text.contains("the topic was recreated"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_does_not_wait_forever_for_a_write_without_a_result() {
    let Running { script, hand_over, end } = run(Script::default());
    script.started.notified().await;
    script.writes_hang.store(true, Ordering::Relaxed);
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.until(|script| script.lookups.load(Ordering::Relaxed) == 1).await;
    hand_over.cancel();
    let began = tokio::time::Instant::now();
    assert_eq!(end.await.unwrap(), Ended::Abandoned);
    assert!(began.elapsed() < HAND_OVER_TIMEOUT + IDLE_AFTER * 2);
}

#[tokio::test(start_paused = true)]
async fn records_behind_one_whose_schema_is_fetched_wait_for_it() {
    let script = Script { schema_failures: 3.into(), ..Script::default() };
    let Running { script, hand_over, end } = run(script);
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.send(record_with_schema(SchemaId(2), 1));
    script.send(Fetched::Records(vec![claim(2, "c")]));
    script.send(record_with_schema(SchemaId(3), 3));
    script.send(Fetched::Records(vec![claim(4, "c")]));
    script.until(|script| script.decided().contains(&4)).await;
    assert_eq!(script.decided(), [0, 1, 2, 4], "in the order of the log");
    let dead_letters: Vec<i64> = script
        .written
        .lock()
        .unwrap()
        .iter()
        .flat_map(|batch| batch.dead_letters.iter().map(|(offset, _)| offset.0))
        .collect();
    assert_eq!(dead_letters, [3], "a record with an unregistered schema is a dead letter");
    let in_flight = script.delivery.lock().unwrap().as_ref().unwrap().in_flight.count();
    assert_eq!(in_flight, 0);
    hand_over.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
}

#[tokio::test(start_paused = true)]
async fn reading_is_restarted_only_if_the_log_still_matches() {
    let Running { script, end, .. } = run(Script::default());
    script.started.notified().await;
    *script.log_mismatch.lock().unwrap() = Some("retention has removed records".to_owned());
    let delivery = script.delivery.lock().unwrap().clone().unwrap();
    delivery.events.send(DriverEvent::Fetched(Fetched::Revalidate("out of range".to_owned()))).unwrap();
    let Ended::Stopped(text) = end.await.unwrap() else { unreachable!("it must stop") };
    assert!(text.contains("retention"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_tick_goes_to_the_own_partition_and_has_no_result() {
    let script = Arc::new(Script::default());
    let mut driver = driver(&script);
    driver.perform(Effect::Tick);
    script.until(|script| *script.ticks.lock().unwrap() == [HOME]).await;
    assert!(driver.receiver.is_empty(), "the machine receives it as a record");
}

#[tokio::test(start_paused = true)]
async fn the_idle_time_counts_from_the_last_record_whatever_other_events_arrive() {
    let mut driver = driver(&Arc::default());
    tokio::time::advance(Duration::from_millis(700)).await;
    assert_eq!(driver.since_last_records(), Millis(700), "no record since the start");
    driver.receive(Fetched::Records(vec![claim(0, "c")]));
    assert_eq!(driver.since_last_records(), Millis(0));
    tokio::time::advance(Duration::from_millis(300)).await;
    driver.handle(DriverEvent::Input(Input::Published(EmitSeq(1))));
    assert_eq!(driver.since_last_records(), Millis(300), "a result is not a record");
    driver.handle(DriverEvent::Resolved(Box::new(claim(1, "c"))));
    assert_eq!(driver.since_last_records(), Millis(0), "a record that waited for its schema is one");
}

/// The owner of a partition through all its ownerships, and the readiness that it updates.
fn owned(script: Script) -> (Arc<Script>, Arc<Readiness>, CancellationToken) {
    let (script, readiness) = (Arc::new(script), Readiness::new(&[PARTITIONS]));
    let status = StatusRegistry::new(Arc::clone(&readiness)).register(HOME);
    let hand_over = CancellationToken::new();
    tokio::spawn(own(Arc::new(setup(&script)), HOME, status, hand_over.clone()));
    (script, readiness, hand_over)
}

fn is_unready_with(readiness: &Readiness, words: &str) -> bool {
    readiness.check().is_err_and(|parts| parts.concat().contains(words))
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_owner_is_shown_as_a_stop_and_retried() {
    let (script, readiness, hand_over) = owned(Script { panics: true.into(), ..Script::default() });
    script.until(|_| is_unready_with(&readiness, "stopped: ")).await;
    assert!(
        is_unready_with(&readiness, "partition 0 stopped: its owner panicked (planted)"),
        "{:?}",
        readiness.check()
    );
    script.panics.store(false, Ordering::Relaxed);
    script.until(|_| readiness.check().is_ok()).await;
    hand_over.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_had_stopped_is_shown_as_stopped_until_a_batch_has_committed() {
    let mismatch = Script { log_mismatch: Mutex::new(Some("cut".to_owned())), ..Script::default() };
    let (script, readiness, hand_over) = owned(mismatch);
    script.until(|_| is_unready_with(&readiness, "cut")).await;
    *script.log_mismatch.lock().unwrap() = None;
    script.started.notified().await;
    script.writes_hang.store(true, Ordering::Relaxed);
    script.send(Fetched::Records(vec![claim(0, "c")]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(is_unready_with(&readiness, "cut"), "nothing has committed yet");
    script.writes_hang.store(false, Ordering::Relaxed);
    script.until(|_| readiness.check().is_ok()).await;
    hand_over.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_has_seen_later_writes_than_postgres_stops() {
    let (script, readiness, hand_over) = owned(Script::default());
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    // Write 11 is published; then Postgres has write 10 again, in another epoch.
    script.until(|script| script.published.lock().unwrap().len() == 3).await;
    script.write_results.lock().unwrap().extend(vec![WriteResult::Fenced; 5]);
    script.send(Fetched::Records(vec![claim(1, "c")]));
    script.until(|_| is_unready_with(&readiness, "restored to an older backup")).await;
    assert!(script.decided().iter().all(|offset| *offset == 0), "nothing is decided again");
    assert_eq!(
        script.committed.lock().unwrap().last(),
        Some(&Offset(1)),
        "the group's metadata keeps the published offset"
    );
    hand_over.cancel();
}

/// Enough claims for a cache list.
fn many_claims(from: i64) -> Fetched {
    Fetched::Records((from..from + 30).map(|offset| claim(offset, "c")).collect())
}

#[tokio::test(start_paused = true)]
async fn a_list_is_deleted_when_it_is_invalidated_and_every_list_at_the_hand_over() {
    let Running { script, hand_over, end } = run(Script::default());
    script.started.notified().await;
    script.send(many_claims(0));
    script.until(|script| script.refilled.lock().unwrap().len() == 1).await;
    assert_eq!(*script.deleted.lock().unwrap(), [], "it is in use");
    script.send(many_claims(30));
    script.until(|script| script.deleted.lock().unwrap().len() == 1).await;
    let first = script.refilled.lock().unwrap()[0];
    assert_eq!(script.deleted.lock().unwrap()[0], first, "the result of a pop from it is unknown");
    script.until(|script| script.decided().len() == 60).await;
    hand_over.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
    let (refilled, deleted) = (script.refilled.lock().unwrap(), script.deleted.lock().unwrap());
    assert!(refilled.iter().all(|list| deleted.contains(list)), "{refilled:?} {deleted:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_fenced_off_deletes_its_lists() {
    let Running { script, hand_over: _, end } = run(Script::default());
    script.started.notified().await;
    script.send(many_claims(0));
    script.until(|script| script.refilled.lock().unwrap().len() == 1).await;
    script.until(|script| script.decided().len() == 30).await;
    *script.write_results.lock().unwrap() = vec![WriteResult::Fenced];
    script.send(Fetched::Records(vec![claim(30, "nowhere")]));
    assert_eq!(end.await.unwrap(), Ended::Fenced);
    assert_eq!(*script.deleted.lock().unwrap(), *script.refilled.lock().unwrap());
}
