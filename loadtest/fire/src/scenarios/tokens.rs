//! Tokens that must not count.

use hyper::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::input::{Attempt, send_all};
use crate::dice::Dice;
use crate::field::{Field, Trouble};

const UNAUTHENTICATED: &[u16] = &[401];

/// None, rubbish, another algorithm, none at all, another secret, audience or issuer, expired, cut short.
pub(super) async fn bad_tokens(field: &Field, dice: &mut Dice) -> Result<(), Trouble> {
    let good = field.token("mallory", "user");
    let sign = |algorithm, secret: &[u8], change: fn(&mut Value)| {
        let mut claims = json!({"sub": "mallory", "roles": ["user"], "iss": "stampede", "aud": "stampede",
            "exp": 4_000_000_000_u64});
        change(&mut claims);
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret))
    };
    let secret = field.stack.jwt_secret().as_bytes().to_vec();
    let (head, payload) = good.split_once('.').unwrap_or_default();
    let (payload, _) = payload.split_once('.').unwrap_or_default();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let bad = [
        String::new(),
        "rubbish".to_owned(),
        format!("{head}.{payload}"),
        unsigned,
        sign(Algorithm::HS512, &secret, |_| {})?,
        sign(Algorithm::HS256, b"a secret of somebody else", |_| {})?,
        sign(Algorithm::HS256, &secret, |claims| claims["exp"] = json!(1_000_000_000))?,
        sign(Algorithm::HS256, &secret, |claims| claims["aud"] = json!("another"))?,
        sign(Algorithm::HS256, &secret, |claims| claims["iss"] = json!("another"))?,
    ];
    let paths = [(Method::GET, "/v1/users/me/codes"), (Method::POST, "/v1/codes/NOSUCHCODE/lock")];
    let mut attempts = Vec::new();
    for token in bad {
        for (method, path) in &paths {
            let body = (*method == Method::POST).then(|| "{}".into());
            attempts.push(Attempt {
                method: method.clone(),
                path: (*path).to_owned(),
                token: token.clone(),
                body,
                allowed: UNAUTHENTICATED,
            });
        }
    }
    send_all(field, dice, attempts).await;
    Ok(())
}
