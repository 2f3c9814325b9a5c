//! Whatever bytes arrive, decoding answers: it never panics, and never takes more memory than the bytes justify.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test crate uses some of it")]
mod common;

use proptest::collection::vec;
use proptest::prelude::*;
use schemas::{
    CouponEvent, CouponRequest, CouponResponse, DecodeError, Decoder, Encoder, MAX_VALUE_BYTES, SchemaError,
    SchemaId, Subject,
};

const OWN: SchemaId = SchemaId(1);
const NEWER: SchemaId = SchemaId(2);

/// A later version of `CouponRequest`: an optional field more, and in the middle.
fn newer() -> &'static str {
    include_str!("planted/good_optional_field_added.avsc")
}

fn decoder() -> Decoder<CouponRequest> {
    let decoder = Decoder::new(OWN);
    decoder.learn(NEWER, newer()).unwrap();
    decoder
}

fn framed(id: SchemaId, datum: &[u8]) -> Vec<u8> {
    [&[0], &id.0.to_be_bytes()[..], datum].concat()
}

proptest! {
    #[test]
    fn random_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
        for id in [OWN, NEWER] {
            let value = framed(id, &bytes);
            drop(decoder().decode(&value));
            drop(Decoder::<CouponResponse>::new(id).decode(&value));
            drop(Decoder::<CouponEvent>::new(id).decode(&value));
        }
        drop(decoder().decode(&bytes));
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_refused(message in common::requests(), at in any::<prop::sample::Index>()) {
        let value = Encoder::new(OWN).encode_to_vec(&message).unwrap();
        let cut = &value[..at.index(value.len())];
        prop_assert!(decoder().decode(cut).is_err());
    }

    #[test]
    fn a_record_with_bytes_behind_it_is_refused(message in common::requests(), more in vec(any::<u8>(), 1..20)) {
        let mut value = Encoder::new(OWN).encode_to_vec(&message).unwrap();
        value.extend_from_slice(&more);
        prop_assert_eq!(decoder().decode(&value), Err(DecodeError::TrailingBytes { bytes: more.len() }));
    }
}

#[test]
fn every_fault_of_a_frame_has_a_name_of_its_own() {
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
fn a_length_prefix_of_exabytes_is_refused_without_allocating() {
    // The longest length a varint can say, as the first string of the record.
    let lie = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    // One that lies within what apache-avro would allocate by default (512 MiB).
    let smaller_lie = [0x80, 0x80, 0x80, 0x80, 3];
    for datum in [&lie[..], &smaller_lie[..]] {
        for id in [OWN, NEWER] {
            let answer = decoder().decode(&framed(id, datum));
            assert!(matches!(answer, Err(DecodeError::Malformed(_))), "{answer:?}");
        }
    }
}

#[test]
fn a_record_of_a_newer_version_is_read_without_what_it_added() {
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
    let unlearnt = Decoder::<CouponRequest>::new(OWN);
    assert_eq!(unlearnt.decode(&value), Err(DecodeError::UnknownSchema(NEWER)));
    let shared = unlearnt.clone();
    shared.learn(NEWER, newer()).unwrap();
    assert!(unlearnt.knows(NEWER), "clones share what they learn");
    let read = unlearnt.decode(&value).unwrap();
    assert_eq!((read.kind.as_str(), read.minted_at_ms, read.load_id, read.code), ("kind", 5, Some(7), None));
}

#[test]
fn a_schema_of_something_else_is_learnt_as_unusable() {
    let nested = r#"{"type": "record", "name": "CouponRequest", "namespace": "stampede", "fields": [
        {"name": "next", "type": ["null", "stampede.CouponRequest"]}]}"#;
    for (id, definition) in
        [(5, "not a schema"), (6, Subject::Event.newest().definition), (7, "\"string\""), (8, nested)]
    {
        let id = SchemaId(id);
        let decoder = decoder();
        assert!(decoder.learn(id, definition).is_err(), "{definition}");
        assert!(decoder.knows(id), "a schema that is of no use is not looked up again and again");
        assert_eq!(decoder.decode(&framed(id, &[0; 9])), Err(DecodeError::UnusableSchema(id)));
    }
    let enum_kind = include_str!("planted/bad_enum_kind.avsc");
    assert!(matches!(decoder().learn(SchemaId(9), enum_kind), Err(SchemaError::Incompatible(_))));
}

#[test]
fn our_own_schema_under_another_id_is_read_straight_away() {
    let decoder = decoder();
    decoder.learn(SchemaId(3), Subject::Request.newest().definition).unwrap();
    let message = CouponRequest { kind: "claim".to_owned(), ..CouponRequest::default() };
    let value = Encoder::new(SchemaId(3)).encode_to_vec(&message).unwrap();
    assert_eq!(decoder.decode(&value), Ok(message));
}
