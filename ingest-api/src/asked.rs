//! What every route shares that makes a request: who asks about what, and the way from there to its acceptance.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use coupon_core::codes::{CodeKey, normalise};

use crate::accept::{Submission, submit};
use crate::app::App;
use crate::auth::{Caller, HasTokens, Role, USER_ID_CHARACTERS};
use crate::extract::{Named, Parameters, Wait, idempotency_key};
use crate::fields::fault_of_line;
use crate::problem::Problem;
use crate::said::Said;

/// Somebody asks for something about the coupon, code or redemption that the address names.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) caller: Caller,
    /// The name in the address.
    pub(crate) named: String,
    uri: Uri,
    headers: HeaderMap,
}

impl<S: HasTokens> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Named(named) = Named::from_request_parts(parts, state).await?;
        Ok(Self { caller, named, uri: parts.uri.clone(), headers: parts.headers.clone() })
    }
}

impl Asked {
    /// The parameters of the address.
    ///
    /// # Errors
    /// 400 for a query that cannot be read.
    pub(crate) fn parameters(&self) -> Result<Parameters, Problem> {
        Parameters::of(&self.uri)
    }

    /// The user that `?user_id=` names.
    ///
    /// # Errors
    /// 422 for a text that is no user's id.
    pub(crate) fn named_user(&self) -> Result<Option<String>, Problem> {
        let parameters = self.parameters()?;
        let Some(user) = parameters.get("user_id")? else { return Ok(None) };
        user_id(user).map(|user| Some(user.to_owned()))
    }

    /// The user whose list the address names: `me` is the caller, and who has one of these roles may name anybody.
    ///
    /// # Errors
    /// 403 for somebody else's list, 422 for a text that is no user's id.
    pub(crate) fn listed_user(&self, for_anybody: &[Role]) -> Result<&str, Problem> {
        let own = &self.caller.sub;
        if self.named == "me" || self.named == *own {
            self.caller.require(&[&[Role::User], for_anybody].concat())?;
            return Ok(own);
        }
        self.caller.require(for_anybody)?;
        user_id(&self.named)
    }

    /// The Idempotency-Key.
    ///
    /// # Errors
    /// 400 for one that is none.
    pub(crate) fn key(&self) -> Result<Option<&str>, Problem> {
        idempotency_key(&self.headers)
    }

    /// The code that the address names.
    ///
    /// # Errors
    /// 422 for a text that cannot be a code.
    pub(crate) fn code(&self) -> Result<CodeKey, Problem> {
        normalise(&self.named).map_err(|fault| Problem::invalid_field("code", fault.to_string()))
    }

    /// Asks for `kind` of the code in the address, on behalf of `user`.
    ///
    /// # Errors
    /// As [`submit`]; 422 for a text that cannot be a code; 503 while nobody knows where the code belongs.
    pub(crate) async fn about_code(
        &self,
        app: &App,
        kind: &'static str,
        user: &str,
        said: Said,
    ) -> Result<Response, Problem> {
        let code = self.code()?;
        let coupon_id = app.codes.coupon_of(&code, &app.questions).await?;
        let coupon_id = coupon_id.as_deref().unwrap_or(code.as_str());
        let said = Said { code: Some(code.as_str().to_owned()), ..said };
        self.submit(app, kind, user, Target { coupon_id, name: code.as_str() }, said).await
    }

    /// Asks for `kind`, on behalf of `user`.
    ///
    /// # Errors
    /// As [`submit`]; what is wrong with the headers and parameters that every such request may have.
    pub(crate) async fn submit(
        &self,
        app: &App,
        kind: &'static str,
        user: &str,
        target: Target<'_>,
        said: Said,
    ) -> Result<Response, Problem> {
        let wait = Wait::of(&self.uri, &self.headers)?;
        let Target { coupon_id, name } = target;
        let caller = &self.caller.sub;
        let key = self.key()?;
        submit(app, Submission { caller, user, kind, coupon_id, target: name, said, key, wait }).await
    }
}

fn user_id(text: &str) -> Result<&str, Problem> {
    match fault_of_line(text, USER_ID_CHARACTERS) {
        None => Ok(text),
        Some(fault) => Err(Problem::invalid_field("user_id", fault)),
    }
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The record's key: the coupon; for a code or redemption that nobody knows, its own text.
    pub(crate) coupon_id: &'a str,
    /// The whole target, in one form.
    pub(crate) name: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(named: &str, role: Role) -> Asked {
        let caller = Caller { sub: "ann".to_owned(), roles: [role].into_iter().collect() };
        Asked { caller, named: named.to_owned(), uri: Uri::from_static("/x"), headers: HeaderMap::new() }
    }

    #[test]
    fn a_list_is_its_users_and_theirs_who_may_see_everybodys() {
        let listed = |named: &str, role| {
            let asked = asked(named, role);
            let user = asked.listed_user(&[Role::Service]).map(str::to_owned);
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
