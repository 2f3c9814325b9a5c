//! Between bytes and messages: Confluent's framing (0x00, schema id in 4 bytes big endian, Avro datum).
//!
//! A decoder knows the id of its own newest schema and reads that one straight away. Ids that other versions of
//! the program registered are learnt at run time, and only what those wrote is resolved against our schema.
//! An id that is not known is an answer of its own ([`DecodeError::UnknownSchema`]): fetch the schema, learn it, decode
//! again; only when the registry says that there is none is the record at fault.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use thiserror::Error;

use crate::message::Message;
use crate::registry::{SchemaError, Subject, check_readable, fingerprint_of, parse};

/// The longest value that is written or read, in bytes, framing included. Far above any real record, and small
/// enough that a thousand of them in flight do not matter.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

const MAGIC: u8 = 0;
const FRAME_BYTES: usize = 5;

/// The number that the registry gave to a schema (`schemas.schema_id` in Postgres).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub i32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a message cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// It would be longer than any reader accepts.
    #[error("the value has {bytes} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge {
        /// How long it would be.
        bytes: usize,
    },
}

/// Why a value is no message. All but [`DecodeError::UnknownSchema`] are final: decoding again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// There is no value (a tombstone), or one of no bytes.
    #[error("the value is empty")]
    Empty,
    /// The value is not framed as Confluent's.
    #[error("the value begins with {0:#04x}, not with 0x00")]
    BadMagic(u8),
    /// The value ends within the frame.
    #[error("the value ends within its frame")]
    Truncated,
    /// Written with a schema that was not learnt yet. Look it up, then decode again.
    #[error("schema {0} is not known")]
    UnknownSchema(SchemaId),
    /// Written with a schema that was learnt and found to be of no use here.
    #[error("schema {0} is not a version of this subject")]
    UnusableSchema(SchemaId),
    /// Longer than [`MAX_VALUE_BYTES`]; nothing of it was decoded.
    #[error("the value has {bytes} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// The datum does not fit its schema.
    #[error("the datum is malformed: {0}")]
    Malformed(String),
    /// The datum is over before the value is.
    #[error("{bytes} bytes follow the datum")]
    TrailingBytes {
        /// How many bytes are left.
        bytes: usize,
    },
}

impl DecodeError {
    /// A stable word for headers of dead letters and labels of metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
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

/// Writes messages of one subject in its newest schema.
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
    /// `id` is what the registry gave to [`Subject::newest`] of the message's subject.
    #[must_use]
    pub fn new(id: SchemaId) -> Self {
        let [a, b, c, d] = id.0.to_be_bytes();
        Self { frame: [MAGIC, a, b, c, d], of: PhantomData }
    }

    /// Appends the framed message to `out`; after an error `out` is as it was.
    pub fn encode(&self, message: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        // One allocation for an ordinary message instead of five doublings from nothing.
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

/// What a learnt id stands for.
#[derive(Clone, Debug)]
enum Writer {
    /// The same record as our own newest schema, under another id.
    Own,
    /// Another version; its records are resolved.
    Other(Arc<Schema>),
    /// Nothing that can be read here.
    Unusable,
}

/// Reads messages of one subject, whichever version wrote them. Clones share what was learnt.
#[derive(Debug)]
pub struct Decoder<T> {
    own: SchemaId,
    learnt: Arc<RwLock<HashMap<SchemaId, Writer>>>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Decoder<T> {
    fn clone(&self) -> Self {
        Self { own: self.own, learnt: Arc::clone(&self.learnt), of: PhantomData }
    }
}

impl<T: Message> Decoder<T> {
    /// `own` is what the registry gave to [`Subject::newest`] of the message's subject.
    #[must_use]
    pub fn new(own: SchemaId) -> Self {
        Self { own, learnt: Arc::default(), of: PhantomData }
    }

    /// Reads one framed value.
    pub fn decode(&self, value: &[u8]) -> Result<T, DecodeError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(DecodeError::TooLarge { bytes: value.len() });
        }
        let (id, mut datum) = unframe(value)?;
        let message = if id == self.own { read_own(&mut datum)? } else { self.read_learnt(id, &mut datum)? };
        match datum.len() {
            0 => Ok(message),
            bytes => Err(DecodeError::TrailingBytes { bytes }),
        }
    }

    /// Whether `id` needs no look-up any more.
    #[must_use]
    pub fn knows(&self, id: SchemaId) -> bool {
        id == self.own || self.writer(id).is_some()
    }

    /// Learns what the registry says about `id`.
    ///
    /// # Errors
    /// The schema is of no use here. That is remembered, and the id's records become
    /// [`DecodeError::UnusableSchema`]: the registry never changes what an id stands for.
    pub fn learn(&self, id: SchemaId, definition: &str) -> Result<(), SchemaError> {
        if id == self.own {
            return Ok(());
        }
        let (writer, answer) = match usable(T::SUBJECT, definition) {
            Ok(writer) => (writer, Ok(())),
            Err(error) => (Writer::Unusable, Err(error)),
        };
        self.learnt.write().unwrap_or_else(PoisonError::into_inner).insert(id, writer);
        answer
    }

    fn writer(&self, id: SchemaId) -> Option<Writer> {
        self.learnt.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn read_learnt(&self, id: SchemaId, datum: &mut &[u8]) -> Result<T, DecodeError> {
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

fn read_own<T: Message>(datum: &mut &[u8]) -> Result<T, DecodeError> {
    T::read(datum).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// Reads what another version wrote, field by field by name: what it added is passed over, what it lacks is null.
/// [`check_readable`] has made sure that this is all there is to resolve. (apache-avro's own resolution takes a record
/// that was cut off before an optional field for one where that field is null; this path does not.)
fn read_resolved<T: Message>(writer: &Schema, datum: &mut &[u8]) -> Result<T, DecodeError> {
    // A length prefix is believed up to this bound before a byte is read. The setting is the process's, and the
    // first one to set it wins: nobody else in Stampede reads Avro.
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
