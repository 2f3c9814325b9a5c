//! `GET /v1/users/{user_id}/codes`: a user's codes and their states.
//!
//! A deadline that has passed counts as lapsed, even before the owner of the partition has written it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::ErrorResponses;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::db::wallet::{self, WalletRow};
use crate::http::pagination::{Cursor, Page, PageParameters, PageView};
use crate::http::parameters::{Parameters, PathName};
use crate::http::problem::Problem;
use crate::http::responses::json;
use crate::text::rfc3339;

/// A code of a user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OwnedCode)]
pub(crate) struct OwnedCodeView {
    coupon_id: String,
    code: String,
    /// CLAIMED, LOCKED, REDEEMED or REVOKED; EXPIRED for a claimed or locked code whose coupon's window has ended.
    #[schema(example = "CLAIMED")]
    state: String,
    claimed_at: String,
    /// When the code goes back to stock unless it is redeemed.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_until: Option<String>,
    /// When the lock lapses; only while the code is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_until: Option<String>,
    /// The order that the lock names, or that the code was redeemed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
}

impl OwnedCodeView {
    fn of(row: WalletRow) -> Self {
        Self {
            coupon_id: row.coupon_id,
            code: row.code,
            state: row.state,
            claimed_at: rfc3339(row.claimed_ms),
            hold_until: row.hold_until_ms.map(rfc3339),
            lock_until: row.lock_until_ms.map(rfc3339),
            order_id: row.order_id,
        }
    }
}

/// List a user's codes.
///
/// Newest claims first. Codes that were returned or have lapsed are not listed. Neither are shared codes: their
/// redemptions are among the user's requests.
#[utoipa::path(
    get, path = "/v1/users/{user_id}/codes", tag = "users",
    params(("user_id" = String, Path, description = "The user; `me` is the caller"), PageParameters),
    responses((status = 200, description = "A page of codes", body = PageView<OwnedCodeView>), ErrorResponses),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathName(name): PathName,
    uri: Uri,
) -> Result<Response, Problem> {
    let user = caller.lists_of(&name, &[Role::Service])?;
    let page = Page::of(&Parameters::of(&uri)?)?;
    let Cursor { ms, identity, .. } = page.after;
    let rows = wallet::claims(&app.query_pool, user, ms, identity, page.rows());
    let mut rows = app.query("reading the codes of a user", rows).await?;
    let next_cursor =
        page.cut(&mut rows, |row| Cursor { ms: row.claimed_ms, identity: row.identity, body: 0 });
    let items = rows.into_iter().map(OwnedCodeView::of).collect();
    Ok(json(StatusCode::OK, &PageView { items, next_cursor }))
}
