//! An order for tests in which its amount does not matter.

use stampede_client::{Operation, Order};

/// The amount of the order.
pub const AMOUNT: &str = "100.00";
/// The currency of the order.
pub const CURRENCY: &str = "EUR";

/// Redeem a code with an order of 100.00 EUR.
#[must_use]
pub const fn redeem<'a>(code: &'a str, order_id: &'a str) -> Operation<'a> {
    Operation::redeem(code, Order::new(order_id, AMOUNT, CURRENCY))
}
