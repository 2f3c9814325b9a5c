//! Metric names, their meaning, and the handles of the hot path (registered once, not per request).
//!
//! No label ever carries a coupon, a user or a request.

use std::sync::Arc;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, histogram};

/// Counter by `route` and `status` (2xx, 4xx, 5xx): HTTP responses.
pub const HTTP_RESPONSES: &str = "stampede_api_http_responses_total";
/// Histogram by `route`: seconds from the headers of a request to its response, waiting for outcomes included.
pub const HTTP_SECONDS: &str = "stampede_api_http_seconds";
/// Counter: requests that Kafka has acknowledged (the response is 202 or 200, if the client is still connected).
pub const ACCEPTED: &str = "stampede_api_requests_accepted_total";
/// Counter by `why` (instance_full, partition_full, partition_unknown, queue_full, unacknowledged): requests rejected with
/// 503.
pub const REJECTED: &str = "stampede_api_requests_rejected_total";
/// Counter: claims that the sold-out gate short-circuited.
pub const SHORT_CIRCUITED: &str = "stampede_api_requests_short_circuited_total";
/// Histogram: seconds from sending a request to Kafka's acknowledgement.
pub const ACKNOWLEDGED_SECONDS: &str = "stampede_api_acknowledged_seconds";
/// Gauge: requests sent from this instance without an outcome yet.
pub const PENDING: &str = "stampede_api_pending_requests";
/// Counter: response events consumed.
pub const RESPONSES: &str = "stampede_api_responses_total";
/// Counter by `reason`: response events that could not be decoded.
pub const RESPONSES_UNREADABLE: &str = "stampede_api_responses_unreadable_total";
/// Counter: gaps in the consumption of responses; every pending request is looked up after each.
pub const RESPONSE_GAPS: &str = "stampede_api_response_gaps_total";
/// Counter: pending requests whose outcome was found in Postgres and not on Kafka.
pub const FOUND_BY_LOOKUP: &str = "stampede_api_found_by_lookup_total";
/// Counter: codes generated and committed.
pub const CODES_GENERATED: &str = "stampede_api_codes_generated_total";
/// Counter: announcements of sealed loads.
pub const LOADS_ANNOUNCED: &str = "stampede_api_loads_announced_total";

/// Registers the help text of every metric.
pub(crate) fn describe() {
    describe_counter!(HTTP_RESPONSES, "HTTP responses, by route and status");
    describe_histogram!(HTTP_SECONDS, "Seconds to the response, by route");
    describe_counter!(ACCEPTED, "Requests that Kafka has acknowledged");
    describe_counter!(REJECTED, "Requests rejected with 503, by reason");
    describe_counter!(SHORT_CIRCUITED, "Claims short-circuited by the sold-out gate");
    describe_histogram!(ACKNOWLEDGED_SECONDS, "Seconds until Kafka acknowledged a request");
    describe_gauge!(PENDING, "Requests sent from this instance without an outcome yet");
    describe_counter!(RESPONSES, "Response events consumed");
    describe_counter!(RESPONSES_UNREADABLE, "Response events that could not be decoded");
    describe_counter!(RESPONSE_GAPS, "Gaps in the consumption of response events");
    describe_counter!(FOUND_BY_LOOKUP, "Outcomes found in Postgres and not on Kafka");
    describe_counter!(CODES_GENERATED, "Codes generated and committed");
    describe_counter!(LOADS_ANNOUNCED, "Announcements of sealed loads");
}

/// Counters of requests that are not accepted.
pub(crate) struct SubmitMetrics {
    pub(crate) short_circuited: Counter,
    pub(crate) instance_full: Counter,
    pub(crate) partition_full: Counter,
    pub(crate) queue_full: Counter,
    pub(crate) unacknowledged: Counter,
}

impl SubmitMetrics {
    pub(crate) fn new() -> Self {
        Self {
            short_circuited: counter!(SHORT_CIRCUITED),
            instance_full: counter!(REJECTED, "why" => "instance_full"),
            partition_full: counter!(REJECTED, "why" => "partition_full"),
            queue_full: counter!(REJECTED, "why" => "queue_full"),
            unacknowledged: counter!(REJECTED, "why" => "unacknowledged"),
        }
    }
}

/// Handles of one route.
#[derive(Clone)]
pub(crate) struct RouteMetrics(Arc<RouteHandles>);

struct RouteHandles {
    success: Counter,
    client_error: Counter,
    server_error: Counter,
    seconds: Histogram,
}

impl RouteMetrics {
    pub(crate) fn new(route: &'static str) -> Self {
        let responses = |status: &'static str| counter!(HTTP_RESPONSES, "route" => route, "status" => status);
        Self(Arc::new(RouteHandles {
            success: responses("2xx"),
            client_error: responses("4xx"),
            server_error: responses("5xx"),
            seconds: histogram!(HTTP_SECONDS, "route" => route),
        }))
    }

    /// Counts one response.
    pub(crate) fn record(&self, status: axum::http::StatusCode, seconds: f64) {
        match status.as_u16() {
            500.. => self.0.server_error.increment(1),
            400.. => self.0.client_error.increment(1),
            _ => self.0.success.increment(1),
        }
        self.0.seconds.record(seconds);
    }
}
