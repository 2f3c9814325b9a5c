//! `GET /v1/users/{user_id}/requests`: what a user has asked for, and why it was rejected if it was.
//!
//! Only what is decided is here. Each entry is what `GET /v1/requests/{request_id}` answers: one place rebuilds
//! outcomes from rows, so both say the same.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use coupon_core::ids::RequestId;

use crate::accept::json;
use crate::app::App;
use crate::asked::Asked;
use crate::auth::Role;
use crate::lookup;
use crate::openapi::Refusals;
use crate::outcome::{Outcome, RequestView};
use crate::pages::{Page, PageParameters, PageView, Place};
use crate::problem::Problem;
use crate::questions::Questions;

/// The newest of each kind of row, then the newest of those. (The indexes of claims and redemptions hold hashes of
/// users; that of outcomes is a hash itself.)
const PLACES: &str = "
    select ms, identity, body
      from ((select claimed_ms as ms, identity, body from claims
              where hashtextextended(user_id, 0) = hashtextextended($1, 0)
                and user_id = $1 and (claimed_ms, identity, body) < ($2, $3, $4)
              order by claimed_ms desc, identity desc, body desc limit $5)
            union all
            (select redeemed_ms, identity, body from redemptions
              where hashtextextended(user_id, 0) = hashtextextended($1, 0)
                and user_id = $1 and (redeemed_ms, identity, body) < ($2, $3, $4)
              order by redeemed_ms desc, identity desc, body desc limit $5)
            union all
            (select decided_ms, identity, body from outcomes
              where user_id = $1 and (decided_ms, identity, body) < ($2, $3, $4)
              order by decided_ms desc, identity desc, body desc limit $5)) r
     order by ms desc, identity desc, body desc limit $5";

/// List a user's requests and their outcomes.
///
/// The newest decisions first; the answer to "why did this user not get one?". Outcomes other than claims and
/// redemptions are dropped by age.
#[utoipa::path(
    get, path = "/v1/users/{user_id}/requests", tag = "users",
    params(("user_id" = String, Path, description = "The user; `me` is the caller"), PageParameters),
    responses((status = 200, description = "A page of requests", body = PageView<RequestView>), Refusals),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, asked: Asked) -> Result<Response, Problem> {
    let user = asked.listed_user(&[Role::Service, Role::Admin])?;
    let page = Page::of(&asked.parameters()?)?;
    let (doing, questions) = ("reading the requests of a user", &app.questions);
    let mut places = app.ask(doing, places(questions, user, &page)).await?;
    let next_cursor = page.cut(&mut places, |place| *place);
    let outcomes = app.ask(doing, outcomes(questions, &places)).await?;
    let shown: Vec<(String, Outcome)> = outcomes
        .into_iter()
        .map(|outcome| (app.ids.show_again(outcome.id, user, outcome.decided_ms), outcome))
        .collect();
    let items: Vec<RequestView<'_>> = shown.iter().map(|(id, outcome)| outcome.view(id)).collect();
    Ok(json(StatusCode::OK, &PageView { items, next_cursor }))
}

async fn places(questions: &Questions, user: &str, page: &Page) -> Result<Vec<Place>, sqlx::Error> {
    let Place { ms, identity, body } = page.after;
    sqlx::query_as(PLACES)
        .bind(user)
        .bind(ms)
        .bind(identity)
        .bind(body)
        .bind(page.rows())
        .fetch_all(questions.connection().await?.server())
        .await
}

/// The outcomes at these places, in their order.
async fn outcomes(questions: &Questions, places: &[Place]) -> Result<Vec<Outcome>, sqlx::Error> {
    let ids = places.iter().map(|place| RequestId { identity: place.identity.as_u128(), body: place.body });
    let identities: Vec<u128> = places.iter().map(|place| place.identity.as_u128()).collect();
    let found = lookup::outcomes(questions.connection().await?.server(), &identities).await?;
    let mut found: HashMap<RequestId, Outcome> =
        found.into_iter().map(|outcome| (outcome.id, outcome)).collect();
    Ok(ids.filter_map(|id| found.remove(&id)).collect())
}
