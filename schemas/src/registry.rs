//! Subjects, versions and fingerprints: what a program registers in Postgres before it writes, and how it tells
//! whether a schema that another program registered can be read.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::topics;

/// What a line of schema versions is about: the value of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// `CouponRequest` in `coupon.requests`.
    Request,
    /// `CouponResponse` in `coupon.responses`.
    Response,
    /// `CouponEvent` in `coupon.events`.
    Event,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 3] = [Self::Request, Self::Response, Self::Event];

    /// The name in the registry, by Confluent's convention: the topic's name and `-value`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "coupon.requests-value",
            Self::Response => "coupon.responses-value",
            Self::Event => "coupon.events-value",
        }
    }

    /// The topic whose values it describes.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Request => topics::REQUESTS,
            Self::Response => topics::RESPONSES,
            Self::Event => topics::EVENTS,
        }
    }

    /// The schema that this version of the program writes.
    #[must_use]
    pub fn newest(self) -> &'static OwnSchema {
        own().iter().find(|schema| schema.subject == self).expect("every subject has a version")
    }
}

/// A schema that ships with this version of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSchema {
    /// The line that it belongs to.
    pub subject: Subject,
    /// Its number in that line, from 1: the `v1` in the file's name.
    pub version: u32,
    /// SHA-256 of the parsing canonical form: the key in the registry.
    pub fingerprint: [u8; 32],
    /// The text of the `.avsc` file.
    pub definition: &'static str,
}

/// Every version of every subject, oldest first. A new version is a new file and a new line here; old ones stay,
/// because records written with them may still be in a topic.
const SHIPPED: &[(Subject, u32, &str)] = &[
    (Subject::Request, 1, include_str!("../avro/coupon_request.v1.avsc")),
    (Subject::Response, 1, include_str!("../avro/coupon_response.v1.avsc")),
    (Subject::Event, 1, include_str!("../avro/coupon_event.v1.avsc")),
];

static VERSIONS: LazyLock<Vec<OwnSchema>> = LazyLock::new(|| {
    SHIPPED
        .iter()
        .map(|&(subject, version, definition)| OwnSchema {
            subject,
            version,
            fingerprint: fingerprint(definition).expect("a shipped schema parses"),
            definition,
        })
        .collect()
});

static OWN: LazyLock<Vec<OwnSchema>> = LazyLock::new(|| {
    Subject::ALL
        .iter()
        .filter_map(|subject| versions().iter().rfind(|schema| schema.subject == *subject).cloned())
        .collect()
});

/// The newest schema of each subject: register these before writing, and write with their ids.
#[must_use]
pub fn own() -> &'static [OwnSchema] {
    &OWN
}

/// Every version that ships, oldest first.
#[must_use]
pub fn versions() -> &'static [OwnSchema] {
    &VERSIONS
}

/// Why a schema of another program cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// It is not an Avro schema.
    #[error("not an Avro schema: {0}")]
    Unparsable(String),
    /// It is one, but not one whose records this program can read.
    #[error("not a version of this subject: {0}")]
    Incompatible(String),
}

/// SHA-256 of a schema's parsing canonical form. It leaves out documentation and defaults: they change nothing
/// about the bytes that a writer writes.
pub fn fingerprint(definition: &str) -> Result<[u8; 32], SchemaError> {
    Ok(fingerprint_of(&parse(definition)?))
}

pub(crate) fn fingerprint_of(schema: &Schema) -> [u8; 32] {
    Sha256::digest(schema.canonical_form()).into()
}

pub(crate) fn parse(definition: &str) -> Result<Schema, SchemaError> {
    Schema::parse_str(definition).map_err(|error| SchemaError::Unparsable(error.to_string()))
}

/// Whether records of `writer` can be read as records of `reader` by the names of their fields alone: both describe
/// the same record, no field has another type, and what the writer lacks is null by default. The contract allows no
/// other changes, and `tests/compatibility.rs` refuses them before they ship.
pub(crate) fn check_readable(writer: &Schema, reader: &Schema) -> Result<(), SchemaError> {
    let refuse = |why: String| Err(SchemaError::Incompatible(why));
    if writer.name() != reader.name() {
        return refuse("it describes another record".to_owned());
    }
    let (writer, reader) = (flat(writer)?, flat(reader)?);
    for field in &reader.fields {
        match writer.fields.iter().find(|other| other.name == field.name) {
            Some(other) if other.schema != field.schema => {
                return refuse(format!("its {} has another type", field.name));
            }
            None if field.default != Some(serde_json::Value::Null) => {
                return refuse(format!("it has no {}", field.name));
            }
            _ => (),
        }
    }
    Ok(())
}

/// The contract's records are flat. Nothing else is read: a schema that refers to itself would let a record of a few
/// bytes exhaust the stack.
fn flat(schema: &Schema) -> Result<&RecordSchema, SchemaError> {
    let Schema::Record(record) = schema else {
        return Err(SchemaError::Incompatible("it is not a record".to_owned()));
    };
    let plain = |schema: &Schema| {
        matches!(
            schema,
            Schema::Null
                | Schema::Boolean
                | Schema::Int
                | Schema::Long
                | Schema::Float
                | Schema::Double
                | Schema::Bytes
                | Schema::String
        )
    };
    for field in &record.fields {
        let flat = match &field.schema {
            Schema::Union(union) => union.variants().iter().all(plain),
            other => plain(other),
        };
        if !flat {
            return Err(SchemaError::Incompatible(format!("its field {} is not flat", field.name)));
        }
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_has_a_newest_version_and_a_fingerprint_of_its_own() {
        assert_eq!(own().len(), Subject::ALL.len());
        for (at, schema) in versions().iter().enumerate() {
            assert!(versions()[..at].iter().all(|other| other.fingerprint != schema.fingerprint));
            assert!(schema.subject.newest().version >= schema.version);
        }
    }

    #[test]
    fn a_fingerprint_ignores_layout_and_documentation_but_no_field() {
        let newest = Subject::Event.newest();
        let compact =
            newest.definition.replace("  ", "").replace("The coupon, and the record's key.", "else");
        assert_eq!(fingerprint(&compact), Ok(newest.fingerprint));
        let renamed = newest.definition.replace("\"available\"", "\"left\"");
        assert_ne!(fingerprint(&renamed), Ok(newest.fingerprint));
    }

    #[test]
    fn what_is_no_schema_has_no_fingerprint() {
        assert!(matches!(fingerprint("{}"), Err(SchemaError::Unparsable(_))));
        assert!(matches!(fingerprint(""), Err(SchemaError::Unparsable(_))));
    }
}
