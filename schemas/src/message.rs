//! The records of the three topics as Rust types. Fields are in the order of the newest `.avsc`, which is the order on
//! the wire.
//!
//! Each record is generic over the type `S` of its texts: `String` unless stated otherwise, or `Cow<str>` for texts that
//! borrow from the encoded value.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::flat::{Datum, FlatError};
use crate::subject::Subject;

/// A record of one subject, with owned texts. Its datum is in the newest schema of [`Self::SUBJECT`].
pub trait Message: for<'a> Datum<'a> + Serialize + DeserializeOwned + Send + Sync {
    /// The subject whose schemas describe it.
    const SUBJECT: Subject;
    /// The same record with texts that borrow from the encoded value.
    type Borrowed<'a>: Datum<'a> + DeserializeOwned;
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident<$text:ident> of $subject:expr; $($(#[$field_doc:meta])* $field:ident: $type:ty,)+) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name<$text = String> {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl Message for $name {
            const SUBJECT: Subject = $subject;
            type Borrowed<'a> = $name<Cow<'a, str>>;
        }

        impl<'a, $text: Datum<'a>> Datum<'a> for $name<$text> {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)+
            }

            fn read(input: &mut &'a [u8]) -> Result<Self, FlatError> {
                // The fields of a struct literal are evaluated in the order in which they are written.
                Ok(Self { $($field: Datum::read(input)?,)+ })
            }
        }
    };
}

record! {
    /// Everything that the owner of a coupon must process: requests of users, ticks, new stock, changed definitions.
    CouponRequest<S> of Subject::Request;
    /// Canonical request id; empty for internal records.
    request_id: S,
    /// One of [`crate::kinds::REQUESTS`], or a kind of a newer version.
    kind: S,
    /// The coupon; the key of the record.
    coupon_id: S,
    /// The user of the request; empty for internal records.
    user_id: S,
    /// When the request id was minted, Unix milliseconds.
    minted_at_ms: i64,
    /// The requested code, normalised.
    code: Option<S>,
    /// `lock`, `redeem`: the order.
    order_id: Option<S>,
    /// `redeem`: exact decimal.
    order_amount: Option<S>,
    /// `redeem`: ISO 4217.
    currency: Option<S>,
    /// `rollback`: the redemption to undo.
    redemption_id: Option<S>,
    /// `stock_added`: the sealed load that becomes stock.
    load_id: Option<i64>,
    /// `definition_changed`: the changed definition, JSON.
    definition: Option<S>,
    /// The caller, if it is not the user.
    caller: Option<S>,
}

record! {
    /// The final outcome of one request; published again after a takeover, always identical.
    CouponResponse<S> of Subject::Response;
    /// Canonical request id.
    request_id: S,
    /// The kind of the request.
    kind: S,
    /// The coupon.
    coupon_id: S,
    /// The user of the request; the key of the record.
    user_id: S,
    /// [`crate::status::ACCEPTED`] or [`crate::status::REJECTED`].
    status: S,
    /// The partition's time at the decision, Unix milliseconds.
    decided_at_ms: i64,
    /// Partition of the request in `coupon.requests`.
    partition: i32,
    /// Offset of the request in `coupon.requests`.
    offset: i64,
    /// Rejected: a stable identifier such as `sold_out`.
    reason: Option<S>,
    /// The code as displayed to users.
    code: Option<S>,
    /// The code's number within its coupon, from 1.
    code_number: Option<i64>,
    /// The state of the claim after this request.
    claim_state: Option<S>,
    /// Unix milliseconds.
    claimed_at_ms: Option<i64>,
    /// When the claim lapses, Unix milliseconds.
    hold_until_ms: Option<i64>,
    /// When the lock lapses, Unix milliseconds.
    lock_until_ms: Option<i64>,
    /// The redemption that was made or rolled back.
    redemption_id: Option<S>,
    /// The order of the lock or redemption.
    order_id: Option<S>,
    /// Exact decimal.
    order_amount: Option<S>,
    /// The discount, exact decimal.
    discount: Option<S>,
    /// Order amount less discount, exact decimal.
    final_price: Option<S>,
    /// ISO 4217.
    currency: Option<S>,
    /// Unix milliseconds.
    redeemed_at_ms: Option<i64>,
}

record! {
    /// An event that no request caused directly: lapsed holds and locks; stock that is low, sold out, or available again.
    CouponEvent<S> of Subject::Event;
    /// One of [`crate::kinds::EVENTS`], or a kind of a newer version.
    kind: S,
    /// The coupon; the key of the record.
    coupon_id: S,
    /// The partition's time of the event, Unix milliseconds.
    at_ms: i64,
    /// Partition of the coupon in `coupon.requests`.
    partition: i32,
    /// Offset in `coupon.requests` up to which the owner has decided.
    offset: i64,
    /// The code whose hold or lock lapsed.
    code: Option<S>,
    /// Its user.
    user_id: Option<S>,
    /// Number of available codes.
    available: Option<i64>,
}
