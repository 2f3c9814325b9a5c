//! The requests that change a code, and their form on the wire.

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::transport::path_segment;

/// One request to change a code: claim, lock, unlock, return, redeem, roll back or revoke.
///
/// Each becomes one record in the log and gets exactly one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// Claim any available code of a coupon.
    Claim {
        /// The coupon.
        coupon_id: &'a str,
    },
    /// Claim one named code of a coupon.
    ClaimCode {
        /// The coupon.
        coupon_id: &'a str,
        /// The code.
        code: &'a str,
    },
    /// Lock a claimed code for a checkout.
    Lock {
        /// The code.
        code: &'a str,
        /// The order that may redeem the code while the lock lasts; any order if absent.
        order_id: Option<&'a str>,
    },
    /// Release a lock.
    Unlock {
        /// The code.
        code: &'a str,
    },
    /// Return a claimed code to stock.
    Return {
        /// The code.
        code: &'a str,
    },
    /// Redeem a code with an order.
    Redeem {
        /// The code.
        code: &'a str,
        /// The order that it pays for.
        order: Order<'a>,
    },
    /// Roll back a redemption: the order was cancelled. Requires the role `service` or `admin`.
    RollBack {
        /// The redemption.
        redemption_id: &'a str,
    },
    /// Revoke a code. Requires the role `admin`.
    Revoke {
        /// The code.
        code: &'a str,
    },
}

/// The order that a code is redeemed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// Its id.
    pub id: &'a str,
    /// The amount before the discount: a decimal string, no finer than the currency's smallest unit.
    pub amount: &'a str,
    /// ISO 4217.
    pub currency: &'a str,
}

impl<'a> Order<'a> {
    /// An order of `amount` in `currency`.
    #[must_use]
    pub const fn new(id: &'a str, amount: &'a str, currency: &'a str) -> Self {
        Self { id, amount, currency }
    }
}

impl<'a> Operation<'a> {
    /// Claim any available code of a coupon.
    #[must_use]
    pub const fn claim(coupon_id: &'a str) -> Self {
        Self::Claim { coupon_id }
    }

    /// Claim one named code of a coupon.
    #[must_use]
    pub const fn claim_code(coupon_id: &'a str, code: &'a str) -> Self {
        Self::ClaimCode { coupon_id, code }
    }

    /// Lock a claimed code; any order may redeem it.
    #[must_use]
    pub const fn lock(code: &'a str) -> Self {
        Self::Lock { code, order_id: None }
    }

    /// Lock a claimed code for one order.
    #[must_use]
    pub const fn lock_for(code: &'a str, order_id: &'a str) -> Self {
        Self::Lock { code, order_id: Some(order_id) }
    }

    /// Release a lock.
    #[must_use]
    pub const fn unlock(code: &'a str) -> Self {
        Self::Unlock { code }
    }

    /// Return a claimed code to stock.
    #[must_use]
    pub const fn return_code(code: &'a str) -> Self {
        Self::Return { code }
    }

    /// Redeem a code with an order.
    #[must_use]
    pub const fn redeem(code: &'a str, order: Order<'a>) -> Self {
        Self::Redeem { code, order }
    }

    /// Roll back a redemption.
    #[must_use]
    pub const fn roll_back(redemption_id: &'a str) -> Self {
        Self::RollBack { redemption_id }
    }

    /// Revoke a code.
    #[must_use]
    pub const fn revoke(code: &'a str) -> Self {
        Self::Revoke { code }
    }

    /// The `kind` of the outcome: `claim`, `lock`, `unlock`, `return`, `redeem`, `rollback` or `revoke`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Claim { .. } | Self::ClaimCode { .. } => "claim",
            Self::Lock { .. } => "lock",
            Self::Unlock { .. } => "unlock",
            Self::Return { .. } => "return",
            Self::Redeem { .. } => "redeem",
            Self::RollBack { .. } => "rollback",
            Self::Revoke { .. } => "revoke",
        }
    }

    /// The coupon, code or redemption in the path.
    #[must_use]
    pub const fn target(&self) -> &'a str {
        match self {
            Self::Claim { coupon_id } | Self::ClaimCode { coupon_id, .. } => coupon_id,
            Self::Lock { code, .. }
            | Self::Unlock { code }
            | Self::Return { code }
            | Self::Redeem { code, .. }
            | Self::Revoke { code } => code,
            Self::RollBack { redemption_id } => redemption_id,
        }
    }

    /// The least privileged role that may send it: `user`, `service` or `admin`.
    #[must_use]
    pub const fn role(&self) -> &'static str {
        match self {
            Self::RollBack { .. } => "service",
            Self::Revoke { .. } => "admin",
            _ => "user",
        }
    }

    /// The HTTP method.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Claim { .. } | Self::ClaimCode { .. } | Self::Lock { .. } | Self::Redeem { .. } => {
                Method::POST
            }
            Self::Unlock { .. } | Self::Return { .. } | Self::RollBack { .. } | Self::Revoke { .. } => {
                Method::DELETE
            }
        }
    }

    /// The path, without parameters. Ids and codes are percent-encoded.
    #[must_use]
    pub fn path(&self) -> String {
        let target = path_segment(self.target());
        match self {
            Self::Claim { .. } | Self::ClaimCode { .. } => format!("/v1/coupons/{target}/claims"),
            Self::Lock { .. } | Self::Unlock { .. } => format!("/v1/codes/{target}/lock"),
            Self::Return { .. } => format!("/v1/codes/{target}/claim"),
            Self::Redeem { .. } => format!("/v1/codes/{target}/redemptions"),
            Self::RollBack { .. } => format!("/v1/redemptions/{target}"),
            Self::Revoke { .. } => format!("/v1/codes/{target}"),
        }
    }

    /// The JSON body; `None` for a DELETE.
    #[must_use]
    pub fn body(&self) -> Option<Value> {
        match self {
            Self::Claim { .. } | Self::Lock { order_id: None, .. } => Some(Value::Object(Map::new())),
            Self::ClaimCode { code, .. } => Some(json!({"code": code})),
            Self::Lock { order_id: Some(order_id), .. } => Some(json!({"order_id": order_id})),
            Self::Redeem { order: Order { id, amount, currency }, .. } => {
                Some(json!({"order_id": id, "order_amount": amount, "currency": currency}))
            }
            Self::Unlock { .. } | Self::Return { .. } | Self::RollBack { .. } | Self::Revoke { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_the_method_path_and_body_of_the_interface() {
        let order = Order::new("o-1", "59.90", "EUR");
        let pay = json!({"order_id": "o-1", "order_amount": "59.90", "currency": "EUR"});
        let expected = [
            (Operation::claim("spring"), "POST /v1/coupons/spring/claims", Some(json!({}))),
            (
                Operation::claim_code("spring", "C"),
                "POST /v1/coupons/spring/claims",
                Some(json!({"code": "C"})),
            ),
            (Operation::lock("C"), "POST /v1/codes/C/lock", Some(json!({}))),
            (Operation::lock_for("C", "o-1"), "POST /v1/codes/C/lock", Some(json!({"order_id": "o-1"}))),
            (Operation::unlock("C"), "DELETE /v1/codes/C/lock", None),
            (Operation::return_code("C"), "DELETE /v1/codes/C/claim", None),
            (Operation::redeem("C", order), "POST /v1/codes/C/redemptions", Some(pay)),
            (Operation::roll_back("r-1"), "DELETE /v1/redemptions/r-1", None),
            (Operation::revoke("C"), "DELETE /v1/codes/C", None),
        ];
        for (operation, line, body) in expected {
            assert_eq!(format!("{} {}", operation.method(), operation.path()), line);
            assert_eq!(operation.body(), body, "{operation:?}");
        }
    }

    #[test]
    fn a_code_is_one_segment_of_the_path_whatever_characters_it_has() {
        assert_eq!(Operation::unlock("A B/C?ü").path(), "/v1/codes/A%20B%2FC%3F%C3%BC/lock");
    }
}
