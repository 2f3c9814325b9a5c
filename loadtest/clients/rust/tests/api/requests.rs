//! Requests, retries and outcomes against a server that fails in scripted ways.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stampede_client::transport::{HttpResponse, TransportError};
use stampede_client::{
    Attempt, Cause, Client, Error, Observer, Operation, Order, Polling, RetryPolicy, Step,
};

use crate::scripted::{
    ID, Reaction, Received, Server, granted, pending, problem, rejected, respond, still_pending,
};

fn quick() -> RetryPolicy {
    RetryPolicy {
        deadline: Duration::from_secs(20),
        first_pause: Duration::from_millis(5),
        max_pause: Duration::from_millis(10),
        ..RetryPolicy::default()
    }
}

fn client(server: &Server) -> Client {
    let polling = Polling::long(Duration::from_secs(1));
    let response_timeout = Duration::from_millis(300);
    let builder = Client::builder(&server.url).token("t").policy(quick()).polling(polling);
    builder.response_timeout(response_timeout).build()
}

/// A client with a deadline of 200 ms.
fn hasty(server: &Server) -> Client {
    client(server).with_policy(RetryPolicy { deadline: Duration::from_millis(200), ..quick() })
}

#[tokio::test]
async fn one_key_and_one_body_are_kept_over_all_attempts() {
    let failures = [problem(503, "unavailable"), Reaction::Close, problem(429, "too_many_requests")];
    let more = [Reaction::CloseHalfWay, Reaction::Silence, problem(500, "internal")];
    let server = Server::play(failures.into_iter().chain(more).chain([granted()])).await;
    let order = Order::new("o-1", "59.90", "EUR");
    let outcome = client(&server).redeem_and_wait("C-1", order).await.unwrap();
    assert_eq!((outcome.word(), outcome.code.as_deref()), ("accepted", Some("C-1")));
    let received = server.received();
    assert_eq!(received.len(), 7);
    let first = &received[0];
    assert_eq!(first.line, "POST /v1/codes/C-1/redemptions?wait=1");
    assert_eq!(first.header("authorization").as_deref(), Some("Bearer t"));
    assert!(first.key().is_some_and(|key| key.len() >= 32), "{first:?}");
    for request in &received {
        assert_eq!((&request.line, request.key(), &request.body), (&first.line, first.key(), &first.body));
    }
}

#[tokio::test]
async fn another_call_has_another_key() {
    let server = Server::play([granted()]).await;
    let client = client(&server);
    client.claim_and_wait("spring").await.unwrap();
    client.claim_and_wait("spring").await.unwrap();
    let keys: Vec<_> = server.received().iter().map(Received::key).collect();
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_given_key_is_sent_as_it_is() {
    let server = Server::play([problem(503, "unavailable"), granted()]).await;
    let client = client(&server);
    client.request(Operation::claim("spring")).idempotency_key("order 7").send_and_wait().await.unwrap();
    let keys: Vec<_> = server.received().iter().map(Received::key).collect();
    assert_eq!(keys, [Some("order 7".to_owned()), Some("order 7".to_owned())]);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let busy = Reaction::Respond(503, "retry-after: 1\r\n", json!({"code": "overloaded"}).to_string());
    let server = Server::play([busy, granted()]).await;
    let began = Instant::now();
    client(&server).claim_and_wait("spring").await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn an_accepted_request_is_polled_until_its_outcome() {
    let server = Server::play([pending(), still_pending(), still_pending(), rejected("sold_out")]).await;
    let outcome = client(&server).claim_and_wait("spring").await.unwrap();
    assert!(outcome.is_rejected_for("sold_out") && !outcome.is_accepted(), "{outcome:?}");
    let poll = format!("GET /v1/requests/{ID}?wait=1");
    assert_eq!(server.lines(), ["POST /v1/coupons/spring/claims?wait=1", &poll, &poll, &poll]);
    assert!(server.received()[1..].iter().all(|request| request.key().is_none()), "a poll carries no key");
}

#[tokio::test]
async fn an_outcome_arrives_although_the_connection_breaks_while_it_is_awaited() {
    let server = Server::play([pending(), Reaction::CloseHalfWay, Reaction::Close, granted()]).await;
    let outcome = client(&server).claim_and_wait("spring").await.unwrap();
    assert_eq!(outcome.code.as_deref(), Some("C-1"));
    let posts = server.lines().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!((posts, server.lines().len()), (1, 4), "an accepted request is not sent again");
}

#[tokio::test]
async fn a_request_is_sent_without_waiting_and_its_outcome_is_fetched_later() {
    let server = Server::play([pending(), granted(), still_pending(), granted()]).await;
    let client = client(&server);
    let sent =
        client.request(Operation::claim("spring")).polling(Polling::short(Duration::ZERO)).send().await;
    let sent = sent.unwrap();
    assert!(sent.is_pending());
    assert!(client.wait_for(&sent.request_id).await.unwrap().is_accepted());
    assert!(client.outcome(&sent.request_id).await.unwrap().is_pending());
    let poll = format!("GET /v1/requests/{ID}");
    assert_eq!(server.lines(), ["POST /v1/coupons/spring/claims", &format!("{poll}?wait=1"), &poll]);
}

#[tokio::test]
async fn at_the_deadline_the_error_states_what_is_known() {
    let unconfirmed = Server::play([problem(503, "unavailable"), problem(503, "overloaded")]).await;
    let error =
        hasty(&unconfirmed).request(Operation::claim("spring")).idempotency_key("k").send_and_wait().await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, Error::Unconfirmed { idempotency_key: Some(key), .. } if key == "k"),
        "{error:?}"
    );
    assert_eq!(error.problem().map(|problem| &*problem.code), Some("overloaded"), "the last response");

    let overloaded = Server::play([problem(503, "overloaded")]).await;
    let error = hasty(&overloaded).claim_and_wait("spring").await.unwrap_err();
    assert!(matches!(error, Error::NotAccepted(Cause::Response { .. })), "{error:?}");

    let silent = Server::play([Reaction::Silence]).await;
    let error = hasty(&silent).claim_and_wait("spring").await.unwrap_err();
    assert!(matches!(error, Error::Unconfirmed { .. }), "{error:?}");

    let slow = Server::play([pending(), still_pending()]).await;
    let error = hasty(&slow).claim_and_wait("spring").await.unwrap_err();
    assert!(matches!(&error, Error::OutcomeNotReceived { request_id, .. } if request_id == ID), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_accepts_nothing() {
    let policy = RetryPolicy { deadline: Duration::from_millis(100), ..quick() };
    // Port 1 is reserved, and nothing listens there.
    let client = Client::builder("http://127.0.0.1:1").policy(policy).build();
    let error = client.claim_and_wait("spring").await.unwrap_err();
    let not_sent = Error::NotAccepted(Cause::Transport(TransportError::NotSent));
    assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&not_sent), "{error:?}");
}

#[tokio::test]
async fn a_problem_of_the_request_itself_is_not_repeated() {
    for (status, code) in
        [(401, "unauthenticated"), (403, "forbidden"), (404, "not_found"), (409, "sold_out")]
    {
        let server = Server::play([problem(status, code)]).await;
        let error = client(&server).claim_and_wait("spring").await.unwrap_err();
        let Error::Problem(problem) = error else { panic!("{error:?}") };
        assert_eq!((problem.status.as_u16(), &*problem.code, &*problem.detail), (status, code, "why"));
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn every_invalid_field_of_a_problem_is_reported() {
    let errors = json!([{"field": "order_amount", "detail": "at most 2 decimal places"}]);
    let server =
        Server::play([respond(422, json!({"code": "invalid", "detail": "x", "errors": errors}))]).await;
    let error = client(&server).redeem_and_wait("C", Order::new("o", "1.001", "EUR")).await.unwrap_err();
    assert_eq!(error.to_string(), "HTTP 422 invalid: x; order_amount: at most 2 decimal places");
    assert_eq!(error.problem().unwrap().errors[0].field, "order_amount");
}

#[tokio::test]
async fn a_response_that_no_stampede_sends_is_an_error_unless_a_proxy_may_have_sent_it() {
    let html = |status| Reaction::Respond(status, "", "<html>".to_owned());
    let server = Server::play([html(502), html(404)]).await;
    let error = client(&server).claim_and_wait("spring").await.unwrap_err();
    assert!(
        matches!(&error, Error::UnexpectedResponse { status, .. } if status.as_u16() == 404),
        "{error:?}"
    );
    assert_eq!(server.received().len(), 2, "502 is repeated");
}

#[tokio::test]
async fn without_a_key_a_request_is_repeated_only_while_nothing_was_accepted() {
    let script = [problem(503, "overloaded"), problem(429, "too_many_requests"), Reaction::Close, granted()];
    let server = Server::play(script).await;
    let client = client(&server);
    let error = client.request(Operation::claim("spring")).without_idempotency_key().send_and_wait().await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unconfirmed { idempotency_key: None, .. }), "{error:?}");
    assert_eq!(server.received().len(), 3);
    assert!(server.received().iter().all(|request| request.key().is_none()));
}

#[tokio::test]
async fn a_poll_that_is_rejected_ends_the_wait_and_names_the_request() {
    let server = Server::play([pending(), problem(410, "gone")]).await;
    let error = client(&server).claim_and_wait("spring").await.unwrap_err();
    assert!(matches!(&error, Error::OutcomeNotReceived { request_id, .. } if request_id == ID), "{error:?}");
    assert_eq!((error.status().unwrap().as_u16(), server.received().len()), (410, 2));
}

#[tokio::test]
async fn after_a_failure_the_next_server_is_used() {
    let (broken, sound) = (Server::play([Reaction::Close]).await, Server::play([pending(), granted()]).await);
    let client = Client::builder(&broken.url).server(&sound.url).token("t").policy(quick()).build();
    let request = client.request(Operation::claim("spring")).server(0);
    request.send_and_wait().await.unwrap();
    assert_eq!((broken.received().len(), sound.received().len()), (1, 2));
    assert_eq!(broken.received()[0].key(), sound.received()[0].key(), "the same request");
}

#[tokio::test]
async fn a_service_names_the_user_in_the_body_or_in_the_query() {
    let server = Server::play([granted()]).await;
    let client = client(&server);
    client.request(Operation::claim("spring")).on_behalf_of("ann").send_and_wait().await.unwrap();
    client.request(Operation::return_code("C")).on_behalf_of("a&b").send_and_wait().await.unwrap();
    let received = server.received();
    assert_eq!(serde_json::from_str::<Value>(&received[0].body).unwrap(), json!({"user_id": "ann"}));
    assert_eq!(received[1].line, "DELETE /v1/codes/C/claim?wait=1&user_id=a%26b");
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Observer for Log {
    fn sending(&self, attempt: &Attempt<'_>) {
        let step = if attempt.step == Step::Poll { "poll" } else { "submit" };
        self.add(format!("{} {step}", attempt.number));
    }

    fn received(&self, _: &Attempt<'_>, result: Result<&HttpResponse, &TransportError>) {
        self.add(result.map_or("lost".to_owned(), |response| response.status.as_u16().to_string()));
    }

    fn retrying(&self, _: &Attempt<'_>, _: Duration) {
        self.add("again".to_owned());
    }
}

#[tokio::test]
async fn an_observer_sees_every_attempt_and_every_response() {
    let server = Server::play([problem(503, "unavailable"), pending(), Reaction::Close, granted()]).await;
    let (client, log) = (client(&server), Log::default());
    client.request(Operation::claim("spring")).observer(&log).send_and_wait().await.unwrap();
    let seen = log.0.into_inner().unwrap();
    let expected =
        ["1 submit", "503", "again", "2 submit", "202", "3 poll", "lost", "again", "4 poll", "200"];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_single_attempt_is_never_repeated() {
    let server = Server::play([problem(503, "unavailable"), Reaction::Close]).await;
    let (client, log) = (client(&server), Log::default());
    let once = || client.request(Operation::claim("spring")).observer(&log);
    assert_eq!(once().attempt().await.unwrap().status.as_u16(), 503);
    let lost = once().attempt().await.unwrap_err();
    assert!(lost.may_have_been_delivered(), "{lost:?}");
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn connections_are_reused_by_all_clones_of_a_client() {
    let server = Server::play([granted()]).await;
    let client = client(&server);
    for user in ["ann", "bob", "cid"] {
        client.with_token(user).claim_and_wait("spring").await.unwrap();
    }
    let tokens: Vec<_> =
        server.received().iter().filter_map(|request| request.header("authorization")).collect();
    assert_eq!(tokens, ["Bearer ann", "Bearer bob", "Bearer cid"]);
    assert_eq!(server.connections(), 1);
}
