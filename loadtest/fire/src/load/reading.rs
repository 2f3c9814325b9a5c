//! Users who only read: whatever has failed, a read returns a result or a retryable error.

use super::User;
use crate::environment::RESPONSE_TIMEOUT;
use crate::fixtures::Kind;
use stampede_client::transport::HttpRequest;

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
        let request = HttpRequest::get(&*path).token(&token);
        let api = user.rng.below(user.env.apis());
        let sent = user.env.client.send(api, &request, RESPONSE_TIMEOUT).await;
        // A lost connection is an expected effect of a fault.
        let Ok(response) = sent else { continue };
        if !matches!(response.status.as_u16(), 200 | 429 | 503) {
            let (status, body) = (response.status, response.excerpt());
            user.env.stats.complain(format!("GET {path} returned {status}: {body}"));
        }
    }
    Some(())
}
