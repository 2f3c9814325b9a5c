//! Requests that no client of ours would send. Each is refused with a clear word; none provokes an error inside, and
//! nothing is accepted.

use bytes::Bytes;
use futures::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::field::{Field, Trouble, text};
use crate::shop::Kind;
use stampede_client::http::Call;

/// More than any body may have.
const TEN_MEGABYTES: usize = 10 * 1024 * 1024;
const DEPTH: usize = 10_000;

/// A request, and whether an outcome may come of it.
pub(super) struct Attempt {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) token: String,
    pub(super) body: Option<Bytes>,
    pub(super) allowed: &'static [u16],
}

/// Refused for what it says.
const REFUSED: &[u16] = &[400, 404, 405, 413, 414, 415, 422];
/// Or an outcome: a code may have any name.
const REFUSED_OR_DECIDED: &[u16] = &[200, 202, 400, 404, 414, 422];

impl Attempt {
    fn post(field: &Field, path: String, body: &Value) -> Self {
        let body = Some(Bytes::from(body.to_string()));
        Self { method: Method::POST, path, token: field.token("mallory", "user"), body, allowed: REFUSED }
    }
}

/// Sends all of them at once, and complains of every answer that is not allowed. No answer at all, and one that asks
/// for patience, say nothing: other faults may be under way, and what is refused before it is read cuts the connection.
pub(super) async fn send_all(field: &Field, dice: &mut Dice, attempts: Vec<Attempt>) {
    let sent = attempts.iter().map(|attempt| {
        let api = dice.below(field.apis());
        let Attempt { method, path, token, body, .. } = attempt;
        async move {
            let call = Call { method: method.clone(), path, token, key: None, body: body.clone() };
            (attempt, field.send(api, &call).await)
        }
    });
    for (attempt, reply) in join_all(sent.collect::<Vec<_>>()).await {
        let Ok(reply) = reply else { continue };
        let status = reply.status.as_u16();
        if !attempt.allowed.contains(&status) && !matches!(status, 429 | 503) {
            let what = format!(
                "{} {} answered {status}: {}",
                attempt.method,
                text(attempt.path.as_bytes()),
                text(&reply.body)
            );
            field.score.complain(what);
        }
    }
}

fn any_coupon(field: &Field, dice: &mut Dice) -> Result<String, Trouble> {
    field.shop.any(Kind::Hot, dice).ok_or_else(|| "there is no coupon".into())
}

/// NUL and other control characters, in every place where text stands.
pub(super) async fn hostile_text(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let coupon = any_coupon(field, dice)?;
    let claims = format!("/v1/coupons/{coupon}/claims");
    let orders = "/v1/codes/NOSUCHCODE/redemptions".to_owned();
    let mut attempts = Vec::new();
    for hostile in ["\0", "a\0b", "\u{1b}[2J", "\u{7f}", "\r\nx: y", "\u{202e}"] {
        let order = json!({"order_id": hostile, "order_amount": "10.00", "currency": "EUR"});
        let mut order = Attempt::post(field, orders.clone(), &order);
        let mut named = Attempt::post(field, claims.clone(), &json!({"code": hostile}));
        let encoded: String = hostile.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut in_path = Attempt::post(field, format!("/v1/codes/A{encoded}B/lock"), &json!({}));
        // Some of it is only odd, and no order or code has that name.
        for odd in [&mut order, &mut named, &mut in_path] {
            if !hostile.contains('\0') {
                odd.allowed = REFUSED_OR_DECIDED;
            }
        }
        in_path.allowed = REFUSED_OR_DECIDED;
        named.allowed = REFUSED_OR_DECIDED;
        attempts.extend([order, named, in_path]);
    }
    let broken = Bytes::from_static(b"{\"code\": \"\xff\xfe\"}");
    attempts.push(Attempt { body: Some(broken), ..Attempt::post(field, claims, &json!({})) });
    send_all(field, dice, attempts).await;
    Ok(())
}

pub(super) async fn huge_body(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let claims = format!("/v1/coupons/{}/claims", any_coupon(field, dice)?);
    let huge = || Bytes::from(format!("{{\"code\": \"{}\"}}", "x".repeat(TEN_MEGABYTES)));
    let attempt = || Attempt { body: Some(huge()), ..Attempt::post(field, claims.clone(), &json!({})) };
    let attempts = vec![attempt(), attempt()];
    send_all(field, dice, attempts).await;
    Ok(())
}

pub(super) async fn deep_json(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let claims = format!("/v1/coupons/{}/claims", any_coupon(field, dice)?);
    let deep = [
        format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH)),
        format!("{{\"code\":{}1{}}}", "{\"a\":".repeat(DEPTH / 2), "}".repeat(DEPTH / 2)),
        "[".repeat(DEPTH),
    ];
    let attempts = deep.map(|deep| Attempt {
        body: Some(Bytes::from(deep)),
        ..Attempt::post(field, claims.clone(), &json!({}))
    });
    send_all(field, dice, attempts.into()).await;
    Ok(())
}

/// Negative, zero, huge, no number at all.
pub(super) async fn odd_amounts(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
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
            Attempt::post(field, "/v1/codes/NOSUCHCODE/redemptions".to_owned(), &order)
        })
        .collect();
    let no_currency = json!({"order_id": "odd", "order_amount": "10.00", "currency": "eur\0"});
    attempts.push(Attempt::post(field, "/v1/codes/NOSUCHCODE/redemptions".to_owned(), &no_currency));
    send_all(field, dice, attempts).await;
    Ok(())
}
