//! Hostile requests. Each is rejected with a problem; none causes an internal error, and nothing is accepted.

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::environment::{Environment, FaultError, RESPONSE_TIMEOUT};
use crate::fixtures::Kind;
use crate::rng::Rng;
use stampede_client::transport::{HttpRequest, Method};

/// More than the bound on bodies.
const TEN_MEGABYTES: usize = 10 * 1024 * 1024;
const DEPTH: usize = 10_000;

/// A request with the statuses that its response may have.
pub(super) struct Attempt {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) token: String,
    pub(super) body: Option<Bytes>,
    pub(super) allowed: &'static [u16],
}

/// Statuses of a request that must be rejected.
const REJECTED: &[u16] = &[400, 404, 405, 413, 414, 415, 422];
/// Statuses of a request that is odd but valid: it may have an outcome.
const REJECTED_OR_DECIDED: &[u16] = &[200, 202, 400, 404, 414, 422];

impl Attempt {
    fn post(env: &Environment, path: String, body: &Value) -> Self {
        let body = Some(Bytes::from(body.to_string()));
        Self { method: Method::POST, path, token: env.token("mallory", "user"), body, allowed: REJECTED }
    }
}

/// Sends all of them at once, and records a complaint for every response that is not allowed. A lost connection, 429 and
/// 503 are allowed: the effects of an earlier fault may last, and a body that is rejected unread closes the connection.
pub(super) async fn send_all(env: &Environment, rng: &mut Rng, attempts: Vec<Attempt>) {
    let sent = attempts.iter().map(|attempt| {
        let api = rng.below(env.apis());
        let Attempt { method, path, token, body, .. } = attempt;
        async move {
            let request =
                HttpRequest { body: body.clone(), ..HttpRequest::new(method.clone(), path).token(token) };
            (attempt, env.client.send(api, &request, RESPONSE_TIMEOUT).await)
        }
    });
    for (attempt, response) in join_all(sent.collect::<Vec<_>>()).await {
        let Ok(response) = response else { continue };
        let status = response.status.as_u16();
        if !attempt.allowed.contains(&status) && !matches!(status, 429 | 503) {
            let what = format!(
                "{} {} returned {status}: {}",
                attempt.method,
                attempt.path.chars().take(200).collect::<String>(),
                response.excerpt()
            );
            env.stats.complain(what);
        }
    }
}

fn any_coupon(env: &Environment, rng: &mut Rng) -> Result<String, FaultError> {
    env.fixtures.any(Kind::Hot, rng).ok_or_else(|| "there is no coupon".into())
}

/// NUL and other control characters in every text field.
pub(super) async fn hostile_text(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let coupon = any_coupon(env, rng)?;
    let claims = format!("/v1/coupons/{coupon}/claims");
    let orders = "/v1/codes/NOSUCHCODE/redemptions".to_owned();
    let mut attempts = Vec::new();
    for hostile in ["\0", "a\0b", "\u{1b}[2J", "\u{7f}", "\r\nx: y", "\u{202e}"] {
        let order = json!({"order_id": hostile, "order_amount": "10.00", "currency": "EUR"});
        let mut order = Attempt::post(env, orders.clone(), &order);
        let mut named = Attempt::post(env, claims.clone(), &json!({"code": hostile}));
        let encoded: String = hostile.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut in_path = Attempt::post(env, format!("/v1/codes/A{encoded}B/lock"), &json!({}));
        // Without NUL these are valid texts that name no order and no code.
        for odd in [&mut order, &mut named, &mut in_path] {
            if !hostile.contains('\0') {
                odd.allowed = REJECTED_OR_DECIDED;
            }
        }
        in_path.allowed = REJECTED_OR_DECIDED;
        named.allowed = REJECTED_OR_DECIDED;
        attempts.extend([order, named, in_path]);
    }
    let broken = Bytes::from_static(b"{\"code\": \"\xff\xfe\"}");
    attempts.push(Attempt { body: Some(broken), ..Attempt::post(env, claims, &json!({})) });
    send_all(env, rng, attempts).await;
    Ok(())
}

pub(super) async fn huge_body(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let claims = format!("/v1/coupons/{}/claims", any_coupon(env, rng)?);
    let huge = || Bytes::from(format!("{{\"code\": \"{}\"}}", "x".repeat(TEN_MEGABYTES)));
    let attempt = || Attempt { body: Some(huge()), ..Attempt::post(env, claims.clone(), &json!({})) };
    let attempts = vec![attempt(), attempt()];
    send_all(env, rng, attempts).await;
    Ok(())
}

pub(super) async fn deep_json(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let claims = format!("/v1/coupons/{}/claims", any_coupon(env, rng)?);
    let deep = [
        format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)),
        format!("{{\"code\":{}1{}}}", "{\"a\":".repeat(DEPTH / 2), "}".repeat(DEPTH / 2)),
        "[".repeat(DEPTH),
    ];
    let attempts = deep.map(|deep| Attempt {
        body: Some(Bytes::from(deep)),
        ..Attempt::post(env, claims.clone(), &json!({}))
    });
    send_all(env, rng, attempts.into()).await;
    Ok(())
}

/// Amounts that are negative, huge, too fine, or no number.
pub(super) async fn odd_amounts(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let huge = "9".repeat(5_000);
    let odd = [
        json!("-10.00"),
        json!("NaN"),
        json!("Infinity"),
        json!("1e9"),
        json!("10.001"),
        json!(""),
        json!("0x10"),
        json!(huge),
        json!(10.0),
        json!(-1),
        Value::Null,
        json!({"amount": 1}),
    ];
    let mut attempts: Vec<Attempt> = odd
        .iter()
        .map(|amount| {
            let order = json!({"order_id": "odd", "order_amount": amount, "currency": "EUR"});
            Attempt::post(env, "/v1/codes/NOSUCHCODE/redemptions".to_owned(), &order)
        })
        .collect();
    let no_currency = json!({"order_id": "odd", "order_amount": "10.00", "currency": "eur\0"});
    attempts.push(Attempt::post(env, "/v1/codes/NOSUCHCODE/redemptions".to_owned(), &no_currency));
    send_all(env, rng, attempts).await;
    Ok(())
}
