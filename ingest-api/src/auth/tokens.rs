//! Verifies tokens, and issues them for development. Extracts the caller of a request.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::caller::{Caller, USER_ID_CHARACTERS};
use super::roles::Roles;
use super::token_cache::TokenCache;
use crate::clock::unix_ms;
use crate::http::problem::Problem;
use crate::text::line_error;

/// Verified tokens kept in memory: about 20 MB.
const CACHED_TOKENS: usize = 50_000;

const MISSING_TOKEN: &str = "send a token as Authorization: Bearer …";

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    roles: Roles,
    /// A number, with or without a fraction.
    exp: f64,
}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    sub: &'a str,
    roles: Roles,
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

/// Verifies and issues tokens.
pub struct Tokens {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
    issuer: String,
    audience: String,
    cache: TokenCache,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).field("audience", &self.audience).finish()
    }
}

impl Tokens {
    /// Tokens signed by HS256 with this secret, by this issuer, for this audience.
    #[must_use]
    pub fn new(secret: &SecretString, issuer: &str, audience: &str) -> Self {
        let secret = secret.expose_secret().as_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        // `exp` is strict.
        validation.leeway = 0;
        Self {
            decoding: DecodingKey::from_secret(secret),
            encoding: EncodingKey::from_secret(secret),
            validation,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            cache: TokenCache::new(CACHED_TOKENS),
        }
    }

    /// Issues a token for development and tests. Times are unix seconds.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub fn issue(
        &self,
        sub: &str,
        roles: Roles,
        now: i64,
        seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims =
            IssuedClaims { sub, roles, iss: &self.issuer, aud: &self.audience, iat: now, exp: now + seconds };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
    }

    /// Verifies a token and returns its caller.
    ///
    /// # Errors
    /// 401 with the kind of error, never with content of the token.
    pub fn check(&self, token: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.cache.get(token, unix_ms() / 1000) {
            return Ok(caller);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| Problem::unauthenticated(reason(error.kind())))?
            .claims;
        if line_error(&claims.sub, USER_ID_CHARACTERS).is_some() {
            return Err(Problem::unauthenticated("the token's sub must have 1 to 256 printable characters"));
        }
        let caller = Caller { sub: claims.sub, roles: claims.roles };
        #[expect(clippy::cast_possible_truncation, reason = "a time out of range saturates")]
        self.cache.insert(token, caller.clone(), claims.exp as i64);
        Ok(caller)
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let value =
            headers.get(header::AUTHORIZATION).ok_or_else(|| Problem::unauthenticated(MISSING_TOKEN))?;
        let text = value.to_str().map_err(|_| Problem::unauthenticated("the token is malformed"))?;
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self.check(token.trim()),
            _ => Err(Problem::unauthenticated(MISSING_TOKEN)),
        }
    }
}

/// State of a router that can verify tokens.
pub trait HasTokens: Send + Sync {
    /// Verifies tokens.
    fn tokens(&self) -> &Tokens;
}

impl HasTokens for Arc<Tokens> {
    fn tokens(&self) -> &Tokens {
        self
    }
}

impl<S: HasTokens> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        state.tokens().caller(&parts.headers)
    }
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token has another issuer",
        ErrorKind::InvalidAudience => "the token has another audience",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "the token's algorithm is not allowed"
        }
        ErrorKind::MissingRequiredClaim(_) => "the token must have sub, exp, iss and aud",
        _ => "the token is invalid",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn tokens() -> Tokens {
        Tokens::new(&SecretString::from("a secret of thirty-two characters"), "stampede", "stampede")
    }

    fn now() -> i64 {
        chrono::Utc::now().timestamp()
    }

    fn rejected(token: &str) -> Problem {
        tokens().check(token).expect_err("the token is invalid")
    }

    #[test]
    fn a_valid_token_yields_its_caller_and_roles() {
        let roles: Roles = [Role::User, Role::Admin].into_iter().collect();
        let token = tokens().issue("ann", roles, now(), 60).expect("a token");
        assert_eq!(tokens().check(&token).ok(), Some(Caller { sub: "ann".to_owned(), roles }));
        // The second check hits the cache; a token with another signature does not.
        let tokens = tokens();
        assert_eq!(tokens.check(&token).ok(), tokens.check(&token).ok());
        let mut altered = token.clone().into_bytes();
        let last = altered.len() - 3;
        altered[last] = if altered[last] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).expect("still text");
        assert_eq!(tokens.check(&altered).map_err(|problem| problem.status().as_u16()), Err(401));
    }

    #[test]
    fn expired_foreign_unsigned_and_otherwise_signed_tokens_are_rejected() {
        let roles: Roles = [Role::Admin].into_iter().collect();
        assert_eq!(rejected(&tokens().issue("ann", roles, NOW, 60).expect("a token")).status().as_u16(), 401);
        for (secret, issuer, audience) in [
            ("another secret of many characters", "stampede", "stampede"),
            ("a secret of thirty-two characters", "other", "stampede"),
            ("a secret of thirty-two characters", "stampede", "other"),
        ] {
            let other = Tokens::new(&SecretString::from(secret), issuer, audience);
            let token = other.issue("ann", roles, now(), 60).expect("a token");
            assert_eq!(rejected(&token).code(), "unauthenticated");
        }
        let key = EncodingKey::from_secret(b"a secret of thirty-two characters");
        let claims =
            IssuedClaims { sub: "ann", roles, iss: "stampede", aud: "stampede", iat: now(), exp: now() + 60 };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &key).expect("a token");
        assert_eq!(rejected(&token).code(), "unauthenticated");
        // {"alg":"none"} and the body of a valid token, without a signature.
        let valid = tokens().issue("ann", roles, now(), 60).expect("a token");
        let body = valid.split('.').nth(1).expect("a body");
        for unsigned in
            [format!("eyJhbGciOiJub25lIn0.{body}."), format!("eyJhbGciOiJub25lIn0.{body}"), String::new()]
        {
            assert_eq!(rejected(&unsigned).code(), "unauthenticated");
        }
        let long = "x".repeat(257);
        for sub in ["", "a\0b", "a\nb", &long] {
            let token = tokens().issue(sub, roles, now(), 60).expect("a token");
            assert_eq!(rejected(&token).code(), "unauthenticated");
        }
    }
}
