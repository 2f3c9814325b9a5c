//! Authentication and authorisation by JSON Web Token.
//!
//! Guarantees: the signature algorithm is fixed by this code and never taken from the token; a caller acts for itself
//! only, unless it is a service; no part of a token is ever logged.

mod caller;
mod roles;
mod token_cache;
mod tokens;

pub use caller::Caller;
pub use roles::{Role, Roles};
pub use tokens::{HasTokens, Tokens};

pub(crate) use caller::{USER_ID_CHARACTERS, check_user_id};
