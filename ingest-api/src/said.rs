//! What a request says beyond who asks for what: the fields of its record, and the one canonical form of its body
//! that the digest of an Idempotency-Key's body is made from.

use std::fmt::Write as _;

use schemas::CouponRequest;

/// What a request says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Named claims, and everything done to a code: the code, normalised.
    pub(crate) code: Option<String>,
    /// lock, redeem: the order.
    pub(crate) order_id: Option<String>,
    /// redeem: its amount, with the digits of its currency.
    pub(crate) order_amount: Option<String>,
    /// redeem: its currency.
    pub(crate) currency: Option<String>,
    /// rollback: the redemption.
    pub(crate) redemption_id: Option<String>,
}

impl Said {
    /// The same for two bodies only if they say the same: names and lengths keep the fields apart.
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
                // Writing to a String does not fail.
                write!(form, "{name}:{}:{value};", value.len()).unwrap_or_default();
            }
        }
        form
    }

    /// A record that says it, and nothing else yet.
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
    fn no_two_bodies_have_one_form() {
        let text = |text: &str| Some(text.to_owned());
        let all = [
            Said::default(),
            Said { code: text("A"), ..Said::default() },
            Said { order_id: text("A"), ..Said::default() },
            Said { order_id: text(""), ..Said::default() },
            Said {
                order_id: text("A"),
                order_amount: text("1.00"),
                currency: text("EUR"),
                ..Said::default()
            },
            Said {
                order_id: text("A"),
                order_amount: text("1.00"),
                currency: text("USD"),
                ..Said::default()
            },
            Said { order_id: text("A;order_amount:4:1.00;currency:3:EUR"), ..Said::default() },
            Said { redemption_id: text("A"), ..Said::default() },
            Said { code: text("A"), redemption_id: text("A"), ..Said::default() },
        ];
        let forms: HashSet<_> = all.iter().map(Said::canonical).collect();
        assert_eq!(forms.len(), all.len(), "{forms:?}");
    }
}
