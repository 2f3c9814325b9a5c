//! What the tests share.

pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod faults;
pub(crate) mod field;
pub(crate) mod foreigner;
pub(crate) mod life;
pub(crate) mod lives;
#[expect(clippy::disallowed_types, reason = "a few records by hand: nothing here is fast")]
pub(crate) mod log;
pub(crate) mod operator;
pub(crate) mod sale;

pub(crate) use client::{Ask, Reply};
pub(crate) use crowd::Crowd;
pub(crate) use field::{Field, Kind, alone};
pub(crate) use life::{Act, Deed};
pub(crate) use sale::Sale;
