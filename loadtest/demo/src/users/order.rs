//! The orders of a sale: one for each user, with an amount of its own.

use stampede_client::Order;

const CURRENCY: &str = "EUR";
const MIN_CENTS: u64 = 1_500;
/// A prime, far from 1: neighbouring users have very different amounts.
const STEP_CENTS: u64 = 7_919;
const RANGE_CENTS: u64 = 18_500;

/// A user's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOrder {
    /// Its id.
    pub id: String,
    /// The amount before the discount: an exact decimal between 15.00 and 199.99.
    pub amount: String,
}

impl UserOrder {
    /// The order of user number `n`.
    #[must_use]
    pub fn new(n: u64) -> Self {
        let cents = MIN_CENTS + n.wrapping_mul(STEP_CENTS) % RANGE_CENTS;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        Self { id: format!("order-{n:06}"), amount }
    }

    /// As the client sends it.
    #[must_use]
    pub fn as_order(&self) -> Order<'_> {
        Order::new(&self.id, &self.amount, CURRENCY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_two_decimal_places() {
        assert_eq!(UserOrder::new(1).amount, "94.19");
        for n in 0..20_000 {
            let (euros, cents) =
                UserOrder::new(n).amount.split_once('.').map(|(e, c)| (e.len(), c.len())).unwrap();
            assert!((2..=3).contains(&euros) && cents == 2, "{n}");
        }
    }
}
