//! The context of a request that changes something: who sends it, about what, under which Idempotency-Key, and how long
//! the client waits for the outcome.
//!
//! Everything is parsed once, before the body is read. The order of errors: token 401, path 400, wait 422, key 400.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;

use crate::auth::{Caller, HasTokens, check_user_id};
use crate::http::headers::{Wait, idempotency_key};
use crate::http::parameters::{Parameters, PathName};
use crate::http::problem::Problem;

/// The context of a request. Name it before the body among the arguments of a handler.
#[derive(Debug)]
pub(crate) struct RequestContext {
    /// Who sends it.
    pub(crate) caller: Caller,
    /// The coupon, code or redemption in the path, not normalised.
    pub(crate) name: String,
    /// How long the client waits for the outcome.
    pub(crate) wait: Option<Wait>,
    /// The Idempotency-Key.
    pub(crate) key: Option<String>,
    uri: Uri,
}

impl<S: HasTokens> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let PathName(name) = PathName::from_request_parts(parts, state).await?;
        let wait = Wait::of(&parts.uri, &parts.headers)?;
        let key = idempotency_key(&parts.headers)?.map(str::to_owned);
        Ok(Self { caller, name, wait, key, uri: parts.uri.clone() })
    }
}

impl RequestContext {
    /// The user that `?user_id=` names.
    ///
    /// # Errors
    /// 400 for a query that cannot be decoded, 422 for an invalid user id.
    pub(crate) fn user_parameter(&self) -> Result<Option<String>, Problem> {
        user_parameter(&Parameters::of(&self.uri)?)
    }
}

/// The user that `user_id` names among the parameters.
///
/// # Errors
/// 422 for an invalid user id.
pub(crate) fn user_parameter(parameters: &Parameters) -> Result<Option<String>, Problem> {
    let Some(user) = parameters.get("user_id")? else { return Ok(None) };
    check_user_id(user).map(|user| Some(user.to_owned()))
}
