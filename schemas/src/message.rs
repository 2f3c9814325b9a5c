//! The records of the three topics as Rust types. Fields are in the order of the newest `.avsc`, which is the order on
//! the wire.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::flat::{Field, FlatError};
use crate::subject::Subject;

/// A record of one subject.
pub trait Message: Serialize + DeserializeOwned + Send + Sync {
    /// The subject whose schemas describe it.
    const SUBJECT: Subject;
    /// Appends the datum in the newest schema of [`Self::SUBJECT`].
    fn write(&self, out: &mut Vec<u8>);
    /// Reads a datum in the newest schema of [`Self::SUBJECT`], and advances `input` past it.
    fn read(input: &mut &[u8]) -> Result<Self, FlatError>;
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident of $subject:expr; $($(#[$field_doc:meta])* $field:ident: $type:ty,)+) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl Message for $name {
            const SUBJECT: Subject = $subject;

            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)+
            }

            fn read(input: &mut &[u8]) -> Result<Self, FlatError> {
                // The fields of a struct literal are evaluated in the order in which they are written.
                Ok(Self { $($field: Field::read(input)?,)+ })
            }
        }
    };
}

record! {
    /// Everything that the owner of a coupon must process: requests of users, ticks, new stock, changed definitions.
    CouponRequest of Subject::Request;
    /// Canonical request id; empty for internal records.
    request_id: String,
    /// One of [`crate::kinds::REQUESTS`], or a kind of a newer version.
    kind: String,
    /// The coupon; the key of the record.
    coupon_id: String,
    /// The user of the request; empty for internal records.
    user_id: String,
    /// When the request id was minted, Unix milliseconds.
    minted_at_ms: i64,
    /// The requested code, normalised.
    code: Option<String>,
    /// `lock`, `redeem`: the order.
    order_id: Option<String>,
    /// `redeem`: exact decimal.
    order_amount: Option<String>,
    /// `redeem`: ISO 4217.
    currency: Option<String>,
    /// `rollback`: the redemption to undo.
    redemption_id: Option<String>,
    /// `stock_added`: the sealed load that becomes stock.
    load_id: Option<i64>,
    /// `definition_changed`: the changed definition, JSON.
    definition: Option<String>,
    /// The caller, if it is not the user.
    caller: Option<String>,
}

record! {
    /// The final outcome of one request; published again after a takeover, always identical.
    CouponResponse of Subject::Response;
    /// Canonical request id.
    request_id: String,
    /// The kind of the request.
    kind: String,
    /// The coupon.
    coupon_id: String,
    /// The user of the request; the key of the record.
    user_id: String,
    /// [`crate::status::ACCEPTED`] or [`crate::status::REJECTED`].
    status: String,
    /// The partition's time at the decision, Unix milliseconds.
    decided_at_ms: i64,
    /// Partition of the request in `coupon.requests`.
    partition: i32,
    /// Offset of the request in `coupon.requests`.
    offset: i64,
    /// Rejected: a stable identifier such as `sold_out`.
    reason: Option<String>,
    /// The code as displayed to users.
    code: Option<String>,
    /// The code's number within its coupon, from 1.
    code_number: Option<i64>,
    /// The state of the claim after this request.
    claim_state: Option<String>,
    /// Unix milliseconds.
    claimed_at_ms: Option<i64>,
    /// When the claim lapses, Unix milliseconds.
    hold_until_ms: Option<i64>,
    /// When the lock lapses, Unix milliseconds.
    lock_until_ms: Option<i64>,
    /// The redemption that was made or rolled back.
    redemption_id: Option<String>,
    /// The order of the lock or redemption.
    order_id: Option<String>,
    /// Exact decimal.
    order_amount: Option<String>,
    /// The discount, exact decimal.
    discount: Option<String>,
    /// Order amount less discount, exact decimal.
    final_price: Option<String>,
    /// ISO 4217.
    currency: Option<String>,
    /// Unix milliseconds.
    redeemed_at_ms: Option<i64>,
}

record! {
    /// An event that no request caused directly: lapsed holds and locks; stock that is low, sold out, or available again.
    CouponEvent of Subject::Event;
    /// One of [`crate::kinds::EVENTS`], or a kind of a newer version.
    kind: String,
    /// The coupon; the key of the record.
    coupon_id: String,
    /// The partition's time of the event, Unix milliseconds.
    at_ms: i64,
    /// Partition of the coupon in `coupon.requests`.
    partition: i32,
    /// Offset in `coupon.requests` up to which the owner has decided.
    offset: i64,
    /// The code whose hold or lock lapsed.
    code: Option<String>,
    /// Its user.
    user_id: Option<String>,
    /// Number of available codes.
    available: Option<i64>,
}
