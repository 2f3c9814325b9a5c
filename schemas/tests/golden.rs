//! The golden messages in `examples/`: their bytes were encoded by another implementation, and neither the bytes nor
//! their meaning may ever change.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemas::{
    CouponEvent, CouponRequest, CouponResponse, Decoder, Encoder, Message, SchemaId, Subject, kinds, versions,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    schema: String,
    schema_id: i32,
    message: serde_json::Value,
    value: String,
}

fn examples() -> Vec<(PathBuf, Golden)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let golden = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        found.push((path, golden));
    }
    assert!(!found.is_empty());
    found
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check<T: Message + PartialEq + std::fmt::Debug>(path: &Path, golden: &Golden) {
    let message: T = serde_json::from_value(golden.message.clone()).unwrap();
    let id = SchemaId(golden.schema_id);
    let written_with = versions()
        .iter()
        .find(|schema| {
            schema.subject == T::SUBJECT && golden.schema.ends_with(&format!(".v{}", schema.version))
        })
        .unwrap();

    // As read by a program whose newest schema has another id: with the definition from the registry.
    let decoder = Decoder::<T>::new(SchemaId(i32::MAX));
    decoder.add_schema(id, written_with.definition).unwrap();
    assert_eq!(decoder.decode(&unhex(&golden.value)).as_ref(), Ok(&message), "{}", path.display());

    if written_with == T::SUBJECT.newest() {
        let decoder = Decoder::<T>::new(id);
        assert_eq!(decoder.decode(&unhex(&golden.value)).as_ref(), Ok(&message), "{}", path.display());
        let written = Encoder::new(id).encode_to_vec(&message).unwrap();
        assert_eq!(hex(&written), golden.value, "{}", path.display());
    }
}

fn subject(golden: &Golden) -> Subject {
    match golden.schema.split_once('.').unwrap().0 {
        "coupon_request" => Subject::Request,
        "coupon_response" => Subject::Response,
        "coupon_event" => Subject::Event,
        other => unreachable!("no subject {other}"),
    }
}

#[test]
fn every_golden_message_is_decoded_and_encoded_byte_by_byte() {
    for (path, golden) in examples() {
        match subject(&golden) {
            Subject::Request => check::<CouponRequest>(&path, &golden),
            Subject::Response => check::<CouponResponse>(&path, &golden),
            Subject::Event => check::<CouponEvent>(&path, &golden),
        }
    }
}

#[test]
fn every_kind_of_every_subject_has_a_golden_message() {
    let found: BTreeSet<(Subject, String)> = examples()
        .iter()
        .map(|(_, golden)| (subject(golden), golden.message["kind"].as_str().unwrap().to_owned()))
        .collect();
    let expected: BTreeSet<(Subject, String)> = [
        (Subject::Request, kinds::REQUESTS),
        (Subject::Response, kinds::USER_REQUESTS),
        (Subject::Event, kinds::EVENTS),
    ]
    .into_iter()
    .flat_map(|(subject, kinds)| kinds.iter().map(move |kind| (subject, (*kind).to_owned())))
    .collect();
    assert_eq!(found, expected);
}
