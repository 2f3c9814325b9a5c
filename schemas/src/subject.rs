//! The names of the topics, and the subjects of their values.

/// Requests of users, and everything else that the owner of a coupon must process.
pub const REQUESTS: &str = "coupon.requests";
/// Final outcomes.
pub const RESPONSES: &str = "coupon.responses";
/// Events that no request caused directly.
pub const EVENTS: &str = "coupon.events";
/// Records that cannot be processed, as received.
pub const DEAD_LETTERS: &str = "coupon.dead-letters";

/// A series of schema versions: those of the values of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// `CouponRequest` in `coupon.requests`.
    Request,
    /// `CouponResponse` in `coupon.responses`.
    Response,
    /// `CouponEvent` in `coupon.events`.
    Event,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 3] = [Self::Request, Self::Response, Self::Event];

    /// The name in the registry, by Confluent's convention: the name of the topic and `-value`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "coupon.requests-value",
            Self::Response => "coupon.responses-value",
            Self::Event => "coupon.events-value",
        }
    }

    /// Its topic.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Request => REQUESTS,
            Self::Response => RESPONSES,
            Self::Event => EVENTS,
        }
    }
}
