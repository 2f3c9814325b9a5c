use super::*;
use proptest::prelude::*;

fn amount(text: &str) -> Decimal {
    parse(text).expect("an amount")
}

fn percent(rate: &str) -> Discount {
    Discount { rate: Rate::Percentage(amount(rate)), ..Discount::default() }
}

fn fixed(value: &str, currency: &str) -> Discount {
    let rate = Rate::Fixed(amount(value));
    Discount { rate, currency: Some(currency.into()), ..Discount::default() }
}

fn price(discount: &Discount, of: &str, currency: &str) -> Result<(String, String), Reason> {
    let price = discount.price(amount(of), currency)?;
    Ok((price.discount.to_string(), price.final_price.to_string()))
}

fn ok(discount: &str, final_price: &str) -> Result<(String, String), Reason> {
    Ok((discount.to_owned(), final_price.to_owned()))
}

#[test]
fn a_percentage_is_rounded_half_up_to_the_minor_unit_of_the_currency() {
    assert_eq!(price(&percent("10.00"), "129.90", "EUR"), ok("12.99", "116.91"));
    assert_eq!(price(&percent("10"), "0.05", "EUR"), ok("0.01", "0.04"), "half a cent is rounded up");
    assert_eq!(price(&percent("10"), "0.04", "EUR"), ok("0.00", "0.04"));
    assert_eq!(price(&percent("12.5"), "1004", "JPY"), ok("126", "878"), "125.5 yen");
    assert_eq!(price(&percent("33.3333"), "10", "KWD"), ok("3.333", "6.667"));
    assert_eq!(price(&percent("100"), "7", "EUR"), ok("7.00", "0.00"));
}

#[test]
fn a_final_price_is_never_below_zero() {
    assert_eq!(price(&fixed("10.00", "EUR"), "7.5", "EUR"), ok("7.50", "0.00"));
    assert_eq!(price(&fixed("10.00", "EUR"), "0", "EUR"), ok("0.00", "0.00"));
    assert_eq!(price(&fixed("10.00", "EUR"), "12.00", "EUR"), ok("10.00", "2.00"));
}

#[test]
fn a_maximum_limits_the_discount_and_a_minimum_rejects_the_order() {
    let discount = Discount {
        maximum_discount: Some(amount("5.005")),
        minimum_order: Some(amount("20.00")),
        currency: Some("EUR".into()),
        ..percent("50")
    };
    assert_eq!(price(&discount, "20", "EUR"), ok("5.00", "15.00"));
    assert_eq!(price(&discount, "19.99", "EUR"), Err(Reason::MinimumOrderNotMet));
}

#[test]
fn another_currency_is_rejected_before_the_minimum_is_checked() {
    let discount = Discount { minimum_order: Some(amount("20")), ..fixed("5", "EUR") };
    assert_eq!(price(&discount, "1", "USD"), Err(Reason::CurrencyMismatch));
    assert_eq!(price(&percent("5"), "1", "USD"), ok("0.05", "0.95"), "a percentage applies to any currency");
}

#[test]
fn an_amount_with_too_many_decimal_places_for_its_currency_is_unprocessable() {
    assert_eq!(price(&percent("5"), "1.001", "EUR"), Err(Reason::Unprocessable));
    assert_eq!(price(&percent("5"), "1.5", "JPY"), Err(Reason::Unprocessable));
    assert_eq!(price(&percent("5"), "1.50", "euro"), Err(Reason::Unprocessable));
    assert_eq!(percent("5").price(Decimal::NEGATIVE_ONE, "EUR"), Err(Reason::Unprocessable));
    assert_eq!(price(&percent("5"), "1.500", "EUR"), ok("0.08", "1.42"), "trailing zeros do not count");
}

#[test]
fn only_plain_decimal_numbers_are_amounts() {
    assert_eq!(parse("100"), Some(Decimal::ONE_HUNDRED));
    assert_eq!(parse("10.5"), parse("10.5000"));
    assert_eq!(parse("0.00"), Some(Decimal::ZERO));
    assert!(parse("999999999999.9999").is_some());
    for wrong in [
        "",
        ".",
        "1.",
        ".5",
        "-1",
        "+1",
        "1e3",
        "NaN",
        "inf",
        "1,5",
        " 1",
        "1.00001",
        "1000000000000",
        "١",
        "1.0.0",
        "1_000",
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn discount_and_final_price_add_up_to_the_amount(
        minor in 0_i64..1_000_000_000_000, rate in 1_i64..=1_000_000, most in proptest::option::of(1_i64..1_000_000)
    ) {
        let discount = Discount {
            rate: Rate::Percentage(Decimal::new(rate, 4)),
            maximum_discount: most.map(|most| Decimal::new(most, 2)),
            ..Discount::default()
        };
        let whole = Decimal::new(minor, 2);
        let price = discount.price(whole, "EUR").expect("an amount");
        prop_assert_eq!(price.discount + price.final_price, whole);
        prop_assert!(price.discount >= Decimal::ZERO && price.final_price >= Decimal::ZERO);
        prop_assert!(most.is_none_or(|most| price.discount <= Decimal::new(most, 2)));
        // The same in integers: the exact discount in millionths of a cent, rounded half up.
        let exact = i128::from(minor) * i128::from(rate);
        let rounded = (exact + 500_000) / 1_000_000;
        let limited = most.map_or(rounded, |most| rounded.min(i128::from(most))).min(i128::from(minor));
        prop_assert_eq!(price.discount, Decimal::from_i128_with_scale(limited, 2));
    }
}
