//! Records of `coupon.events`.

use crate::domain::ids::{Millis, Offset};

/// A change of a coupon or a claim that no request caused by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Kind of the change.
    pub kind: EventKind,
    /// The coupon.
    pub coupon_id: Box<str>,
    /// Number of free codes after the change.
    pub available: i64,
    /// The lapsed claim, for the kinds of lapses.
    pub lapsed: Option<Lapsed>,
    /// The record that caused the change.
    pub offset: Offset,
    /// The partition's time of the change.
    pub at: Millis,
}

/// A lapsed claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapsed {
    /// The code as shown to people.
    pub code: Box<str>,
    /// The user of the claim.
    pub user: Box<str>,
}

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The last free code was taken.
    SoldOut,
    /// A load became stock, or a code was returned to a coupon without free codes.
    Restocked,
    /// A hold lapsed: the code is stock again.
    HoldLapsed,
    /// A lock lapsed.
    LockLapsed,
}

impl EventKind {
    /// The word in `coupon.events`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoldOut => "sold_out",
            Self::Restocked => "restocked",
            Self::HoldLapsed => "hold_lapsed",
            Self::LockLapsed => "lock_lapsed",
        }
    }
}
