//! Records that no API of ours would write: each becomes a dead letter or an outcome, and its partition goes on.

use checker::Told;
use coupon_core::ids::RequestId;
use rdkafka::message::Message as _;
use schemas::topics::{DEAD_LETTERS, HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, Encoder, MAX_VALUE_BYTES, SchemaId, Subject, fingerprint, partition_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::support::log::{Planted, Producer, header, records};
use crate::support::{Ask, Field, Kind};

const PARTITIONS: i32 = 8;

/// Somebody who writes to the log without asking the API.
struct Intruder {
    field: Field,
    producer: Producer,
    schema: SchemaId,
    coupon: String,
    partition: i32,
    identities: u128,
}

impl Intruder {
    async fn enter(codes: u64) -> Self {
        let field = Field::enter(Kind::Calm).await;
        let coupon = field.coupon(codes, 1).await;
        let sql = "select schema_id from stampede.schemas where fingerprint = $1";
        let own = sqlx::query_scalar(sql).bind(Subject::Request.newest().fingerprint.as_slice());
        let schema = SchemaId(own.fetch_one(&mut field.postgres().await).await.unwrap());
        Self {
            producer: Producer::to(&field.stack.endpoints().kafka),
            schema,
            partition: partition_for(coupon.as_bytes(), PARTITIONS),
            coupon,
            identities: rand::random::<u128>() >> 1,
            field,
        }
    }

    fn claim(&mut self, user: &str) -> CouponRequest {
        self.identities += 1;
        CouponRequest {
            request_id: RequestId { identity: self.identities, body: 0 }.to_string(),
            kind: "claim".to_owned(),
            coupon_id: self.coupon.clone(),
            user_id: user.to_owned(),
            minted_at_ms: 1,
            ..CouponRequest::default()
        }
    }

    fn encoded(&self, request: &CouponRequest) -> Vec<u8> {
        Encoder::new(self.schema).encode_to_vec(request).unwrap()
    }

    /// A record where it belongs.
    fn record(&self, value: Vec<u8>) -> Planted {
        let key = Some(self.coupon.clone().into_bytes());
        Planted { partition: self.partition, key, value: Some(value), headers: Vec::new() }
    }

    async fn produce(&self, planted: &Planted) -> (i32, i64) {
        (planted.partition, self.producer.produce(REQUESTS, planted).await)
    }

    /// The partition goes on: somebody claims through the front door.
    async fn expect_a_claim_to_work(&self, user: &str) {
        let told = self.field.ask(Ask::of(user, &self.coupon)).await.told();
        assert!(matches!(told, Told::Accepted { .. }), "{told:?}");
    }

    /// Reasons of all dead letters, by the places of their records.
    async fn letters(&self) -> BTreeMap<(i32, i64), String> {
        self.field.checked().await;
        let letters = records(&self.field.stack.endpoints().kafka, DEAD_LETTERS).await;
        letters
            .iter()
            .map(|letter| {
                let number = |name| header(letter, name).unwrap().parse::<i64>().unwrap();
                let place = (i32::try_from(number("partition")).unwrap(), number("offset"));
                (place, header(letter, "reason").unwrap())
            })
            .collect()
    }

    /// Kind and reason of the outcome of a request that is no claim.
    async fn outcome(&self, request_id: &str) -> Option<(String, String)> {
        let id = RequestId::parse(request_id).unwrap();
        sqlx::query_as("select kind, reason from stampede.outcomes where identity = $1")
            .bind(uuid::Uuid::from_u128(id.identity))
            .fetch_optional(&mut self.field.postgres().await)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn whatever_cannot_be_decided_becomes_a_dead_letter_and_its_partition_goes_on() {
    let mut intruder = Intruder::enter(40).await;
    let good = intruder.claim("nobody");
    let value = intruder.encoded(&good);
    let of = |change: fn(&mut CouponRequest)| {
        let mut request = good.clone();
        change(&mut request);
        intruder.encoded(&request)
    };
    let mut unknown_schema = value.clone();
    unknown_schema[1..5].copy_from_slice(&999_999_i32.to_be_bytes());
    let neighbour = (0..).map(|n| format!("neighbour-{n}"));
    let neighbour =
        neighbour.into_iter().find(|key| partition_for(key.as_bytes(), PARTITIONS) == intruder.partition);
    let record = |value| intruder.record(value);
    let planted = [
        ("empty", Planted { value: None, ..record(Vec::new()) }),
        ("empty", record(Vec::new())),
        ("no_key", Planted { key: None, value: None, ..record(Vec::new()) }),
        ("bad_magic", record(b"rubbish".to_vec())),
        ("truncated", record(vec![0, 0, 0])),
        ("malformed", record(value[..value.len() / 2].to_vec())),
        ("trailing_bytes", record([&value[..], b"x"].concat())),
        ("unknown_schema", record(unknown_schema)),
        ("too_large", record([&value[..5], &vec![b'x'; MAX_VALUE_BYTES][..]].concat())),
        ("no_key", Planted { key: None, ..record(value.clone()) }),
        (
            "wrong_partition",
            Planted { partition: (intruder.partition + 1) % PARTITIONS, ..record(value.clone()) },
        ),
        (
            "wrong_partition",
            Planted { key: Some(b"\xff\xfe".to_vec()), partition: 7, ..record(b"rubbish".to_vec()) },
        ),
        ("key_mismatch", Planted { key: neighbour.map(String::into_bytes), ..record(value.clone()) }),
        ("bad_request_id", record(of(|request| request.request_id = "nonsense".to_owned()))),
        ("bad_field", record(of(|request| request.user_id = "an\0n".to_owned()))),
        ("bad_field", record(of(|request| request.user_id = "\x1b[2J\u{202e}ann".to_owned()))),
        ("bad_field", record(of(|request| request.user_id = String::new()))),
        ("bad_field", record(of(|request| request.user_id = "u".repeat(257)))),
        ("unsupported", record(of(|request| request.kind = "definition_changed".to_owned()))),
        ("no_load", record(of(|request| request.kind = "stock_added".to_owned()))),
        (
            "load_unknown",
            record(of(|request| {
                request.kind = "stock_added".to_owned();
                request.load_id = Some(999_999);
            })),
        ),
    ];
    assert_ne!(partition_for(b"\xff\xfe", PARTITIONS), 7, "the key of the test belongs elsewhere");
    let mut expected = Vec::new();
    for (n, (reason, planted)) in planted.iter().enumerate() {
        expected.push((intruder.produce(planted).await, *reason));
        intruder.expect_a_claim_to_work(&format!("user-{n}")).await;
    }
    let letters = intruder.letters().await;
    for (place, reason) in expected {
        assert_eq!(letters.get(&place).map(String::as_str), Some(reason), "at {place:?}");
    }
    intruder.field.leave().await;
}

#[tokio::test]
async fn an_unreadable_record_that_says_who_asked_is_answered() {
    let mut intruder = Intruder::enter(5).await;
    let request = intruder.claim("ann");
    let headers = vec![(HEADER_REQUEST_ID, request.request_id.clone()), (HEADER_USER_ID, "ann".to_owned())];
    let planted = Planted { headers, ..intruder.record(b"rubbish".to_vec()) };
    let place = intruder.produce(&planted).await;
    // Once more, and as a tombstone: it has its outcome already.
    intruder.produce(&planted).await;
    intruder.produce(&Planted { value: None, ..planted.clone() }).await;
    // Headers that say nothing that could be stored, or nothing at all, are no reason to stop either.
    for id in ["", "\x1b[31m", "not an id\r\n", &"9".repeat(5_000)] {
        let headers = vec![(HEADER_REQUEST_ID, id.to_owned()), (HEADER_USER_ID, "a\u{0}nn".to_owned())];
        intruder.produce(&Planted { headers, ..planted.clone() }).await;
    }
    intruder.expect_a_claim_to_work("bob").await;
    assert_eq!(intruder.letters().await.get(&place).map(String::as_str), Some("bad_magic"));
    let outcome = intruder.outcome(&request.request_id).await;
    assert_eq!(outcome, Some(("unknown".to_owned(), "unprocessable".to_owned())));
    // In a place that is not its own it is nobody's request.
    let elsewhere = intruder.claim("ann");
    let headers = vec![(HEADER_REQUEST_ID, elsewhere.request_id.clone()), (HEADER_USER_ID, "ann".to_owned())];
    let partition = (intruder.partition + 1) % PARTITIONS;
    intruder.produce(&Planted { headers, partition, ..intruder.record(b"rubbish".to_vec()) }).await;
    intruder.field.checked().await;
    assert_eq!(intruder.outcome(&elsewhere.request_id).await, None);
    intruder.field.leave().await;
}

#[tokio::test]
async fn a_kind_that_nobody_knows_is_rejected_and_never_dropped() {
    let mut intruder = Intruder::enter(5).await;
    let mut request = intruder.claim("ann");
    request.kind = "teleport".to_owned();
    let record = intruder.record(intruder.encoded(&request));
    intruder.produce(&record).await;
    intruder.expect_a_claim_to_work("bob").await;
    intruder.field.checked().await;
    let outcome = intruder.outcome(&request.request_id).await;
    assert_eq!(outcome, Some(("unknown".to_owned(), "unprocessable".to_owned())));
    intruder.field.leave().await;
}

#[tokio::test]
async fn a_request_for_a_coupon_that_is_not_there_is_told_so() {
    let mut intruder = Intruder::enter(5).await;
    let mut request = intruder.claim("ann");
    request.coupon_id = (0..)
        .map(|n| format!("nobody-made-this-{n}"))
        .find(|id| partition_for(id.as_bytes(), PARTITIONS) == intruder.partition)
        .unwrap();
    let key = Some(request.coupon_id.clone().into_bytes());
    let record = Planted { key, ..intruder.record(intruder.encoded(&request)) };
    intruder.produce(&record).await;
    intruder.expect_a_claim_to_work("bob").await;
    intruder.field.checked().await;
    let outcome = intruder.outcome(&request.request_id).await;
    assert_eq!(outcome, Some(("claim".to_owned(), "coupon_unknown".to_owned())));
    intruder.field.leave().await;
}

#[tokio::test]
async fn a_request_that_somebody_sends_again_changes_nothing() {
    let mut intruder = Intruder::enter(5).await;
    let coupon = intruder.coupon.clone();
    let asks = [Ask::of("ann", &coupon), Ask::of("bob", &coupon).key("k")];
    for ask in asks {
        intruder.field.ask(ask).await;
    }
    let log = records(&intruder.field.stack.endpoints().kafka, REQUESTS).await;
    let of_the_coupon = log.iter().filter(|record| record.key() == Some(coupon.as_bytes()));
    let requests: Vec<_> =
        of_the_coupon.filter(|record| header(record, HEADER_REQUEST_ID).is_some()).collect();
    assert_eq!(requests.len(), 2);
    let mut misplaced = Vec::new();
    for request in requests {
        let again = intruder.record(request.payload().unwrap().to_vec());
        for _ in 0..3 {
            intruder.produce(&again).await;
        }
        let partition = (intruder.partition + 1) % PARTITIONS;
        misplaced.push(intruder.produce(&Planted { partition, ..again }).await);
        // Its id for another user: whoever sends it, it is decided.
        let mut stolen = intruder.claim("eve");
        stolen.request_id = header(request, HEADER_REQUEST_ID).unwrap();
        intruder.produce(&intruder.record(intruder.encoded(&stolen))).await;
    }
    let letters = intruder.letters().await;
    assert!(misplaced.iter().all(|place| letters[place] == "wrong_partition"), "{letters:?}");
    assert_eq!(intruder.field.counts(&coupon).await["claimed"], 2);
    intruder.field.leave().await;
}

#[tokio::test]
async fn a_schema_that_a_newer_api_has_stored_is_fetched_by_a_running_worker() {
    let mut intruder = Intruder::enter(5).await;
    let mut newer: Value = serde_json::from_str(Subject::Request.newest().definition).unwrap();
    let field = json!({"name": "channel", "type": ["null", "string"], "default": null});
    newer["fields"].as_array_mut().unwrap().push(field);
    let newer = newer.to_string();
    let sql = "insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3) returning schema_id";
    let stored = sqlx::query_scalar(sql).bind(Subject::Request.name());
    let stored = stored.bind(fingerprint(&newer).unwrap().to_vec()).bind(&newer);
    let id: i32 = stored.fetch_one(&mut intruder.field.postgres().await).await.unwrap();
    // As the newer API writes it: today's fields, and the new one (the union's second branch, and a text of two bytes).
    for user in ["ann", "bob"] {
        let request = intruder.claim(user);
        let mut value = [&intruder.encoded(&request)[..], &[2, 4, b'q', b'r']].concat();
        value[1..5].copy_from_slice(&id.to_be_bytes());
        intruder.produce(&intruder.record(value)).await;
    }
    intruder.expect_a_claim_to_work("carl").await;
    let report = intruder.field.checked().await;
    assert_eq!(intruder.field.counts(&intruder.coupon).await["claimed"], 3, "\n{report}");
    intruder.field.leave().await;
}
