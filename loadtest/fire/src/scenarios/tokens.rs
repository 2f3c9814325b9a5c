//! Invalid tokens.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::input::{Attempt, send_all};
use crate::environment::{Environment, FaultError};
use crate::rng::Rng;
use stampede_client::transport::Method;

const UNAUTHENTICATED: &[u16] = &[401];

/// No token, random text, a truncated or unsigned token, another algorithm, secret, audience or issuer, an expired one.
pub(super) async fn bad_tokens(env: &Environment, rng: &mut Rng) -> Result<(), FaultError> {
    let good = env.token("mallory", "user");
    let sign = |algorithm, secret: &[u8], change: fn(&mut Value)| {
        let mut claims = json!({"sub": "mallory", "roles": ["user"], "iss": "stampede", "aud": "stampede",
            "exp": 4_000_000_000_u64});
        change(&mut claims);
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret))
    };
    let secret = env.stack.jwt_secret().as_bytes().to_vec();
    let (head, payload) = good.split_once('.').unwrap_or_default();
    let (payload, _) = payload.split_once('.').unwrap_or_default();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let bad = [
        String::new(),
        "random text".to_owned(),
        format!("{head}.{payload}"),
        unsigned,
        sign(Algorithm::HS512, &secret, |_| {})?,
        sign(Algorithm::HS256, b"another secret of 32 bytes or more", |_| {})?,
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
    send_all(env, rng, attempts).await;
    Ok(())
}
