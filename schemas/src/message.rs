//! The records of the three topics as Rust types. Fields stand in the order of the newest `.avsc`, which is the
//! order on the wire; what each means is written there.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::flat::{Field, FlatError};
use crate::registry::Subject;

/// A record with a subject of its own.
pub trait Message: Serialize + DeserializeOwned + Send + Sync {
    /// Whose schemas describe it.
    const SUBJECT: Subject;
    /// Appends the datum in the newest schema of [`Self::SUBJECT`].
    fn write(&self, out: &mut Vec<u8>);
    /// Takes a datum in the newest schema of [`Self::SUBJECT`] off the front of `input`.
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
    /// Everything that a coupon's owner must know: what users ask for, ticks, new stock, changed definitions.
    CouponRequest of Subject::Request;
    /// Canonical request id; empty for internal records.
    request_id: String,
    /// One of [`crate::kinds::REQUESTS`], or a word of a newer version.
    kind: String,
    /// The coupon, and the record's key.
    coupon_id: String,
    /// Who it is for; empty for internal records.
    user_id: String,
    /// When the request id was minted, unix milliseconds.
    minted_at_ms: i64,
    /// The code that is meant, normalised.
    code: Option<String>,
    /// `lock`, `redeem`: the order that the code is for.
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
    /// Who asked, where that is not the user.
    caller: Option<String>,
}

record! {
    /// The final outcome of one request; repeated after a takeover, always identical.
    CouponResponse of Subject::Response;
    /// Canonical request id.
    request_id: String,
    /// The request's kind.
    kind: String,
    /// The coupon that decided.
    coupon_id: String,
    /// Whose request it was, and the record's key.
    user_id: String,
    /// [`crate::status::ACCEPTED`] or [`crate::status::REJECTED`].
    status: String,
    /// The partition's time at the decision, unix milliseconds.
    decided_at_ms: i64,
    /// Partition of the request in `coupon.requests`.
    partition: i32,
    /// Offset of the request in `coupon.requests`.
    offset: i64,
    /// Rejected: a stable word.
    reason: Option<String>,
    /// The code as shown to people.
    code: Option<String>,
    /// The code's number within its coupon, from 1.
    code_number: Option<i64>,
    /// The state of the claim after this request.
    claim_state: Option<String>,
    /// Unix milliseconds.
    claimed_at_ms: Option<i64>,
    /// When the claim lapses, unix milliseconds.
    hold_until_ms: Option<i64>,
    /// When the lock lapses, unix milliseconds.
    lock_until_ms: Option<i64>,
    /// The redemption that was made or undone.
    redemption_id: Option<String>,
    /// The order that the code is locked for or was redeemed with.
    order_id: Option<String>,
    /// Exact decimal.
    order_amount: Option<String>,
    /// What the code took off, exact decimal.
    discount: Option<String>,
    /// Order amount less discount, exact decimal.
    final_price: Option<String>,
    /// ISO 4217.
    currency: Option<String>,
    /// Unix milliseconds.
    redeemed_at_ms: Option<i64>,
}

record! {
    /// What no request asked for: lapsed holds and locks, stock running low, out, and in again.
    CouponEvent of Subject::Event;
    /// One of [`crate::kinds::EVENTS`], or a word of a newer version.
    kind: String,
    /// The coupon, and the record's key.
    coupon_id: String,
    /// The partition's time when it happened, unix milliseconds.
    at_ms: i64,
    /// Partition of the coupon in `coupon.requests`.
    partition: i32,
    /// Offset in `coupon.requests` up to which the owner had decided.
    offset: i64,
    /// The code that lapsed.
    code: Option<String>,
    /// Who had it.
    user_id: Option<String>,
    /// Codes free now.
    available: Option<i64>,
}
