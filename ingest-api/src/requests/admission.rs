//! Admission control before anything else: a request that would be rejected at a bound is rejected before its token is
//! verified and its body is read. Ten times too many requests must not use the time of those that are accepted.
//!
//! It is an estimate, not a reservation: [`crate::outcomes::pending`] enforces the bounds. The 503 states nothing
//! about the request, not even about one with an Idempotency-Key that may be decided already: it can be sent again.

use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemas::partition_for;

use super::submit::{HasSubmitter, Submitter};
use crate::http::problem::Problem;
use crate::model::coupon::is_coupon_id;
use crate::outcomes::pending::Full;

/// Admission by the bound of the instance. Must be the first extractor of a handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InstanceAdmission;

/// Admission by the bounds of the instance and of the partition of the coupon in the path. Must be the first extractor
/// of a handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionAdmission;

impl<S: HasSubmitter> FromRequestParts<S> for InstanceAdmission {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &S) -> Result<Self, Problem> {
        let submitter = state.submitter();
        submitter.hub.pending.full(None).map_or(Ok(Self), |full| Err(submitter.overloaded(full)))
    }
}

impl<S: HasSubmitter> FromRequestParts<S> for PartitionAdmission {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let submitter = state.submitter();
        let (pending, gate) = (&submitter.hub.pending, &submitter.hub.gate);
        // Below the smallest bound, no bound is reached and no partition has to be computed.
        if pending.len() < pending.smallest_bound() {
            return Ok(Self);
        }
        let coupon = coupon_of(parts.uri.path());
        let partition = coupon.map(|coupon| partition_for(coupon.as_bytes(), submitter.partitions));
        let Some(full) = pending.full(partition) else { return Ok(Self) };
        // "Sold out" is the better response, costs little, and needs no place.
        if coupon.is_some_and(|coupon| gate.is_closed(coupon, Instant::now())) {
            return Ok(Self);
        }
        Err(submitter.overloaded(full))
    }
}

impl Submitter {
    /// Checks the sold-out gate, for a claim of any code without an Idempotency-Key.
    ///
    /// # Errors
    /// 409; the request was not submitted.
    pub(crate) fn check_gate(&self, coupon_id: &str) -> Result<(), Problem> {
        if self.hub.gate.lets_through(coupon_id, Instant::now()) {
            return Ok(());
        }
        self.metrics.short_circuited.increment(1);
        Err(Problem::sold_out())
    }

    /// Counts a request over a bound, and returns its 503.
    pub(super) fn overloaded(&self, full: Full) -> Problem {
        match full {
            Full::Instance => {
                self.metrics.instance_full.increment(1);
                Problem::overloaded("too many requests are pending; this one was not submitted; retry")
            }
            Full::Partition => {
                self.metrics.partition_full.increment(1);
                Problem::overloaded(
                    "too many requests are pending for this coupon; this one was not submitted; retry",
                )
            }
        }
    }
}

/// The coupon of `/v1/coupons/{coupon_id}/…`, if it is not percent-encoded; an encoded one is checked later.
fn coupon_of(path: &str) -> Option<&str> {
    let coupon = path.strip_prefix("/v1/coupons/")?.split('/').next()?;
    is_coupon_id(coupon).then_some(coupon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coupon_is_read_from_the_path_only_if_it_needs_no_decoding() {
        assert_eq!(coupon_of("/v1/coupons/spring-2026/claims"), Some("spring-2026"));
        for other in ["/v1/coupons/spring%2D2026/claims", "/v1/coupons//claims", "/v1/codes/ABCD/lock", "/"] {
            assert_eq!(coupon_of(other), None, "{other}");
        }
    }
}
