//! One HTTP exchange: a request is written, its whole response is read.
//!
//! Nothing is retried here, except that a request which provably never left is sent again on a new connection.
//! [`TransportError::may_have_been_delivered`]: whether the server may have received a request that has no response.
//! Every wait is bounded.

mod connection;
mod pool;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
pub use hyper::{Method, StatusCode, header};
use serde::de::DeserializeOwned;
use thiserror::Error;

use connection::Connection;
pub(crate) use pool::Server;

/// An HTTP request.
#[derive(Clone, Debug)]
pub struct HttpRequest<'a> {
    /// The method.
    pub method: Method,
    /// Path and query, percent-encoded.
    pub path: Cow<'a, str>,
    /// Bearer token.
    pub token: Option<&'a str>,
    /// The value of `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// Further headers. They replace headers of the same name that this crate sets.
    pub headers: HeaderMap,
    /// A JSON body.
    pub body: Option<Bytes>,
}

/// An HTTP response, whatever its status.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// There is no response.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: the request was not sent.
    #[error("no connection: {0}")]
    NotConnected(#[from] io::Error),
    /// The connection was closed before the request was written.
    #[error("the connection was closed before the request was sent")]
    NotSent,
    /// The connection was lost before the response was complete. The server may have received the request.
    #[error("connection lost: {0}")]
    ConnectionLost(#[from] hyper::Error),
    /// No complete response in time. The server may have received the request.
    #[error("no response within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The base URL is not `http://host:port`. TLS ends at the proxy in front of the API.
    #[error("not a base URL of the form http://host:port: {0}")]
    InvalidBaseUrl(String),
    /// A path, token, key or header with characters that HTTP does not allow.
    #[error("invalid request: {0}")]
    InvalidRequest(#[from] hyper::http::Error),
}

impl TransportError {
    /// Whether the server may have received the request.
    #[must_use]
    pub const fn may_have_been_delivered(&self) -> bool {
        matches!(self, Self::ConnectionLost(_) | Self::Timeout(_))
    }
}

impl<'a> HttpRequest<'a> {
    /// A request without token and body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<Cow<'a, str>>) -> Self {
        let (path, headers) = (path.into(), HeaderMap::new());
        Self { method, path, token: None, idempotency_key: None, headers, body: None }
    }

    /// `GET`.
    #[must_use]
    pub fn get(path: impl Into<Cow<'a, str>>) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST` of a JSON body.
    #[must_use]
    pub fn post(path: impl Into<Cow<'a, str>>, body: impl Into<Bytes>) -> Self {
        Self { body: Some(body.into()), ..Self::new(Method::POST, path) }
    }

    /// With a bearer token.
    #[must_use]
    pub fn token(self, token: &'a str) -> Self {
        Self { token: Some(token), ..self }
    }

    /// With an `Idempotency-Key`.
    #[must_use]
    pub fn idempotency_key(self, key: &'a str) -> Self {
        Self { idempotency_key: Some(key), ..self }
    }

    /// With a further header. It replaces one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl HttpResponse {
    /// The `Retry-After` header, where it is a number of seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.header(header::RETRY_AFTER.as_str())?.parse().ok().map(Duration::from_secs)
    }

    /// A header, where its value is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The first 200 characters of the body, for an error message.
    #[must_use]
    pub fn excerpt(&self) -> String {
        self.text().chars().take(200).collect()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it has another form.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}

/// Percent-encodes a text, so that it is one segment of a path or one value of a query.
#[must_use]
pub fn path_segment(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap_or_default();
        }
    }
    Cow::Owned(encoded)
}
