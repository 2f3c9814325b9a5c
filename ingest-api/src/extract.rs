//! What is read from a request before a handler sees it: the JSON body, how long to wait, the Idempotency-Key.
//!
//! Guarantees: no body is larger than [`MAX_BODY_BYTES`] or arrives slower than [`BODY_DEADLINE`]; depth is bounded
//! by the parser (128); every refusal says what to send instead.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use futures::StreamExt as _;
use serde_json::Value;

use crate::problem::Problem;

/// The largest body of JSON.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a body may take: a slow client must not hold its place for ever.
pub(crate) const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may wait for an outcome.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);
/// How much of an oversized body is read and thrown away, so that the client hears the answer and not a reset.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static PREFER: HeaderName = HeaderName::from_static("prefer");

/// A body of JSON, read and parsed.
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
        // The parser's own words may quote the body; where it stopped is enough.
        let what = if error.to_string().starts_with("recursion limit") {
            "is nested too deeply"
        } else {
            "is not JSON"
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
    let Some(first) = next(&mut stream).await? else { return Ok(Bytes::new()) };
    let Some(second) = next(&mut stream).await? else { return small(first) };
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

fn small(bytes: Bytes) -> Result<Bytes, Problem> {
    if bytes.len() > MAX_BODY_BYTES { Err(Problem::too_large(MAX_BODY_BYTES)) } else { Ok(bytes) }
}

async fn next(stream: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    stream.next().await.transpose().map_err(|_| Problem::unreadable("the body broke off"))
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

/// The one part of a path that is a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Problem::unreadable("the address is not UTF-8"))
    }
}

/// The parameters of a query, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Of an address.
    ///
    /// # Errors
    /// 400 for what cannot be read.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let query = Query::try_from_uri(uri).map_err(|_| Problem::unreadable("the query cannot be read"))?;
        Ok(Self(query.0))
    }

    /// One parameter.
    ///
    /// # Errors
    /// 422 for one that is there twice: two readers could take it for two different things.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::invalid_field(name, "must be given once")),
        }
    }
}

/// How long the client wants to wait for the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// At most [`MAX_WAIT`].
    pub(crate) limit: Duration,
    /// Asked for by `Prefer`, which is answered by `Preference-Applied`.
    pub(crate) preferred: bool,
}

impl Wait {
    /// From `?wait=N`, else `Prefer: wait=N`.
    ///
    /// # Errors
    /// 422 for a parameter that is no number; a preference that cannot be read is ignored, as RFC 7240 says.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        if let Some(text) = uri.query().and_then(|query| parameter(query, "wait")) {
            let seconds: u64 = text.parse().map_err(|_| {
                Problem::invalid_field("wait", "must be a whole number of seconds, at most 30")
            })?;
            return Ok(Self::seconds(seconds, false));
        }
        let wishes = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
        let wait = wishes.flat_map(|value| value.split([',', ';'])).find_map(|wish| {
            let (name, value) = wish.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("wait") {
                return None;
            }
            value.trim().trim_matches('"').parse().ok()
        });
        Ok(wait.and_then(|seconds| Self::seconds(seconds, true)))
    }

    fn seconds(seconds: u64, preferred: bool) -> Option<Self> {
        let limit = Duration::from_secs(seconds).min(MAX_WAIT);
        (!limit.is_zero()).then_some(Self { limit, preferred })
    }
}

/// The value of a query parameter that needs no decoding.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// The Idempotency-Key, bare or quoted.
///
/// # Errors
/// 400 for a key that is none.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || Problem::header("Idempotency-Key", "must be given once, as 1 to 255 printable characters");
    if values.next().is_some() {
        return Err(wrong());
    }
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if (1..=255).contains(&key.len()) && printable { Ok(Some(key)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn wait(uri: &'static str, prefer: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        if let Some(prefer) = prefer {
            headers.insert(PREFER.clone(), HeaderValue::from_static(prefer));
        }
        Wait::of(&Uri::from_static(uri), &headers).ok().flatten().map(|wait| wait.limit.as_secs())
    }

    #[test]
    fn a_wait_is_read_from_parameter_or_preference_and_never_exceeds_half_a_minute() {
        assert_eq!(wait("/x?a=1&wait=5", None), Some(5));
        assert_eq!(wait("/x", Some("respond-async, wait=7")), Some(7));
        assert_eq!(wait("/x?wait=3", Some("wait=7")), Some(3));
        assert_eq!(wait("/x?wait=400", None), Some(30));
        assert_eq!(wait("/x?wait=0", None), None);
        assert_eq!(wait("/x", Some("wait=soon")), None);
        assert!(Wait::of(&Uri::from_static("/x?wait=soon"), &HeaderMap::new()).is_err());
        assert!(Wait::of(&Uri::from_static("/x?wait=-1"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_key_is_the_same_bare_or_quoted_and_refused_when_it_is_none() {
        let key = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY.clone(), HeaderValue::from_bytes(value).expect("a header value"));
            idempotency_key(&headers).map(|key| key.map(str::to_owned)).map_err(|problem| problem.code())
        };
        assert_eq!(key(b"abc"), Ok(Some("abc".to_owned())));
        assert_eq!(key(b"\"abc\""), Ok(Some("abc".to_owned())));
        for wrong in [b"".as_slice(), b"\"\"", b"a\xffb", b"a\tb", &[b'a'; 256]] {
            assert_eq!(key(wrong), Err("unreadable"), "{wrong:?}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_none_is_there_twice() {
        let of = |uri: &'static str| Parameters::of(&Uri::from_static(uri)).expect("it can be read");
        let parameters = of("/x?user_id=a%20b%2Bc+d&user_id2=&a=1&a=2");
        assert_eq!(parameters.get("user_id").ok(), Some(Some("a b+c d")));
        assert_eq!(parameters.get("user_id2").ok(), Some(Some("")));
        assert_eq!(parameters.get("b").ok(), Some(None));
        assert_eq!(parameters.get("a").map_err(|problem| problem.status().as_u16()), Err(422));
        assert_eq!(of("/x"), Parameters::default());
    }

    #[test]
    fn json_that_is_too_deep_or_broken_is_unreadable() {
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        for body in [deep.as_slice(), b"", b"{", b"{\"a\": NaN}", b"{} {}", b"\xff"] {
            assert_eq!(parse(body).map_err(|problem| problem.code()), Err("unreadable"));
        }
    }
}
