//! `POST /v1/coupons` and `GET /v1/coupons/{coupon_id}`: definitions, and their live counters.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::catalogue::coupon_body::CouponBody;
use crate::db::coupons::{self, CouponRow};
use crate::http::body::JsonBody;
use crate::http::parameters::PathName;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::responses::json;
use crate::model::coupon::{Description, Discount, Limits, NewCoupon, is_coupon_id};
use crate::text::rfc3339;

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

/// Codes by state. `generated` is the sum of all the others.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Counts {
    generated: i64,
    available: i64,
    claimed: i64,
    locked: i64,
    redeemed: i64,
    /// Codes that were available, claimed or locked at the end of the coupon's window, and can no longer be used.
    expired: i64,
    revoked: i64,
}

impl Counts {
    fn of(row: &CouponRow) -> Self {
        let CouponRow { available, claimed, locked, redeemed, revoked, .. } = *row;
        let counts = Self { generated: row.top, redeemed, revoked, ..Self::default() };
        if row.is_over {
            Self { expired: available + claimed + locked, ..counts }
        } else {
            Self { available, claimed, locked, ..counts }
        }
    }
}

impl CouponView {
    fn of(row: CouponRow) -> Self {
        let counts = Counts::of(&row);
        let Description { name, description, category, discount } = row.definition.0;
        Self {
            id: row.coupon_id,
            name,
            description,
            category,
            discount,
            starts_at: row.starts_at_ms.map(rfc3339),
            expires_at: row.expires_at_ms.map(rfc3339),
            hold_seconds: row.hold_seconds,
            lock_seconds: row.lock_seconds,
            requires_lock: row.requires_lock,
            limits: Limits {
                claims_per_user: row.claims_per_user,
                redemptions_per_user: row.redemptions_per_user,
                redemptions_per_code: row.redemptions_per_code,
                redemptions_total: row.redemptions_total,
            },
            status: row.status,
            counts,
            created_at: rfc3339(row.created_ms),
        }
    }
}

/// Create a coupon.
#[utoipa::path(
    post, path = "/v1/coupons", tag = "coupons",
    request_body = CouponBody,
    responses(
        (status = 201, description = "Created; Location names it", body = CouponView),
        (status = 403, description = "Requires the role admin", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The id is in use", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Invalid values, all of them listed", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    caller.require(&[Role::Admin])?;
    let coupon = NewCoupon::read(body)?;
    let (id, partition) = coupon.id_and_partition(app.requests.partitions);
    let insert = coupons::insert(&app.query_pool, &id, partition, coupon);
    if !app.query("creating a coupon", insert).await? {
        return Err(Problem::already_exists("a coupon with this id exists"));
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
        (status = 404, description = "No such coupon", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    _: Caller,
    PathName(coupon_id): PathName,
) -> Result<Response, Problem> {
    if !is_coupon_id(&coupon_id) {
        return Err(Problem::not_found("no such coupon"));
    }
    Ok(json(StatusCode::OK, &find(&app, &coupon_id).await?))
}

async fn find(app: &App, coupon_id: &str) -> Result<CouponView, Problem> {
    let row = app.query("reading a coupon", coupons::find(&app.query_pool, coupon_id)).await?;
    row.map(CouponView::of).ok_or_else(|| Problem::not_found("no such coupon"))
}
