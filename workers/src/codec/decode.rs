//! Decodes records of `coupon.requests`.
//!
//! Guarantees: every record, whatever its bytes, becomes a request, an internal record or a dead letter; a decoded
//! request satisfies the limits of Postgres and of the contract; a coupon never has two owners, because a record outside
//! its key's partition is a dead letter. The checks run in the order of the functions below; a table in the tests fixes
//! it.
//!
//! A value is decoded with texts that borrow from it, and each text that the core keeps is allocated once.

use coupon_core::ids::{LoadId, Millis, Offset, Partition, RequestId};
use coupon_core::money;
use coupon_core::record::{DeadLetter, Details, Payload, Record, Request, UnreadableRequest};
use coupon_core::words::Kind;
use schemas::{CouponRequest, DecodeError, Decoder, SchemaError, SchemaId, kinds, partition_for};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Maximum characters of a user id.
pub const USER_CHARS: usize = 256;
/// Maximum characters of a coupon id.
pub const COUPON_CHARS: usize = 64;
/// Maximum characters of a code.
pub const CODE_CHARS: usize = 64;
/// Maximum characters of an order id.
pub const ORDER_CHARS: usize = 128;
/// Maximum characters of a currency.
pub const CURRENCY_CHARS: usize = 3;

/// A record as received, borrowed from the client that fetched it.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// When the broker appended it.
    pub appended: Millis,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// The headers that identify the request and its user. Used only if the value cannot be decoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHeaders<'a> {
    /// The header `request_id`.
    pub request_id: Option<&'a [u8]>,
    /// The header `user_id`.
    pub user_id: Option<&'a [u8]>,
}

/// A record as received, kept until its writer's schema is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRawRecord {
    /// The unknown schema.
    pub schema: SchemaId,
    offset: Offset,
    appended: Millis,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    request_id: Option<Box<[u8]>>,
    user_id: Option<Box<[u8]>>,
}

impl RawRecord<'_> {
    /// A copy, kept until `schema` is fetched.
    #[must_use]
    pub fn to_owned_record(&self, schema: SchemaId, headers: RequestHeaders<'_>) -> Box<OwnedRawRecord> {
        Box::new(OwnedRawRecord {
            schema,
            offset: self.offset,
            appended: self.appended,
            key: self.key.map(Box::from),
            value: self.value.map(Box::from),
            request_id: headers.request_id.map(Box::from),
            user_id: headers.user_id.map(Box::from),
        })
    }

    /// The digest that the ledger stores to recognise this record. It is the same in every version and on every
    /// machine.
    #[must_use]
    pub fn digest(&self) -> i64 {
        let seed = xxh3_64_with_seed(self.key.unwrap_or_default(), self.appended.0.cast_unsigned());
        xxh3_64_with_seed(self.value.unwrap_or_default(), seed).cast_signed()
    }

    fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

impl OwnedRawRecord {
    /// The record as received.
    #[must_use]
    pub fn as_raw(&self) -> RawRecord<'_> {
        RawRecord {
            offset: self.offset,
            appended: self.appended,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> RequestHeaders<'_> {
        RequestHeaders { request_id: self.request_id.as_deref(), user_id: self.user_id.as_deref() }
    }
}

/// Why a record cannot be decoded: a stable reason, and an error text for operators.
struct Fault {
    reason: &'static str,
    error: String,
    /// Whether its headers may identify a request that gets an outcome. Not if the record is misplaced: the same request
    /// may exist in the right partition.
    has_outcome: bool,
}

impl Fault {
    const fn new(reason: &'static str, error: String) -> Self {
        Self { reason, error, has_outcome: true }
    }

    const fn misplaced(reason: &'static str, error: String) -> Self {
        Self { reason, error, has_outcome: false }
    }
}

/// Decodes the records of one topic. Clones share the schemas that are added.
#[derive(Clone)]
pub struct RecordDecoder {
    decoder: Decoder<CouponRequest>,
    partitions: i32,
}

impl RecordDecoder {
    /// `own` is the id of the request schema that this program was built with, `partitions` the recorded partition
    /// count.
    #[must_use]
    pub fn new(own: SchemaId, partitions: i32) -> Self {
        Self { decoder: Decoder::new(own), partitions }
    }

    /// Decodes one record.
    ///
    /// # Errors
    /// The id of a schema that was not added yet.
    pub fn record<'a>(
        &self,
        partition: Partition,
        raw: &RawRecord<'_>,
        headers: impl FnOnce() -> RequestHeaders<'a>,
    ) -> Result<Record, SchemaId> {
        let payload = match self.decoder.decode_borrowed(raw.value.unwrap_or_default()) {
            Ok(message) => self.payload(partition, raw, message),
            Err(DecodeError::UnknownSchema(id)) => return Err(id),
            Err(error) => Err(self.undecodable(partition, raw, error.label(), error.to_string())),
        };
        Ok(record_of(raw, payload, headers))
    }

    /// Adds the definition of a schema. An unusable one is recorded as such, and records written with it are dead
    /// letters.
    ///
    /// # Errors
    /// Why it is unusable.
    pub fn add_schema(&self, id: SchemaId, definition: &str) -> Result<(), SchemaError> {
        self.decoder.add_schema(id, definition)
    }

    /// The dead letter of a record whose schema was never registered.
    #[must_use]
    pub fn record_without_schema(&self, partition: Partition, raw: &OwnedRawRecord) -> Record {
        let error = format!("schema {} was never registered", raw.schema);
        let fault = self.undecodable(partition, &raw.as_raw(), "unknown_schema", error);
        record_of(&raw.as_raw(), Err(fault), || raw.headers())
    }

    /// A value that cannot be decoded; gets an outcome only if the record is in its key's partition.
    fn undecodable(
        &self,
        partition: Partition,
        raw: &RawRecord<'_>,
        reason: &'static str,
        error: String,
    ) -> Fault {
        self.key_in_its_partition(partition, raw).map_or_else(|fault| fault, |_| Fault::new(reason, error))
    }

    fn payload(
        &self,
        partition: Partition,
        raw: &RawRecord<'_>,
        message: CouponRequest<Cow<'_, str>>,
    ) -> Result<Payload, Fault> {
        if message.kind == kinds::TICK {
            return Ok(Payload::Tick);
        }
        let key = self.key_in_its_partition(partition, raw)?;
        if key != message.coupon_id.as_bytes() {
            return Err(Fault::misplaced("key_mismatch", "the key is not the coupon id".to_owned()));
        }
        text("coupon_id", &message.coupon_id, COUPON_CHARS)?;
        match &*message.kind {
            kinds::STOCK_ADDED => {
                let load = message.load_id.ok_or_else(|| {
                    Fault::new("no_load", "a stock_added record without a load id".to_owned())
                })?;
                Ok(Payload::StockAdded { coupon_id: message.coupon_id.into(), load: LoadId(load) })
            }
            kinds::DEFINITION_CHANGED => Err(Fault::new(
                "unsupported",
                "this version does not support changes of definitions".to_owned(),
            )),
            _ => request(message).map(Payload::Request),
        }
    }

    /// The record's key, if it belongs to this partition.
    fn key_in_its_partition<'a>(&self, partition: Partition, raw: &RawRecord<'a>) -> Result<&'a [u8], Fault> {
        let key = raw.key.ok_or_else(|| Fault::misplaced("no_key", "the record has no key".to_owned()))?;
        let belongs = partition_for(key, self.partitions);
        if belongs == partition.0 {
            return Ok(key);
        }
        let error =
            format!("the key belongs to partition {belongs}, but the record is in partition {partition}");
        Err(Fault::misplaced("wrong_partition", error))
    }
}

fn request(message: CouponRequest<Cow<'_, str>>) -> Result<Request, Fault> {
    text("user_id", &message.user_id, USER_CHARS)?;
    optional("code", message.code.as_deref(), CODE_CHARS)?;
    optional("order_id", message.order_id.as_deref(), ORDER_CHARS)?;
    optional("currency", message.currency.as_deref(), CURRENCY_CHARS)?;
    let id = RequestId::parse(&message.request_id)
        .map_err(|error| Fault::new("bad_request_id", error.to_string()))?;
    Ok(Request {
        id,
        kind: Kind::parse(&message.kind).unwrap_or(Kind::Unknown),
        coupon_id: message.coupon_id.into(),
        user: message.user_id.into(),
        details: details(message.order_id, message.order_amount, message.currency, message.redemption_id),
        code: message.code.map(Into::into),
    })
}

/// The optional fields of a request. An invalid amount or redemption id is omitted: an operation that needs it rejects the
/// request, which is an outcome, not a dead letter.
fn details(
    order: Option<Cow<'_, str>>,
    amount: Option<Cow<'_, str>>,
    currency: Option<Cow<'_, str>>,
    redemption: Option<Cow<'_, str>>,
) -> Option<Box<Details>> {
    if order.is_none() && amount.is_none() && currency.is_none() && redemption.is_none() {
        return None;
    }
    Some(Box::new(Details {
        order: order.map(Into::into),
        amount: amount.as_deref().and_then(money::parse),
        currency: currency.map(Into::into),
        redemption: redemption.as_deref().and_then(|text| RequestId::parse(text).ok()),
    }))
}

/// As [`text`], if there is a value.
fn optional(field: &str, value: Option<&str>, max: usize) -> Result<(), Fault> {
    value.map_or(Ok(()), |value| text(field, value, max))
}

/// One to `max` characters, none of them a control character (Postgres rejects NUL; the others are unsafe in terminals).
fn text(field: &str, text: &str, max: usize) -> Result<(), Fault> {
    if is_clean(text, max) {
        return Ok(());
    }
    let error = match text.len() {
        0 => format!("{field} is empty"),
        bytes => format!("{field} has control characters or more than {max} characters ({bytes} bytes)"),
    };
    Err(Fault::new("bad_field", error))
}

fn is_clean(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    if bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return (1..=max).contains(&bytes.len());
    }
    text.chars().count() <= max && !text.chars().any(char::is_control)
}

fn record_of<'a>(
    raw: &RawRecord<'_>,
    payload: Result<Payload, Fault>,
    headers: impl FnOnce() -> RequestHeaders<'a>,
) -> Record {
    Record {
        offset: raw.offset,
        appended: raw.appended,
        digest: raw.digest(),
        bytes: raw.bytes(),
        payload: payload.unwrap_or_else(|fault| undecodable_payload(raw, fault, headers)),
    }
}

fn undecodable_payload<'a>(
    raw: &RawRecord<'_>,
    fault: Fault,
    headers: impl FnOnce() -> RequestHeaders<'a>,
) -> Payload {
    Payload::Unreadable {
        request: if fault.has_outcome { request_of(raw.key, headers()) } else { None },
        dead_letter: DeadLetter {
            reason: fault.reason,
            error: fault.error.into(),
            key: raw.key.map(Box::from),
            value: raw.value.map(Box::from),
        },
    }
}

/// The request that headers and key identify, if they can be stored.
fn request_of(key: Option<&[u8]>, headers: RequestHeaders<'_>) -> Option<UnreadableRequest> {
    let clean = |bytes: Option<&[u8]>, max| {
        std::str::from_utf8(bytes?).ok().filter(|text| is_clean(text, max)).map(Box::from)
    };
    Some(UnreadableRequest {
        id: RequestId::parse(std::str::from_utf8(headers.request_id?).ok()?).ok()?,
        user: clean(headers.user_id, USER_CHARS)?,
        coupon_id: clean(key, COUPON_CHARS)?,
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
