//! `GET /v1/users/{user_id}/codes`: the codes that a user has, and where each of them stands.
//!
//! A deadline that has passed counts as lapsed, even before its partition's owner has written it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accept::json;
use crate::app::App;
use crate::asked::Asked;
use crate::auth::Role;
use crate::fields::rfc3339;
use crate::openapi::Refusals;
use crate::pages::{Page, PageParameters, PageView, Place};
use crate::problem::Problem;

/// The claims of a user that have not gone back to stock, nor would if it were written by now; newest first.
/// `state + 0`: a condition that implies the predicate of `claims_live` would let the planner walk that index instead
/// of looking up the user's few.
const WALLET: &str = "
    select c.claimed_ms, c.identity, p.coupon_id, k.code,
           case when c.state = 3 then 'REDEEMED' when c.state = 5 then 'REVOKED'
                when p.expires_at_ms <= c.now_ms then 'EXPIRED'
                when c.is_locked then 'LOCKED' else 'CLAIMED' end as state,
           case when c.state in (1, 2) then c.hold_until_ms end as hold_until_ms,
           case when c.is_locked then c.lock_until_ms end as lock_until_ms,
           case when c.is_locked or c.state = 3 then c.order_id end as order_id
      from (select c.*, n.now_ms, c.state = 2 and c.lock_until_ms > n.now_ms as is_locked
              from (select (extract(epoch from now()) * 1000)::bigint as now_ms) n, claims c
             where hashtextextended(c.user_id, 0) = hashtextextended($1, 0)
               and c.user_id = $1 and (c.claimed_ms, c.identity) < ($2, $3)
               and c.state + 0 <> 4
               and not coalesce(c.hold_until_ms <= n.now_ms
                                and (c.state = 1 or c.state = 2 and c.lock_until_ms <= n.now_ms), false)
             order by c.claimed_ms desc, c.identity desc limit $4) c
     cross join lateral (select coupon_id, expires_at_ms from coupons p
                          where p.coupon_no = c.coupon_no offset 0) p
     cross join lateral (select load_id, base from loads l
                          where l.coupon_no = c.coupon_no and l.base < c.number order by l.base desc limit 1) l
     cross join lateral (select code from codes k
                          where k.load_id = l.load_id and k.idx = c.number - l.base offset 0) k
     order by c.claimed_ms desc, c.identity desc";

#[derive(sqlx::FromRow)]
struct Row {
    claimed_ms: i64,
    identity: Uuid,
    coupon_id: String,
    code: String,
    state: String,
    hold_until_ms: Option<i64>,
    lock_until_ms: Option<i64>,
    order_id: Option<String>,
}

/// A code that a user has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OwnedCode)]
pub(crate) struct OwnedCodeView {
    coupon_id: String,
    code: String,
    /// CLAIMED, LOCKED, REDEEMED or REVOKED; EXPIRED: claimed or locked, and the coupon's window is over.
    #[schema(example = "CLAIMED")]
    state: String,
    claimed_at: String,
    /// When it goes back to stock unless it is redeemed.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<String>,
    /// While it is locked: when the lock ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_until: Option<String>,
    /// The order that its lock names, or that it was redeemed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
}

impl Row {
    const fn place(&self) -> Place {
        Place { ms: self.claimed_ms, identity: self.identity, body: 0 }
    }

    fn view(self) -> OwnedCodeView {
        OwnedCodeView {
            coupon_id: self.coupon_id,
            code: self.code,
            state: self.state,
            claimed_at: rfc3339(self.claimed_ms),
            hold_until: self.hold_until_ms.map(rfc3339),
            lock_until: self.lock_until_ms.map(rfc3339),
            order_id: self.order_id,
        }
    }
}

/// List a user's codes.
///
/// Newest claims first; codes that were given back or have lapsed are the user's no more. Codes that are shared by many
/// are nobody's own: their redemptions are among the user's requests.
#[utoipa::path(
    get, path = "/v1/users/{user_id}/codes", tag = "users",
    params(("user_id" = String, Path, description = "The user; `me` is the caller"), PageParameters),
    responses((status = 200, description = "A page of codes", body = PageView<OwnedCodeView>), Refusals),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, asked: Asked) -> Result<Response, Problem> {
    let user = asked.listed_user(&[Role::Service])?;
    let page = Page::of(&asked.parameters()?)?;
    let rows =
        sqlx::query_as(WALLET).bind(user).bind(page.after.ms).bind(page.after.identity).bind(page.rows());
    let rows = async { rows.fetch_all(app.questions.connection().await?.server()).await };
    let mut rows: Vec<Row> = app.ask("reading the codes of a user", rows).await?;
    let next_cursor = page.cut(&mut rows, Row::place);
    let items = rows.into_iter().map(Row::view).collect();
    Ok(json(StatusCode::OK, &PageView { items, next_cursor }))
}
