//! What the users of a sale buy: an order each, with an amount of its own.

const CURRENCY: &str = "EUR";
const LEAST_CENTS: u64 = 1_500;
/// A prime, and far more than one: neighbours buy very different things.
const STEP_CENTS: u64 = 7_919;
const RANGE_CENTS: u64 = 18_500;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// What it comes to before the discount, an exact decimal.
    pub amount: String,
    /// ISO 4217.
    pub currency: &'static str,
}

impl Order {
    /// The order of user number `n`: between 15.00 and 199.99.
    #[must_use]
    pub fn of(n: u64) -> Self {
        let cents = LEAST_CENTS + n.wrapping_mul(STEP_CENTS) % RANGE_CENTS;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        Self { id: format!("order-{n:06}"), amount, currency: CURRENCY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_have_amounts_with_two_digits_behind_the_point() {
        assert_eq!(Order::of(1).amount, "94.19");
        for n in 0..20_000 {
            let (euros, cents) =
                Order::of(n).amount.split_once('.').map(|(e, c)| (e.len(), c.len())).unwrap();
            assert!((2..=3).contains(&euros) && cents == 2, "{n}");
        }
    }
}
