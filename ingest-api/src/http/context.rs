//! The context of a request that names a coupon, a code, a redemption or a user: who sends it, and about what.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use coupon_core::codes::{CodeKey, normalise};

use super::headers::{Wait, idempotency_key};
use super::parameters::{Parameters, PathName};
use super::problem::Problem;
use crate::app::App;
use crate::auth::{Caller, HasTokens, Role, USER_ID_CHARACTERS};
use crate::requests::payload::CommandPayload;
use crate::requests::submit::{Submission, submit};
use crate::text::line_error;

/// The context of a request.
#[derive(Debug)]
pub(crate) struct RequestContext {
    /// Who sends it.
    pub(crate) caller: Caller,
    /// The name in the path.
    pub(crate) name: String,
    uri: Uri,
    headers: HeaderMap,
}

impl<S: HasTokens> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let PathName(name) = PathName::from_request_parts(parts, state).await?;
        Ok(Self { caller, name, uri: parts.uri.clone(), headers: parts.headers.clone() })
    }
}

impl RequestContext {
    /// The query parameters.
    ///
    /// # Errors
    /// 400 for a query that cannot be decoded.
    pub(crate) fn parameters(&self) -> Result<Parameters, Problem> {
        Parameters::of(&self.uri)
    }

    /// The user that `?user_id=` names.
    ///
    /// # Errors
    /// 422 for an invalid user id.
    pub(crate) fn named_user(&self) -> Result<Option<String>, Problem> {
        let parameters = self.parameters()?;
        let Some(user) = parameters.get("user_id")? else { return Ok(None) };
        user_id(user).map(|user| Some(user.to_owned()))
    }

    /// The user whose list the path names: `me` is the caller; a caller with one of these roles may name any user.
    ///
    /// # Errors
    /// 403 for another user's list, 422 for an invalid user id.
    pub(crate) fn listed_user(&self, for_any_user: &[Role]) -> Result<&str, Problem> {
        let own = &self.caller.sub;
        if self.name == "me" || self.name == *own {
            self.caller.require(&[&[Role::User], for_any_user].concat())?;
            return Ok(own);
        }
        self.caller.require(for_any_user)?;
        user_id(&self.name)
    }

    /// The Idempotency-Key.
    ///
    /// # Errors
    /// 400 for an invalid key.
    pub(crate) fn key(&self) -> Result<Option<&str>, Problem> {
        idempotency_key(&self.headers)
    }

    /// The code in the path.
    ///
    /// # Errors
    /// 422 for an invalid code.
    pub(crate) fn code(&self) -> Result<CodeKey, Problem> {
        normalise(&self.name).map_err(|error| Problem::invalid_field("code", error.to_string()))
    }

    /// Submits a request of this kind about the code in the path, on behalf of `user`.
    ///
    /// # Errors
    /// As [`submit`]; 422 for an invalid code; 503 while the partition of the code is unknown.
    pub(crate) async fn submit_for_code(
        &self,
        app: &App,
        kind: &'static str,
        user: &str,
        payload: CommandPayload,
    ) -> Result<Response, Problem> {
        let code = self.code()?;
        let coupon_id = app.codes.coupon_of(&code, &app.query_pool).await?;
        let coupon_id = coupon_id.as_deref().unwrap_or(code.as_str());
        let payload = CommandPayload { code: Some(code.as_str().to_owned()), ..payload };
        self.submit(app, kind, user, Target { coupon_id, name: code.as_str() }, payload).await
    }

    /// Submits a request of this kind, on behalf of `user`.
    ///
    /// # Errors
    /// As [`submit`]; 422 and 400 for an invalid wait or key.
    pub(crate) async fn submit(
        &self,
        app: &App,
        kind: &'static str,
        user: &str,
        target: Target<'_>,
        payload: CommandPayload,
    ) -> Result<Response, Problem> {
        let wait = Wait::of(&self.uri, &self.headers)?;
        let Target { coupon_id, name } = target;
        let caller = &self.caller.sub;
        let key = self.key()?;
        submit(app, Submission { caller, user, kind, coupon_id, target: name, payload, key, wait }).await
    }
}

fn user_id(text: &str) -> Result<&str, Problem> {
    match line_error(text, USER_ID_CHARACTERS) {
        None => Ok(text),
        Some(error) => Err(Problem::invalid_field("user_id", error)),
    }
}

/// The target of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The record's key: the coupon; for an unknown code or redemption its own text.
    pub(crate) coupon_id: &'a str,
    /// The whole target, normalised.
    pub(crate) name: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str, role: Role) -> RequestContext {
        let caller = Caller { sub: "ann".to_owned(), roles: [role].into_iter().collect() };
        let (uri, headers) = (Uri::from_static("/x"), HeaderMap::new());
        RequestContext { caller, name: name.to_owned(), uri, headers }
    }

    #[test]
    fn a_list_is_visible_to_its_user_and_to_roles_that_may_name_any_user() {
        let listed = |name: &str, role| {
            let context = context(name, role);
            let user = context.listed_user(&[Role::Service]).map(str::to_owned);
            user.map_err(|problem| problem.status().as_u16())
        };
        let ann = || Ok("ann".to_owned());
        assert_eq!((listed("me", Role::User), listed("ann", Role::User)), (ann(), ann()));
        assert_eq!(listed("bob", Role::User), Err(403));
        assert_eq!(listed("bob", Role::Service), Ok("bob".to_owned()));
        assert_eq!(listed("me", Role::Service), ann());
        assert_eq!((listed("me", Role::Admin), listed("bob", Role::Admin)), (Err(403), Err(403)));
        assert_eq!(listed("a\nb", Role::Service), Err(422));
        assert_eq!(listed(&"x".repeat(257), Role::Service), Err(422));
    }
}
