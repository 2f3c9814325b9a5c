//! Metric names, what they mean, and the handles of those on the path of a claim (looked up once, not per request).
//! No label ever carries a coupon, a user or a request.

use std::sync::Arc;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Counter by `route` and `status` (2xx, 4xx, 5xx): answers of the HTTP interface.
pub const HTTP_ANSWERS: &str = "stampede_api_http_answers_total";
/// Histogram by `route`: seconds from a request's headers to its answer, waiting for outcomes included.
pub const HTTP_SECONDS: &str = "stampede_api_http_seconds";
/// Counter: requests that Kafka has acknowledged (202 or 200 is answered, if the client is still there).
pub const ACCEPTED: &str = "stampede_api_requests_accepted_total";
/// Counter by `why` (instance_full, partition_full, queue_full, unacknowledged): requests refused with 503.
pub const REFUSED: &str = "stampede_api_requests_refused_total";
/// Counter: claims that the sold-out gate answered.
pub const GATED: &str = "stampede_api_requests_gated_total";
/// Histogram: seconds from sending a request to Kafka's acknowledgement.
pub const ACKNOWLEDGED_SECONDS: &str = "stampede_api_acknowledged_seconds";
/// Gauge: requests sent from here whose outcome has not been seen.
pub const UNDECIDED: &str = "stampede_api_undecided";
/// Counter: response events read.
pub const RESPONSES: &str = "stampede_api_responses_total";
/// Counter by `reason`: response events that could not be read.
pub const RESPONSES_UNREADABLE: &str = "stampede_api_responses_unreadable_total";
/// Counter: gaps in the reading of responses; everything undecided is looked up after each.
pub const RESPONSE_GAPS: &str = "stampede_api_response_gaps_total";
/// Counter: undecided requests whose outcome was found in Postgres and not on Kafka.
pub const FOUND_BY_LOOKUP: &str = "stampede_api_found_by_lookup_total";
/// Counter: codes generated and committed.
pub const CODES_GENERATED: &str = "stampede_api_codes_generated_total";
/// Counter: announcements of sealed loads.
pub const LOADS_ANNOUNCED: &str = "stampede_api_loads_announced_total";

/// Says what each metric means.
pub(crate) fn describe() {
    describe_counter!(HTTP_ANSWERS, "Answers of the HTTP interface, by route and status");
    describe_histogram!(HTTP_SECONDS, "Seconds to the answer, by route");
    describe_counter!(ACCEPTED, "Requests that Kafka has acknowledged");
    describe_counter!(REFUSED, "Requests refused with 503, by reason");
    describe_counter!(GATED, "Claims answered by the sold-out gate");
    describe_histogram!(ACKNOWLEDGED_SECONDS, "Seconds until Kafka acknowledged a request");
    describe_gauge!(UNDECIDED, "Requests sent from here whose outcome has not been seen");
    describe_counter!(RESPONSES, "Response events read");
    describe_counter!(RESPONSES_UNREADABLE, "Response events that could not be read");
    describe_counter!(RESPONSE_GAPS, "Gaps in the reading of response events");
    describe_counter!(FOUND_BY_LOOKUP, "Outcomes found in Postgres and not on Kafka");
    describe_counter!(CODES_GENERATED, "Codes generated and committed");
    describe_counter!(LOADS_ANNOUNCED, "Announcements of sealed loads");
}

/// Handles of the hot path.
pub(crate) struct Handles {
    pub(crate) gated: Counter,
    pub(crate) instance_full: Counter,
    pub(crate) partition_full: Counter,
    pub(crate) queue_full: Counter,
    pub(crate) unacknowledged: Counter,
    pub(crate) undecided: Gauge,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            gated: counter!(GATED),
            instance_full: counter!(REFUSED, "why" => "instance_full"),
            partition_full: counter!(REFUSED, "why" => "partition_full"),
            queue_full: counter!(REFUSED, "why" => "queue_full"),
            unacknowledged: counter!(REFUSED, "why" => "unacknowledged"),
            undecided: gauge!(UNDECIDED),
        }
    }
}

/// Handles of one route.
#[derive(Clone)]
pub(crate) struct Route(Arc<RouteHandles>);

struct RouteHandles {
    good: Counter,
    refused: Counter,
    failed: Counter,
    seconds: Histogram,
}

impl Route {
    pub(crate) fn new(route: &'static str) -> Self {
        let answers = |status: &'static str| counter!(HTTP_ANSWERS, "route" => route, "status" => status);
        Self(Arc::new(RouteHandles {
            good: answers("2xx"),
            refused: answers("4xx"),
            failed: answers("5xx"),
            seconds: histogram!(HTTP_SECONDS, "route" => route),
        }))
    }

    pub(crate) fn answered(&self, status: axum::http::StatusCode, seconds: f64) {
        match status.as_u16() {
            500.. => self.0.failed.increment(1),
            400.. => self.0.refused.increment(1),
            _ => self.0.good.increment(1),
        }
        self.0.seconds.record(seconds);
    }
}
