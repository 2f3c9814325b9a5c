//! Amounts and currencies of orders: invalid ones, limits, discounts and prices. A validation shows the same price.

use coupon_core::money::minor_unit;
use schemas::topics::REQUESTS;
use serde_json::{Value, json};

use e2e::coupon::rules;
use e2e::kafka::{count_with_key, records};
use e2e::{Environment, Operation, Order, Reply, Request, path_segment};

/// A redemption with any body.
async fn redeem(env: &Environment, code: &str, body: &Value) -> Reply {
    env.post(0, &format!("/v1/codes/{code}/redemptions?wait=10"), &env.token("ann"), body).await
}

async fn validate(env: &Environment, code: &str, amount: &str, currency: &str) -> Reply {
    let (amount, currency) = (path_segment(amount), path_segment(currency));
    let path = format!("/v1/codes/{code}/validation?order_amount={amount}&currency={currency}");
    env.get_once(0, &path, &env.token("ann")).await
}

/// 422, and the problem names the invalid field.
fn expect_invalid(reply: &Reply, field: &str, what: &Value) {
    assert_eq!(reply.status, 422, "{what}: {}", reply.body);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {}", reply.body);
    assert!(reply.body.contains(&format!("\"{field}\"")), "{what}: {}", reply.body);
}

async fn fault_37_an_invalid_amount_is_rejected_by_field_and_the_code_is_unchanged(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let not_text = [
        json!(129.9),
        json!(1),
        json!(0),
        json!(-1),
        json!(1e308),
        json!(true),
        json!(null),
        json!(["1"]),
        json!({}),
    ];
    let not_an_amount = [
        "-1",
        "-0.01",
        "-0",
        "+1",
        "1e3",
        "1E3",
        "1e-2",
        "0x10",
        "NaN",
        "nan",
        "Infinity",
        "-inf",
        "1,5",
        "1.000,00",
        "1_000",
        "",
        " ",
        " 1",
        "1 ",
        "1.",
        ".5",
        "1.2.3",
        "0.00001",
        "1000000000000",
        "999999999999999999999999999999",
        "1\u{0}",
        "١٢",
        "１２",
        "€5",
        "5 EUR",
        "1/2",
        "--1",
    ];
    let too_precise = ["0.001", "129.999", "1.0001"];
    for amount in
        not_text.into_iter().chain(not_an_amount.into_iter().chain(too_precise).map(|text| json!(text)))
    {
        let body = json!({"order_id": "order-1", "order_amount": amount, "currency": "EUR"});
        expect_invalid(&redeem(env, &code, &body).await, "order_amount", &body);
        if let Some(text) = amount.as_str() {
            let validated = validate(env, &code, text, "EUR").await;
            assert_eq!(validated.status, 422, "{text:?}: {}", validated.body);
        }
    }
    let missing = json!({"order_id": "order-1", "currency": "EUR"});
    expect_invalid(&redeem(env, &code, &missing).await, "order_amount", &missing);
    let endless = json!({"order_id": "order-1", "order_amount": "9".repeat(60_000), "currency": "EUR"});
    expect_invalid(&redeem(env, &code, &endless).await, "order_amount", &json!("endless"));
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
}

async fn fault_37_an_invalid_currency_or_order_is_rejected_by_field(env: &Environment) {
    let coupon = env.stocked(1, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let good = json!({"order_id": "order-1", "order_amount": "10.00", "currency": "EUR"});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for currency in [
        json!("eur"),
        json!("EU"),
        json!("EURO"),
        json!(""),
        json!("€"),
        json!("EU1"),
        json!(978),
        json!(null),
    ] {
        let body = with("currency", currency);
        expect_invalid(&redeem(env, &code, &body).await, "currency", &body);
    }
    for order in [json!(""), json!("a\nb"), json!("a\u{0}"), json!("x".repeat(129)), json!(5), json!(null)] {
        let body = with("order_id", order);
        expect_invalid(&redeem(env, &code, &body).await, "order_id", &body);
    }
    let odd = with("discount", json!("100.00"));
    expect_invalid(&redeem(env, &code, &odd).await, "discount", &odd);
    // All fields invalid.
    let all_invalid =
        redeem(env, &code, &json!({"order_id": "", "order_amount": "-1", "currency": "x"})).await;
    for name in ["order_id", "order_amount", "currency"] {
        expect_invalid(&all_invalid, name, &json!("everything"));
    }
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    let longest = with("order_id", json!("x".repeat(128)));
    assert_eq!(redeem(env, &code, &longest).await.json()["status"], "accepted");
}

/// Redeems one order after another with the codes of one coupon, and expects discount and price. A validation before
/// shows the same.
async fn prices(env: &Environment, discount: Value, orders: &[(&str, &str, [&str; 2])]) {
    let coupon = env.stocked(orders.len() as u64, rules(&json!({"discount": discount}))).await;
    for (n, (amount, currency, wanted)) in orders.iter().enumerate() {
        let code = coupon.claim("ann").await;
        let validated = validate(env, &code, amount, currency).await.json();
        let order = format!("order-{n}");
        let outcome = env
            .submit(Request::new("ann", Operation::redeem(&code, Order::new(&order, amount, currency))))
            .await
            .json();
        let what = format!("{amount} {currency} less {discount}");
        let redemption = &outcome["redemption"];
        let found = (redemption["discount"].as_str(), redemption["final_price"].as_str());
        assert_eq!(found, (Some(wanted[0]), Some(wanted[1])), "{what}: {outcome}");
        for name in ["order_amount", "discount", "final_price", "currency"] {
            assert_eq!(validated[name], redemption[name], "{name} of {what}, as a validation shows it");
        }
        let digits =
            |text: &Value| text.as_str().and_then(|text| text.split_once('.')).map_or(0, |(_, d)| d.len());
        for name in ["order_amount", "discount", "final_price"] {
            assert_eq!(
                digits(&redemption[name]),
                minor_unit(currency) as usize,
                "{name} of {what}: {outcome}"
            );
        }
        // The stored redemption is shown with the same digits.
        let id = outcome["request_id"].as_str().unwrap();
        let shown = env.get(1, &format!("/v1/requests/{id}"), &env.token("ann")).await.json();
        assert_eq!(shown, outcome);
    }
}

async fn a_percentage_is_exact_and_rounded_half_up_to_the_minor_unit(env: &Environment) {
    let orders = [
        ("100.00", "EUR", ["15.00", "85.00"]),
        ("0.00", "EUR", ["0.00", "0.00"]),
        ("0.01", "EUR", ["0.00", "0.01"]),
        ("0.03", "EUR", ["0.00", "0.03"]),
        ("0.10", "EUR", ["0.02", "0.08"]),      // 0.015, up
        ("129.90", "EUR", ["19.49", "110.41"]), // 19.485, up
        ("999999999999.99", "EUR", ["150000000000.00", "849999999999.99"]),
        ("7", "JPY", ["1", "6"]),             // 1.05
        ("10", "JPY", ["2", "8"]),            // 1.5, up
        ("1.005", "KWD", ["0.151", "0.854"]), // 0.15075
        ("12.9", "EUR", ["1.94", "10.96"]),   // 1.935, up
    ];
    prices(env, json!({"type": "PERCENTAGE", "value": "15"}), &orders).await;
    prices(env, json!({"type": "PERCENTAGE", "value": "33.3333"}), &[("99.99", "EUR", ["33.33", "66.66"])])
        .await;
    prices(env, json!({"type": "PERCENTAGE", "value": "100"}), &[("99.99", "EUR", ["99.99", "0.00"])]).await;
}

async fn a_maximum_caps_the_discount_and_a_price_is_never_below_zero(env: &Environment) {
    let capped = json!({"type": "PERCENTAGE", "value": "50", "currency": "EUR", "maximum_discount": "20.00"});
    let orders = [
        ("39.98", "EUR", ["19.99", "19.99"]),
        ("40.02", "EUR", ["20.00", "20.02"]),
        ("1000.00", "EUR", ["20.00", "980.00"]),
    ];
    prices(env, capped, &orders).await;
    let fixed = json!({"type": "FIXED_AMOUNT", "value": "10.00", "currency": "EUR"});
    let orders = [
        ("25.00", "EUR", ["10.00", "15.00"]),
        ("10.00", "EUR", ["10.00", "0.00"]),
        ("3.50", "EUR", ["3.50", "0.00"]),
    ];
    prices(env, fixed, &orders).await;
}

async fn minimum_order_not_met_rejects_an_order_one_cent_too_small_after_currency_mismatch(
    env: &Environment,
) {
    let discount =
        json!({"type": "FIXED_AMOUNT", "value": "5.00", "currency": "EUR", "minimum_order": "50.00"});
    let coupon = env.stocked(1, rules(&json!({"discount": discount}))).await;
    let code = coupon.claim("ann").await;
    for (amount, currency, reason) in [
        ("49.99", "EUR", "minimum_order_not_met"),
        ("0.00", "EUR", "minimum_order_not_met"),
        ("50.00", "USD", "currency_mismatch"),
        ("1.00", "USD", "currency_mismatch"),
        ("9999", "JPY", "currency_mismatch"),
        ("9999.999", "KWD", "currency_mismatch"),
    ] {
        let validated = validate(env, &code, amount, currency).await.json();
        assert_eq!(
            (&validated["valid"], &validated["reason"]),
            (&json!(false), &json!(reason)),
            "{amount} {currency}"
        );
        let operation = Operation::redeem(&code, Order::new("order-1", amount, currency));
        assert_eq!(env.rejected("ann", operation).await, reason, "{amount} {currency}");
    }
    coupon.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    let accepted = env.accepted("ann", Operation::redeem(&code, Order::new("order-1", "50.00", "EUR"))).await;
    assert_eq!(accepted["redemption"]["final_price"], "45.00");
}

async fn a_validation_appends_no_request_and_changes_nothing(env: &Environment) {
    let coupon = env.stocked(2, rules(&json!({}))).await;
    let code = coupon.claim("ann").await;
    let requests =
        async || count_with_key(&records(&env.stack.endpoints().kafka, REQUESTS).await, &coupon.id);
    let before = requests().await;
    for _ in 0..20 {
        assert_eq!(validate(env, &code, "10.00", "EUR").await.json()["final_price"], "9.00");
        assert_eq!(validate(env, "NEVERMADE", "10.00", "EUR").await.json()["reason"], "code_unknown");
    }
    assert_eq!(requests().await, before, "a validation is no request");
    coupon.expect("ann", &code, ("CLAIMED", "valid", [1, 1, 0, 0, 0])).await;
}

e2e::tests![
    fault_37_an_invalid_amount_is_rejected_by_field_and_the_code_is_unchanged,
    fault_37_an_invalid_currency_or_order_is_rejected_by_field,
    a_percentage_is_exact_and_rounded_half_up_to_the_minor_unit,
    a_maximum_caps_the_discount_and_a_price_is_never_below_zero,
    minimum_order_not_met_rejects_an_order_one_cent_too_small_after_currency_mismatch,
    a_validation_appends_no_request_and_changes_nothing,
];
