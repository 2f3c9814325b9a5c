//! From a raw record of `coupon.requests` to what the core decides.
//!
//! Guarantees: every record becomes something, whatever its bytes; nothing that Postgres or the contract would
//! refuse gets past here; a coupon never has two owners, because a record in a partition that is not its key's is a
//! dead letter. The order of the checks is the order of the functions below, and is tested as a table.

use coupon_core::ids::{LoadId, Millis, Offset, Partition, RequestId};
use coupon_core::money;
use coupon_core::record::{DeadLetter, Details, Payload, Record, Request, UnreadableRequest};
use coupon_core::words::Kind;
use schemas::{CouponRequest, DecodeError, Decoder, SchemaError, SchemaId, kinds, partition_for};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Characters in a user's id at most.
pub const USER_CHARS: usize = 256;
/// Characters in a coupon's id at most.
pub const COUPON_CHARS: usize = 64;
/// Characters in a code at most.
pub const CODE_CHARS: usize = 64;
/// Characters in an order's id at most.
pub const ORDER_CHARS: usize = 128;
/// Characters in a currency at most.
pub const CURRENCY_CHARS: usize = 3;

/// A record as it came, borrowed from the client that fetched it.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Its place in the log.
    pub offset: Offset,
    /// When the broker appended it.
    pub appended: Millis,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// The headers that say who asked. Looked at only where the value does not say it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// The header `request_id`.
    pub request_id: Option<&'a [u8]>,
    /// The header `user_id`.
    pub user_id: Option<&'a [u8]>,
}

/// A record as it came, kept until its writer's schema is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRaw {
    /// The schema that is missing.
    pub schema: SchemaId,
    offset: Offset,
    appended: Millis,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    request_id: Option<Box<[u8]>>,
    user_id: Option<Box<[u8]>>,
}

impl Raw<'_> {
    /// A copy that waits for `schema`.
    #[must_use]
    pub fn waiting_for(&self, schema: SchemaId, asker: Asker<'_>) -> Box<OwnedRaw> {
        Box::new(OwnedRaw {
            schema,
            offset: self.offset,
            appended: self.appended,
            key: self.key.map(Box::from),
            value: self.value.map(Box::from),
            request_id: asker.request_id.map(Box::from),
            user_id: asker.user_id.map(Box::from),
        })
    }

    /// What the ledger keeps to recognise this record: the same in every version and on every machine.
    #[must_use]
    pub fn digest(&self) -> i64 {
        let seed = xxh3_64_with_seed(self.key.unwrap_or_default(), self.appended.0.cast_unsigned());
        xxh3_64_with_seed(self.value.unwrap_or_default(), seed).cast_signed()
    }

    fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

impl OwnedRaw {
    /// The record as it came.
    #[must_use]
    pub fn as_raw(&self) -> Raw<'_> {
        Raw {
            offset: self.offset,
            appended: self.appended,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }

    /// Who asked.
    #[must_use]
    pub fn asker(&self) -> Asker<'_> {
        Asker { request_id: self.request_id.as_deref(), user_id: self.user_id.as_deref() }
    }
}

/// Why a record cannot be decided: a stable word, and what was found, for people.
struct Fault {
    reason: &'static str,
    error: String,
    /// Whether its headers may say who asked. Not where the record contradicts its place: the same request may
    /// stand where it belongs.
    answerable: bool,
}

impl Fault {
    const fn new(reason: &'static str, error: String) -> Self {
        Self { reason, error, answerable: true }
    }

    const fn misplaced(reason: &'static str, error: String) -> Self {
        Self { reason, error, answerable: false }
    }
}

/// Decodes the records of one topic. Clones share what they learn.
#[derive(Clone)]
pub struct Decode {
    decoder: Decoder<CouponRequest>,
    partitions: i32,
}

impl Decode {
    /// `own` is the id of the request schema that this program was built with, `partitions` the recorded number.
    #[must_use]
    pub fn new(own: SchemaId, partitions: i32) -> Self {
        Self { decoder: Decoder::new(own), partitions }
    }

    /// Decodes one record.
    ///
    /// # Errors
    /// The id of a schema that this program does not know (yet).
    pub fn record<'a>(
        &self,
        partition: Partition,
        raw: &Raw<'_>,
        asker: impl FnOnce() -> Asker<'a>,
    ) -> Result<Record, SchemaId> {
        let payload = match self.decoder.decode(raw.value.unwrap_or_default()) {
            Ok(message) => self.payload(partition, raw, message),
            Err(DecodeError::UnknownSchema(id)) => return Err(id),
            Err(error) => Err(self.undecodable(partition, raw, error.label(), error.to_string())),
        };
        Ok(finished(raw, payload, asker))
    }

    /// Teaches the definition of a schema; one that cannot be used is remembered as such, and what was written
    /// with it is a dead letter.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn learn(&self, id: SchemaId, definition: &str) -> Result<(), SchemaError> {
        self.decoder.add_schema(id, definition)
    }

    /// A record whose schema nobody ever registered.
    #[must_use]
    pub fn without_a_schema(&self, partition: Partition, raw: &OwnedRaw) -> Record {
        let error = format!("schema {} was never registered", raw.schema);
        let fault = self.undecodable(partition, &raw.as_raw(), "unknown_schema", error);
        finished(&raw.as_raw(), Err(fault), || raw.asker())
    }

    /// A value that cannot be read: answered only where the key is in its place.
    fn undecodable(&self, partition: Partition, raw: &Raw<'_>, reason: &'static str, error: String) -> Fault {
        self.in_its_place(partition, raw).map_or_else(|fault| fault, |_| Fault::new(reason, error))
    }

    fn payload(&self, partition: Partition, raw: &Raw<'_>, message: CouponRequest) -> Result<Payload, Fault> {
        if message.kind == kinds::TICK {
            return Ok(Payload::Tick);
        }
        let key = self.in_its_place(partition, raw)?;
        if key != message.coupon_id.as_bytes() {
            return Err(Fault::misplaced("key_mismatch", "the key is not the coupon's id".to_owned()));
        }
        text("coupon_id", &message.coupon_id, COUPON_CHARS)?;
        match message.kind.as_str() {
            kinds::STOCK_ADDED => {
                let load = message
                    .load_id
                    .ok_or_else(|| Fault::new("no_load", "a stock_added record names no load".to_owned()))?;
                Ok(Payload::StockAdded { coupon_id: message.coupon_id.into(), load: LoadId(load) })
            }
            kinds::DEFINITION_CHANGED => {
                Err(Fault::new("unsupported", "definitions cannot be changed by this version".to_owned()))
            }
            _ => request(message).map(Payload::Request),
        }
    }

    /// The record's key, if this partition is the key's.
    fn in_its_place<'a>(&self, partition: Partition, raw: &Raw<'a>) -> Result<&'a [u8], Fault> {
        let key = raw.key.ok_or_else(|| Fault::misplaced("no_key", "the record has no key".to_owned()))?;
        let belongs = partition_for(key, self.partitions);
        if belongs == partition.0 {
            return Ok(key);
        }
        let error =
            format!("the key belongs into partition {belongs}, the record is in partition {partition}");
        Err(Fault::misplaced("wrong_partition", error))
    }
}

fn request(message: CouponRequest) -> Result<Request, Fault> {
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

/// What a request says beyond whose and which code it is. An amount that is none and a redemption's id that is none
/// are left out: whoever needs them finds them missing, and rejects the request as an outcome of its own.
fn details(
    order: Option<String>,
    amount: Option<String>,
    currency: Option<String>,
    redemption: Option<String>,
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

/// The same as [`text`], where there is one.
fn optional(field: &str, value: Option<&str>, most: usize) -> Result<(), Fault> {
    value.map_or(Ok(()), |value| text(field, value, most))
}

/// One to `most` characters, none of them a control character (Postgres refuses NUL, terminals the rest).
fn text(field: &str, text: &str, most: usize) -> Result<(), Fault> {
    if is_clean(text, most) {
        return Ok(());
    }
    let error = match text.len() {
        0 => format!("{field} is empty"),
        bytes => format!("{field} has control characters or more than {most} characters ({bytes} bytes)"),
    };
    Err(Fault::new("bad_field", error))
}

fn is_clean(text: &str, most: usize) -> bool {
    let bytes = text.as_bytes();
    if bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return (1..=most).contains(&bytes.len());
    }
    text.chars().count() <= most && !text.chars().any(char::is_control)
}

fn finished<'a>(raw: &Raw<'_>, payload: Result<Payload, Fault>, asker: impl FnOnce() -> Asker<'a>) -> Record {
    Record {
        offset: raw.offset,
        appended: raw.appended,
        digest: raw.digest(),
        bytes: raw.bytes(),
        payload: payload.unwrap_or_else(|fault| unreadable(raw, fault, asker)),
    }
}

fn unreadable<'a>(raw: &Raw<'_>, fault: Fault, asker: impl FnOnce() -> Asker<'a>) -> Payload {
    Payload::Unreadable {
        request: if fault.answerable { unanswered(raw.key, asker()) } else { None },
        dead_letter: DeadLetter {
            reason: fault.reason,
            error: fault.error.into(),
            key: raw.key.map(Box::from),
            value: raw.value.map(Box::from),
        },
    }
}

/// Who asked, as far as headers and key say it in a form that can be stored.
fn unanswered(key: Option<&[u8]>, asker: Asker<'_>) -> Option<UnreadableRequest> {
    let clean = |bytes: Option<&[u8]>, most| {
        std::str::from_utf8(bytes?).ok().filter(|text| is_clean(text, most)).map(Box::from)
    };
    Some(UnreadableRequest {
        id: RequestId::parse(std::str::from_utf8(asker.request_id?).ok()?).ok()?,
        user: clean(asker.user_id, USER_CHARS)?,
        coupon_id: clean(key, COUPON_CHARS)?,
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
