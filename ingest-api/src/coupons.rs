//! `POST /v1/coupons` and `GET /v1/coupons/{coupon_id}`: definitions, and their live counters.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::accept::json;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::coupon_body::{CouponBody, Described, Discount, Limits, NewCoupon};
use crate::extract::{JsonBody, Named};
use crate::fields::rfc3339;
use crate::problem::{Problem, ProblemBody};
use crate::questions::Questions;

/// Whether a text can be a coupon's id: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
pub(crate) fn is_coupon_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.len() <= 64
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(allowed)
}

/// A coupon, with live counters.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Coupon)]
pub(crate) struct CouponView {
    id: String,
    name: String,
    description: Option<String>,
    category: Option<String>,
    discount: Discount,
    starts_at: Option<String>,
    expires_at: Option<String>,
    hold_seconds: Option<i32>,
    lock_seconds: i32,
    requires_lock: bool,
    limits: Limits,
    /// active, paused or ended.
    #[schema(example = "active")]
    status: String,
    counts: Counts,
    created_at: String,
}

/// Where the codes are. `generated` is the sum of all the others.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Counts {
    generated: i64,
    available: i64,
    claimed: i64,
    locked: i64,
    redeemed: i64,
    /// What was available, claimed or locked when the coupon's window ended, and cannot be used any more.
    expired: i64,
    revoked: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    coupon_id: String,
    definition: Json<Described>,
    status: String,
    starts_at_ms: Option<i64>,
    expires_at_ms: Option<i64>,
    hold_seconds: Option<i32>,
    lock_seconds: i32,
    requires_lock: bool,
    claims_per_user: Option<i32>,
    redemptions_per_user: Option<i32>,
    redemptions_per_code: Option<i32>,
    redemptions_total: Option<i64>,
    created_ms: i64,
    is_over: bool,
    top: i64,
    available: i64,
    claimed: i64,
    locked: i64,
    redeemed: i64,
    revoked: i64,
}

impl Row {
    fn counts(&self) -> Counts {
        let Self { available, claimed, locked, redeemed, revoked, .. } = *self;
        let counts = Counts { generated: self.top, redeemed, revoked, ..Counts::default() };
        if self.is_over {
            Counts { expired: available + claimed + locked, ..counts }
        } else {
            Counts { available, claimed, locked, ..counts }
        }
    }

    fn view(self) -> CouponView {
        let counts = self.counts();
        let Described { name, description, category, discount } = self.definition.0;
        CouponView {
            id: self.coupon_id,
            name,
            description,
            category,
            discount,
            starts_at: self.starts_at_ms.map(rfc3339),
            expires_at: self.expires_at_ms.map(rfc3339),
            hold_seconds: self.hold_seconds,
            lock_seconds: self.lock_seconds,
            requires_lock: self.requires_lock,
            limits: Limits {
                claims_per_user: self.claims_per_user,
                redemptions_per_user: self.redemptions_per_user,
                redemptions_per_code: self.redemptions_per_code,
                redemptions_total: self.redemptions_total,
            },
            status: self.status,
            counts,
            created_at: rfc3339(self.created_ms),
        }
    }
}

/// One statement reads definition and counters, so that they add up.
const READ: &str = "
    select c.coupon_id, c.definition, c.status, c.starts_at_ms, c.expires_at_ms, c.hold_seconds, c.lock_seconds,
           c.requires_lock, c.claims_per_user, c.redemptions_per_user, c.redemptions_per_code, c.redemptions_total,
           (extract(epoch from c.created_at) * 1000)::bigint as created_ms,
           coalesce(c.expires_at_ms <= extract(epoch from now()) * 1000, false) as is_over,
           s.top, s.top - s.cursor - s.ahead + s.returned as available, s.claimed, s.locked, s.redeemed, s.revoked
      from coupons c join stock s on s.coupon_no = c.coupon_no
     where c.coupon_id = $1";

/// The definition and its row of stock, or nothing.
const INSERT: &str = "
    with made as (
        insert into coupons (coupon_id, partition, definition, starts_at_ms, expires_at_ms, hold_seconds,
                             lock_seconds, requires_lock, claims_per_user, redemptions_per_user,
                             redemptions_per_code, redemptions_total)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict (coupon_id) do nothing
        returning coupon_no)
    insert into stock (coupon_no) select coupon_no from made";

/// Make a coupon.
#[utoipa::path(
    post, path = "/v1/coupons", tag = "coupons",
    request_body = CouponBody,
    responses(
        (status = 201, description = "Made; Location names it", body = CouponView),
        (status = 403, description = "Needs the role admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The id is taken", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid values, every one listed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let coupon = NewCoupon::read(body)?;
    let (id, partition) = coupon.place(app.partitions);
    let made = insert(&app.questions, &id, partition, coupon);
    let made = app.ask("making a coupon", made).await?;
    if !made {
        return Err(Problem::already_exists("there is a coupon with this id"));
    }
    app.coupons.insert(&id);
    let mut response = json(StatusCode::CREATED, &find(&app, &id).await?);
    if let Ok(location) = HeaderValue::try_from(["/v1/coupons/", &id].concat()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Read a coupon and its live counters.
#[utoipa::path(
    get, path = "/v1/coupons/{coupon_id}", tag = "coupons",
    params(("coupon_id" = String, Path, description = "The coupon")),
    responses(
        (status = 200, description = "The coupon", body = CouponView),
        (status = 404, description = "There is no such coupon", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    _: Caller,
    Named(coupon_id): Named,
) -> Result<Response, Problem> {
    if !is_coupon_id(&coupon_id) {
        return Err(Problem::not_found("there is no such coupon"));
    }
    Ok(json(StatusCode::OK, &find(&app, &coupon_id).await?))
}

async fn find(app: &App, coupon_id: &str) -> Result<CouponView, Problem> {
    let row = sqlx::query_as(READ).bind(coupon_id);
    let row = async { row.fetch_optional(app.questions.connection().await?.server()).await };
    let row: Option<Row> = app.ask("reading a coupon", row).await?;
    row.map(Row::view).ok_or_else(|| Problem::not_found("there is no such coupon"))
}

async fn insert(
    questions: &Questions,
    id: &str,
    partition: i32,
    coupon: NewCoupon,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(INSERT)
        .bind(id)
        .bind(partition)
        .bind(Json(coupon.described))
        .bind(coupon.starts_at_ms)
        .bind(coupon.expires_at_ms)
        .bind(coupon.hold_seconds)
        .bind(coupon.lock_seconds)
        .bind(coupon.requires_lock)
        .bind(coupon.limits.claims_per_user)
        .bind(coupon.limits.redemptions_per_user)
        .bind(coupon.limits.redemptions_per_code)
        .bind(coupon.limits.redemptions_total)
        .execute(questions.connection().await?.server())
        .await?;
    Ok(done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_safe_characters_and_begin_with_a_letter_or_digit() {
        for id in ["a", "Spring-2026", "9.x_y", &"a".repeat(64)] {
            assert!(is_coupon_id(id), "{id}");
        }
        for id in ["", "-a", ".a", "a b", "a/b", "ä", "a\0", &"a".repeat(65)] {
            assert!(!is_coupon_id(id), "{id}");
        }
    }
}
