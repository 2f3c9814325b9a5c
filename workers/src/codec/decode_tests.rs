use super::*;
use schemas::Encoder;

const OWN: SchemaId = SchemaId(1);
const PARTITIONS: i32 = 8;

fn decoder() -> RecordDecoder {
    RecordDecoder::new(OWN, PARTITIONS)
}

fn home_of(key: &str) -> Partition {
    Partition(partition_for(key.as_bytes(), PARTITIONS))
}

fn id() -> String {
    RequestId { identity: 77, body: 0 }.to_string()
}

fn claim() -> CouponRequest {
    CouponRequest {
        request_id: id(),
        kind: kinds::CLAIM.to_owned(),
        coupon_id: "summer".to_owned(),
        user_id: "ann".to_owned(),
        minted_at_ms: 5,
        ..CouponRequest::default()
    }
}

fn value(message: &CouponRequest) -> Vec<u8> {
    Encoder::new(OWN).encode_to_vec(message).unwrap()
}

fn record_in(
    partition: Partition,
    key: Option<&str>,
    value: &[u8],
    headers: RequestHeaders<'_>,
) -> Result<Record, SchemaId> {
    let raw =
        RawRecord { offset: Offset(3), appended: Millis(9), key: key.map(str::as_bytes), value: Some(value) };
    decoder().record(partition, &raw, || headers)
}

fn headers(id: &str) -> RequestHeaders<'_> {
    RequestHeaders { request_id: Some(id.as_bytes()), user_id: Some(b"ann") }
}

/// The dead letter's reason, and whether its request gets an outcome.
fn dead_letter(record: &Record) -> Option<(&'static str, bool)> {
    match &record.payload {
        Payload::Unreadable { dead_letter: letter, request } => Some((letter.reason, request.is_some())),
        _ => None,
    }
}

#[test]
fn a_claim_is_decoded_with_all_its_fields() {
    let message = CouponRequest { code: Some("ABC".to_owned()), ..claim() };
    let value = value(&message);
    let record = record_in(home_of("summer"), Some("summer"), &value, RequestHeaders::default()).unwrap();
    assert_eq!((record.offset, record.appended), (Offset(3), Millis(9)));
    assert_eq!(record.bytes, value.len() + "summer".len());
    assert_eq!(
        record.payload,
        Payload::Request(Request {
            id: RequestId { identity: 77, body: 0 },
            kind: Kind::Claim,
            coupon_id: "summer".into(),
            user: "ann".into(),
            code: Some("ABC".into()),
            details: None,
        })
    );
}

#[test]
fn only_the_texts_that_the_core_keeps_are_allocated() {
    let claim = claim();
    let named = CouponRequest { code: Some("ABC".to_owned()), ..claim.clone() };
    let redeem = CouponRequest {
        kind: kinds::REDEEM.to_owned(),
        order_id: Some("order-1".to_owned()),
        order_amount: Some("129.90".to_owned()),
        currency: Some("EUR".to_owned()),
        ..named.clone()
    };
    // Coupon and user; the code; the order, its currency and the box of both.
    for (message, allocations) in [(claim, 2), (named, 3), (redeem, 6)] {
        let (value, decoder, home) = (value(&message), decoder(), home_of("summer"));
        let raw =
            RawRecord { offset: Offset(3), appended: Millis(9), key: Some(b"summer"), value: Some(&value) };
        let mut record = None;
        let measured = allocation_counter::measure(|| {
            record = decoder.record(home, &raw, RequestHeaders::default).ok();
        });
        assert!(matches!(record.unwrap().payload, Payload::Request(_)));
        assert_eq!(measured.count_total, allocations, "{}", message.kind);
    }
}

/// The details of a redeem with these fields.
fn details_of(amount: &str, redemption: &str) -> Details {
    let message = CouponRequest {
        kind: kinds::REDEEM.to_owned(),
        code: Some("ABC".to_owned()),
        order_id: Some("order-1".to_owned()),
        order_amount: Some(amount.to_owned()),
        currency: Some("EUR".to_owned()),
        redemption_id: Some(redemption.to_owned()),
        ..claim()
    };
    let record =
        record_in(home_of("summer"), Some("summer"), &value(&message), RequestHeaders::default()).unwrap();
    let Payload::Request(Request { kind: Kind::Redeem, details: Some(details), .. }) = record.payload else {
        unreachable!()
    };
    *details
}

#[test]
fn a_redeem_keeps_its_order_amount_and_currency_exactly() {
    let details = details_of("129.90", &RequestId { identity: 8, body: 9 }.to_string());
    assert_eq!((details.order.as_deref(), details.currency.as_deref()), (Some("order-1"), Some("EUR")));
    assert_eq!(details.amount.map(|amount| amount.to_string()).as_deref(), Some("129.90"));
    assert_eq!(details.redemption, Some(RequestId { identity: 8, body: 9 }));
}

#[test]
fn an_invalid_amount_or_redemption_id_is_omitted_and_the_request_is_decided() {
    for amount in ["", "-1", "1e3", "12.34567", "1234567890123", "\0", "NaN"] {
        assert_eq!(details_of(amount, "").amount, None, "{amount:?}");
    }
    for redemption in ["", "7", "not a redemption", "\0"] {
        assert_eq!(details_of("1", redemption).redemption, None, "{redemption:?}");
    }
}

#[test]
fn an_undecodable_record_becomes_a_dead_letter_with_a_stable_reason() {
    let long = |max: usize| "x".repeat(max + 1);
    let with = |change: fn(&mut CouponRequest, String), text: String| {
        let mut message = claim();
        change(&mut message, text);
        value(&message)
    };
    let user = |text: &str| with(|message, text| message.user_id = text, text.to_owned());
    let code = |text: &str| with(|message, text| message.code = Some(text), text.to_owned());
    let kind = |text: &str| with(|message, text| message.kind = text, text.to_owned());
    let order = |text: &str| with(|message, text| message.order_id = Some(text), text.to_owned());
    let currency = |text: &str| with(|message, text| message.currency = Some(text), text.to_owned());
    let table: Vec<(&str, Vec<u8>, &'static str)> = vec![
        ("no value", Vec::new(), "empty"),
        ("no Confluent framing", b"{}".to_vec(), "bad_magic"),
        ("truncated in the framing", vec![0, 0, 0], "truncated"),
        ("truncated behind the framing", value(&claim())[..12].to_vec(), "malformed"),
        ("no user", user(""), "bad_field"),
        ("NUL in the user", user("a\0b"), "bad_field"),
        ("a line break in the user", user("a\nb"), "bad_field"),
        ("a C1 control character in the user", user("a\u{85}b"), "bad_field"),
        ("a long user", user(&long(USER_CHARS)), "bad_field"),
        ("an empty code", code(""), "bad_field"),
        ("a long code", code(&long(CODE_CHARS)), "bad_field"),
        ("an empty order", order(""), "bad_field"),
        ("NUL in the order", order("a\0b"), "bad_field"),
        ("a long order", order(&long(ORDER_CHARS)), "bad_field"),
        ("a long currency", currency("EURO"), "bad_field"),
        ("an empty currency", currency(""), "bad_field"),
        ("no request id", with(|message, text| message.request_id = text, String::new()), "bad_request_id"),
        ("a load without its id", kind(kinds::STOCK_ADDED), "no_load"),
        ("a definition", kind(kinds::DEFINITION_CHANGED), "unsupported"),
    ];
    for (what, value, reason) in table {
        let record = record_in(home_of("summer"), Some("summer"), &value, headers(&id())).unwrap();
        assert_eq!(dead_letter(&record), Some((reason, true)), "{what}");
        let Payload::Unreadable { dead_letter: letter, .. } = record.payload else { unreachable!() };
        assert_eq!(letter.value.as_deref(), Some(&value[..]), "{what}: kept as received");
    }
}

#[test]
fn text_at_its_maximum_length_is_accepted_in_every_language() {
    let message = CouponRequest {
        user_id: "ü".repeat(USER_CHARS),
        code: Some("x".repeat(CODE_CHARS)),
        order_id: Some("注".repeat(ORDER_CHARS)),
        ..claim()
    };
    let record =
        record_in(home_of("summer"), Some("summer"), &value(&message), RequestHeaders::default()).unwrap();
    assert_eq!(dead_letter(&record), None);
}

#[test]
fn an_unknown_kind_is_decoded_so_that_the_core_rejects_it() {
    let message = CouponRequest { kind: "dance".to_owned(), ..claim() };
    let record =
        record_in(home_of("summer"), Some("summer"), &value(&message), RequestHeaders::default()).unwrap();
    assert!(matches!(record.payload, Payload::Request(Request { kind: Kind::Unknown, .. })));
}

#[test]
fn a_misplaced_record_is_a_dead_letter_without_an_outcome() {
    let home = home_of("summer");
    let elsewhere = Partition((home.0 + 1) % PARTITIONS);
    let good = value(&claim());
    let unreadable: &[u8] = b"{}";
    let cases = [
        ("another partition's key", elsewhere, Some("summer"), &good[..], "wrong_partition"),
        ("another partition's key, unreadable", elsewhere, Some("summer"), unreadable, "wrong_partition"),
        ("no key", home, None, &good[..], "no_key"),
        ("another coupon's key", home_of("winter"), Some("winter"), &good[..], "key_mismatch"),
    ];
    for (what, partition, key, value, reason) in cases {
        let record = record_in(partition, key, value, headers(&id())).unwrap();
        assert_eq!(dead_letter(&record), Some((reason, false)), "{what}");
    }
}

#[test]
fn a_tick_is_a_tick_in_any_partition() {
    let tick = value(&CouponRequest { kind: kinds::TICK.to_owned(), ..CouponRequest::default() });
    for partition in 0..PARTITIONS {
        let record = record_in(Partition(partition), None, &tick, RequestHeaders::default()).unwrap();
        assert_eq!(record.payload, Payload::Tick);
    }
}

#[test]
fn an_undecodable_request_gets_an_outcome_only_if_its_headers_can_be_stored() {
    let id = id();
    let unidentified: [(&str, RequestHeaders<'_>); 5] = [
        ("no headers", RequestHeaders::default()),
        ("no user", RequestHeaders { user_id: None, ..headers(&id) }),
        ("a user with NUL", RequestHeaders { user_id: Some(b"a\0"), ..headers(&id) }),
        ("a user that is not UTF-8", RequestHeaders { user_id: Some(&[0xff]), ..headers(&id) }),
        ("an invalid id", headers("7")),
    ];
    for (what, headers) in unidentified {
        let record = record_in(home_of("summer"), Some("summer"), b"{}", headers).unwrap();
        assert_eq!(dead_letter(&record), Some(("bad_magic", false)), "{what}");
    }
    let record = record_in(home_of("summer"), Some("summer"), b"{}", headers(&id)).unwrap();
    let Payload::Unreadable { request: Some(request), .. } = record.payload else { unreachable!() };
    assert_eq!((&*request.user, &*request.coupon_id), ("ann", "summer"));
}

#[test]
fn a_record_with_an_unknown_schema_is_decoded_once_the_schema_is_added() {
    let foreign = SchemaId(900);
    let bytes = Encoder::new(foreign).encode_to_vec(&claim()).unwrap();
    let decoder = decoder();
    let raw = RawRecord { offset: Offset(0), appended: Millis(0), key: Some(b"summer"), value: Some(&bytes) };
    let home = home_of("summer");
    assert_eq!(decoder.record(home, &raw, RequestHeaders::default), Err(foreign));

    let kept = raw.to_owned_record(foreign, headers("7"));
    assert_eq!(kept.as_raw().digest(), raw.digest());
    assert_eq!(dead_letter(&decoder.record_without_schema(home, &kept)), Some(("unknown_schema", false)));

    decoder.add_schema(foreign, schemas::Subject::Request.newest().definition).unwrap();
    let record = decoder.record(home, &raw, RequestHeaders::default).unwrap();
    assert!(matches!(record.payload, Payload::Request(_)));
}

#[test]
fn the_digest_is_the_same_on_every_machine_and_in_every_version() {
    let raw = RawRecord {
        offset: Offset(1),
        appended: Millis(1_700_000_000_000),
        key: Some(b"k"),
        value: Some(b"v"),
    };
    assert_eq!(raw.digest(), -4_788_214_995_949_553_643, "rows in Postgres hold it");
    let others = [
        RawRecord { appended: Millis(1), ..raw },
        RawRecord { key: Some(b"l"), ..raw },
        RawRecord { value: Some(b"w"), ..raw },
        RawRecord { value: None, ..raw },
    ];
    for other in others {
        assert_ne!(other.digest(), raw.digest());
    }
}
