//! Records that the API would not write: each becomes a dead letter or an outcome, and its partition continues.

use coupon_core::ids::RequestId;
use rdkafka::message::Message as _;
use schemas::topics::{HEADER_REQUEST_ID, HEADER_USER_ID, REQUESTS};
use schemas::{CouponRequest, MAX_VALUE_BYTES, Subject, fingerprint, partition_for};
use serde_json::{Value, json};

use e2e::environment::PARTITIONS;
use e2e::foreign_producer::{ForeignProducer, Position};
use e2e::kafka::{Record, header, records};
use e2e::{ApiResponse, Coupon, Environment, Request};

/// The partition continues: a claim through the API is accepted.
async fn expect_claim_accepted(env: &Environment, coupon: &Coupon<'_>, user: &str) {
    let response = env.send(Request::claim(user, &coupon.id)).await.parsed();
    assert!(matches!(response, ApiResponse::Accepted { .. }), "{response:?}");
}

/// Kind and reason of a rejected outcome.
async fn rejection(env: &Environment, request_id: &str) -> Option<(String, String)> {
    let id = RequestId::parse(request_id).unwrap();
    sqlx::query_as("select kind, reason from stampede.outcomes where identity = $1")
        .bind(uuid::Uuid::from_u128(id.identity))
        .fetch_optional(&mut env.postgres().await)
        .await
        .unwrap()
}

/// Malformed records of this coupon, each with the reason of its dead letter.
fn malformed(producer: &ForeignProducer<'_>, valid: &CouponRequest) -> Vec<(&'static str, Record)> {
    let value = producer.encode(valid);
    let changed = |change: fn(&mut CouponRequest)| {
        let mut request = valid.clone();
        change(&mut request);
        producer.record(&request)
    };
    let mut unknown_schema = value.clone();
    unknown_schema[1..5].copy_from_slice(&999_999_i32.to_be_bytes());
    let other_coupon = (0..)
        .map(|n| format!("other-coupon-{n}"))
        .find(|key| partition_for(key.as_bytes(), PARTITIONS) == producer.partition);
    let no_text = b"\xff\xfe".to_vec();
    let not_its_own = (1..).find(|partition| *partition != partition_for(&no_text, PARTITIONS)).unwrap();
    let record = |value| producer.record_of(value);
    vec![
        ("empty", Record { value: None, ..record(Vec::new()) }),
        ("empty", record(Vec::new())),
        ("no_key", Record { key: None, value: None, ..record(Vec::new()) }),
        ("bad_magic", record(b"rubbish".to_vec())),
        ("truncated", record(vec![0, 0, 0])),
        ("malformed", record(value[..value.len() / 2].to_vec())),
        ("trailing_bytes", record([&value[..], b"x"].concat())),
        ("unknown_schema", record(unknown_schema)),
        ("too_large", record([&value[..5], &vec![b'x'; MAX_VALUE_BYTES][..]].concat())),
        ("no_key", Record { key: None, ..record(value.clone()) }),
        ("wrong_partition", Record { partition: producer.other_partition(), ..record(value.clone()) }),
        (
            "wrong_partition",
            Record { key: Some(no_text), partition: not_its_own, ..record(b"rubbish".to_vec()) },
        ),
        ("key_mismatch", Record { key: other_coupon.map(String::into_bytes), ..record(value) }),
        ("bad_request_id", changed(|request| request.request_id = "nonsense".to_owned())),
        ("bad_field", changed(|request| request.user_id = "an\0n".to_owned())),
        ("bad_field", changed(|request| request.user_id = "\x1b[2J\u{202e}ann".to_owned())),
        ("bad_field", changed(|request| request.user_id = String::new())),
        ("bad_field", changed(|request| request.user_id = "u".repeat(257))),
        ("unsupported", changed(|request| request.kind = "definition_changed".to_owned())),
        ("no_load", changed(|request| request.kind = "stock_added".to_owned())),
        (
            "load_unknown",
            changed(|request| {
                request.kind = "stock_added".to_owned();
                request.load_id = Some(999_999);
            }),
        ),
    ]
}

async fn fault_31_a_malformed_record_becomes_a_dead_letter_and_its_partition_continues(env: &Environment) {
    let coupon = env.coupon(40, 1).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let valid = producer.request("claim", "ann", None);
    let mut expected: Vec<(Position, &str)> = Vec::new();
    for (n, (reason, record)) in malformed(&producer, &valid).into_iter().enumerate() {
        expected.push((producer.produce(&record).await, reason));
        expect_claim_accepted(env, &coupon, &format!("user-{n}")).await;
    }
    let positions: Vec<Position> = expected.iter().map(|(position, _)| *position).collect();
    let letters = env.dead_letters(&positions).await;
    for (position, reason) in expected {
        assert_eq!(letters.get(&position).map(String::as_str), Some(reason), "at {position:?}");
    }
}

async fn an_unreadable_record_whose_headers_name_the_request_gets_an_outcome(env: &Environment) {
    let coupon = env.coupon(5, 1).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let request = producer.request("claim", "ann", None);
    let headers = |request_id: &str, user: &str| {
        vec![(HEADER_REQUEST_ID, request_id.to_owned()), (HEADER_USER_ID, user.to_owned())]
    };
    let rubbish = producer.record_of(b"rubbish".to_vec());
    let unreadable = Record { headers: headers(&request.request_id, "ann"), ..rubbish.clone() };
    let position = producer.produce(&unreadable).await;
    // Again, and as a tombstone: the request has its outcome already.
    producer.produce(&unreadable).await;
    producer.produce(&Record { value: None, ..unreadable.clone() }).await;
    // Headers that cannot be stored, or are empty, stop nothing either.
    for id in ["", "\x1b[31m", "not an id\r\n", &"9".repeat(5_000)] {
        producer.produce(&Record { headers: headers(id, "a\u{0}nn"), ..rubbish.clone() }).await;
    }
    expect_claim_accepted(env, &coupon, "bob").await;
    let letters = env.dead_letters(&[position]).await;
    assert_eq!(letters.get(&position).map(String::as_str), Some("bad_magic"));
    let outcome = rejection(env, &request.request_id).await;
    assert_eq!(outcome, Some(("unknown".to_owned(), "unprocessable".to_owned())));
    // In a partition that is not its own, it gets none.
    let misplaced = producer.request("claim", "ann", None);
    let headers = headers(&misplaced.request_id, "ann");
    let record = Record { headers, partition: producer.other_partition(), ..rubbish };
    let (partition, offset) = producer.produce(&record).await;
    env.until_published(partition, offset).await;
    assert_eq!(rejection(env, &misplaced.request_id).await, None);
}

async fn an_unknown_kind_is_rejected_and_never_dropped(env: &Environment) {
    let coupon = env.coupon(5, 1).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let request = producer.request("teleport", "ann", None);
    producer.send(&request).await;
    // Behind it in the same partition.
    expect_claim_accepted(env, &coupon, "bob").await;
    let outcome = rejection(env, &request.request_id).await;
    assert_eq!(outcome, Some(("unknown".to_owned(), "unprocessable".to_owned())));
}

async fn a_request_for_an_unknown_coupon_is_rejected(env: &Environment) {
    let coupon = env.coupon(5, 1).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let mut request = producer.request("claim", "ann", None);
    request.coupon_id = (0..)
        .map(|n| format!("unknown-coupon-{n}"))
        .find(|id| partition_for(id.as_bytes(), PARTITIONS) == producer.partition)
        .unwrap();
    let key = Some(request.coupon_id.clone().into_bytes());
    producer.produce(&Record { key, ..producer.record(&request) }).await;
    expect_claim_accepted(env, &coupon, "bob").await;
    let outcome = rejection(env, &request.request_id).await;
    assert_eq!(outcome, Some(("claim".to_owned(), "coupon_unknown".to_owned())));
}

async fn fault_15_a_record_that_is_appended_again_changes_nothing(env: &Environment) {
    let coupon = env.coupon(5, 1).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    for request in [Request::claim("ann", &coupon.id), Request::claim("bob", &coupon.id).key("k")] {
        env.send(request).await;
    }
    let log = records(&env.stack.endpoints().kafka, REQUESTS).await;
    let of_the_coupon = log.iter().filter(|record| record.key() == Some(coupon.id.as_bytes()));
    let requests: Vec<_> =
        of_the_coupon.filter(|record| header(record, HEADER_REQUEST_ID).is_some()).collect();
    assert_eq!(requests.len(), 2);
    let mut misplaced = Vec::new();
    for request in requests {
        let again = producer.record_of(request.payload().unwrap().to_vec());
        for _ in 0..3 {
            producer.produce(&again).await;
        }
        misplaced.push(producer.produce(&Record { partition: producer.other_partition(), ..again }).await);
        // The same id for another user: it is decided for any sender.
        let mut stolen = producer.request("claim", "eve", None);
        stolen.request_id = header(request, HEADER_REQUEST_ID).unwrap();
        producer.send(&stolen).await;
    }
    producer.until_decided().await;
    let letters = env.dead_letters(&misplaced).await;
    assert!(misplaced.iter().all(|position| letters[position] == "wrong_partition"), "{letters:?}");
    assert_eq!(env.counts(&coupon.id).await["claimed"], 2);
}

async fn fault_49_a_schema_that_a_newer_api_has_registered_is_fetched_by_a_running_worker(env: &Environment) {
    let coupon = env.coupon(5, 1).await;
    let producer = ForeignProducer::of(env, &coupon.id).await;
    let mut newer: Value = serde_json::from_str(Subject::Request.newest().definition).unwrap();
    let field = json!({"name": "channel", "type": ["null", "string"], "default": null});
    newer["fields"].as_array_mut().unwrap().push(field);
    let newer = newer.to_string();
    let sql = "insert into stampede.schemas (subject, fingerprint, definition) values ($1, $2, $3) returning schema_id";
    let stored = sqlx::query_scalar(sql).bind(Subject::Request.name());
    let stored = stored.bind(fingerprint(&newer).unwrap().to_vec()).bind(&newer);
    let id: i32 = stored.fetch_one(&mut env.postgres().await).await.unwrap();
    // As the newer API writes it: today's fields, then the new one (second branch of the union, a string of two bytes).
    for user in ["ann", "bob"] {
        let request = producer.request("claim", user, None);
        let mut value = [&producer.encode(&request)[..], &[2, 4, b'q', b'r']].concat();
        value[1..5].copy_from_slice(&id.to_be_bytes());
        producer.produce(&producer.record_of(value)).await;
    }
    expect_claim_accepted(env, &coupon, "carl").await;
    assert_eq!(env.counts(&coupon.id).await["claimed"], 3);
}

e2e::tests![
    fault_31_a_malformed_record_becomes_a_dead_letter_and_its_partition_continues,
    an_unreadable_record_whose_headers_name_the_request_gets_an_outcome,
    an_unknown_kind_is_rejected_and_never_dropped,
    a_request_for_an_unknown_coupon_is_rejected,
    fault_15_a_record_that_is_appended_again_changes_nothing,
    fault_49_a_schema_that_a_newer_api_has_registered_is_fetched_by_a_running_worker,
];
