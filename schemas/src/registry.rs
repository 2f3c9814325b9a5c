//! Subjects, versions and fingerprints: the schemas that a program registers in Postgres before it produces, and the
//! check whether a schema registered by another program is readable.

use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::subject::Subject;

impl Subject {
    /// The schema that this version of the program produces with.
    #[must_use]
    pub fn newest(self) -> &'static ShippedSchema {
        newest_schemas().iter().find(|schema| schema.subject == self).expect("every subject has a version")
    }
}

/// A schema that ships with this version of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedSchema {
    /// Its subject.
    pub subject: Subject,
    /// Its version, from 1: the `v1` in the file name.
    pub version: u32,
    /// SHA-256 of the parsing canonical form; the key in the registry.
    pub fingerprint: [u8; 32],
    /// The text of the `.avsc` file.
    pub definition: &'static str,
}

/// All versions of all subjects, oldest first. A new version is a new file and a new line here. Old versions stay,
/// because a topic may still have their records.
const SHIPPED: &[(Subject, u32, &str)] = &[
    (Subject::Request, 1, include_str!("../avro/coupon_request.v1.avsc")),
    (Subject::Response, 1, include_str!("../avro/coupon_response.v1.avsc")),
    (Subject::Event, 1, include_str!("../avro/coupon_event.v1.avsc")),
];

static VERSIONS: LazyLock<Vec<ShippedSchema>> = LazyLock::new(|| {
    SHIPPED
        .iter()
        .map(|&(subject, version, definition)| ShippedSchema {
            subject,
            version,
            fingerprint: fingerprint(definition).expect("a shipped schema parses"),
            definition,
        })
        .collect()
});

static NEWEST: LazyLock<Vec<ShippedSchema>> = LazyLock::new(|| {
    Subject::ALL
        .iter()
        .filter_map(|subject| versions().iter().rfind(|schema| schema.subject == *subject).cloned())
        .collect()
});

/// The newest schema of each subject: a program registers them before it produces, and produces with their ids.
#[must_use]
pub fn newest_schemas() -> &'static [ShippedSchema] {
    &NEWEST
}

/// All shipped versions, oldest first.
#[must_use]
pub fn versions() -> &'static [ShippedSchema] {
    &VERSIONS
}

/// A schema of another program cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// It is not an Avro schema.
    #[error("not an Avro schema: {0}")]
    Unparsable(String),
    /// It is an Avro schema whose records this program cannot read.
    #[error("not a version of this subject: {0}")]
    Incompatible(String),
}

/// SHA-256 of the parsing canonical form of a schema. The form excludes documentation and defaults, which do not affect
/// the encoding.
pub fn fingerprint(definition: &str) -> Result<[u8; 32], SchemaError> {
    Ok(fingerprint_of(&parse(definition)?))
}

pub(crate) fn fingerprint_of(schema: &Schema) -> [u8; 32] {
    Sha256::digest(schema.canonical_form()).into()
}

pub(crate) fn parse(definition: &str) -> Result<Schema, SchemaError> {
    Schema::parse_str(definition).map_err(|error| SchemaError::Unparsable(error.to_string()))
}

/// Whether records of `writer` can be read as records of `reader` by field name alone: both describe the same record, no
/// field has another type, and fields that the writer lacks default to null. The contract allows no other changes, and
/// `tests/compatibility.rs` rejects them before they ship.
pub(crate) fn check_readable(writer: &Schema, reader: &Schema) -> Result<(), SchemaError> {
    let incompatible = |reason: String| Err(SchemaError::Incompatible(reason));
    if writer.name() != reader.name() {
        return incompatible("it describes another record".to_owned());
    }
    let (writer, reader) = (flat(writer)?, flat(reader)?);
    for field in &reader.fields {
        match writer.fields.iter().find(|other| other.name == field.name) {
            Some(other) if other.schema != field.schema => {
                return incompatible(format!("its field {} has another type", field.name));
            }
            None if field.default != Some(serde_json::Value::Null) => {
                return incompatible(format!("it has no field {}", field.name));
            }
            _ => (),
        }
    }
    Ok(())
}

/// The contract's records are flat, and no others are read: with a recursive schema, a record of a few bytes could
/// exhaust the stack.
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
    fn every_subject_has_a_newest_version_and_every_version_a_distinct_fingerprint() {
        assert_eq!(newest_schemas().len(), Subject::ALL.len());
        for (at, schema) in versions().iter().enumerate() {
            assert!(versions()[..at].iter().all(|other| other.fingerprint != schema.fingerprint));
            assert!(schema.subject.newest().version >= schema.version);
        }
    }

    #[test]
    fn a_fingerprint_depends_on_fields_and_not_on_layout_or_documentation() {
        let newest = Subject::Event.newest();
        let compact =
            newest.definition.replace("  ", "").replace("The coupon; the key of the record.", "other");
        assert_eq!(fingerprint(&compact), Ok(newest.fingerprint));
        let renamed = newest.definition.replace("\"available\"", "\"left\"");
        assert_ne!(fingerprint(&renamed), Ok(newest.fingerprint));
    }

    #[test]
    fn an_invalid_schema_has_no_fingerprint() {
        assert!(matches!(fingerprint("{}"), Err(SchemaError::Unparsable(_))));
        assert!(matches!(fingerprint(""), Err(SchemaError::Unparsable(_))));
    }
}
