//! The operations of the API, and their HTTP requests.

use hyper::Method;
use serde_json::{Value, json};

/// Of orders that are not about money.
pub const AMOUNT: &str = "100.00";
/// Of the same orders.
pub const CURRENCY: &str = "EUR";

/// An operation.
#[derive(Clone, Copy, Debug)]
pub enum RawOperation<'a> {
    /// Any code of a coupon.
    Claim(&'a str),
    /// This code of a coupon.
    ClaimNamed(&'a str, &'a str),
    /// A code, for a checkout.
    Lock(&'a str),
    /// With an order.
    LockFor(&'a str, &'a str),
    /// A code.
    Unlock(&'a str),
    /// A code.
    Return(&'a str),
    /// With an order.
    Redeem(&'a str, &'a str),
    /// With an order of this amount in this currency.
    Pay(&'a str, &'a str, [&'a str; 2]),
    /// A redemption.
    RollBack(&'a str),
    /// A code.
    Revoke(&'a str),
}

impl<'a> RawOperation<'a> {
    /// The kind of request that it makes.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Claim(_) | Self::ClaimNamed(..) => "claim",
            Self::Lock(_) | Self::LockFor(..) => "lock",
            Self::Unlock(_) => "unlock",
            Self::Return(_) => "return",
            Self::Redeem(..) | Self::Pay(..) => "redeem",
            Self::RollBack(_) => "rollback",
            Self::Revoke(_) => "revoke",
        }
    }

    /// The coupon, code or redemption in its path.
    #[must_use]
    pub const fn target(&self) -> &'a str {
        match self {
            Self::Claim(target)
            | Self::ClaimNamed(target, _)
            | Self::Lock(target)
            | Self::LockFor(target, _)
            | Self::Unlock(target)
            | Self::Return(target)
            | Self::Redeem(target, _)
            | Self::Pay(target, ..)
            | Self::RollBack(target)
            | Self::Revoke(target) => target,
        }
    }

    /// The role that it requires.
    #[must_use]
    pub const fn role(&self) -> &'static str {
        match self {
            Self::RollBack(_) => "service",
            Self::Revoke(_) => "admin",
            _ => "user",
        }
    }

    /// Method, path and body.
    #[must_use]
    pub fn request(&self) -> (Method, String, Option<Value>) {
        let target = self.target();
        let code = |what: &str| format!("/v1/codes/{target}{what}");
        let paying = |order: &str, [amount, currency]: [&str; 2]| {
            let body = json!({"order_id": order, "order_amount": amount, "currency": currency});
            (Method::POST, code("/redemptions"), Some(body))
        };
        match *self {
            Self::Claim(_) => (Method::POST, format!("/v1/coupons/{target}/claims"), Some(json!({}))),
            Self::ClaimNamed(_, code) => {
                (Method::POST, format!("/v1/coupons/{target}/claims"), Some(json!({"code": code})))
            }
            Self::Lock(_) => (Method::POST, code("/lock"), Some(json!({}))),
            Self::LockFor(_, order) => (Method::POST, code("/lock"), Some(json!({"order_id": order}))),
            Self::Unlock(_) => (Method::DELETE, code("/lock"), None),
            Self::Return(_) => (Method::DELETE, code("/claim"), None),
            Self::Redeem(_, order) => paying(order, [AMOUNT, CURRENCY]),
            Self::Pay(_, order, money) => paying(order, money),
            Self::RollBack(_) => (Method::DELETE, format!("/v1/redemptions/{target}"), None),
            Self::Revoke(_) => (Method::DELETE, code(""), None),
        }
    }
}
