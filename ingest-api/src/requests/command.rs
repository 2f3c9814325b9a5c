//! A command: a valid request of an authorised caller, before it has an id. Its payload has a canonical form, from
//! which the digest of an Idempotency-Key's body is made.

use std::fmt::Write as _;

use schemas::CouponRequest;

/// A valid request of an authorised caller.
pub(crate) struct Command<'a> {
    /// A word of [`schemas::kinds`].
    pub(crate) kind: &'static str,
    /// The user of the request.
    pub(crate) user: &'a str,
    /// The record's key: the coupon; for an unknown code or redemption its own text.
    pub(crate) coupon_id: &'a str,
    /// The coupon, code or redemption in the path, normalised.
    pub(crate) target: &'a str,
    /// The other fields of the record.
    pub(crate) payload: CommandPayload,
}

/// Everything that a request contains besides caller, user, kind and coupon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandPayload {
    /// Claims of a named code and requests about a code: the code, normalised.
    pub(crate) code: Option<String>,
    /// lock, redeem: the order.
    pub(crate) order_id: Option<String>,
    /// redeem: the order's amount, with the decimal places of its currency.
    pub(crate) order_amount: Option<String>,
    /// redeem: the order's currency.
    pub(crate) currency: Option<String>,
    /// rollback: the redemption.
    pub(crate) redemption_id: Option<String>,
}

impl CommandPayload {
    /// The canonical form: equal for two bodies only if their values are equal, because names and lengths delimit the
    /// fields.
    pub(crate) fn canonical(&self) -> String {
        let Self { code, order_id, order_amount, currency, redemption_id } = self;
        let fields = [
            ("code", code),
            ("order_id", order_id),
            ("order_amount", order_amount),
            ("currency", currency),
            ("redemption_id", redemption_id),
        ];
        let mut form = String::new();
        for (name, value) in fields {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                write!(form, "{name}:{}:{value};", value.len()).unwrap_or_default();
            }
        }
        form
    }

    /// A record with these fields only.
    pub(crate) fn record(self) -> CouponRequest {
        let Self { code, order_id, order_amount, currency, redemption_id } = self;
        CouponRequest { code, order_id, order_amount, currency, redemption_id, ..CouponRequest::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn different_bodies_have_different_canonical_forms() {
        let text = |text: &str| Some(text.to_owned());
        let order = |currency: &str| CommandPayload {
            order_id: text("A"),
            order_amount: text("1.00"),
            currency: text(currency),
            ..CommandPayload::default()
        };
        let all = [
            CommandPayload::default(),
            CommandPayload { code: text("A"), ..CommandPayload::default() },
            CommandPayload { order_id: text("A"), ..CommandPayload::default() },
            CommandPayload { order_id: text(""), ..CommandPayload::default() },
            order("EUR"),
            order("USD"),
            CommandPayload {
                order_id: text("A;order_amount:4:1.00;currency:3:EUR"),
                ..CommandPayload::default()
            },
            CommandPayload { redemption_id: text("A"), ..CommandPayload::default() },
            CommandPayload { code: text("A"), redemption_id: text("A"), ..CommandPayload::default() },
        ];
        let forms: HashSet<_> = all.iter().map(CommandPayload::canonical).collect();
        assert_eq!(forms.len(), all.len(), "{forms:?}");
    }
}
