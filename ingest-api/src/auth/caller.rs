//! The caller of a request, and the users for which it may act.

use std::ops::RangeInclusive;

use super::roles::{Role, Roles};
use crate::http::problem::Problem;
use crate::text::line_error;

/// Length of a user id, in characters.
pub(crate) const USER_ID_CHARACTERS: RangeInclusive<usize> = 1..=256;

/// The caller of a request, from its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub sub: String,
    /// The token's roles.
    pub roles: Roles,
}

impl Caller {
    /// Requires one of these roles.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn require(&self, roles: &[Role]) -> Result<(), Problem> {
        if roles.iter().any(|role| self.roles.has(*role)) {
            return Ok(());
        }
        let words: Vec<_> = roles.iter().map(|role| role.word()).collect();
        Err(Problem::forbidden(format!("this requires the role {}", words.join(" or "))))
    }

    /// The user whose list is read: `me` is the caller; a caller with one of these roles may name any user.
    ///
    /// # Errors
    /// 403 for another user's list, 422 for an invalid user id.
    pub(crate) fn lists_of<'a>(&'a self, name: &'a str, for_any_user: &[Role]) -> Result<&'a str, Problem> {
        if name == "me" || name == self.sub {
            self.require(&[&[Role::User], for_any_user].concat())?;
            return Ok(&self.sub);
        }
        self.require(for_any_user)?;
        check_user_id(name)
    }

    /// The user of this request: the caller, or the user that a service names.
    ///
    /// # Errors
    /// 403 for another user's id, 422 for a service that names no user.
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

/// Checks the text of a user id.
///
/// # Errors
/// 422 for an invalid user id.
pub(crate) fn check_user_id(text: &str) -> Result<&str, Problem> {
    match line_error(text, USER_ID_CHARACTERS) {
        None => Ok(text),
        Some(error) => Err(Problem::invalid_field("user_id", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_acts_for_itself_and_a_service_for_the_user_it_names() {
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

    #[test]
    fn a_list_is_visible_to_its_user_and_to_roles_that_may_name_any_user() {
        let listed = |name: &str, role: Role| {
            let caller = Caller { sub: "ann".to_owned(), roles: [role].into_iter().collect() };
            let user = caller.lists_of(name, &[Role::Service]).map(str::to_owned);
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
