use super::*;
use axum::http::Uri;
use coupon_core::codes::normalise;
use sqlx::types::Json;

const NOW: i64 = 1_000;

/// A code that its user has claimed, of a coupon with ten per cent discount in euros.
fn claimed() -> CodeSnapshot {
    let definition = serde_json::json!({"name": "n", "discount": {"type": "PERCENTAGE", "value": "10",
        "currency": "EUR", "minimum_order": "20"}});
    CodeSnapshot {
        code: "AB-CD".to_owned(),
        coupon_id: "spring".to_owned(),
        definition: Json(serde_json::from_value(definition).expect("a definition")),
        status: "active".to_owned(),
        starts_at_ms: None,
        expires_at_ms: None,
        requires_lock: false,
        redemptions_per_code: Some(1),
        redemptions_per_user: None,
        redemptions_total: None,
        now_ms: NOW,
        uses: 0,
        revoked: false,
        redemptions: 0,
        is_own: Some(true),
        state: Some(1),
        hold_until_ms: None,
        lock_until_ms: None,
        has_lapsed: false,
        own_redemptions: 0,
    }
}

fn order(amount: &str, currency: &str) -> Order {
    Order { amount: Some(amount.to_owned()), currency: Some(currency.to_owned()) }
}

fn view(snapshot: CodeSnapshot, order: &Order) -> serde_json::Value {
    let key = normalise("ab-cd").expect("a code");
    let view = ValidationView::of(&key, snapshot, order).expect("a response");
    serde_json::to_value(view).expect("JSON")
}

fn reason(snapshot: CodeSnapshot, order: &Order) -> Option<String> {
    let shown = view(snapshot, order);
    assert_eq!(shown["valid"], shown.get("reason").is_none());
    shown["reason"].as_str().map(str::to_owned)
}

#[test]
fn a_valid_code_has_a_discount_if_the_order_is_known() {
    let shown = view(claimed(), &order("129.9", "EUR"));
    let wanted = serde_json::json!({"valid": true, "code": "AB-CD", "coupon_id": "spring",
        "order_amount": "129.90", "discount": "12.99", "final_price": "116.91", "currency": "EUR"});
    assert_eq!(shown, wanted);
    let without_currency = Order { currency: None, ..order("129.9", "") };
    assert_eq!(view(claimed(), &without_currency), wanted, "the coupon's own currency");
    let bare = view(claimed(), &Order::default());
    assert_eq!(bare, serde_json::json!({"valid": true, "code": "AB-CD", "coupon_id": "spring"}));
}

/// Makes every check fail, the last one first: each change hides the reasons before it.
#[test]
fn the_first_check_that_fails_is_the_reason() {
    let mut snapshot = claimed();
    let mut order = order("25", "EUR");
    let mut expect = |change: &mut dyn FnMut(&mut CodeSnapshot, &mut Order), word: &str| {
        change(&mut snapshot, &mut order);
        assert_eq!(reason(snapshot.clone(), &order).as_deref(), Some(word));
    };
    expect(
        &mut |snapshot, _| (snapshot.redemptions_total, snapshot.redemptions) = (Some(5), 5),
        "usage_limit_reached",
    );
    expect(&mut |_, order| order.amount = Some("19.99".to_owned()), "minimum_order_not_met");
    expect(&mut |_, order| order.currency = Some("USD".to_owned()), "currency_mismatch");
    expect(&mut |snapshot, _| snapshot.requires_lock = true, "not_locked");
    expect(&mut |snapshot, _| snapshot.lock_until_ms = Some(NOW), "lock_lapsed");
    expect(&mut |snapshot, _| snapshot.state = Some(3), "already_redeemed");
    expect(&mut |snapshot, _| snapshot.expires_at_ms = Some(NOW), "code_expired");
    expect(&mut |snapshot, _| snapshot.starts_at_ms = Some(NOW + 1), "not_started");
    expect(&mut |snapshot, _| snapshot.status = "paused".to_owned(), "paused");
    expect(&mut |snapshot, _| snapshot.status = "ended".to_owned(), "ended");
    expect(&mut |snapshot, _| (snapshot.revoked, snapshot.state) = (true, Some(5)), "code_revoked");
    expect(&mut |snapshot, _| snapshot.is_own = Some(false), "code_unknown");
    expect(&mut |snapshot, _| snapshot.has_lapsed = true, "hold_lapsed");
}

#[test]
fn another_users_code_looks_like_an_unknown_code() {
    let key = normalise("ab-cd").expect("a code");
    let unknown = serde_json::to_value(ValidationView::unknown(&key)).expect("JSON");
    assert_eq!(unknown, serde_json::json!({"valid": false, "reason": "code_unknown", "code": "ABCD"}));
    for state in [1, 2, 3, 5] {
        let theirs = CodeSnapshot { is_own: Some(false), state: Some(state), ..claimed() };
        assert_eq!(view(theirs, &order("25", "EUR")), unknown);
    }
}

#[test]
fn a_code_without_a_live_claim_is_not_claimed_or_revoked() {
    let free = CodeSnapshot { is_own: None, state: None, ..claimed() };
    assert_eq!(reason(free.clone(), &Order::default()).as_deref(), Some("not_claimed"));
    let revoked = CodeSnapshot { revoked: true, ..free };
    assert_eq!(reason(revoked, &Order::default()).as_deref(), Some("code_revoked"));
}

#[test]
fn a_deadline_that_has_passed_counts_before_it_is_written() {
    let hold = |hold_until_ms| CodeSnapshot { hold_until_ms: Some(hold_until_ms), ..claimed() };
    assert_eq!(reason(hold(NOW + 1), &Order::default()), None);
    assert_eq!(reason(hold(NOW), &Order::default()).as_deref(), Some("hold_lapsed"));
    let theirs = CodeSnapshot { is_own: Some(false), ..hold(NOW) };
    assert_eq!(reason(theirs, &Order::default()).as_deref(), Some("not_claimed"));

    let locked = |lock_until_ms, hold_until_ms| CodeSnapshot {
        state: Some(2),
        lock_until_ms: Some(lock_until_ms),
        hold_until_ms,
        requires_lock: true,
        ..claimed()
    };
    assert_eq!(reason(locked(NOW + 1, Some(NOW)), &Order::default()), None, "a live lock suspends the hold");
    assert_eq!(reason(locked(NOW, None), &Order::default()).as_deref(), Some("lock_lapsed"));
    assert_eq!(reason(locked(NOW, Some(NOW)), &Order::default()).as_deref(), Some("hold_lapsed"));
}

#[test]
fn a_shared_code_needs_no_claim_and_has_limits() {
    let shared = |uses| CodeSnapshot {
        redemptions_per_code: Some(3),
        redemptions_per_user: Some(2),
        requires_lock: true,
        is_own: None,
        state: None,
        uses,
        ..claimed()
    };
    assert_eq!(reason(shared(2), &order("25", "EUR")), None);
    assert_eq!(reason(shared(3), &order("25", "EUR")).as_deref(), Some("usage_limit_reached"));
    let often = CodeSnapshot { own_redemptions: 2, ..shared(2) };
    assert_eq!(reason(often, &Order::default()).as_deref(), Some("usage_limit_reached"));
    let unlimited = CodeSnapshot { redemptions_per_code: None, ..shared(1_000_000) };
    assert_eq!(reason(unlimited, &Order::default()), None);
}

#[test]
fn an_invalid_order_is_rejected_by_its_field() {
    let read = |uri: &'static str| {
        let parameters = Parameters::of(&Uri::from_static(uri)).expect("a valid query");
        Order::read(&parameters).map_err(|problem| format!("{problem:?}"))
    };
    assert_eq!(read("/x"), Ok(Order::default()));
    assert!(read("/x?order_amount=0").is_ok());
    for (uri, field) in [
        ("/x?order_amount=-1", "order_amount"),
        ("/x?order_amount=1e3&currency=EUR", "order_amount"),
        ("/x?order_amount=", "order_amount"),
        ("/x?order_amount=1.5&currency=JPY", "order_amount"),
        ("/x?currency=eur", "currency"),
        ("/x?currency=EUR&currency=USD", "currency"),
    ] {
        assert!(read(uri).is_err_and(|problem| problem.contains(&format!("\"{field}\""))), "{uri}");
    }
    // A coupon for any currency has no default currency.
    let any = money::Discount::default();
    let without = Order { amount: Some("5".to_owned()), currency: None };
    assert_eq!(without.price(&any).map_err(|problem| problem.status().as_u16()), Err(422));
    let fine = Order { amount: Some("5.001".to_owned()), currency: None };
    let euros = money::Discount { currency: Some("EUR".into()), ..any };
    assert_eq!(fine.price(&euros).map_err(|problem| problem.status().as_u16()), Err(422));
}
