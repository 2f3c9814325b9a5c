//! The headers and the parameter that control a submission: `wait` and the Idempotency-Key.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, Uri};

use crate::http::problem::Problem;

/// The longest time that a client may wait for an outcome.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the client wants to wait for the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// At most [`MAX_WAIT`], never zero.
    pub(crate) limit: Duration,
    /// Requested by `Prefer`; the response then carries `Preference-Applied`.
    pub(crate) preferred: bool,
}

impl Wait {
    /// Reads `?wait=N`, else `Prefer: wait=N`.
    ///
    /// # Errors
    /// 422 for a parameter that is not a number; an unreadable preference is ignored, as RFC 7240 requires.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        if let Some(text) = uri.query().and_then(|query| raw_parameter(query, "wait")) {
            let seconds: u64 = text.parse().map_err(|_| {
                Problem::invalid_field("wait", "must be a whole number of seconds, at most 30")
            })?;
            return Ok(Self::seconds(seconds, false));
        }
        let preferences = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
        let wait = preferences.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
            let (name, value) = preference.split_once('=')?;
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

/// The value of a query parameter, not decoded.
fn raw_parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

/// The Idempotency-Key, bare or quoted.
///
/// # Errors
/// 400 for an invalid or repeated key.
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
    fn a_key_is_the_same_bare_or_quoted_and_an_invalid_one_is_rejected() {
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
}
