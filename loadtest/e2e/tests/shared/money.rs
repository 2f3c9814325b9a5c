//! Orders: every amount and currency at its edges, what a code takes off, and that a validation says the same before.

use coupon_core::money::minor_unit;
use serde_json::{Value, json};

use crate::support::sale::rules;
use crate::support::{Act, Deed, Field, Kind, Reply, Sale};

/// A redeem with a body of this test's own.
async fn redeem(field: &Field, code: &str, body: &Value) -> Reply {
    let url = field.url(0, &format!("/v1/codes/{code}/redemptions?wait=10"));
    field.send(field.http.post(url).bearer_auth(field.token("ann")).json(body)).await.unwrap()
}

async fn validate(field: &Field, code: &str, amount: &str, currency: &str) -> Reply {
    let url = field.url(0, &format!("/v1/codes/{code}/validation"));
    let query = [("order_amount", amount), ("currency", currency)];
    field.send(field.http.get(url).query(&query).bearer_auth(field.token("ann"))).await.unwrap()
}

/// 422, and the field at fault is named.
fn expect_refused(reply: &Reply, field: &str, what: &Value) {
    assert_eq!(reply.status, 422, "{what}: {}", reply.body);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {}", reply.body);
    assert!(reply.body.contains(&format!("\"{field}\"")), "{what}: {}", reply.body);
}

#[tokio::test]
async fn fault_37_an_amount_that_is_none_is_refused_by_name_and_the_code_is_as_it_was() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let no_text = [
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
    let no_amount = [
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
    let too_fine = ["0.001", "129.999", "1.0001"];
    for amount in no_text.into_iter().chain(no_amount.into_iter().chain(too_fine).map(|text| json!(text))) {
        let body = json!({"order_id": "order-1", "order_amount": amount, "currency": "EUR"});
        expect_refused(&redeem(&field, &code, &body).await, "order_amount", &body);
        if let Some(text) = amount.as_str() {
            let said = validate(&field, &code, text, "EUR").await;
            assert_eq!(said.status, 422, "{text:?}: {}", said.body);
        }
    }
    let missing = json!({"order_id": "order-1", "currency": "EUR"});
    expect_refused(&redeem(&field, &code, &missing).await, "order_amount", &missing);
    let endless = json!({"order_id": "order-1", "order_amount": "9".repeat(60_000), "currency": "EUR"});
    expect_refused(&redeem(&field, &code, &endless).await, "order_amount", &json!("endless"));
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    field.leave().await;
}

#[tokio::test]
async fn fault_37_a_currency_or_an_order_that_is_none_is_refused_by_name() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(1, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
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
        expect_refused(&redeem(&field, &code, &body).await, "currency", &body);
    }
    for order in [json!(""), json!("a\nb"), json!("a\u{0}"), json!("x".repeat(129)), json!(5), json!(null)] {
        let body = with("order_id", order);
        expect_refused(&redeem(&field, &code, &body).await, "order_id", &body);
    }
    let odd = with("discount", json!("100.00"));
    expect_refused(&redeem(&field, &code, &odd).await, "discount", &odd);
    // Every fault at once.
    let worst = redeem(&field, &code, &json!({"order_id": "", "order_amount": "-1", "currency": "x"})).await;
    for name in ["order_id", "order_amount", "currency"] {
        expect_refused(&worst, name, &json!("everything"));
    }
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    let longest = with("order_id", json!("x".repeat(128)));
    assert_eq!(redeem(&field, &code, &longest).await.json()["status"], "accepted");
    field.leave().await;
}

/// Redeems one order after another with the codes of one coupon: what was taken off, what is left to pay, and that a
/// validation said so before.
async fn prices(field: &Field, discount: Value, orders: &[(&str, &str, [&str; 2])]) {
    let coupon = field.stocked(orders.len() as u64, rules(&json!({"discount": discount}))).await;
    let sale = Sale::of(field, &coupon);
    for (n, (amount, currency, wanted)) in orders.iter().enumerate() {
        let code = sale.claim("ann").await;
        let said = validate(field, &code, amount, currency).await.json();
        let order = format!("order-{n}");
        let outcome = field.act(Act::of("ann", Deed::Pay(&code, &order, [amount, currency]))).await.json();
        let what = format!("{amount} {currency} less {discount}");
        let redemption = &outcome["redemption"];
        let found = (redemption["discount"].as_str(), redemption["final_price"].as_str());
        assert_eq!(found, (Some(wanted[0]), Some(wanted[1])), "{what}: {outcome}");
        for name in ["order_amount", "discount", "final_price", "currency"] {
            assert_eq!(said[name], redemption[name], "{name} of {what}, as a validation said it");
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
        // What is shown later is what was stored, and it is the same to the digit.
        let id = outcome["request_id"].as_str().unwrap();
        let shown = field.get(1, &format!("/v1/requests/{id}"), &field.token("ann")).await.json();
        assert_eq!(shown, outcome);
    }
}

#[tokio::test]
async fn a_percentage_is_exact_and_rounded_half_up_to_the_minor_unit() {
    let field = Field::enter(Kind::Calm).await;
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
    prices(&field, json!({"type": "PERCENTAGE", "value": "15"}), &orders).await;
    prices(
        &field,
        json!({"type": "PERCENTAGE", "value": "33.3333"}),
        &[("99.99", "EUR", ["33.33", "66.66"])],
    )
    .await;
    prices(&field, json!({"type": "PERCENTAGE", "value": "100"}), &[("99.99", "EUR", ["99.99", "0.00"])])
        .await;
    field.leave().await;
}

#[tokio::test]
async fn a_maximum_caps_the_discount_and_a_price_is_never_below_zero() {
    let field = Field::enter(Kind::Calm).await;
    let capped = json!({"type": "PERCENTAGE", "value": "50", "currency": "EUR", "maximum_discount": "20.00"});
    let orders = [
        ("39.98", "EUR", ["19.99", "19.99"]),
        ("40.02", "EUR", ["20.00", "20.02"]),
        ("1000.00", "EUR", ["20.00", "980.00"]),
    ];
    prices(&field, capped, &orders).await;
    let fixed = json!({"type": "FIXED_AMOUNT", "value": "10.00", "currency": "EUR"});
    let orders = [
        ("25.00", "EUR", ["10.00", "15.00"]),
        ("10.00", "EUR", ["10.00", "0.00"]),
        ("3.50", "EUR", ["3.50", "0.00"]),
    ];
    prices(&field, fixed, &orders).await;
    field.leave().await;
}

#[tokio::test]
async fn minimum_order_not_met_is_told_of_an_order_a_cent_too_small_and_currency_mismatch_before_that() {
    let field = Field::enter(Kind::Calm).await;
    let discount =
        json!({"type": "FIXED_AMOUNT", "value": "5.00", "currency": "EUR", "minimum_order": "50.00"});
    let coupon = field.stocked(1, rules(&json!({"discount": discount}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    for (amount, currency, reason) in [
        ("49.99", "EUR", "minimum_order_not_met"),
        ("0.00", "EUR", "minimum_order_not_met"),
        ("50.00", "USD", "currency_mismatch"),
        ("1.00", "USD", "currency_mismatch"),
        ("9999", "JPY", "currency_mismatch"),
        ("9999.999", "KWD", "currency_mismatch"),
    ] {
        let said = validate(&field, &code, amount, currency).await.json();
        assert_eq!((&said["valid"], &said["reason"]), (&json!(false), &json!(reason)), "{amount} {currency}");
        let deed = Deed::Pay(&code, "order-1", [amount, currency]);
        assert_eq!(field.rejected("ann", deed).await, reason, "{amount} {currency}");
    }
    sale.expect("ann", &code, ("CLAIMED", "valid", [0, 1, 0, 0, 0])).await;
    let just = field.accepted("ann", Deed::Pay(&code, "order-1", ["50.00", "EUR"])).await;
    assert_eq!(just["redemption"]["final_price"], "45.00");
    field.leave().await;
}

#[tokio::test]
async fn a_validation_changes_nothing_however_often_it_is_asked_for() {
    let field = Field::enter(Kind::Calm).await;
    let coupon = field.stocked(2, rules(&json!({}))).await;
    let sale = Sale::of(&field, &coupon);
    let code = sale.claim("ann").await;
    let positions = async || {
        let sql = "select sum(next_offset)::bigint from stampede.partitions";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut field.postgres().await).await.unwrap()
    };
    field.checked().await;
    let before = positions().await;
    for _ in 0..20 {
        assert_eq!(validate(&field, &code, "10.00", "EUR").await.json()["final_price"], "9.00");
        assert_eq!(validate(&field, "NEVERMADE", "10.00", "EUR").await.json()["reason"], "code_unknown");
    }
    field.checked().await;
    assert_eq!(positions().await, before, "nothing was asked of the owner");
    sale.expect("ann", &code, ("CLAIMED", "valid", [1, 1, 0, 0, 0])).await;
    field.leave().await;
}
