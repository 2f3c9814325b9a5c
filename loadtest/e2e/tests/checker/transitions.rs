//! Violations in the fixture of transitions: locks, redemptions, roll backs, revocations, lapses, shared codes, prices.

use checker::{History, Invariant, Received, check};
use local_stack::{Stack, StackConfig};
use serde_json::{Value, json};

use crate::expect_broken;
use crate::fixtures::transitions::{RECORDS, create_transitions, lapsed, response_at, transitions_fixture};

/// Changes one thing in the fixture: these invariants and no others are broken, and an offender is named.
async fn planted(sql: &'static str, broken: &[Invariant], named: &str) {
    let (fixture, _) = transitions_fixture().await;
    fixture.sql("set search_path = stampede; alter table claims drop constraint claim_deadline; alter table stock drop constraint stock_adds_up").await;
    fixture.sql(sql).await;
    expect_broken(&fixture.check().await, broken, named);
}

macro_rules! planted {
    ($($test:ident: $sql:expr => $broken:expr, $named:expr;)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                use Invariant::*;
                planted(concat!("set search_path = stampede; ", $sql), &$broken, $named).await;
            }
        )+
    };
}

/// Turns the outcome at an offset into a rejection.
macro_rules! rejected {
    ($offset:literal, $reason:literal) => {
        concat!(
            "update outcomes set reason = '",
            $reason,
            "', number = null, claim_state = null, claimed_ms = null, hold_until_ms = null, lock_until_ms = null,
             order_id = null where \"offset\" = ",
            $offset,
            ";"
        )
    };
}

#[tokio::test]
async fn the_fixture_of_transitions_is_clean() {
    let (fixture, _) = transitions_fixture().await;
    let report = fixture.check().await;
    assert!(report.is_clean(), "\n{report}");
    assert_eq!((report.claims, report.given_twice), (9, 0));
    assert!(report.line(Invariant::I11).checked > 20, "\n{report}");
}

planted! {
    a_wrong_count_of_redemptions_is_found:
        "update stock set redemptions = 2 where coupon_no = 1"
        => [I1], "redemptions is 2, but 1 rows";
    a_wrong_count_of_revoked_codes_is_found:
        "update stock set revoked = 0, claimed = 2 where coupon_no = 1"
        => [I1], "revoked is 0, but 1 rows are revoked";
    a_deadline_that_differs_from_hold_and_lock_is_found:
        "update claims set deadline_ms = deadline_ms + 1 where \"offset\" = 28"
        => [I1], "deadline_ms is";
    a_deadline_in_another_partition_is_found:
        "update claims set partition = 7 where \"offset\" = 28"
        => [I1], "in partition Some(7)";
    a_wrong_count_of_uses_of_a_shared_code_is_found:
        "update code_marks set uses = 0 where coupon_no = 3"
        => [I1], "but it has 1 live redemptions";
    a_revoked_code_without_its_flag_is_found:
        "delete from code_marks where coupon_no = 2"
        => [I1, I2], "but it was revoked";
    a_revoked_code_that_is_free_is_found:
        "insert into stock_returned values (1, 2); update stock set returned = 1 where coupon_no = 1"
        => [I1, I2], "is revoked or used up, but free";
    a_number_ahead_of_a_cursor_that_has_passed_it_is_found:
        "insert into stock_ahead values (1, 3)"
        => [I1, I2], "is on the wrong side of the cursor";

    a_redeemed_claim_without_a_redemption_is_found:
        "update claims set state = 3, hold_until_ms = null, deadline_ms = null, order_id = 'o-9' where \"offset\" = 28;
         update stock set claimed = 0, redeemed = 2 where coupon_no = 1"
        => [I2], "has state REDEEMED, but its outcomes lead to CLAIMED";
    a_redemption_whose_claim_is_not_redeemed_is_found:
        "update claims set state = 1 where \"offset\" = 17; update stock set claimed = 2, redeemed = 0 where coupon_no = 1"
        => [I2], "has state CLAIMED, but its outcomes lead to REDEEMED";
    two_overlapping_claims_of_one_code_are_found:
        rejected!(21, "already_locked")
        => [I2, I4], "claimed it while it was CLAIMED by request";
    the_return_of_a_locked_code_is_found:
        "update outcomes set kind = 'return' where \"offset\" = 26"
        => [I2, I4, I7], "was accepted when it was LOCKED, not CLAIMED";
    a_lock_by_another_user_is_found:
        "update outcomes set user_id = 'eve' where \"offset\" = 5"
        => [I2, I4, I7], "was accepted when another user held the code";
    the_revocation_of_a_redeemed_code_is_found:
        "update outcomes set number = 1 where \"offset\" = 23"
        => [I2, I4, I7], "revoked it when it was REDEEMED";
    a_redemption_with_another_order_than_the_lock_is_found:
        "update redemptions set order_id = 'o-7' where \"offset\" = 8"
        => [I2, I4, I7], "but the lock is for";
    the_roll_back_of_another_redemption_is_found:
        "update outcomes set redemption = '00000000-0000-0000-0000-00000000000b' where \"offset\" = 9"
        => [I2, I4, I7], "rolled back a redemption other than the live one";
    a_roll_back_without_a_request_is_found:
        "update redemptions set rolled_back_ms = redeemed_ms where \"offset\" = 19;
         update stock set redemptions = 0 where coupon_no = 1"
        => [I2], "is rolled back without a request";
    an_order_that_redeems_a_shared_code_twice_is_found:
        "update redemptions set order_id = 'x-1' where \"offset\" = 12"
        => [I2, I4, I7], "redeemed it again for the order";
    a_shared_code_that_is_redeemed_too_often_is_found:
        "insert into redemptions select identity, 0, 3, 1, 13, decided_ms, null, 'shop', 'x-3', 20, 2, 18, 'EUR'
           from outcomes where \"offset\" = 13;
         delete from outcomes where \"offset\" = 13; update redemptions set rolled_back_ms = null where \"offset\" = 12;
         update stock set redemptions = 3 where coupon_no = 3"
        => [I2, I4, I7], "redeemed it more than 2 times";

    more_claims_than_allowed_are_found_although_all_have_lapsed_since:
        "update claims set user_id = 'ann' where \"offset\" = 4"
        => [I2, I4, I6], "there are 2 live claims by one user of hold, which allows 1";
    user_limit_reached_below_the_limit_is_found:
        "update outcomes set reason = 'user_limit_reached' where \"offset\" = 15"
        => [I4, I6], "was rejected as user_limit_reached when its user had 0 live claims of gate, which allows 1";
    more_redemptions_than_a_user_is_allowed_are_found:
        "update coupons set redemptions_per_user = 0 where coupon_no = 2"
        => [I6], "there are 1 redemptions by one user of gate, which allows 0";
    more_redemptions_than_the_coupon_allows_are_found_although_one_was_rolled_back:
        "update coupons set redemptions_total = 1 where coupon_no = 3"
        => [I6], "there are 2 redemptions of crowd, which allows 1";
    a_price_that_is_rounded_wrongly_is_found:
        "update redemptions set discount = 1.00, final_price = 9.05 where \"offset\" = 8"
        => [I4, I6], "the discount is 1.0000, not 1.0100";
    a_discount_above_the_maximum_is_found:
        "update coupons set definition = jsonb_set(definition, '{discount,maximum_discount}', '\"4.00\"') where coupon_no = 1"
        => [I6], "the discount is 5.0000, not 4.0000";
    an_order_below_the_minimum_is_found:
        "update coupons set definition = jsonb_set(definition, '{discount,minimum_order}', '\"50\"') where coupon_no = 3"
        => [I6], "is below the coupon's minimum";
    an_order_in_another_currency_is_found:
        "update coupons set definition = jsonb_set(definition, '{discount,currency}', '\"USD\"') where coupon_no = 1"
        => [I6], "is in another currency than the coupon's";

    a_lock_with_another_order_than_requested_is_found:
        "update outcomes set order_id = 'o-7' where \"offset\" = 5"
        => [I4, I7], "but its outcome, on code 2 (H2) of hold, does not match";
    a_named_claim_of_another_code_is_found:
        "update codes set code_key = 'G4' where code = 'G3'"
        => [I7], "on code 3 (G3) of gate, does not match";
    sold_out_while_a_code_has_returned_is_found:
        "update outcomes set reason = 'sold_out' where \"offset\" = 27"
        => [I4, I9], "was rejected as sold_out when 2 of 4 codes of hold were claimed";

    a_lapse_without_a_row_is_found:
        "update claims set lapsed_ms = null where \"offset\" = 24"
        => [I5, I11], "lapsed at";
    a_lapse_without_an_event_is_found:
        "update claims set lapsed_ms = 5 where \"offset\" = 20"
        => [I5], "lapsed at 5, but no event was published";
    a_lapsed_hold_whose_code_is_still_claimed_is_found:
        "update claims set lapsed_ms = first_hold_ms where \"offset\" = 28"
        => [I5, I11], "but its code is not back in stock";
    a_redemption_without_the_required_lock_is_found:
        rejected!(7, "not_claimed")
        => [I4, I11], "redeemed it without a live lock";
    a_redemption_after_the_end_of_the_lock_is_found:
        "update coupons set lock_seconds = 0 where coupon_no = 2;
         update outcomes set lock_until_ms = decided_ms where \"offset\" = 7"
        => [I4, I11], "but had not lapsed when request";
    a_lock_of_another_duration_than_the_coupon_has_is_found:
        "update outcomes set lock_until_ms = lock_until_ms - 500 where \"offset\" = 18"
        => [I4, I11], "its outcome has deadlines";
    hold_lapsed_before_the_end_of_the_hold_is_found:
        rejected!(21, "hold_lapsed")
        => [I2, I4, I11], "was rejected as hold_lapsed for code 2 (H2) of hold";
    hold_lapsed_for_the_hold_of_another_user_is_found:
        "update outcomes set user_id = 'erin' where \"offset\" = 27"
        => [I4, I11], "was rejected as hold_lapsed for code 3 (H3) of hold";
    lock_lapsed_before_the_end_of_the_lock_is_found:
        rejected!(26, "lock_lapsed")
        => [I4, I11], "was rejected as lock_lapsed for code 3 (H3) of hold";
    a_hold_of_another_duration_than_the_coupon_has_is_found:
        "update claims set first_hold_ms = first_hold_ms + 1 where \"offset\" = 20"
        => [I4, I11], "its outcome has hold until";
    a_hold_that_differs_from_the_published_one_is_found:
        "update claims set hold_until_ms = hold_until_ms + 1, deadline_ms = deadline_ms + 1 where \"offset\" = 28"
        => [I11], "has hold, lock, order and lapse";
    a_decision_by_the_clock_of_a_worker_is_found:
        "update outcomes set decided_ms = decided_ms + 1 where \"offset\" = 21"
        => [I4, I11], "but the partition's time was";
}

#[tokio::test]
async fn a_passed_deadline_without_a_lapse_is_found_on_a_settled_stack() {
    let (fixture, _) = transitions_fixture().await;
    fixture.sql("update stampede.partitions set time_ms = time_ms + 1000000").await;
    let config = checker::CheckConfig { settled: true, ..fixture.config.clone() };
    let report = check(&config, None).await.unwrap();
    expect_broken(&report, &[Invariant::I11], "but nothing has lapsed");
}

/// The response of the API for a record of the log.
fn shown(offset: usize, times: &[i64]) -> Value {
    let response = response_at(offset, times);
    let at = |ms: i64| chrono::DateTime::from_timestamp_millis(ms).unwrap().to_rfc3339();
    let claim = response.claim_state.as_ref().map(|state| {
        json!({"state": state, "claimed_at": response.claimed_at_ms.map(at), "hold_until": response.hold_until_ms.map(at),
               "lock_until": response.lock_until_ms.map(at)})
    });
    let redemption = response.redemption_id.as_ref().map(|id| {
        json!({"redemption_id": format!("{id}.tag"), "order_id": response.order_id, "order_amount": response.order_amount,
               "discount": response.discount, "final_price": response.final_price, "currency": response.currency,
               "redeemed_at": response.redeemed_at_ms.map(at)})
    });
    json!({"request_id": format!("{}.tag", response.request_id), "kind": response.kind, "status": response.status,
           "coupon_id": response.coupon_id, "reason": response.reason, "code": response.code, "claim": claim,
           "redemption": redemption, "decided_at": at(response.decided_at_ms)})
}

#[tokio::test]
async fn responses_of_any_kind_that_differ_from_postgres_are_found() {
    let (fixture, times) = transitions_fixture().await;
    let history = History::new();
    let receive = |user: &str, body: &Value| {
        let handle = history.record_sent(user, "any", None);
        history.record_received(handle, Received::Response { status: 200, body: body.to_string() });
    };
    let offsets = (3..3 + RECORDS.len()).filter(|offset| *offset != 16);
    offsets.clone().for_each(|offset| receive("any-user", &shown(offset, &times)));
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    // Codes that returned to stock were given to several users, one at a time.
    assert!(report.is_clean() && report.given_twice == 0, "\n{report}");

    let changes: [(usize, &str, &str, Value); 6] = [
        (5, "claim", "lock_until", json!("2025-11-21T04:40:00Z")),
        (8, "redemption", "final_price", json!("9.05")),
        (9, "redemption", "order_id", json!("o-9")),
        (13, "redemption", "redeemed_at", json!("2025-11-21T04:40:00Z")),
        (21, "claim", "state", json!("CLAIMED")),
        (28, "claim", "hold_until", Value::Null),
    ];
    let count = changes.len() as u64;
    for (offset, part, field, value) in changes {
        let mut body = shown(offset, &times);
        body[part][field] = value;
        receive("any-user", &body);
    }
    let report = check(&fixture.config, Some(&history)).await.unwrap();
    expect_broken(&report, &[Invariant::I4, Invariant::I8], "its row differs");
    assert_eq!(report.line(Invariant::I4).violations, count, "\n{report}");
    assert_eq!(report.line(Invariant::I8).violations, count, "\n{report}");
}

#[tokio::test]
async fn planted_lapses_in_the_topic_are_found() {
    let stack = Stack::start(StackConfig::servers_only()).await.unwrap();
    let (fixture, times) = create_transitions(&stack, "transitions").await;
    assert!(fixture.check().await.is_clean());

    fixture.publish_event(&lapsed(false, 28, "H1", "cara", 7)).await;
    let report = fixture.check().await;
    expect_broken(&report, &[Invariant::I11], "its lock lapsed at 7, when it was REDEEMED");

    fixture.publish_event(&lapsed(true, 17, "H1", "ann", times[3] + 1_000)).await;
    expect_broken(&fixture.check().await, &[Invariant::I11], "for the second time");

    // Published before the snapshot, so its row must exist, at whatever offset the event claims.
    fixture.publish_event(&lapsed(true, 29, "H3", "erin", times[28] + 1)).await;
    let report = fixture.check().await;
    expect_broken(&report, &[Invariant::I5, Invariant::I11], "when the partition's time was");

    fixture.publish_event(&lapsed(true, 17, "H4", "ann", 7)).await;
    expect_broken(&fixture.check().await, &[Invariant::I5, Invariant::I11], "but no row shows it");

    fixture.publish_event(&lapsed(true, 16, "H1", "eve", times[3] + 1_000)).await;
    let broken = [Invariant::I4, Invariant::I5, Invariant::I11];
    expect_broken(&fixture.check().await, &broken, "was published before as");

    fixture.publish_event(&lapsed(true, 16, "H9", "eve", 7)).await;
    expect_broken(&fixture.check().await, &broken, "there is no such code");
    stack.stop().await.unwrap();
}
