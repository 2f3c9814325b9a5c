//! Old readers read new records and new readers old ones, for every pair of versions of a subject
//! (`FULL_TRANSITIVE`); and the check rejects planted incompatible versions.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::path::Path;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::RecordSchema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use schemas::{Subject, versions};

fn record(schema: &Schema) -> Result<&RecordSchema, String> {
    match schema {
        Schema::Record(record) => Ok(record),
        _ => Err("not a record".to_owned()),
    }
}

/// Whether records of `older` and `newer` can be read by each other, or why not.
fn compatible(older: &str, newer: &str) -> Result<(), String> {
    let parse = |text: &str| Schema::parse_str(text).map_err(|error| error.to_string());
    let (older, newer) = (parse(older)?, parse(newer)?);
    contract(&older)?;
    contract(&newer)?;
    fields_kept(record(&older)?, record(&newer)?)?;
    for (writer, reader) in [(&older, &newer), (&newer, &older)] {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => (),
            Ok(Compatibility::Partial) => return Err("only some records can be read".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        resolves(writer, reader)?;
    }
    Ok(())
}

/// The contract allows one flat record, optional fields with the default null, and strings in place of enums.
fn contract(schema: &Schema) -> Result<(), String> {
    for field in &record(schema)?.fields {
        let plain = |schema: &Schema| matches!(schema, Schema::String | Schema::Int | Schema::Long);
        let ok = match &field.schema {
            Schema::Union(union) => {
                let variants = union.variants();
                variants.len() == 2
                    && variants[0] == Schema::Null
                    && plain(&variants[1])
                    && field.default == Some(serde_json::Value::Null)
            }
            other => plain(other) && field.default.is_none(),
        };
        if !ok {
            return Err(format!("field {} is not allowed by the contract", field.name));
        }
        if !field.aliases.is_empty() {
            return Err(format!("field {} has an alias: names never change", field.name));
        }
    }
    Ok(())
}

/// Stricter than Avro: a type never changes, not even to a wider one, and a required field is neither removed nor
/// added.
fn fields_kept(older: &RecordSchema, newer: &RecordSchema) -> Result<(), String> {
    if older.name != newer.name {
        return Err("the record was renamed".to_owned());
    }
    let by_name = |record: &RecordSchema| -> HashMap<String, (Schema, bool)> {
        let of = |schema: &Schema, default: bool| (schema.clone(), default);
        record.fields.iter().map(|f| (f.name.clone(), of(&f.schema, f.default.is_some()))).collect()
    };
    let (old, new) = (by_name(older), by_name(newer));
    for (name, (schema, has_default)) in &old {
        match new.get(name) {
            Some((now, _)) if now != schema => return Err(format!("field {name} changed its type")),
            None if !has_default => return Err(format!("required field {name} was removed")),
            _ => (),
        }
    }
    match new.iter().find(|(name, (_, has_default))| !has_default && !old.contains_key(*name)) {
        Some((name, _)) => Err(format!("field {name} was added without a default")),
        None => Ok(()),
    }
}

/// Writes a record with all fields set and one with only the required fields, and reads both.
fn resolves(writer: &Schema, reader: &Schema) -> Result<(), String> {
    for all in [true, false] {
        let value = Value::Record(
            record(writer)?
                .fields
                .iter()
                .map(|field| (field.name.clone(), sample(&field.schema, all)))
                .collect(),
        );
        let write = || {
            let bytes = GenericDatumWriter::builder(writer).build()?.write_value_to_vec(value.clone())?;
            GenericDatumReader::builder(writer).reader_schema(reader).build()?.read_value(&mut &bytes[..])
        };
        let Value::Record(read) = write().map_err(|error: apache_avro::Error| error.to_string())? else {
            return Err("the value read is not a record".to_owned());
        };
        let names: Vec<&String> = read.iter().map(|(name, _)| name).collect();
        let expected: Vec<&String> = record(reader)?.fields.iter().map(|field| &field.name).collect();
        if names != expected {
            return Err(format!("read the fields {names:?}"));
        }
    }
    Ok(())
}

fn sample(schema: &Schema, all: bool) -> Value {
    match schema {
        Schema::String => Value::String("text".to_owned()),
        Schema::Int => Value::Int(7),
        Schema::Long => Value::Long(7),
        Schema::Union(union) if all => Value::Union(1, Box::new(sample(&union.variants()[1], all))),
        _ => Value::Union(0, Box::new(Value::Null)),
    }
}

fn planted(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_pair_of_versions_of_a_subject_reads_each_other() {
    for subject in Subject::ALL {
        let of: Vec<_> = versions().iter().filter(|schema| schema.subject == subject).collect();
        for older in &of {
            for newer in &of {
                let result = compatible(older.definition, newer.definition);
                assert_eq!(result, Ok(()), "{} v{} and v{}", subject.name(), older.version, newer.version);
            }
        }
    }
}

#[test]
fn versions_of_a_subject_are_numbered_without_gaps() {
    for subject in Subject::ALL {
        let numbers: Vec<u32> = versions()
            .iter()
            .filter(|schema| schema.subject == subject)
            .map(|schema| schema.version)
            .collect();
        assert_eq!(numbers, (1..=numbers.len() as u32).collect::<Vec<_>>(), "{}", subject.name());
    }
}

#[test]
fn a_compatible_change_is_accepted() {
    let older = versions()[0].definition;
    assert_eq!(compatible(older, &planted("good_optional_field_added.avsc")), Ok(()));
}

#[test]
fn every_planted_incompatible_change_is_rejected_with_its_own_reason() {
    let older = versions()[0].definition;
    for (file, reason) in [
        ("bad_field_without_default.avsc", "field channel is not allowed by the contract"),
        ("bad_required_field_added.avsc", "field channel was added without a default"),
        ("bad_type_changed.avsc", "field minted_at_ms changed its type"),
        ("bad_optional_type_narrowed.avsc", "field load_id changed its type"),
        ("bad_required_field_removed.avsc", "required field user_id was removed"),
        ("bad_field_renamed_with_alias.avsc", "field owner has an alias: names never change"),
        ("bad_record_renamed.avsc", "the record was renamed"),
        ("bad_enum_kind.avsc", "field kind is not allowed by the contract"),
    ] {
        assert_eq!(compatible(older, &planted(file)), Err(reason.to_owned()), "{file}");
        let own = schemas::fingerprint(older).unwrap();
        assert_ne!(schemas::fingerprint(&planted(file)), Ok(own), "{file} changes nothing");
    }
}

#[test]
fn avro_itself_rejects_unreadable_versions() {
    // The rules above are stricter than Avro's; Avro's own rules apply as well.
    let older = Schema::parse_str(versions()[0].definition).unwrap();
    for file in ["bad_required_field_added.avsc", "bad_type_changed.avsc", "bad_required_field_removed.avsc"]
    {
        let newer = Schema::parse_str(&planted(file)).unwrap();
        assert!(SchemaCompatibility::mutual_read(&older, &newer).is_err(), "{file}");
    }
}
