//! Newtypes for every id and number that could be confused with another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number!(
    /// A partition of `coupon.requests`.
    Partition(i32)
);
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

number!(
    /// Offset of a record within its partition.
    Offset(i64)
);
impl Millis {
    /// The UTC day of this time, in days since 1970.
    #[must_use]
    pub const fn day(self) -> i32 {
        let day = self.0.div_euclid(DAY_MS);
        if day > i32::MAX as i64 {
            i32::MAX
        } else if day < i32::MIN as i64 {
            i32::MIN
        } else {
            day as i32
        }
    }

    /// The last millisecond of its day.
    #[must_use]
    pub const fn end_of_day(self) -> Self {
        Self(self.0.saturating_add(DAY_MS - 1 - self.0.rem_euclid(DAY_MS)))
    }
}

number!(
    /// Number of takeovers of a partition. Only the newest epoch may write.
    Epoch(i64)
);
number!(
    /// Number of a write of a partition, counted over all owners. Every batch takes the next one.
    WriteNo(i64)
);
number!(
    /// Sequence number of an outbox entry of a partition, from 1.
    EmitSeq(i64)
);
number!(
    /// Internal number of a coupon, short for indexes. Users see the coupon's id, which is a text.
    CouponNo(i64)
);
number!(
    /// Number of a code within its coupon, from 1, without gaps.
    CodeNumber(i64)
);
number!(
    /// Id of a bulk load of codes.
    LoadId(i64)
);
number!(
    /// Unix milliseconds of the broker's clock: append times, and times derived from them.
    Millis(i64)
);

/// Random value of a takeover. It distinguishes two owners that read the same epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nonce(pub u128);

/// Random value of one attempt at a write. It identifies the attempt that was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attempt(pub u128);

/// Id of a request, in records, rows and responses.
///
/// The owner deduplicates on `identity`. Without an Idempotency-Key (`body == 0`) it is a UUIDv7, which grows with
/// time. With a key it is a digest of caller, user, operation, target and key, and `body` is the digest of the
/// request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// 128 bits, the same for every copy of the request.
    pub identity: u128,
    /// Digest of the body (positive), or 0 for a request without an Idempotency-Key.
    pub body: i64,
}

impl RequestId {
    /// Whether the request carried an Idempotency-Key.
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        self.body != 0
    }

    /// The canonical bytes: 16, or 24 with a key.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.identity.to_be_bytes().to_vec();
        if self.is_keyed() {
            bytes.extend_from_slice(&self.body.to_be_bytes());
        }
        bytes
    }

    /// Parses the canonical text: 22 characters, or 32 with a key.
    ///
    /// # Errors
    /// [`InvalidRequestId`] for every text that [`RequestId`]'s `Display` does not produce.
    pub fn parse(text: &str) -> Result<Self, InvalidRequestId> {
        let mut bytes = [0_u8; 24];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| InvalidRequestId)?;
        let (identity, body) = bytes.split_at(16);
        let identity = u128::from_be_bytes(identity.try_into().map_err(|_| InvalidRequestId)?);
        match length {
            16 => Ok(Self { identity, body: 0 }),
            24 => {
                let body = i64::from_be_bytes(body.try_into().map_err(|_| InvalidRequestId)?);
                if body > 0 { Ok(Self { identity, body }) } else { Err(InvalidRequestId) }
            }
            _ => Err(InvalidRequestId),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0_u8; 24];
        bytes[..16].copy_from_slice(&self.identity.to_be_bytes());
        bytes[16..].copy_from_slice(&self.body.to_be_bytes());
        let used = if self.is_keyed() { &bytes[..] } else { &bytes[..16] };
        let mut text = [0_u8; 32];
        let length = URL_SAFE_NO_PAD.encode_slice(used, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)
    }
}

/// The text is not a canonical request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid request id: expected 22 or 32 characters of base64url")]
pub struct InvalidRequestId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_parses_back_from_its_text_with_and_without_a_key() {
        for body in [0, 1, i64::MAX] {
            let id = RequestId { identity: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef, body };
            assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        }
    }

    #[test]
    fn an_invalid_text_is_rejected_without_a_panic() {
        for text in
            ["", "abc", "!", &"A".repeat(23), &"A".repeat(33), &"A".repeat(400), "\0", &"A".repeat(32)]
        {
            assert_eq!(RequestId::parse(text), Err(InvalidRequestId), "{text:?}");
        }
    }
}
