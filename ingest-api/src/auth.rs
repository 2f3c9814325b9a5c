//! Who is asking: a JSON Web Token, checked with one algorithm that is fixed here and never taken from the token.
//!
//! Guarantees: a caller acts for itself only, unless it is a service; nothing of a token is ever logged.

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::unix_ms;
use crate::fields::fault_of_line;
use crate::known_tokens::KnownTokens;
use crate::problem::Problem;

/// How long a user's id may be, in characters.
pub(crate) const USER_ID_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=256;

/// Tokens that need not be checked again, at most: some 20 MB.
const KNOWN: usize = 50_000;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Asks for itself.
    User,
    /// Asks for any user.
    Service,
    /// Makes coupons and codes.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::User, Self::Service, Self::Admin];

    const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of roles. Words that this version does not know allow nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Whether the role is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(Role::ALL.iter().filter(|role| self.has(**role)).map(|role| role.word()))
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Roles;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of roles")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Roles, A::Error> {
                let mut roles = Roles::default();
                while let Some(word) = words.next_element::<String>()? {
                    roles.0 |= Role::ALL.iter().find(|role| role.word() == word).map_or(0, |role| role.bit());
                }
                Ok(roles)
            }
        }
        deserializer.deserialize_seq(Words)
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    roles: Roles,
    /// A number, with or without a fraction.
    exp: f64,
}

#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    roles: Roles,
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

/// Checks tokens, and makes them for development.
pub struct Tokens {
    decoding: DecodingKey,
    encoding: EncodingKey,
    validation: Validation,
    issuer: String,
    audience: String,
    known: KnownTokens,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).field("audience", &self.audience).finish()
    }
}

impl Tokens {
    /// Tokens signed by HS256 with this secret, for this audience, by this issuer.
    #[must_use]
    pub fn new(secret: &SecretString, issuer: &str, audience: &str) -> Self {
        let secret = secret.expose_secret().as_bytes();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        // A token is over when it says so.
        validation.leeway = 0;
        Self {
            decoding: DecodingKey::from_secret(secret),
            encoding: EncodingKey::from_secret(secret),
            validation,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            known: KnownTokens::new(KNOWN),
        }
    }

    /// A token for development and tests.
    ///
    /// # Errors
    /// When the signature cannot be made.
    pub fn issue(
        &self,
        sub: &str,
        roles: Roles,
        now: i64,
        seconds: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let issued =
            Issued { sub, roles, iss: &self.issuer, aud: &self.audience, iat: now, exp: now + seconds };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &issued, &self.encoding)
    }

    /// Who a token speaks for.
    ///
    /// # Errors
    /// 401, saying what is wrong but never what is in the token.
    pub fn check(&self, token: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.known.recall(token, unix_ms() / 1000) {
            return Ok(caller);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| Problem::unauthenticated(reason(error.kind())))?
            .claims;
        if fault_of_line(&claims.sub, USER_ID_CHARACTERS).is_some() {
            return Err(Problem::unauthenticated("the token's sub must have 1 to 256 printable characters"));
        }
        let caller = Caller { sub: claims.sub, roles: claims.roles };
        #[expect(clippy::cast_possible_truncation, reason = "a time beyond all bounds saturates")]
        self.known.remember(token, caller.clone(), claims.exp as i64);
        Ok(caller)
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let value = headers
            .get(header::AUTHORIZATION)
            .ok_or_else(|| Problem::unauthenticated("send a token as Authorization: Bearer …"))?;
        let text = value.to_str().map_err(|_| Problem::unauthenticated("the token cannot be read"))?;
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self.check(token.trim()),
            _ => Err(Problem::unauthenticated("send a token as Authorization: Bearer …")),
        }
    }
}

/// What a router is given to check tokens with.
pub trait HasTokens: Send + Sync {
    /// Checks them.
    fn tokens(&self) -> &Tokens;
}

impl HasTokens for Arc<Tokens> {
    fn tokens(&self) -> &Tokens {
        self
    }
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "the token's algorithm is not allowed"
        }
        ErrorKind::MissingRequiredClaim(_) => "the token lacks one of sub, exp, iss, aud",
        _ => "the token is not valid",
    }
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub sub: String,
    /// What it may do.
    pub roles: Roles,
}

impl Caller {
    /// Whether the caller has one of these roles.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn require(&self, roles: &[Role]) -> Result<(), Problem> {
        if roles.iter().any(|role| self.roles.has(*role)) {
            return Ok(());
        }
        let words: Vec<_> = roles.iter().map(|role| role.word()).collect();
        Err(Problem::forbidden(format!("this needs the role {}", words.join(" or "))))
    }

    /// The user for whom this request is: the caller, or the one that a service names.
    ///
    /// # Errors
    /// 403 for somebody else's name, 422 for a service that names nobody.
    pub(crate) fn acts_for<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str, Problem> {
        self.require(&[Role::User, Role::Service])?;
        match named {
            Some(named) if self.roles.has(Role::Service) || named == self.sub => Ok(named),
            Some(_) => Err(Problem::forbidden("a user's token acts for that user only")),
            None if self.roles.has(Role::User) => Ok(&self.sub),
            None => Err(Problem::invalid_field("user_id", "is required: a service acts for a user")),
        }
    }
}

impl<S: HasTokens> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        state.tokens().caller(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn tokens() -> Tokens {
        Tokens::new(&SecretString::from("a secret of thirty-two characters"), "stampede", "stampede")
    }

    fn now() -> i64 {
        chrono::Utc::now().timestamp()
    }

    fn refused(token: &str) -> Problem {
        tokens().check(token).expect_err("it must be refused")
    }

    #[test]
    fn a_token_of_ours_tells_who_asks_and_what_they_may_do() {
        let roles: Roles = [Role::User, Role::Admin].into_iter().collect();
        let token = tokens().issue("ann", roles, now(), 60).expect("a token");
        assert_eq!(tokens().check(&token).ok(), Some(Caller { sub: "ann".to_owned(), roles }));
        // The second time it is known, and one that differs in its last byte is not.
        let tokens = tokens();
        assert_eq!(tokens.check(&token).ok(), tokens.check(&token).ok());
        let mut altered = token.clone().into_bytes();
        let last = altered.len() - 3;
        altered[last] = if altered[last] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).expect("still text");
        assert_eq!(tokens.check(&altered).map_err(|problem| problem.status().as_u16()), Err(401));
    }

    #[test]
    fn expired_foreign_unsigned_and_otherwise_signed_tokens_are_refused() {
        let roles: Roles = [Role::Admin].into_iter().collect();
        assert_eq!(refused(&tokens().issue("ann", roles, NOW, 60).expect("a token")).status().as_u16(), 401);
        for (secret, issuer, audience) in [
            ("another secret of many characters", "stampede", "stampede"),
            ("a secret of thirty-two characters", "other", "stampede"),
            ("a secret of thirty-two characters", "stampede", "other"),
        ] {
            let other = Tokens::new(&SecretString::from(secret), issuer, audience);
            let token = other.issue("ann", roles, now(), 60).expect("a token");
            assert_eq!(refused(&token).code(), "unauthenticated");
        }
        let key = EncodingKey::from_secret(b"a secret of thirty-two characters");
        let issued =
            Issued { sub: "ann", roles, iss: "stampede", aud: "stampede", iat: now(), exp: now() + 60 };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &issued, &key).expect("a token");
        assert_eq!(refused(&token).code(), "unauthenticated");
        // {"alg":"none"} and the body of a good token, without a signature.
        let good = tokens().issue("ann", roles, now(), 60).expect("a token");
        let body = good.split('.').nth(1).expect("a body");
        for none in
            [format!("eyJhbGciOiJub25lIn0.{body}."), format!("eyJhbGciOiJub25lIn0.{body}"), String::new()]
        {
            assert_eq!(refused(&none).code(), "unauthenticated");
        }
        let long = "x".repeat(257);
        for sub in ["", "a\0b", "a\nb", &long] {
            let token = tokens().issue(sub, roles, now(), 60).expect("a token");
            assert_eq!(refused(&token).code(), "unauthenticated");
        }
    }

    #[test]
    fn a_user_acts_for_itself_and_a_service_for_the_one_it_names() {
        let caller =
            |roles: &[Role]| Caller { sub: "ann".to_owned(), roles: roles.iter().copied().collect() };
        let user = caller(&[Role::User]);
        assert_eq!(user.acts_for(None).ok(), Some("ann"));
        assert_eq!(user.acts_for(Some("ann")).ok(), Some("ann"));
        assert_eq!(user.acts_for(Some("bob")).map_err(|p| p.status().as_u16()), Err(403));
        let service = caller(&[Role::Service]);
        assert_eq!(service.acts_for(Some("bob")).ok(), Some("bob"));
        assert_eq!(service.acts_for(None).map_err(|p| p.status().as_u16()), Err(422));
        assert_eq!(caller(&[Role::Admin]).acts_for(None).map_err(|p| p.status().as_u16()), Err(403));
        assert_eq!(caller(&[]).acts_for(None).map_err(|p| p.status().as_u16()), Err(403));
    }
}
