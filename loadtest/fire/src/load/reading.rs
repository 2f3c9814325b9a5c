//! Users who only read: whatever has failed, a read returns a result or a retryable error.

use hyper::Method;

use super::User;
use crate::environment::text;
use crate::fixtures::Kind;
use stampede_client::http::Call;

/// A coupon, a validation, a wallet, and a list of requests.
pub(super) async fn read_resources(user: &mut User<'_>) -> Option<()> {
    let coupon = user.env.fixtures.any(Kind::Hot, &mut user.rng)?;
    let mut paths = vec![
        format!("/v1/coupons/{coupon}"),
        "/v1/users/me/codes?limit=10".to_owned(),
        "/v1/users/me/requests?limit=10".to_owned(),
    ];
    if let Some((_, code)) = user.env.fixtures.any_code(&mut user.rng) {
        paths.push(format!("/v1/codes/{code}/validation?order_amount=10.00&currency=EUR"));
    }
    let token = user.env.token(&user.name, "user");
    for path in paths {
        let call = Call { method: Method::GET, path: &path, token: &token, key: None, body: None };
        let api = user.rng.below(user.env.apis());
        // A lost connection is an expected effect of a fault.
        let Ok(reply) = user.env.send(api, &call).await else { continue };
        if !matches!(reply.status.as_u16(), 200 | 429 | 503) {
            let (status, body) = (reply.status, text(&reply.body));
            user.env.stats.complain(format!("GET {path} returned {status}: {body}"));
        }
    }
    Some(())
}
