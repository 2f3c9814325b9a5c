use super::script::{Fake, HOME, OWN, Script};
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

use crate::decode::{Asker, Raw};
use crate::standing::{GROUP, PARTITIONS, Standing};

struct Running {
    script: Arc<Script>,
    letting_go: CancellationToken,
    end: tokio::task::JoinHandle<Ended>,
}

fn setup(script: &Arc<Script>) -> Setup {
    let fake = || Fake(Arc::clone(script));
    let world = World {
        log: Arc::new(fake()),
        stock: Arc::new(fake()),
        ledgers: Arc::new(fake()),
        outlet: Arc::new(fake()),
    };
    Setup { world, machine: Config::default(), decode: Decode::new(OWN, 1) }
}

fn driver(script: &Arc<Script>) -> Driver {
    let setup = setup(script);
    let turn = Standing::new(Readiness::new(&[GROUP, PARTITIONS])).enter(HOME);
    Driver::new(&setup, HOME, Ownership(1), turn)
}

fn run(script: Script) -> Running {
    let script = Arc::new(script);
    let letting_go = CancellationToken::new();
    let end = tokio::spawn(driver(&script).run(letting_go.clone()));
    Running { script, letting_go, end }
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

fn written_with(schema: SchemaId, offset: i64) -> Fetched {
    let message = CouponRequest {
        request_id: RequestId { identity: offset.unsigned_abs().into(), body: 0 }.to_string(),
        kind: kinds::CLAIM.to_owned(),
        coupon_id: "c".to_owned(),
        user_id: "ann".to_owned(),
        ..CouponRequest::default()
    };
    assert_eq!(partition_for(b"c", 1), 0);
    let value = Encoder::new(schema).encode_to_vec(&message).unwrap();
    let raw = Raw { offset: Offset(offset), appended: Millis(1_000), key: Some(b"c"), value: Some(&value) };
    Fetched::Undecoded(raw.waiting_for(schema, Asker::default()))
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_decided_written_told_and_committed_and_then_handed_over() {
    let Running { script, letting_go, end } = run(Script::default());
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c"), claim(1, "nowhere")]));
    script.until(|script| script.told.lock().unwrap().len() == 3).await;
    assert_eq!(
        *script.told.lock().unwrap(),
        [6, 7, 8].map(EmitSeq),
        "what an earlier owner wrote comes first"
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
    letting_go.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
    let newest = script.written.lock().unwrap().last().unwrap().watermark;
    assert_eq!(newest, EmitSeq(8), "the watermark was written before the partition was let go");
    assert_eq!(script.committed.lock().unwrap().last(), Some(&Offset(2)));
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_is_gathered_while_a_write_is_under_way() {
    let Running { script, letting_go, end } = run(Script::default());
    script.started.notified().await;
    script.writes_hang.store(true, Ordering::Relaxed);
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.until(|script| script.loads.load(Ordering::Relaxed) == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    script.send(Fetched::Records(vec![claim(1, "cc")]));
    script.until(|script| script.loads.load(Ordering::Relaxed) == 2).await;
    assert_eq!(script.decided(), [0; 0], "the first batch is still being written");
    script.writes_hang.store(false, Ordering::Relaxed);
    script.until(|script| script.decided() == [0, 1]).await;
    letting_go.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_can_succeed_later_is_sent_again_after_a_pause() {
    let script = Script { write_results: Mutex::new(vec![WriteResult::Retry; 3]), ..Script::default() };
    let Running { script, letting_go, end } = run(script);
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.until(|script| script.decided() == [0]).await;
    letting_go.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_fenced_off_ends() {
    let script = Script { write_results: Mutex::new(vec![WriteResult::Fenced]), ..Script::default() };
    let Running { script, end, .. } = run(script);
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    assert_eq!(end.await.unwrap(), Ended::Fenced);
    assert_eq!(*script.told.lock().unwrap(), [6, 7].map(EmitSeq), "nothing that was not written is told");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_comes_after_the_partition_went_elsewhere_is_given_up_at_once() {
    let Running { script, end, .. } = run(Script { not_assigned: true.into(), ..Script::default() });
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
    assert!(script.delivery.lock().unwrap().is_none(), "no record was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_the_one_that_postgres_knows_stops_the_partition() {
    let wrong = Mutex::new(Some("the topic was recreated".to_owned()));
    let Running { end, .. } = run(Script { log_is_wrong: wrong, ..Script::default() });
    let Ended::Stopped(text) = end.await.unwrap() else { unreachable!("it must stop") };
    assert!(text.contains("the topic was recreated"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn letting_go_does_not_wait_for_ever_for_a_write_without_an_answer() {
    let Running { script, letting_go, end } = run(Script::default());
    script.started.notified().await;
    script.writes_hang.store(true, Ordering::Relaxed);
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.until(|script| script.loads.load(Ordering::Relaxed) == 1).await;
    letting_go.cancel();
    let began = tokio::time::Instant::now();
    assert_eq!(end.await.unwrap(), Ended::Abandoned);
    assert!(began.elapsed() < DRAIN + IDLE_AFTER * 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_schema_is_unknown_is_looked_up_and_everything_behind_it_waits() {
    let script = Script { schema_failures: 3.into(), ..Script::default() };
    let Running { script, letting_go, end } = run(script);
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    script.send(written_with(SchemaId(2), 1));
    script.send(Fetched::Records(vec![claim(2, "c")]));
    script.send(written_with(SchemaId(3), 3));
    script.send(Fetched::Records(vec![claim(4, "c")]));
    script.until(|script| script.decided().contains(&4)).await;
    assert_eq!(script.decided(), [0, 1, 2, 4], "in the order of the log");
    let letters: Vec<i64> = script
        .written
        .lock()
        .unwrap()
        .iter()
        .flat_map(|batch| batch.dead_letters.iter().map(|(offset, _)| offset.0))
        .collect();
    assert_eq!(letters, [3], "what nobody ever registered is a dead letter");
    let in_flight = script.delivery.lock().unwrap().as_ref().unwrap().in_flight.count();
    assert_eq!(in_flight, 0);
    letting_go.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
}

#[tokio::test(start_paused = true)]
async fn reading_that_ended_goes_on_only_if_the_log_is_still_the_same() {
    let Running { script, end, .. } = run(Script::default());
    script.started.notified().await;
    *script.log_is_wrong.lock().unwrap() = Some("retention has removed what was not decided".to_owned());
    let delivery = script.delivery.lock().unwrap().clone().unwrap();
    delivery.wakes.send(Wake::Fetched(Fetched::Doubt("out of range".to_owned()))).unwrap();
    let Ended::Stopped(text) = end.await.unwrap() else { unreachable!("it must stop") };
    assert!(text.contains("retention"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_tick_goes_to_the_own_partition_and_nothing_waits_for_it() {
    let script = Arc::new(Script::default());
    let mut driver = driver(&script);
    driver.perform(Effect::Tick);
    script.until(|script| *script.ticked.lock().unwrap() == [HOME]).await;
    assert!(driver.ear.is_empty(), "the machine hears of it as a record");
}

#[tokio::test(start_paused = true)]
async fn the_log_is_quiet_from_the_last_record_on_whatever_else_is_heard() {
    let mut driver = driver(&Arc::default());
    tokio::time::advance(Duration::from_millis(700)).await;
    assert_eq!(driver.quiet(), Millis(700), "none was heard since the beginning");
    driver.take_in(Fetched::Records(vec![claim(0, "c")]));
    assert_eq!(driver.quiet(), Millis(0));
    tokio::time::advance(Duration::from_millis(300)).await;
    driver.wake(Wake::Input(Input::Published(EmitSeq(1))));
    assert_eq!(driver.quiet(), Millis(300), "an answer is no record");
    driver.wake(Wake::Resolved(Box::new(claim(1, "c"))));
    assert_eq!(driver.quiet(), Millis(0), "a record that had to wait for its schema is one");
}

/// The owner of a partition, through all its ownerships; and what readiness says of it.
fn owned(script: Script) -> (Arc<Script>, Arc<Readiness>, CancellationToken) {
    let (script, readiness) = (Arc::new(script), Readiness::new(&[PARTITIONS]));
    let turn = Standing::new(Arc::clone(&readiness)).enter(HOME);
    let letting_go = CancellationToken::new();
    tokio::spawn(crate::owner::own(Arc::new(setup(&script)), HOME, turn, letting_go.clone()));
    (script, readiness, letting_go)
}

fn says(readiness: &Readiness, words: &str) -> bool {
    readiness.check().is_err_and(|parts| parts.concat().contains(words))
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_owner_is_a_stop_that_is_shown_and_tried_again() {
    let (script, readiness, letting_go) = owned(Script { panics: true.into(), ..Script::default() });
    script.until(|_| says(&readiness, "stopped: ")).await;
    assert!(says(&readiness, "partition 0 stopped: its owner panicked (planted)"), "{:?}", readiness.check());
    script.panics.store(false, Ordering::Relaxed);
    script.until(|_| readiness.check().is_ok()).await;
    letting_go.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_had_stopped_is_shown_as_stopped_until_a_batch_has_settled() {
    let wrong = Script { log_is_wrong: Mutex::new(Some("cut".to_owned())), ..Script::default() };
    let (script, readiness, letting_go) = owned(wrong);
    script.until(|_| says(&readiness, "cut")).await;
    *script.log_is_wrong.lock().unwrap() = None;
    script.started.notified().await;
    script.writes_hang.store(true, Ordering::Relaxed);
    script.send(Fetched::Records(vec![claim(0, "c")]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(says(&readiness, "cut"), "nothing has settled yet");
    script.writes_hang.store(false, Ordering::Relaxed);
    script.until(|_| readiness.check().is_ok()).await;
    letting_go.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_knows_of_later_writes_than_postgres_stops() {
    let (script, readiness, letting_go) = owned(Script::default());
    script.started.notified().await;
    script.send(Fetched::Records(vec![claim(0, "c")]));
    // Write 11 is told; then Postgres is at write 10 again, and another epoch.
    script.until(|script| script.told.lock().unwrap().len() == 3).await;
    script.write_results.lock().unwrap().extend(vec![WriteResult::Fenced; 5]);
    script.send(Fetched::Records(vec![claim(1, "c")]));
    script.until(|_| says(&readiness, "restored to an older backup")).await;
    assert!(script.decided().iter().all(|offset| *offset == 0), "nothing is decided again");
    assert_eq!(
        script.committed.lock().unwrap().last(),
        Some(&Offset(1)),
        "the group remembers what was told"
    );
    letting_go.cancel();
}

/// A claim of so many users at once is worth a list.
fn rush(from: i64) -> Fetched {
    Fetched::Records((from..from + 30).map(|offset| claim(offset, "c")).collect())
}

#[tokio::test(start_paused = true)]
async fn a_list_is_thrown_away_when_it_is_doubted_and_all_are_when_the_partition_is_let_go() {
    let Running { script, letting_go, end } = run(Script::default());
    script.started.notified().await;
    script.send(rush(0));
    script.until(|script| script.filled.lock().unwrap().len() == 1).await;
    assert_eq!(*script.thrown_away.lock().unwrap(), [], "it is in use");
    script.send(rush(30));
    script.until(|script| script.thrown_away.lock().unwrap().len() == 1).await;
    let first = script.filled.lock().unwrap()[0];
    assert_eq!(script.thrown_away.lock().unwrap()[0], first, "what a pop gave from it is not known");
    script.until(|script| script.decided().len() == 60).await;
    letting_go.cancel();
    assert_eq!(end.await.unwrap(), Ended::HandedOver);
    let (filled, gone) = (script.filled.lock().unwrap(), script.thrown_away.lock().unwrap());
    assert!(filled.iter().all(|list| gone.contains(list)), "{filled:?} {gone:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_fenced_off_throws_its_lists_away() {
    let Running { script, letting_go: _, end } = run(Script::default());
    script.started.notified().await;
    script.send(rush(0));
    script.until(|script| script.filled.lock().unwrap().len() == 1).await;
    script.until(|script| script.decided().len() == 30).await;
    *script.write_results.lock().unwrap() = vec![WriteResult::Fenced];
    script.send(Fetched::Records(vec![claim(30, "nowhere")]));
    assert_eq!(end.await.unwrap(), Ended::Fenced);
    assert_eq!(*script.thrown_away.lock().unwrap(), *script.filled.lock().unwrap());
}
