//! JSON with `…` in place of what differs from run to run or is not shown.
//!
//! `{"id": "a", …}` has other members too, `[…, 1, …]` other elements before and after, `"from": …` any value, and
//! `"2026-…Z"` any text in its middle. Everything else is compared as it stands; members have no order.

use serde_json::{Deserializer, Value};

const ELLIPSIS: char = '…';
/// What `…` outside of a string becomes, so that the pattern is JSON. Private use: no document contains it.
const ANY: &str = "\u{e000}";

/// The values of `pattern`, which may be several, one after another.
///
/// # Errors
/// When it is not JSON with `…`.
pub(super) fn parse(pattern: &str) -> Result<Vec<Value>, String> {
    values(&replace_ellipses(pattern))
        .map_err(|error| format!("the expected block is not JSON with `…`: {error}"))
}

/// The JSON values in a text, one after another.
pub(super) fn values(text: &str) -> serde_json::Result<Vec<Value>> {
    Deserializer::from_str(text).into_iter().collect()
}

/// Where and how `actual` differs from `pattern`, which is at `path`.
pub(super) fn difference(path: &str, pattern: &Value, actual: &Value) -> Option<String> {
    match (pattern, actual) {
        (Value::String(any), _) if any == ANY => None,
        (Value::String(text), Value::String(actual)) if is_like(text, actual) => None,
        (Value::Object(members), Value::Object(actual)) => {
            let missing = members.iter().filter(|(name, _)| *name != ANY).find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                actual.get(name).map_or_else(
                    || Some(format!("{path} is missing")),
                    |actual| difference(&path, value, actual),
                )
            });
            missing.or_else(|| {
                let additional = actual.keys().find(|name| !members.contains_key(*name))?;
                (!members.contains_key(ANY)).then(|| format!("{path}.{additional} is not expected"))
            })
        }
        (Value::Array(items), Value::Array(actual)) if items.iter().all(|item| item != ANY) => {
            let different = items
                .iter()
                .zip(actual)
                .enumerate()
                .find_map(|(n, (item, actual))| difference(&format!("{path}[{n}]"), item, actual));
            different.or_else(|| {
                let (expected, received) = (items.len(), actual.len());
                (expected != received)
                    .then(|| format!("{path} has {received} elements instead of {expected}"))
            })
        }
        (Value::Array(items), Value::Array(actual)) if is_sequence(items, actual) => None,
        (Value::Array(_), Value::Array(_)) => Some(format!("{path} has no such sequence of elements")),
        _ if pattern == actual => None,
        _ => Some(format!("{path} is {actual} instead of {}", shown(pattern))),
    }
}

/// Whether the elements match `items`, in which `…` is any number of elements.
fn is_sequence(items: &[Value], actual: &[Value]) -> bool {
    match items.split_first() {
        None => actual.is_empty(),
        Some((any, rest)) if any == ANY => {
            (0..=actual.len()).any(|skipped| is_sequence(rest, &actual[skipped..]))
        }
        Some((item, rest)) => {
            let first = actual.split_first();
            first.is_some_and(|(first, actual)| {
                difference("", item, first).is_none() && is_sequence(rest, actual)
            })
        }
    }
}

/// Whether a text matches `pattern`, in which `…` is any text.
pub(super) fn is_like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once(ELLIPSIS) else { return pattern == text };
    let (middle, end) = rest.rsplit_once(ELLIPSIS).unwrap_or(("", rest));
    let Some(mut left) = text.strip_prefix(start).and_then(|text| text.strip_suffix(end)) else {
        return false;
    };
    middle.split(ELLIPSIS).all(|part| match left.split_once(part) {
        Some((_, rest)) => {
            left = rest;
            true
        }
        None => false,
    })
}

/// Makes JSON of a pattern: a member, an element or a value for each `…` outside of a string.
fn replace_ellipses(pattern: &str) -> String {
    let (mut json, mut in_string, mut open, mut previous) = (String::new(), false, Vec::new(), ' ');
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => json.extend([Some('\\'), characters.next()].into_iter().flatten()),
            ELLIPSIS if in_string => json.push(ELLIPSIS),
            ELLIPSIS if previous != ':' && open.last() == Some(&'{') => {
                json += &format!("\"{ANY}\":\"{ANY}\"")
            }
            ELLIPSIS => json += &format!("\"{ANY}\""),
            _ => {
                match character {
                    '"' => in_string = !in_string,
                    '{' | '[' if !in_string => open.push(character),
                    '}' | ']' if !in_string => drop(open.pop()),
                    _ => {}
                }
                json.push(character);
            }
        }
        if !character.is_whitespace() {
            previous = character;
        }
    }
    json
}

fn shown(pattern: &Value) -> String {
    let any_member = format!("\"{ANY}\":\"{ANY}\"");
    pattern.to_string().replace(&any_member, "…").replace(&format!("\"{ANY}\""), "…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference_of(pattern: &str, actual: &str) -> Option<String> {
        let (pattern, actual) = (parse(pattern).expect("a pattern"), values(actual).expect("JSON"));
        assert_eq!((pattern.len(), actual.len()), (1, 1));
        difference("$", &pattern[0], &actual[0])
    }

    #[test]
    fn an_ellipsis_is_a_value_a_part_of_a_string_or_further_members_and_elements() {
        for (pattern, actual) in [
            (r#"{"a": …, "b": "x"}"#, r#"{"b": "x", "a": {"c": [null]}}"#),
            (r#"{"a": "…Z"}"#, r#"{"a": "2026-01-01T00:00:00Z"}"#),
            (r#"{"a": "…"}"#, r#"{"a": ""}"#),
            (r#"{"a": "x…y…z"}"#, r#"{"a": "x-y-y-z"}"#),
            (r#"{"a": "\"…\\"}"#, r#"{"a": "\"quoted\\"}"#),
            (r#"{"a": 1, …}"#, r#"{"b": 2, "a": 1}"#),
            (r#"{…, "a": {"b": 1, …}, …}"#, r#"{"a": {"b": 1}}"#),
            (r#"{"a": [{"b": 1, …}, …, 3, …]}"#, r#"{"a": [{"b": 1, "c": 2}, 3, 3, 4]}"#),
            ("[…]", "[]"),
            ("…", "null"),
        ] {
            assert_eq!(difference_of(pattern, actual), None, "{pattern} and {actual}");
        }
    }

    #[test]
    fn a_difference_is_reported_with_its_path() {
        for (pattern, actual, wanted) in [
            (r#"{"a": {"b": "x…", …}}"#, r#"{"a": {"b": "y"}}"#, "$.a.b is \"y\" instead of \"x…\""),
            (r#"{"a": "…"}"#, r#"{"a": null}"#, "$.a is null instead of \"…\""),
            (r#"{"a": 1}"#, r#"{"a": 1.5}"#, "$.a is 1.5 instead of 1"),
            (r#"{"a": 1, …}"#, r#"{"b": 1}"#, "$.a is missing"),
            (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, "$.b is not expected"),
            (r#"[1, {"a": 2}]"#, r#"[1, {"a": 3}]"#, "$[1].a is 3 instead of 2"),
            ("[1, 2]", "[1]", "$ has 1 elements instead of 2"),
            ("[…, 1, …, 2]", "[1, 2, 3]", "$ has no such sequence of elements"),
            (r#"{"a": {"b": …}}"#, r#"{"a": []}"#, r#"$.a is [] instead of {"b":…}"#),
            (r#"{"a": {…}}"#, r#"{"a": 1}"#, "$.a is 1 instead of {…}"),
        ] {
            assert_eq!(difference_of(pattern, actual).as_deref(), Some(wanted), "{pattern} and {actual}");
        }
        assert!(!is_like("x…x", "x"), "the parts of a text do not overlap");
    }

    #[test]
    fn a_pattern_that_is_not_json_is_an_error() {
        for wrong in [r#"{"a": 1 …}"#, r#"{"a" …}"#, "[1", "…, 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("{…} {…}").expect("two values").len(), 2);
    }
}
