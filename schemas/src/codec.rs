//! Encodes and decodes messages in Confluent's wire format: 0x00, schema id in 4 bytes big endian, Avro datum.
//!
//! A decoder reads records of its own newest schema directly. Schemas registered by other versions of the program are
//! added at run time, and their records are resolved against our schema. An id that was not added yet is an error of its
//! own ([`DecodeError::UnknownSchema`]): the caller fetches the schema, adds it and decodes again. Only if the registry
//! has no such schema is the record invalid.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::flat::Datum;
use crate::message::Message;
use crate::registry::{SchemaError, check_readable, fingerprint_of, parse};
use crate::subject::Subject;

/// The longest value that is written or read, in bytes, including the frame. Far above the size of real records, and
/// small enough for a thousand of them in flight.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

const MAGIC: u8 = 0;
const FRAME_BYTES: usize = 5;

/// The id of a schema in the registry (`schemas.schema_id` in Postgres).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub i32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The value would be longer than [`MAX_VALUE_BYTES`].
    #[error("the value has {bytes} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// A value cannot be decoded. All errors but [`DecodeError::UnknownSchema`] are final.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// There is no value (a tombstone), or it is empty.
    #[error("the value is empty")]
    Empty,
    /// The value is not in Confluent's wire format.
    #[error("the value begins with {0:#04x}, expected 0x00")]
    BadMagic(u8),
    /// The value ends within the frame.
    #[error("the value ends within its frame")]
    Truncated,
    /// The schema was not added yet. Fetch and add it, then decode again.
    #[error("unknown schema {0}")]
    UnknownSchema(SchemaId),
    /// The schema was added and is not readable as this subject.
    #[error("schema {0} is not a version of this subject")]
    UnusableSchema(SchemaId),
    /// The value is longer than [`MAX_VALUE_BYTES`]; it was not decoded.
    #[error("the value has {bytes} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The datum does not match its schema.
    #[error("the datum is malformed: {0}")]
    Malformed(String),
    /// Bytes follow the datum.
    #[error("{bytes} bytes follow the datum")]
    TrailingBytes {
        /// Their number.
        bytes: usize,
    },
}

impl DecodeError {
    /// A stable identifier, for headers of dead letters and labels of metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::BadMagic(_) => "bad_magic",
            Self::Truncated => "truncated",
            Self::UnknownSchema(_) => "unknown_schema",
            Self::UnusableSchema(_) => "unusable_schema",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed(_) => "malformed",
            Self::TrailingBytes { .. } => "trailing_bytes",
        }
    }
}

/// Encodes messages of one subject in its newest schema.
#[derive(Debug)]
pub struct Encoder<T> {
    frame: [u8; FRAME_BYTES],
    of: PhantomData<fn(&T)>,
}

impl<T> Clone for Encoder<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Encoder<T> {}

impl<T: Message> Encoder<T> {
    /// `id` is the registered id of the newest schema of the message's subject.
    #[must_use]
    pub fn new(id: SchemaId) -> Self {
        let [a, b, c, d] = id.0.to_be_bytes();
        Self { frame: [MAGIC, a, b, c, d], of: PhantomData }
    }

    /// Appends the framed message to `out`; an error leaves `out` unchanged.
    pub fn encode(&self, message: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        // One allocation for an ordinary message instead of five.
        out.reserve(256);
        out.extend_from_slice(&self.frame);
        message.write(out);
        let bytes = out.len() - start;
        if bytes > MAX_VALUE_BYTES {
            out.truncate(start);
            return Err(EncodeError::TooLarge { bytes });
        }
        Ok(())
    }

    /// The framed message.
    pub fn encode_to_vec(&self, message: &T) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        self.encode(message, &mut out)?;
        Ok(out)
    }
}

/// A schema that was added.
#[derive(Clone, Debug)]
enum Writer {
    /// The same as our newest schema, under another id.
    Own,
    /// Another version: its records are resolved.
    Other(Arc<Schema>),
    /// Not readable as this subject.
    Unusable,
}

/// Decodes messages of one subject, written by any version. Clones share the schemas that were added.
#[derive(Debug)]
pub struct Decoder<T> {
    own: SchemaId,
    added: Arc<RwLock<HashMap<SchemaId, Writer>>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Decoder<T> {
    fn clone(&self) -> Self {
        Self { own: self.own, added: Arc::clone(&self.added), of: PhantomData }
    }
}

impl<T: Message> Decoder<T> {
    /// `own` is the registered id of the newest schema of the message's subject.
    #[must_use]
    pub fn new(own: SchemaId) -> Self {
        Self { own, added: Arc::default(), of: PhantomData }
    }

    /// Decodes a framed value.
    pub fn decode(&self, value: &[u8]) -> Result<T, DecodeError> {
        self.read(value)
    }

    /// As [`Self::decode`], but the texts borrow from `value`; those of another version's record are owned.
    pub fn decode_borrowed<'a>(&self, value: &'a [u8]) -> Result<T::Borrowed<'a>, DecodeError> {
        self.read(value)
    }

    fn read<'a, R: Datum<'a> + DeserializeOwned>(&self, value: &'a [u8]) -> Result<R, DecodeError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(DecodeError::TooLarge { bytes: value.len() });
        }
        let (id, mut datum) = unframe(value)?;
        let message = if id == self.own { read_own(&mut datum)? } else { self.read_added(id, &mut datum)? };
        match datum.len() {
            0 => Ok(message),
            bytes => Err(DecodeError::TrailingBytes { bytes }),
        }
    }

    /// Whether `id` is our own schema or was added.
    #[must_use]
    pub fn has_schema(&self, id: SchemaId) -> bool {
        id == self.own || self.writer(id).is_some()
    }

    /// Adds a schema from the registry.
    ///
    /// # Errors
    /// The schema is not readable as this subject. It is added all the same, and its records are
    /// [`DecodeError::UnusableSchema`]: the registry never changes the schema of an id.
    pub fn add_schema(&self, id: SchemaId, definition: &str) -> Result<(), SchemaError> {
        if id == self.own {
            return Ok(());
        }
        let (writer, result) = match usable(T::SUBJECT, definition) {
            Ok(writer) => (writer, Ok(())),
            Err(error) => (Writer::Unusable, Err(error)),
        };
        self.added.write().unwrap_or_else(PoisonError::into_inner).insert(id, writer);
        result
    }

    fn writer(&self, id: SchemaId) -> Option<Writer> {
        self.added.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn read_added<'a, R: Datum<'a> + DeserializeOwned>(
        &self,
        id: SchemaId,
        datum: &mut &'a [u8],
    ) -> Result<R, DecodeError> {
        match self.writer(id) {
            None => Err(DecodeError::UnknownSchema(id)),
            Some(Writer::Unusable) => Err(DecodeError::UnusableSchema(id)),
            Some(Writer::Own) => read_own(datum),
            Some(Writer::Other(writer)) => read_resolved(&writer, datum),
        }
    }
}

fn unframe(value: &[u8]) -> Result<(SchemaId, &[u8]), DecodeError> {
    match value {
        [] => Err(DecodeError::Empty),
        [MAGIC, a, b, c, d, datum @ ..] => Ok((SchemaId(i32::from_be_bytes([*a, *b, *c, *d])), datum)),
        [MAGIC, ..] => Err(DecodeError::Truncated),
        [magic, ..] => Err(DecodeError::BadMagic(*magic)),
    }
}

fn read_own<'a, R: Datum<'a>>(datum: &mut &'a [u8]) -> Result<R, DecodeError> {
    R::read(datum).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// Reads a record of another version by field name: additional fields are skipped, missing ones are null.
/// [`check_readable`] has verified that no other resolution is needed. (apache-avro's own resolution reads a record that
/// was truncated before an optional field as if that field were null; this path does not.)
fn read_resolved<R: DeserializeOwned>(writer: &Schema, datum: &mut &[u8]) -> Result<R, DecodeError> {
    // apache-avro allocates up to this bound for a length prefix before it reads the bytes. The setting is global and
    // set once; no other code in Stampede reads Avro.
    apache_avro::util::max_allocation_bytes(MAX_VALUE_BYTES);
    GenericDatumReader::builder(writer)
        .build()
        .and_then(|reader| reader.read_deser(datum))
        .map_err(|error| DecodeError::Malformed(error.to_string()))
}

fn usable(subject: Subject, definition: &str) -> Result<Writer, SchemaError> {
    let writer = parse(definition)?;
    check_readable(&writer, own_schema(subject))?;
    if fingerprint_of(&writer) == subject.newest().fingerprint {
        return Ok(Writer::Own);
    }
    Ok(Writer::Other(Arc::new(writer)))
}

/// Our newest schema of a subject, parsed once.
fn own_schema(subject: Subject) -> &'static Schema {
    static PARSED: LazyLock<HashMap<Subject, Schema>> = LazyLock::new(|| {
        let parsed = |subject: &Subject| parse(subject.newest().definition).expect("a shipped schema parses");
        Subject::ALL.iter().map(|subject| (*subject, parsed(subject))).collect()
    });
    &PARSED[&subject]
}
