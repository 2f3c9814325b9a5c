//! Violations in the fixture of claims: stock, codes, outcomes, offsets, responses.

use checker::{CheckConfig, History, Invariant, Received, check};
use coupon_core::ids::RequestId;
use local_stack::{Stack, StackConfig};
use schemas::topics::{DEAD_LETTERS, RESPONSES};

use crate::expect_broken;
use crate::fixtures::{COUPON, Decision, LOG, claims_fixture, create_claims, id, partition, response_of};
use e2e::kafka::Record;

/// Changes one thing in the fixture: these invariants and no others are broken, and an offender is named.
async fn planted(sql: &'static str, broken: &[Invariant], named: &str) {
    let fixture = claims_fixture().await;
    fixture.sql(sql).await;
    expect_broken(&fixture.check().await, broken, named);
}

#[tokio::test]
async fn the_fixture_of_claims_is_clean() {
    let report = claims_fixture().await.check().await;
    assert!(report.is_clean(), "\n{report}");
    assert_eq!((report.claims, report.outcomes, report.given_twice), (3, 2, 0));
    assert_eq!((report.requests, report.responses, report.dead_letters), (9, 10, 1));
    for invariant in
        [Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I4, Invariant::I5, Invariant::I6]
    {
        assert!(report.line(invariant).checked > 0, "\n{report}");
    }
}

#[tokio::test]
async fn an_unsettled_stack_that_should_be_settled_is_reported() {
    let fixture = claims_fixture().await;
    let config = CheckConfig { settled: true, ..fixture.config.clone() };
    let report = check(&config, None).await.unwrap();
    expect_broken(&report, &[Invariant::I3, Invariant::I7], "1 records were not consumed");
}

#[tokio::test]
async fn a_code_in_two_claims_is_found() {
    let fixture = claims_fixture().await;
    fixture.sql("set search_path = stampede; drop index claims_live; update claims set number = 1 where number = 2").await;
    let report = fixture.check().await;
    // The response to the second of them contains another code.
    expect_broken(&report, &[Invariant::I2, Invariant::I4], "code 1 of spring");
    assert_eq!(report.given_twice, 1);
}

#[tokio::test]
async fn a_duplicate_code_text_is_found() {
    planted(
        "set search_path = stampede; alter table codes drop constraint codes_code_key_key;
         update codes set code_key = 'AAA', code = 'AAA' where idx = 2",
        &[Invariant::I2, Invariant::I4],
        "code AAA (AAA) exists more than once",
    )
    .await;
}

#[tokio::test]
async fn a_lost_result_is_found() {
    planted(
        "delete from stampede.claims where user_id = 'bob'; update stampede.stock set claimed = 2, returned = 1;
         insert into stampede.stock_returned values (1, 2)",
        &[Invariant::I3, Invariant::I5, Invariant::I7, Invariant::I9],
        "was skipped",
    )
    .await;
}

#[tokio::test]
async fn a_counter_that_is_off_by_one_is_found() {
    planted(
        "update stampede.stock set claimed = 2, redeemed = 1",
        &[Invariant::I1],
        "spring: claimed is 2, but 3 rows are claimed",
    )
    .await;
}

#[tokio::test]
async fn a_code_that_is_free_and_claimed_is_found() {
    planted(
        "set search_path = stampede; alter table stock drop constraint stock_adds_up;
         update stock set returned = 1; insert into stock_returned values (1, 2)",
        &[Invariant::I1, Invariant::I2],
        "is claimed and free",
    )
    .await;
}

#[tokio::test]
async fn a_load_without_one_of_its_codes_is_found() {
    planted(
        "delete from stampede.codes where idx = 3",
        &[Invariant::I1, Invariant::I4],
        "load 1 does not have exactly the codes 1 to 3",
    )
    .await;
}

#[tokio::test]
async fn a_skipped_offset_is_found() {
    planted(
        "update stampede.partitions set next_offset = next_offset + 1, last_offset = next_offset",
        &[Invariant::I3, Invariant::I7],
        "was skipped",
    )
    .await;
}

#[tokio::test]
async fn a_position_beyond_the_log_is_found() {
    planted(
        "update stampede.partitions set next_offset = 1000000, last_offset = 999999, emitted_seq = next_emit_seq",
        &[Invariant::I3, Invariant::I7],
        "the log ends before offset 9",
    )
    .await;
}

#[tokio::test]
async fn an_outcome_at_the_offset_of_another_request_is_found() {
    planted(
        "update stampede.claims set \"offset\" = 3 - \"offset\" where \"offset\" < 3",
        &[Invariant::I4, Invariant::I7],
        "but its outcome belongs to",
    )
    .await;
}

#[tokio::test]
async fn an_unpublished_outcome_is_found_unless_it_is_in_the_outbox() {
    let add = "insert into stampede.outcomes select day, gen_random_uuid(), 0, coupon_no, partition, 4, decided_ms, kind,
               'unprocessable', user_id from stampede.outcomes where reason = 'sold_out'";
    planted(add, &[Invariant::I5, Invariant::I7], "was decided, but no response was published").await;

    let fixture = claims_fixture().await;
    fixture.sql(add).await;
    fixture
        .sql(
            "set search_path = stampede; update partitions set next_emit_seq = 5;
             insert into outbox select partition, 4, 8, array_agg(identity), null from outcomes where \"offset\" = 4
             group by partition",
        )
        .await;
    let report = fixture.check().await;
    assert_eq!(report.line(Invariant::I5).violations, 0, "\n{report}");
    assert!(report.notes.iter().any(|note| note.contains("1 responses are in the outbox")), "\n{report}");
}

#[tokio::test]
async fn a_user_with_more_claims_than_allowed_is_found() {
    planted(
        "update stampede.claims set user_id = 'ann' where user_id = 'bob'",
        &[Invariant::I4, Invariant::I6],
        "has 2 live claims of spring, which allows 1",
    )
    .await;
}

#[tokio::test]
async fn a_request_that_was_decided_twice_is_found() {
    planted(
        "insert into stampede.outcomes select day, '00000000-0000-0000-0000-000000000001', 0, coupon_no, partition, 3,
         decided_ms, kind, 'user_limit_reached', 'ann' from stampede.outcomes where reason = 'sold_out'",
        &[Invariant::I5, Invariant::I8],
        "was decided more than once, again at",
    )
    .await;
}

/// No violation of I8: a key that is used again after the window is decided anew. (The planted row has no record and no
/// response.)
#[tokio::test]
async fn a_request_that_is_decided_anew_after_the_deduplication_window_is_an_outcome_of_its_own() {
    planted(
        "insert into stampede.outcomes select day, identity, 9, coupon_no, partition, 8, decided_ms + 48 * 3600000 + 1,
         kind, reason, 'ann' from stampede.outcomes where reason = 'sold_out'",
        &[Invariant::I5, Invariant::I7],
        "was decided, but no response was published",
    )
    .await;
}

#[tokio::test]
async fn idempotency_key_reused_for_a_new_key_is_found() {
    planted(
        "update stampede.outcomes set reason = 'idempotency_key_reused' where reason = 'sold_out'",
        &[Invariant::I4, Invariant::I8],
        "but no earlier request has its key",
    )
    .await;
}

#[tokio::test]
async fn sold_out_while_a_code_is_available_is_found() {
    planted(
        "set search_path = stampede; delete from claims where user_id = 'bob';
         insert into outcomes select day, '00000000-0000-0000-0000-000000000002', 0, coupon_no, partition, 2, decided_ms,
         kind, 'sold_out', 'bob' from outcomes where reason = 'sold_out';
         update stock set claimed = 2, returned = 1; insert into stock_returned values (1, 2)",
        &[Invariant::I4, Invariant::I9],
        "was rejected as sold_out when 1 of 3 codes of spring were claimed",
    )
    .await;
}

#[tokio::test]
async fn responses_to_clients_that_differ_from_postgres_are_found() {
    let fixture = claims_fixture().await;
    let history = History::new();
    let receive = |user: &str, id: RequestId, outcome: &str| {
        let handle = history.record_sent(user, COUPON, None);
        let body = format!(
            r#"{{"request_id":"{id}.tag","kind":"claim","coupon_id":"{COUPON}",{outcome},"decided_at":"2025-11-21T04:40:00Z"}}"#
        );
        history.record_received(handle, Received::Response { status: 200, body });
    };
    let accepted = r#""status":"accepted","code":"AAA",
                 "claim":{"coupon_id":"spring","code":"AAA","state":"CLAIMED","claimed_at":"2025-11-21T04:40:00Z"}"#;
    receive("ann", id(1, 0), accepted);
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    assert!(report.is_clean(), "\n{report}");
    assert_eq!(report.unresolved, 0);

    receive("bob", id(2, 0), accepted);
    receive("dora", id(7, 0), r#""status":"rejected","reason":"expired""#);
    let lost = history.record_sent("zoe", COUPON, None);
    let body = format!(r#"{{"request_id":"{}.tag","status":"pending"}}"#, id(4_711, 0));
    history.record_received(lost, Received::Response { status: 202, body });
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I2, Invariant::I3, Invariant::I4], "is not in the log");
    assert_eq!((report.given_twice, report.unresolved), (1, 1));
    assert_eq!(report.line(Invariant::I4).violations, 2, "\n{report}");
}

#[tokio::test]
async fn planted_records_in_the_topics_are_found() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    let fixture = create_claims(&stack, "claims").await;
    assert!(fixture.check().await.is_clean());

    let (identity, body, user, _) = LOG[6];
    let other = response_of(identity, body, user, 7, Decision::Rejected("expired")).unwrap();
    fixture.publish(&other).await;
    expect_broken(&fixture.check().await, &[Invariant::I4], "rejected expired");

    let unknown = response_of(1234, 0, "unknown-user", 7, Decision::Rejected("sold_out")).unwrap();
    fixture.publish(&unknown).await;
    expect_broken(&fixture.check().await, &[Invariant::I4, Invariant::I5], "has no row in Postgres");

    let rubbish = Record { value: Some(b"rubbish".to_vec()), ..Record::default() };
    fixture.producer.produce(RESPONSES, &rubbish).await;
    let report = fixture.check().await;
    expect_broken(&report, &[Invariant::I4, Invariant::I5], "cannot be read");
    assert_eq!(report.line(Invariant::I5).violations, 2, "\n{report}");

    // A dead letter for a record that was not consumed.
    let headers = vec![("partition", partition().to_string()), ("offset", "8".to_owned())];
    fixture.producer.produce(DEAD_LETTERS, &Record { headers, ..Record::default() }).await;
    let report = fixture.check().await;
    expect_broken(&report, &[Invariant::I4, Invariant::I5, Invariant::I7], "was never consumed");
    stack.stop().await.unwrap();
}
