//! Parses API responses, into the little that a check needs.

use coupon_core::ids::RequestId;
use serde::Deserialize;

use crate::outcome::{Accepted, Outcome, Payment, Verdict};

/// What a client received for one HTTP request.
#[derive(Clone, Debug)]
pub enum Received {
    /// No response: a timeout or a broken connection. The API may have accepted the request or not.
    Nothing,
    /// A response to a POST, a DELETE or a GET.
    Response {
        /// HTTP status.
        status: u16,
        /// The body, unchanged.
        body: String,
    },
}

/// The content of an API response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiResponse {
    /// No response arrived.
    Missing,
    /// The request is accepted and not decided yet.
    Pending,
    /// Final: the request was granted.
    Accepted {
        /// The code that it is about.
        code: Box<str>,
    },
    /// Final: the request was rejected and changed nothing.
    Rejected {
        /// The reason.
        reason: Box<str>,
    },
    /// The API did not accept the request, or found nothing. The sold-out gate's 409 is one of these.
    Problem {
        /// HTTP status.
        status: u16,
        /// The `code` of the problem.
        code: Box<str>,
    },
    /// A response that the API does not define.
    Invalid {
        /// HTTP status.
        status: u16,
        /// The beginning of the body.
        body: Box<str>,
    },
}

impl ApiResponse {
    /// Parses a response.
    #[must_use]
    pub fn parse(status: u16, body: &str) -> Self {
        parse(status, body).response
    }

    /// Whether it is a final outcome.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Rejected { .. })
    }

    /// Whether it is the response of the sold-out gate.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        matches!(self, Self::Problem { status: 409, code } if &**code == "sold_out")
    }
}

/// A response with its request id and the digest of its outcome.
pub(super) struct Parsed {
    pub(super) response: ApiResponse,
    /// The request id as the API returned it.
    pub(super) request_id: Option<Box<str>>,
    pub(super) id: Option<RequestId>,
    pub(super) user_digest: u64,
    pub(super) is_claim: bool,
}

impl From<ApiResponse> for Parsed {
    fn from(response: ApiResponse) -> Self {
        Self { response, request_id: None, id: None, user_digest: 0, is_claim: false }
    }
}

impl Received {
    pub(super) fn parse(&self) -> Parsed {
        match self {
            Self::Nothing => ApiResponse::Missing.into(),
            Self::Response { status, body } => parse(*status, body),
        }
    }
}

#[derive(Deserialize)]
struct RequestBody {
    request_id: String,
    status: String,
    kind: Option<String>,
    coupon_id: Option<String>,
    reason: Option<String>,
    code: Option<String>,
    claim: Option<ClaimBody>,
    redemption: Option<RedemptionBody>,
    decided_at: Option<String>,
}

#[derive(Deserialize)]
struct ClaimBody {
    state: String,
    claimed_at: Option<String>,
    hold_until: Option<String>,
    lock_until: Option<String>,
}

#[derive(Deserialize)]
struct RedemptionBody {
    redemption_id: String,
    order_id: String,
    order_amount: String,
    discount: String,
    final_price: String,
    currency: String,
    redeemed_at: String,
}

#[derive(Deserialize)]
struct ProblemBody {
    code: Box<str>,
}

fn parse(status: u16, body: &str) -> Parsed {
    if (200..300).contains(&status) {
        return parse_request(body).unwrap_or_else(|| invalid(status, body));
    }
    match serde_json::from_str::<ProblemBody>(body) {
        Ok(problem) => ApiResponse::Problem { status, code: problem.code }.into(),
        Err(_) => invalid(status, body),
    }
}

fn invalid(status: u16, body: &str) -> Parsed {
    ApiResponse::Invalid { status, body: body.chars().take(200).collect() }.into()
}

/// `None`: the body is not a request resource that the API defines.
fn parse_request(body: &str) -> Option<Parsed> {
    let request: RequestBody = serde_json::from_str(body).ok()?;
    let id = request_id(&request.request_id)?;
    let (response, user_digest) = match (request.status.as_str(), &request.code, &request.reason) {
        ("pending", None, None) if request.decided_at.is_none() => (ApiResponse::Pending, 0),
        ("accepted", Some(code), None) => {
            (ApiResponse::Accepted { code: code.as_str().into() }, request.user_digest()?)
        }
        ("rejected", None, Some(reason)) => {
            (ApiResponse::Rejected { reason: reason.as_str().into() }, request.user_digest()?)
        }
        _ => return None,
    };
    let is_claim = request.kind.as_deref() == Some("claim");
    Some(Parsed {
        response,
        request_id: Some(request.request_id.into()),
        id: Some(id),
        user_digest,
        is_claim,
    })
}

impl RequestBody {
    /// The digest of the outcome; `None` where a part of it cannot be parsed.
    fn user_digest(&self) -> Option<u64> {
        let verdict = match &self.reason {
            Some(reason) => Verdict::Rejected(reason),
            None => Verdict::Accepted(self.accepted()?),
        };
        let outcome = Outcome {
            kind: self.kind.as_deref().unwrap_or_default(),
            coupon: self.coupon_id.as_deref().unwrap_or_default(),
            user: "",
            partition: 0,
            offset: 0,
            decided_ms: unix_ms(self.decided_at.as_deref()?)?,
            verdict,
        };
        Some(outcome.user_digest(&mut String::new()))
    }

    fn accepted(&self) -> Option<Accepted<'_>> {
        let time = |at: Option<&String>| at.map_or(Some(None), |at| unix_ms(at).map(Some));
        let claim = self.claim.as_ref();
        let payment = match &self.redemption {
            None => None,
            Some(redemption) => Some(redemption.payment()?),
        };
        Some(Accepted {
            code: self.code.as_deref()?,
            number: 0,
            state: claim.map(|claim| claim.state.as_str()),
            claimed_ms: time(claim.and_then(|claim| claim.claimed_at.as_ref()))?,
            hold_until_ms: time(claim.and_then(|claim| claim.hold_until.as_ref()))?,
            lock_until_ms: time(claim.and_then(|claim| claim.lock_until.as_ref()))?,
            order: self.redemption.as_ref().map(|redemption| redemption.order_id.as_str()),
            payment,
        })
    }
}

impl RedemptionBody {
    fn payment(&self) -> Option<Payment<'_>> {
        let Self { redemption_id, order_amount, discount, final_price, currency, redeemed_at, .. } = self;
        let (id, redeemed_ms) = (request_id(redemption_id)?, unix_ms(redeemed_at)?);
        Some(Payment { id, amount: order_amount, discount, final_price, currency, redeemed_ms })
    }
}

/// Parses an id, without the tag that the API appends.
fn request_id(text: &str) -> Option<RequestId> {
    RequestId::parse(text.split('.').next().unwrap_or_default()).ok()
}

fn unix_ms(rfc3339: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(rfc3339).ok().map(|time| time.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

    #[test]
    fn a_response_is_parsed_by_its_status_and_body() {
        let pending = format!(r#"{{"request_id":"{ID}.tag","status":"pending","links":{{}}}}"#);
        assert_eq!(ApiResponse::parse(202, &pending), ApiResponse::Pending);
        let accepted = format!(
            r#"{{"request_id":"{ID}.tag","status":"accepted","kind":"claim","coupon_id":"c","code":"X","reason":null,"decided_at":"2025-01-01T00:00:00.123Z"}}"#
        );
        assert_eq!(ApiResponse::parse(200, &accepted), ApiResponse::Accepted { code: "X".into() });
        let gate = ApiResponse::parse(409, r#"{"type":"t","status":409,"code":"sold_out"}"#);
        assert!(gate.is_gate() && !gate.is_final());
        assert!(matches!(ApiResponse::parse(200, "<html>"), ApiResponse::Invalid { status: 200, .. }));
        let undated = accepted.replace("2025-01-01T00:00:00.123Z", "yesterday");
        assert!(
            matches!(ApiResponse::parse(200, &undated), ApiResponse::Invalid { .. }),
            "an outcome has a time"
        );
    }
}
