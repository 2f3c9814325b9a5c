//! Decoding arbitrary bytes returns a result: it never panics, and never allocates more than the input justifies.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod common;

use proptest::collection::vec;
use proptest::prelude::*;
use schemas::{
    CouponEvent, CouponRequest, CouponResponse, DecodeError, Decoder, Encoder, MAX_VALUE_BYTES, SchemaError,
    SchemaId, Subject,
};

const OWN: SchemaId = SchemaId(1);
const NEWER: SchemaId = SchemaId(2);

/// A later version of `CouponRequest`, with one more optional field in the middle.
fn newer() -> &'static str {
    include_str!("planted/good_optional_field_added.avsc")
}

fn decoder() -> Decoder<CouponRequest> {
    let decoder = Decoder::new(OWN);
    decoder.add_schema(NEWER, newer()).unwrap();
    decoder
}

fn framed(id: SchemaId, datum: &[u8]) -> Vec<u8> {
    [&[0], &id.0.to_be_bytes()[..], datum].concat()
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        for id in [OWN, NEWER] {
            let value = framed(id, &bytes);
            drop(decoder().decode(&value));
            drop(Decoder::<CouponResponse>::new(id).decode(&value));
            drop(Decoder::<CouponEvent>::new(id).decode(&value));
        }
        drop(decoder().decode(&bytes));
    }

    #[test]
    fn a_truncated_record_is_rejected(message in common::requests(), at in any::<prop::sample::Index>()) {
        let value = Encoder::new(OWN).encode_to_vec(&message).unwrap();
        let cut = &value[..at.index(value.len())];
        prop_assert!(decoder().decode(cut).is_err());
    }

    #[test]
    fn a_record_followed_by_bytes_is_rejected(message in common::requests(), more in vec(any::<u8>(), 1..20)) {
        let mut value = Encoder::new(OWN).encode_to_vec(&message).unwrap();
        value.extend_from_slice(&more);
        prop_assert_eq!(decoder().decode(&value), Err(DecodeError::TrailingBytes { bytes: more.len() }));
    }
}

#[test]
fn every_invalid_frame_has_its_own_error() {
    let decoder = decoder();
    assert_eq!(decoder.decode(&[]), Err(DecodeError::Empty));
    assert_eq!(decoder.decode(b"{}"), Err(DecodeError::BadMagic(b'{')));
    assert_eq!(decoder.decode(&[0, 0, 0]), Err(DecodeError::Truncated));
    assert_eq!(decoder.decode(&framed(SchemaId(9), &[0; 20])), Err(DecodeError::UnknownSchema(SchemaId(9))));
    assert_eq!(decoder.decode(&framed(SchemaId(-1), &[])), Err(DecodeError::UnknownSchema(SchemaId(-1))));
    let bytes = MAX_VALUE_BYTES + 1;
    assert_eq!(decoder.decode(&vec![0; bytes]), Err(DecodeError::TooLarge { bytes }));
}

#[test]
fn a_length_prefix_of_exabytes_is_rejected_without_allocating() {
    // The largest length that a varint can encode, for the first string of the record.
    let largest = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    // A false length within the default allocation limit of apache-avro (512 MiB).
    let smaller = [0x80, 0x80, 0x80, 0x80, 3];
    for datum in [&largest[..], &smaller[..]] {
        for id in [OWN, NEWER] {
            let result = decoder().decode(&framed(id, datum));
            assert!(matches!(result, Err(DecodeError::Malformed(_))), "{result:?}");
        }
    }
}

#[test]
fn a_record_of_a_newer_version_is_read_without_its_additional_fields() {
    use apache_avro::types::Value;
    let schema = apache_avro::Schema::parse_str(newer()).unwrap();
    let mut record = apache_avro::types::Record::new(&schema).unwrap();
    for field in ["request_id", "kind", "coupon_id", "user_id"] {
        record.put(field, field);
    }
    record.put("minted_at_ms", 5_i64);
    record.put("channel", Value::Union(1, Box::new(Value::String("app".to_owned()))));
    record.put("load_id", Value::Union(1, Box::new(Value::Long(7))));
    let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap();
    let value = framed(NEWER, &writer.write_value_to_vec(record).unwrap());

    for at in 0..value.len() {
        assert!(decoder().decode(&value[..at]).is_err(), "cut at {at}");
    }
    let empty = Decoder::<CouponRequest>::new(OWN);
    assert_eq!(empty.decode(&value), Err(DecodeError::UnknownSchema(NEWER)));
    let shared = empty.clone();
    shared.add_schema(NEWER, newer()).unwrap();
    assert!(empty.has_schema(NEWER), "clones share added schemas");
    let read = empty.decode(&value).unwrap();
    assert_eq!((read.kind.as_str(), read.minted_at_ms, read.load_id, read.code), ("kind", 5, Some(7), None));
}

#[test]
fn an_unreadable_schema_is_added_as_unusable() {
    let nested = r#"{"type": "record", "name": "CouponRequest", "namespace": "stampede", "fields": [
        {"name": "next", "type": ["null", "stampede.CouponRequest"]}]}"#;
    for (id, definition) in
        [(5, "not a schema"), (6, Subject::Event.newest().definition), (7, "\"string\""), (8, nested)]
    {
        let id = SchemaId(id);
        let decoder = decoder();
        assert!(decoder.add_schema(id, definition).is_err(), "{definition}");
        assert!(decoder.has_schema(id), "an unusable schema is not fetched again");
        assert_eq!(decoder.decode(&framed(id, &[0; 9])), Err(DecodeError::UnusableSchema(id)));
    }
    let enum_kind = include_str!("planted/bad_enum_kind.avsc");
    assert!(matches!(decoder().add_schema(SchemaId(9), enum_kind), Err(SchemaError::Incompatible(_))));
}

#[test]
fn our_own_schema_is_read_under_another_id() {
    let decoder = decoder();
    decoder.add_schema(SchemaId(3), Subject::Request.newest().definition).unwrap();
    let message = CouponRequest { kind: "claim".to_owned(), ..CouponRequest::default() };
    let value = Encoder::new(SchemaId(3)).encode_to_vec(&message).unwrap();
    assert_eq!(decoder.decode(&value), Ok(message));
}
