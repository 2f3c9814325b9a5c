//! What the owner of a partition consumes: one record of the log, decoded as far as it can be.

use crate::domain::ids::{LoadId, Millis, Offset, RequestId};
use crate::domain::words::Kind;
use rust_decimal::Decimal;

/// One record of `coupon.requests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub offset: Offset,
    /// When the broker appended it; the only thing that moves a partition's time.
    pub appended: Millis,
    /// Digest of the raw record, to recognise the log at the next takeover.
    pub digest: i64,
    /// Size of the raw record in bytes, for the bound on a batch.
    pub bytes: usize,
    /// What it says.
    pub payload: Payload,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A user's request, to be decided.
    Request(Request),
    /// A sealed load of codes becomes stock of a coupon.
    StockAdded {
        /// The coupon, which is the record's key.
        coupon_id: Box<str>,
        /// The load.
        load: LoadId,
    },
    /// Moves the partition's time, and says nothing else.
    Tick,
    /// Nothing that an owner can decide. `request` is present if the headers name the request and its user.
    Unreadable {
        /// What goes to `coupon.dead-letters`.
        dead_letter: DeadLetter,
        /// Whom to tell `unprocessable`.
        request: Option<UnreadableRequest>,
    },
}

/// A user's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is known by.
    pub id: RequestId,
    /// What it asks for.
    pub kind: Kind,
    /// The coupon, which is the record's key.
    pub coupon_id: Box<str>,
    /// For whom.
    pub user: Box<str>,
    /// The code that is meant, normalised: of named claims, and of everything done to a code.
    pub code: Option<Box<str>>,
    /// What else it says; boxed, since a claim says nothing else.
    pub details: Option<Box<Details>>,
}

/// What requests other than claims say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// lock, redeem: the order.
    pub order: Option<Box<str>>,
    /// redeem: the order's amount; `None` also where what was sent is no amount.
    pub amount: Option<Decimal>,
    /// redeem: the order's currency (ISO 4217).
    pub currency: Option<Box<str>>,
    /// rollback: the request that made the redemption; `None` also where what was sent is no redemption's id.
    pub redemption: Option<RequestId>,
}

/// Who is behind a record that cannot be read: from its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRequest {
    /// The request's id.
    pub id: RequestId,
    /// Its user.
    pub user: Box<str>,
    /// The coupon it was keyed by.
    pub coupon_id: Box<str>,
}

/// A record that cannot be decided, kept as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// A stable word for what is wrong.
    pub reason: &'static str,
    /// What was found, for people.
    pub error: Box<str>,
    /// The record's key as received.
    pub key: Option<Box<[u8]>>,
    /// The record's value as received.
    pub value: Option<Box<[u8]>>,
}
