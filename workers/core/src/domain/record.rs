//! One record of `coupon.requests`, decoded as far as possible.

use crate::domain::ids::{LoadId, Millis, Offset, RequestId};
use crate::domain::words::Kind;
use rust_decimal::Decimal;

/// One record of `coupon.requests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset within the partition.
    pub offset: Offset,
    /// Append time of the broker. Only append times move a partition's time.
    pub appended: Millis,
    /// Digest of the raw record. The next takeover compares it to identify the log.
    pub digest: i64,
    /// Size of the raw record in bytes, for the bound on a batch.
    pub bytes: usize,
    /// The decoded content.
    pub payload: Payload,
}

/// The decoded content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A request that the owner decides.
    Request(Request),
    /// A sealed load of codes becomes stock of a coupon.
    StockAdded {
        /// The coupon, which is the record's key.
        coupon_id: Box<str>,
        /// The load.
        load: LoadId,
    },
    /// Moves the partition's time, and has no other content.
    Tick,
    /// A record that cannot be decoded.
    Unreadable {
        /// The record for `coupon.dead-letters`.
        dead_letter: DeadLetter,
        /// The request, if the headers name it and its user: its outcome is `unprocessable`.
        request: Option<UnreadableRequest>,
    },
}

/// A user's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Id of the request.
    pub id: RequestId,
    /// The requested operation.
    pub kind: Kind,
    /// The coupon, which is the record's key.
    pub coupon_id: Box<str>,
    /// The user.
    pub user: Box<str>,
    /// The code, normalised: in named claims, and in every request about an existing code.
    pub code: Option<Box<str>>,
    /// Further fields; boxed, since claims have none.
    pub details: Option<Box<Details>>,
}

/// Fields of requests other than claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// lock, redeem: the order.
    pub order: Option<Box<str>>,
    /// redeem: the order's amount; `None` also for an invalid amount.
    pub amount: Option<Decimal>,
    /// redeem: the order's currency (ISO 4217).
    pub currency: Option<Box<str>>,
    /// rollback: id of the redeem request; `None` also for an invalid id.
    pub redemption: Option<RequestId>,
}

/// The request of an unreadable record, from its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRequest {
    /// Id of the request.
    pub id: RequestId,
    /// Its user.
    pub user: Box<str>,
    /// The coupon, which is the record's key.
    pub coupon_id: Box<str>,
}

/// A record that cannot be decided, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// A stable word for the fault.
    pub reason: &'static str,
    /// The fault as a text for people.
    pub error: Box<str>,
    /// The record's key as received.
    pub key: Option<Box<[u8]>>,
    /// The record's value as received.
    pub value: Option<Box<[u8]>>,
}
