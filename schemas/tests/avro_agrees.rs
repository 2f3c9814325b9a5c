//! Our datum codec compared with apache-avro, with the shipped schemas: the same bytes, and the same messages back.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fmt::Debug;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use schemas::flat::Datum as _;
use schemas::{CouponRequest, Decoder, Encoder, MAX_VALUE_BYTES, Message, SchemaId};

const ID: SchemaId = SchemaId(0x0102_0304);
const FRAME: [u8; 5] = [0, 1, 2, 3, 4];

fn agree<T: Message + PartialEq + Debug + Clone>(message: &T) -> Result<(), TestCaseError> {
    let schema = Schema::parse_str(T::SUBJECT.newest().definition).unwrap();
    let avro = GenericDatumWriter::builder(&schema).build().unwrap().write_ser_to_vec(message).unwrap();

    let ours = Encoder::new(ID).encode_to_vec(message).unwrap();
    prop_assert_eq!(&ours[..5], &FRAME);
    prop_assert_eq!(&ours[5..], &avro);

    let decoder = Decoder::<T>::new(ID);
    prop_assert_eq!(&decoder.decode(&ours), &Ok(message.clone()));
    prop_assert_eq!(borrowed_and_encoded(&decoder, &ours), avro);
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    prop_assert_eq!(&reader.read_deser::<T>(&mut &ours[5..]).unwrap(), message);
    Ok(())
}

/// The datum of a value that is decoded with borrowed texts.
fn borrowed_and_encoded<T: Message>(decoder: &Decoder<T>, value: &[u8]) -> Vec<u8> {
    let mut datum = Vec::new();
    decoder.decode_borrowed(value).unwrap().write(&mut datum);
    datum
}

/// If our decoder accepts a corrupted datum, apache-avro decodes it to the same message.
fn agree_when_corrupted<T: Message + PartialEq + Debug>(
    message: &T,
    at: prop::sample::Index,
    byte: u8,
) -> Result<(), TestCaseError> {
    let schema = Schema::parse_str(T::SUBJECT.newest().definition).unwrap();
    let mut value = Encoder::new(ID).encode_to_vec(message).unwrap();
    let at = 5 + at.index(value.len() - 5);
    value[at] = byte;
    if let Ok(ours) = Decoder::<T>::new(ID).decode(&value) {
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        prop_assert_eq!(reader.read_deser::<T>(&mut &value[5..]).unwrap(), ours);
    }
    Ok(())
}

proptest! {
    #[test]
    fn requests_are_encoded_and_decoded_as_by_apache_avro(message in common::requests()) {
        agree(&message)?;
    }

    #[test]
    fn responses_are_encoded_and_decoded_as_by_apache_avro(message in common::responses()) {
        agree(&message)?;
    }

    #[test]
    fn events_are_encoded_and_decoded_as_by_apache_avro(message in common::events()) {
        agree(&message)?;
    }

    #[test]
    fn a_corrupted_record_is_decoded_to_the_same_message_by_both(
        message in common::responses(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        agree_when_corrupted(&message, at, byte)?;
    }
}

#[test]
fn the_longest_value_round_trips_and_one_byte_more_is_rejected() {
    let mut message = CouponRequest::default();
    let encoder = Encoder::new(ID);
    let empty = encoder.encode_to_vec(&message).unwrap().len();
    // A length of more than 8,191 takes three bytes instead of one.
    message.user_id = "u".repeat(MAX_VALUE_BYTES - empty - 2);
    let longest = encoder.encode_to_vec(&message).unwrap();
    assert_eq!(longest.len(), MAX_VALUE_BYTES);
    assert_eq!(Decoder::new(ID).decode(&longest).as_ref(), Ok(&message));

    message.user_id.push('u');
    let mut out = b"before".to_vec();
    let rejected = encoder.encode(&message, &mut out);
    assert_eq!(rejected, Err(schemas::EncodeError::TooLarge { bytes: MAX_VALUE_BYTES + 1 }));
    assert_eq!(out, b"before");
}

proptest! {
    #[test]
    fn records_of_a_newer_version_are_resolved_as_by_apache_avro(message in common::requests(), added: Option<i64>) {
        let newer = include_str!("planted/good_optional_field_added.avsc");
        let (writer, reader) = (Schema::parse_str(newer).unwrap(), own_request());
        let Value::Record(mut fields) = apache_avro::to_value(&message).unwrap().resolve(&reader).unwrap() else {
            unreachable!("a struct is a record")
        };
        let channel = added.map_or(Value::Null, |n| Value::String(n.to_string()));
        fields.insert(5, ("channel".to_owned(), Value::Union(u32::from(added.is_some()), Box::new(channel))));
        let datum =
            GenericDatumWriter::builder(&writer).build().unwrap().write_value_to_vec(Value::Record(fields)).unwrap();

        let resolving = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        let expected = resolving.read_value(&mut &datum[..]).unwrap();
        let decoder = Decoder::<CouponRequest>::new(SchemaId(1));
        decoder.add_schema(ID, newer).unwrap();
        let value = [&FRAME[..], &datum].concat();
        let ours = decoder.decode(&value).unwrap();
        prop_assert_eq!(&ours, &message);
        let own = Encoder::new(ID).encode_to_vec(&message).unwrap();
        prop_assert_eq!(&borrowed_and_encoded(&decoder, &value), &own[FRAME.len()..]);
        prop_assert_eq!(&apache_avro::from_value::<CouponRequest>(&expected).unwrap(), &ours);
    }
}

fn own_request() -> Schema {
    Schema::parse_str(CouponRequest::SUBJECT.newest().definition).unwrap()
}
