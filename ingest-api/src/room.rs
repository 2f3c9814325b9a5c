//! Room for one more request, looked for before anything else: what would be refused in the end is refused at the
//! door, before its token is checked and its body is read. Ten times too many requests must not take the time of
//! those that are accepted.
//!
//! A hint, not a reservation: [`crate::undecided`] has the last word. The 503 says nothing about a request, not even
//! about one with an Idempotency-Key that may be decided already: it can be sent again.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemas::partition_for;

use crate::accept::refuse;
use crate::app::App;
use crate::coupons::is_coupon_id;
use crate::problem::Problem;

/// There is room in this instance, as far as anybody can tell at the door. Name it first among what a handler takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room;

/// There is room in the partition of the coupon that the address names, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomForCoupon;

impl FromRequestParts<Arc<App>> for Room {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        app.hub.undecided.full(None).map_or(Ok(Self), |full| Err(refuse(app, full)))
    }
}

impl FromRequestParts<Arc<App>> for RoomForCoupon {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        // Below this nothing is full, and nothing has to be looked at.
        if app.hub.undecided.len() < app.hub.undecided.smallest_bound() {
            return Ok(Self);
        }
        let coupon = coupon_of(parts.uri.path());
        let partition = coupon.map(|coupon| partition_for(coupon.as_bytes(), app.partitions));
        let Some(full) = app.hub.undecided.full(partition) else { return Ok(Self) };
        // "Sold out" is the better answer, costs little, and needs no room.
        if coupon.is_some_and(|coupon| app.hub.gate.is_closed(coupon, Instant::now())) {
            return Ok(Self);
        }
        Err(refuse(app, full))
    }
}

/// The coupon of `/v1/coupons/{coupon_id}/…`. One in another spelling is found out further on.
fn coupon_of(path: &str) -> Option<&str> {
    let coupon = path.strip_prefix("/v1/coupons/")?.split('/').next()?;
    is_coupon_id(coupon).then_some(coupon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coupon_is_read_from_the_address_only_where_it_needs_no_decoding() {
        assert_eq!(coupon_of("/v1/coupons/spring-2026/claims"), Some("spring-2026"));
        for other in ["/v1/coupons/spring%2D2026/claims", "/v1/coupons//claims", "/v1/codes/ABCD/lock", "/"] {
            assert_eq!(coupon_of(other), None, "{other}");
        }
    }
}
