//! Checks of client text and the format of times. Used by tokens, bodies, paths and rows alike.
//!
//! Guarantees: accepted text has no control character except newline and tab (Postgres rejects NUL; logs and CSV
//! exports must not carry the others). Text of one line has none at all.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono::{DateTime, SecondsFormat, Utc};

/// Why a text is invalid; `None` if it is valid. Lengths are in characters.
pub(crate) fn text_error(text: &str, length: RangeInclusive<usize>) -> Option<Cow<'static, str>> {
    // The byte length equals the character count for ASCII; only other text has to be counted.
    let characters = if text.is_ascii() { text.len() } else { text.chars().count() };
    if !length.contains(&characters) {
        return Some(format!("must have {} to {} characters", length.start(), length.end()).into());
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Some(Cow::Borrowed("must not contain control characters"));
    }
    None
}

/// Why a text is invalid as one line. Stricter than [`text_error`]: workers reject every control character in ids, and
/// a request whose ids they cannot read gets no response.
pub(crate) fn line_error(text: &str, length: RangeInclusive<usize>) -> Option<Cow<'static, str>> {
    let control = text.chars().any(char::is_control).then_some("must not contain control characters");
    text_error(text, length).or(control.map(Cow::Borrowed))
}

/// Unix milliseconds as RFC 3339 in UTC, the format of every time in a response.
pub(crate) fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters_as_the_database_does() {
        assert_eq!(text_error("äöü", 1..=3), None);
        assert!(text_error("äöüß", 1..=3).is_some());
        assert!(text_error("a\0", 1..=3).is_some());
    }

    #[test]
    fn a_line_has_no_control_characters() {
        for wrong in ["", "a\n", "a\tb", "abcd", "a\u{85}"] {
            assert!(line_error(wrong, 1..=3).is_some(), "{wrong:?}");
        }
        assert_eq!(line_error("äé1", 1..=3), None);
    }
}
