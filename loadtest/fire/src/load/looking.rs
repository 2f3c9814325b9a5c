//! Users who only look: whatever is broken behind it, a question is answered, or can be asked again later.

use hyper::Method;

use super::User;
use crate::field::text;
use crate::shop::Kind;
use stampede_client::http::Call;

/// A coupon, a validation, a wallet, and a list of requests.
pub(super) async fn look_around(user: &mut User<'_>) -> Option<()> {
    let coupon = user.field.shop.any(Kind::Hot, &mut user.dice)?;
    let mut paths = vec![
        format!("/v1/coupons/{coupon}"),
        "/v1/users/me/codes?limit=10".to_owned(),
        "/v1/users/me/requests?limit=10".to_owned(),
    ];
    if let Some((_, code)) = user.field.shop.any_name(&mut user.dice) {
        paths.push(format!("/v1/codes/{code}/validation?order_amount=10.00&currency=EUR"));
    }
    let token = user.field.token(&user.name, "user");
    for path in paths {
        let call = Call { method: Method::GET, path: &path, token: &token, key: None, body: None };
        let api = user.dice.below(user.field.apis());
        // No answer at all is what faults are for.
        let Ok(reply) = user.field.send(api, &call).await else { continue };
        if !matches!(reply.status.as_u16(), 200 | 429 | 503) {
            let (status, body) = (reply.status, text(&reply.body));
            user.field.score.complain(format!("GET {path} answered {status}: {body}"));
        }
    }
    Some(())
}
