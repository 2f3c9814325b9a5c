//! `GET /v1/codes/{code}/validation`: whether a user could redeem a code now, and what it would take off. Reads
//! Postgres and changes nothing.
//!
//! The checks, in their order, are those of a redeem: known, whose, withdrawn, window, redeemed, lock, currency,
//! minimum, limits. A deadline that has passed counts as lapsed, even before its partition's owner has written it. It
//! is an answer for this moment: only a redeem decides.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use coupon_core::codes::CodeKey;
use coupon_core::coupon::{Definition, Status};
use coupon_core::ids::Millis;
use coupon_core::money;
use coupon_core::words::{ClaimState, Reason};
use serde::Serialize;
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};

use crate::accept::json;
use crate::app::App;
use crate::asked::Asked;
use crate::coupon_body::Described;
use crate::extract::Parameters;
use crate::fields::Faults;
use crate::lookup::state_of;
use crate::openapi::{Refusals, UserParameter};
use crate::orders::{amount_of, check_currency};
use crate::problem::Problem;
use crate::questions::Questions;

/// One snapshot of everything that a redeem of this code by this user depends on. Redemptions are counted up to their
/// limit and no further.
const FACTS: &str = "
    select x.code, p.coupon_id, p.definition, p.status, p.starts_at_ms, p.expires_at_ms, p.requires_lock,
           p.redemptions_per_code, p.redemptions_per_user, p.redemptions_total,
           (extract(epoch from now()) * 1000)::bigint as now_ms,
           coalesce(m.uses, 0) as uses, coalesce(m.revoked, false) as revoked, s.redemptions,
           c.user_id = $2 as is_own, c.state, c.hold_until_ms, c.lock_until_ms,
           exists (select from claims g
                    where hashtextextended(g.user_id, 0) = hashtextextended($2, 0)
                      and g.user_id = $2 and g.coupon_no = x.coupon_no and g.number = x.number
                      and g.state + 0 = 4 and g.lapsed_ms is not null) as has_lapsed,
           case when p.redemptions_per_user is null then 0 else
               (select count(*) from (select from redemptions r
                                       where hashtextextended(r.user_id, 0) = hashtextextended($2, 0)
                                         and r.user_id = $2 and r.coupon_no = x.coupon_no
                                         and r.rolled_back_ms is null
                                       limit p.redemptions_per_user) r) end as own_redemptions
      from (select k.code, l.coupon_no, l.base + k.idx as number
              from codes k join loads l on l.load_id = k.load_id and l.state = 'applied'
             where k.code_key = $1) x
      join coupons p on p.coupon_no = x.coupon_no
      join stock s on s.coupon_no = x.coupon_no
      left join lateral (select * from code_marks m
                          where m.coupon_no = x.coupon_no and m.number = x.number offset 0) m on true
      left join lateral (select * from claims c
                          where c.coupon_no = x.coupon_no and c.number >= x.number and c.state <> 4
                          order by c.number limit 1) c on c.number = x.number";

#[derive(Clone, Debug, sqlx::FromRow)]
struct Facts {
    code: String,
    coupon_id: String,
    definition: Json<Described>,
    status: String,
    starts_at_ms: Option<i64>,
    expires_at_ms: Option<i64>,
    requires_lock: bool,
    redemptions_per_code: Option<i32>,
    redemptions_per_user: Option<i32>,
    redemptions_total: Option<i64>,
    now_ms: i64,
    /// Live redemptions of a code that is shared by many.
    uses: i64,
    revoked: bool,
    /// Live redemptions of all the coupon's codes.
    redemptions: i64,
    /// Of the live claim, if there is one.
    is_own: Option<bool>,
    state: Option<i16>,
    hold_until_ms: Option<i64>,
    lock_until_ms: Option<i64>,
    /// Whether a claim of this code by this user has lapsed.
    has_lapsed: bool,
    /// Live redemptions of this user, up to their limit.
    own_redemptions: i64,
}

/// A live claim, after every deadline that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    is_own: bool,
    state: ClaimState,
    lock_has_lapsed: bool,
}

impl Facts {
    fn has_passed(&self, deadline_ms: Option<i64>) -> bool {
        deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.now_ms)
    }

    fn standing(&self) -> Option<Standing> {
        let (is_own, stored) = (self.is_own?, self.state.and_then(state_of)?);
        let lock_is_over = self.has_passed(self.lock_until_ms);
        let state = match stored {
            ClaimState::Locked if lock_is_over => ClaimState::Claimed,
            other => other,
        };
        let returned = state == ClaimState::Claimed && self.has_passed(self.hold_until_ms);
        let state = if returned { ClaimState::Returned } else { state };
        Some(Standing { is_own, state, lock_has_lapsed: lock_is_over && state == ClaimState::Claimed })
    }

    fn is_shared(&self) -> bool {
        self.redemptions_per_code != Some(1)
    }

    /// Whose the code is, if it has to be anybody's.
    fn ownership(&self) -> Result<Option<Standing>, Reason> {
        if self.is_shared() {
            return Ok(None);
        }
        let standing = self.standing();
        let has_lapsed = standing.is_some_and(|claim| claim.is_own && claim.state == ClaimState::Returned);
        match standing.filter(|claim| claim.state != ClaimState::Returned) {
            Some(own) if own.is_own => Ok(Some(own)),
            _ if has_lapsed || self.has_lapsed => Err(Reason::HoldLapsed),
            // Whose code it is, is nobody else's business.
            Some(_) => Err(Reason::CodeUnknown),
            None if self.revoked => Err(Reason::CodeRevoked),
            None => Err(Reason::NotClaimed),
        }
    }

    fn window(&self) -> Result<(), Reason> {
        let definition = Definition {
            status: Status::parse(&self.status).unwrap_or(Status::Ended),
            starts: self.starts_at_ms.map(Millis),
            expires: self.expires_at_ms.map(Millis),
            ..Definition::default()
        };
        definition.open_at(Millis(self.now_ms)).map_err(|reason| match reason {
            Reason::Expired => Reason::CodeExpired,
            other => other,
        })
    }

    /// Everything that does not depend on the order.
    fn usable(&self) -> Result<(), Reason> {
        let claim = self.ownership()?;
        let is_in = |state| claim.is_some_and(|claim| claim.state == state);
        if self.revoked || is_in(ClaimState::Revoked) {
            return Err(Reason::CodeRevoked);
        }
        self.window()?;
        if is_in(ClaimState::Redeemed) {
            return Err(Reason::AlreadyRedeemed);
        }
        if self.requires_lock && !self.is_shared() && !is_in(ClaimState::Locked) {
            let lapsed = claim.is_some_and(|claim| claim.lock_has_lapsed);
            return Err(if lapsed { Reason::LockLapsed } else { Reason::NotLocked });
        }
        Ok(())
    }

    fn limits(&self) -> Result<(), Reason> {
        let reached = |count: i64, limit: Option<i64>| limit.is_some_and(|limit| count >= limit);
        let of_code = self.is_shared() && reached(self.uses, self.redemptions_per_code.map(i64::from));
        let of_user = reached(self.own_redemptions, self.redemptions_per_user.map(i64::from));
        if of_code || of_user || reached(self.redemptions, self.redemptions_total) {
            return Err(Reason::UsageLimitReached);
        }
        Ok(())
    }
}

/// The order that the code would be redeemed with, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Order {
    amount: Option<String>,
    currency: Option<String>,
}

impl Order {
    fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        let amount = parameters.get("order_amount")?.map(str::to_owned);
        let currency = parameters.get("currency")?.map(str::to_owned);
        if let Some(currency) = &currency {
            check_currency(currency, &mut faults);
        }
        if let Some(amount) = &amount {
            amount_of(amount, currency.as_deref(), &mut faults);
        }
        faults.finish()?;
        Ok(Self { amount, currency })
    }

    /// What the order would come to; nothing is computed without an amount.
    fn price(&self, discount: &money::Discount) -> Result<Result<Option<Priced>, Reason>, Problem> {
        let Some(amount) = &self.amount else {
            let other =
                self.currency.as_deref().zip(discount.currency.as_deref()).is_some_and(|(a, b)| a != b);
            return Ok(if other { Err(Reason::CurrencyMismatch) } else { Ok(None) });
        };
        let required = || Problem::invalid_field("currency", "is required: this coupon is for any currency");
        let currency = self.currency.as_deref().or(discount.currency.as_deref()).ok_or_else(required)?;
        let mut faults = Faults::default();
        let amount = amount_of(amount, Some(currency), &mut faults);
        faults.finish()?;
        let (Some(order_amount), Some(exact)) = (amount.clone(), amount.as_deref().and_then(money::parse))
        else {
            return Err(Problem::internal());
        };
        Ok(discount.price(exact, currency).map(|price| {
            Some(Priced {
                order_amount,
                discount: price.discount.to_string(),
                final_price: price.final_price.to_string(),
                currency: currency.to_owned(),
            })
        }))
    }
}

/// What an order would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Priced {
    #[schema(example = "129.90")]
    order_amount: String,
    #[schema(example = "12.99")]
    discount: String,
    #[schema(example = "116.91")]
    final_price: String,
    #[schema(example = "EUR")]
    currency: String,
}

/// Whether a code could be redeemed now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Validation)]
pub(crate) struct ValidationView {
    valid: bool,
    /// Why not: the word that a redeem would be rejected with.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// As shown to people; normalised where it is unknown.
    code: String,
    /// Absent where the code is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon_id: Option<String>,
    #[serde(flatten)]
    priced: Option<Priced>,
}

impl ValidationView {
    /// One answer for a code that nobody knows and a code of somebody else.
    fn unknown(code: &CodeKey) -> Self {
        let code = code.as_str().to_owned();
        let reason = Some(Reason::CodeUnknown.as_str());
        Self { valid: false, reason, code, coupon_id: None, priced: None }
    }

    fn of(code: &CodeKey, facts: Facts, order: &Order) -> Result<Self, Problem> {
        let checked = match facts.usable() {
            Err(Reason::CodeUnknown) => return Ok(Self::unknown(code)),
            Err(reason) => Err(reason),
            Ok(()) => {
                let rules = facts.definition.0.discount.rules().ok_or_else(|| {
                    tracing::error!(coupon_id = facts.coupon_id, "the discount of a coupon cannot be read");
                    Problem::internal()
                })?;
                order.price(&rules)?.and_then(|priced| facts.limits().map(|()| priced))
            }
        };
        let (reason, priced) = match checked {
            Ok(priced) => (None, priced),
            Err(reason) => (Some(reason.as_str()), None),
        };
        Ok(Self {
            valid: reason.is_none(),
            reason,
            code: facts.code,
            coupon_id: Some(facts.coupon_id),
            priced,
        })
    }
}

/// The order that a code would be redeemed with.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters in the OpenAPI document; Order is what is read")]
pub(crate) struct OrderParameters {
    /// A decimal string; without it no discount is computed.
    #[param(example = "129.90")]
    order_amount: Option<String>,
    /// ISO 4217; the coupon's if absent, required with an amount if the coupon has none.
    #[param(example = "EUR")]
    currency: Option<String>,
}

/// Validate a code.
///
/// Whether this user could redeem the code now, in the order of a redeem's checks, and what it would take off. Changes
/// nothing and reserves nothing: only a redeem decides.
#[utoipa::path(
    get, path = "/v1/codes/{code}/validation", tag = "codes",
    params(
        ("code" = String, Path, description = "The code, however it is written"),
        OrderParameters, UserParameter,
    ),
    responses((status = 200, description = "Valid, or the reason why not", body = ValidationView), Refusals),
)]
pub(crate) async fn validate(State(app): State<Arc<App>>, asked: Asked) -> Result<Response, Problem> {
    let named = asked.named_user()?;
    let user = asked.caller.acts_for(named.as_deref())?;
    let code = asked.code()?;
    let order = Order::read(&asked.parameters()?)?;
    let facts = facts(&app.questions, &code, user);
    let view = match app.ask("validating a code", facts).await? {
        Some(facts) => ValidationView::of(&code, facts, &order)?,
        None => ValidationView::unknown(&code),
    };
    Ok(json(StatusCode::OK, &view))
}

async fn facts(questions: &Questions, code: &CodeKey, user: &str) -> Result<Option<Facts>, sqlx::Error> {
    sqlx::query_as(FACTS)
        .bind(code.as_str())
        .bind(user)
        .fetch_optional(questions.connection().await?.server())
        .await
}

#[cfg(test)]
#[path = "validation_tests.rs"]
mod tests;
