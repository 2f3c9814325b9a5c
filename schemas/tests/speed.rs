//! A measurement, not a test: time per message, of our codec and of apache-avro's serde path. Best of ten runs.
//! `cargo test --release -p schemas --test speed -- --ignored --nocapture`

#![expect(clippy::unwrap_used, reason = "tests")]

use std::hint::black_box;
use std::time::Instant;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use schemas::{CouponRequest, CouponResponse, Decoder, Encoder, Message, SchemaId};

const ID: SchemaId = SchemaId(1);

fn nanoseconds(mut once: impl FnMut()) -> u128 {
    const TIMES: u32 = 100_000;
    let run = |_| {
        let start = Instant::now();
        for _ in 0..TIMES {
            once();
        }
        start.elapsed().as_nanos() / u128::from(TIMES)
    };
    (0..10).map(run).min().unwrap_or_default()
}

fn measure<T: Message>(name: &str, message: &T) {
    let encoder = Encoder::new(ID);
    let decoder = Decoder::<T>::new(ID);
    let schema = Schema::parse_str(T::SUBJECT.newest().definition).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let value = encoder.encode_to_vec(message).unwrap();
    let elsewhere = Decoder::<T>::new(SchemaId(2));
    // The same schema with one more field: measures records of another version.
    let other = T::SUBJECT.newest().definition.replacen(
        "\"fields\": [",
        r#""fields": [{"name": "added", "type": ["null", "string"], "default": null},"#,
        1,
    );
    elsewhere.add_schema(ID, &other).unwrap();
    let resolved = [&value[..5], &[0], &value[5..]].concat();

    let mut out = Vec::with_capacity(512);
    let encode = nanoseconds(|| {
        out.clear();
        encoder.encode(black_box(message), &mut out).unwrap();
        black_box(&out);
    });
    let avro_encode = nanoseconds(|| {
        out.clear();
        writer.write_ser(&mut out, black_box(message)).unwrap();
        black_box(&out);
    });
    let decode = nanoseconds(|| {
        black_box(decoder.decode(black_box(&value)).unwrap());
    });
    let borrow = nanoseconds(|| {
        black_box(decoder.decode_borrowed(black_box(&value)).unwrap());
    });
    let avro_decode = nanoseconds(|| {
        black_box(reader.read_deser::<T>(&mut black_box(&value[5..])).unwrap());
    });
    let resolve = nanoseconds(|| {
        black_box(elsewhere.decode(black_box(&resolved)).unwrap());
    });
    println!(
        "{name}: {} bytes; encode {encode} ns (apache-avro {avro_encode}), decode {decode} ns, with borrowed \
         texts {borrow} ns (apache-avro {avro_decode}), decode another version's {resolve} ns",
        value.len()
    );
}

#[test]
#[ignore = "a measurement: run it in release mode"]
fn print_the_time_per_message() {
    let request: serde_json::Value =
        serde_json::from_str(include_str!("../examples/coupon_request.claim.json")).unwrap();
    let response: serde_json::Value =
        serde_json::from_str(include_str!("../examples/coupon_response.claim.json")).unwrap();
    measure::<CouponRequest>("request", &serde_json::from_value(request["message"].clone()).unwrap());
    measure::<CouponResponse>("response", &serde_json::from_value(response["message"].clone()).unwrap());
}
