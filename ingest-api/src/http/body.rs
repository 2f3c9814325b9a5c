//! JSON bodies.
//!
//! Guarantees: a body is at most [`MAX_BODY_BYTES`] long and arrives within [`BODY_DEADLINE`]; its nesting depth is
//! bounded by the parser (128). The body is read before its content type is checked, so that the client receives the
//! response and not a connection reset.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt as _;
use serde_json::Value;

use crate::http::problem::Problem;

/// The largest JSON body.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
/// The time in which a body must arrive: a slow client must not occupy a connection without end.
pub(crate) const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How much of an oversized body is read and discarded: the client then receives the 413 and not a connection reset.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;

/// A parsed JSON body.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = tokio::time::timeout(BODY_DEADLINE, read(&parts.headers, body));
        let bytes = bytes.await.map_err(|_| Problem::too_slow())??;
        if !is_json(&parts.headers) {
            return Err(Problem::unsupported_media_type());
        }
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Err(Problem::unreadable("the body is empty; send at least {}"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // The parser's own message may quote the body; the position is enough.
        let what = if error.to_string().starts_with("recursion limit") {
            "is nested too deeply"
        } else {
            "is not valid JSON"
        };
        Problem::unreadable(format!("the body {what} (line {}, column {})", error.line(), error.column()))
    })
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut stream = body.into_data_stream();
    if stated.is_some_and(|stated: usize| stated > MAX_BODY_BYTES) {
        drain(stream).await;
        return Err(Problem::too_large(MAX_BODY_BYTES));
    }
    // A body of one chunk, which is the usual one, is not copied.
    let Some(first) = next(&mut stream).await? else { return Ok(Bytes::new()) };
    let Some(second) = next(&mut stream).await? else { return bounded(first) };
    let mut bytes = Vec::with_capacity((first.len() + second.len()).min(MAX_BODY_BYTES));
    bytes.extend_from_slice(&first);
    let mut chunk = Some(second);
    while let Some(more) = chunk {
        if bytes.len() + more.len() > MAX_BODY_BYTES {
            drain(stream).await;
            return Err(Problem::too_large(MAX_BODY_BYTES));
        }
        bytes.extend_from_slice(&more);
        chunk = next(&mut stream).await?;
    }
    Ok(Bytes::from(bytes))
}

fn bounded(bytes: Bytes) -> Result<Bytes, Problem> {
    if bytes.len() > MAX_BODY_BYTES { Err(Problem::too_large(MAX_BODY_BYTES)) } else { Ok(bytes) }
}

async fn next(stream: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    stream.next().await.transpose().map_err(|_| Problem::unreadable("the body is incomplete"))
}

async fn drain(mut stream: BodyDataStream) {
    let mut drained = 0;
    while drained < DRAINED_BYTES {
        match stream.next().await {
            Some(Ok(chunk)) => drained += chunk.len(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_too_deep_or_broken_is_unreadable() {
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        for body in [deep.as_slice(), b"", b"{", b"{\"a\": NaN}", b"{} {}", b"\xff"] {
            assert_eq!(parse(body).map_err(|problem| problem.code()), Err("unreadable"));
        }
    }
}
