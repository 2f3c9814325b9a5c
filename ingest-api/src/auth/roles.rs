//! What a token allows.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One role of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Acts for itself.
    User,
    /// Acts for any user.
    Service,
    /// Manages coupons and codes.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::User, Self::Service, Self::Admin];

    /// The word in tokens and problems.
    pub(super) const fn word(self) -> &'static str {
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

/// A set of roles. Unknown words allow nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Whether the set contains the role.
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
