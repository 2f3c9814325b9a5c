//! `GET /v1/users/{user_id}/requests`: a user's decided requests, with the reasons of rejections.
//!
//! Each entry equals the response of `GET /v1/requests/{request_id}`, because [`crate::db::outcomes`] rebuilds both.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use coupon_core::ids::RequestId;

use super::openapi::ErrorResponses;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::db::history::{self, HistoryKey};
use crate::db::outcomes;
use crate::db::query_pool::QueryPool;
use crate::http::pagination::{Cursor, Page, PageParameters, PageView};
use crate::http::parameters::{Parameters, PathName};
use crate::http::problem::Problem;
use crate::http::responses::json;
use crate::model::outcome::Outcome;
use crate::outcomes::view::RequestView;

/// List a user's requests and their outcomes.
///
/// The newest decisions first. Shows why a request was rejected. Outcomes other than claims and redemptions are deleted
/// at the end of their retention.
#[utoipa::path(
    get, path = "/v1/users/{user_id}/requests", tag = "users",
    params(("user_id" = String, Path, description = "The user; `me` is the caller"), PageParameters),
    responses((status = 200, description = "A page of requests", body = PageView<RequestView>), ErrorResponses),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathName(name): PathName,
    uri: Uri,
) -> Result<Response, Problem> {
    let user = caller.lists_of(&name, &[Role::Service, Role::Admin])?;
    let page = Page::of(&Parameters::of(&uri)?)?;
    let (operation, pool) = ("reading the requests of a user", &app.query_pool);
    let keys = history::keys(pool, user, page.after, page.rows());
    let mut keys = app.query(operation, keys).await?;
    let cursor = |&HistoryKey { ms, identity, body, .. }: &HistoryKey| Cursor { ms, identity, body };
    let next_cursor = page.cut(&mut keys, cursor);
    let outcomes = app.query(operation, outcomes_of(pool, &keys)).await?;
    let shown: Vec<(String, Outcome)> = outcomes
        .into_iter()
        .map(|outcome| (app.requests.ids.show_stored(outcome.id, user, outcome.decided_ms), outcome))
        .collect();
    let items: Vec<RequestView<'_>> =
        shown.iter().map(|(id, outcome)| RequestView::decided(id, outcome)).collect();
    Ok(json(StatusCode::OK, &PageView { items, next_cursor }))
}

/// The outcomes of these keys, in their order.
async fn outcomes_of(pool: &QueryPool, keys: &[HistoryKey]) -> Result<Vec<Outcome>, sqlx::Error> {
    let ids = keys.iter().map(|key| RequestId { identity: key.identity.as_u128(), body: key.body });
    let identities: Vec<u128> = keys.iter().map(|key| key.identity.as_u128()).collect();
    let days: BTreeSet<i32> = keys.iter().filter_map(|key| key.day).collect();
    let days: Vec<i32> = days.into_iter().collect();
    let found = outcomes::find(&mut *pool.connection().await?, &identities, &days).await?;
    let mut found: HashMap<RequestId, Outcome> =
        found.into_iter().map(|outcome| (outcome.id, outcome)).collect();
    Ok(ids.filter_map(|id| found.remove(&id)).collect())
}
