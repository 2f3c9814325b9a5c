//! Access tokens that the local stack accepts: HS256, signed with the stack's secret.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, errors::Error};
use serde::Serialize;

const ISSUER_AND_AUDIENCE: &str = "stampede";

/// Signs tokens.
pub struct Tokens {
    key: EncodingKey,
    expires: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    roles: [&'a str; 1],
    iss: &'a str,
    aud: &'a str,
    exp: u64,
}

impl Tokens {
    /// Signs with `secret`; the tokens are valid for `lifetime` from now.
    #[must_use]
    pub fn new(secret: &str, lifetime: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { key: EncodingKey::from_secret(secret.as_bytes()), expires: (now + lifetime).as_secs() }
    }

    /// A token for one subject in one role: `user`, `service` or `admin`.
    ///
    /// # Errors
    /// When the signature cannot be made.
    pub fn issue(&self, sub: &str, role: &str) -> Result<String, Error> {
        let claims = Claims {
            sub,
            roles: [role],
            iss: ISSUER_AND_AUDIENCE,
            aud: ISSUER_AND_AUDIENCE,
            exp: self.expires,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
    }
}
