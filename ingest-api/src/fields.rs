//! Reading a JSON object field by field, collecting every fault instead of stopping at the first.
//!
//! Guarantees: a field that was not asked for is refused by its name; no text with a control character gets
//! through (Postgres refuses NUL, and a log or a CSV export should not carry the others).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono::{DateTime, SecondsFormat, Utc};
use coupon_core::codes::{CodeKey, normalise};
use serde_json::{Map, Value};

use crate::problem::{Fault, Problem};

/// Everything that is wrong with one body.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Notes one more.
    pub(crate) fn add(&mut self, field: impl Into<String>, detail: impl Into<Cow<'static, str>>) {
        self.0.push(Fault { field: field.into(), detail: detail.into() });
    }

    /// Whether nothing is wrong.
    ///
    /// # Errors
    /// 422 with every fault.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// One object of a body, from which fields are taken until none is left.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    at: String,
}

impl Fields {
    /// The body itself.
    ///
    /// # Errors
    /// 422 for anything but an object.
    pub(crate) fn of(body: Value) -> Result<Self, Problem> {
        match body {
            Value::Object(map) => Ok(Self { map, at: String::new() }),
            _ => Err(Problem::invalid_field("", "the body must be a JSON object")),
        }
    }

    /// A field's full name.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    /// Whether the field is there, `null` included.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Takes a field; `null` counts as absent.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Notes that a field had to be there.
    pub(crate) fn missing(&self, name: &str, faults: &mut Faults) {
        faults.add(self.path(name), "is required");
    }

    /// A text with so many characters.
    pub(crate) fn text(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        faults: &mut Faults,
    ) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => match fault_of_text(&text, length) {
                None => Some(text),
                Some(fault) => {
                    faults.add(self.path(name), fault);
                    None
                }
            },
            other => self.wrong(name, "a string", &other, faults),
        }
    }

    /// A text that must be there.
    pub(crate) fn required(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        faults: &mut Faults,
    ) -> Option<String> {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.map.remove(name);
            self.missing(name, faults);
            return None;
        }
        self.line(name, length, faults)
    }

    /// A text of one line: a name that goes into records, logs and exports as it is.
    pub(crate) fn line(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        faults: &mut Faults,
    ) -> Option<String> {
        let text = self.text(name, length.clone(), faults)?;
        match fault_of_line(&text, length) {
            None => Some(text),
            Some(fault) => {
                faults.add(self.path(name), fault);
                None
            }
        }
    }

    /// A code, normalised.
    pub(crate) fn code(&mut self, name: &str, faults: &mut Faults) -> Option<CodeKey> {
        let text = self.text(name, 1..=256, faults)?;
        normalise(&text).map_err(|fault| faults.add(self.path(name), fault.to_string())).ok()
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        bounds: RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Option<i64> {
        let value = self.take(name)?;
        match value.as_i64() {
            Some(number) if bounds.contains(&number) => Some(number),
            _ if value.is_number() => {
                let detail = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
                faults.add(self.path(name), detail);
                None
            }
            _ => self.wrong(name, "a whole number", &value, faults),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str, faults: &mut Faults) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(name, "true or false", &other, faults),
        }
    }

    /// A point in time (RFC 3339), in unix milliseconds.
    pub(crate) fn time(&mut self, name: &str, faults: &mut Faults) -> Option<i64> {
        let text = self.text(name, 1..=40, faults)?;
        match DateTime::parse_from_rfc3339(&text) {
            // Years of five digits cannot be written back.
            Ok(time) if (0..=253_402_300_799_999).contains(&time.timestamp_millis()) => {
                Some(time.timestamp_millis())
            }
            Ok(_) => {
                faults.add(self.path(name), "must lie between 1970 and 9999");
                None
            }
            Err(_) => {
                faults.add(self.path(name), "must be a time like 2026-01-31T18:00:00Z (RFC 3339)");
                None
            }
        }
    }

    /// An object within this one.
    pub(crate) fn object(&mut self, name: &str, faults: &mut Faults) -> Option<Self> {
        match self.take(name)? {
            Value::Object(map) => Some(Self { map, at: format!("{}{name}.", self.at) }),
            other => self.wrong(name, "an object", &other, faults),
        }
    }

    /// Refuses what was not taken.
    pub(crate) fn end(self, faults: &mut Faults) {
        for name in self.map.keys() {
            // The name comes from the client: bounded, so that an answer stays small.
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            faults.add(format!("{}{shown}", self.at), "is not known here");
        }
    }

    fn wrong<T>(&self, name: &str, wanted: &str, found: &Value, faults: &mut Faults) -> Option<T> {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        faults.add(self.path(name), format!("must be {wanted}, not {found}"));
        None
    }
}

/// What is wrong with a text, if anything is.
pub(crate) fn fault_of_text(text: &str, length: RangeInclusive<usize>) -> Option<Cow<'static, str>> {
    // Bytes are an upper bound of characters: the count is needed for long ones only.
    let characters = if text.is_ascii() { text.len() } else { text.chars().count() };
    if !length.contains(&characters) {
        return Some(format!("must have {} to {} characters", length.start(), length.end()).into());
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Some(Cow::Borrowed("must not contain control characters"));
    }
    None
}

/// What is wrong with a text of one line. Stricter than [`fault_of_text`]: workers refuse every control character in
/// ids, and a request that they cannot read could not even be answered.
pub(crate) fn fault_of_line(text: &str, length: RangeInclusive<usize>) -> Option<Cow<'static, str>> {
    let broken = text.chars().any(char::is_control).then_some("must not contain control characters");
    fault_of_text(text, length).or(broken.map(Cow::Borrowed))
}

/// A time as the API writes it.
pub(crate) fn rfc3339(ms: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_listed_with_its_name_and_none_hides_another() {
        let body = json!({"name": 5, "count": 1.5, "inner": {"text": "a\u{0}b", "odd": 1}, "extra": null});
        let mut faults = Faults::default();
        let mut fields = Fields::of(body).expect("it is an object");
        assert_eq!(fields.text("name", 1..=5, &mut faults), None);
        assert_eq!(fields.integer("count", 1..=5, &mut faults), None);
        let mut inner = fields.object("inner", &mut faults).expect("it is an object");
        assert_eq!(inner.text("text", 1..=5, &mut faults), None);
        inner.end(&mut faults);
        fields.end(&mut faults);
        let named: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(named, ["name", "count", "inner.text", "inner.odd", "extra"]);
    }

    #[test]
    fn a_time_comes_back_as_it_was_given() {
        let mut fields = Fields::of(json!({"at": "2026-01-31T19:00:00+01:00"})).expect("it is an object");
        let ms = fields.time("at", &mut Faults::default()).expect("it is a time");
        assert_eq!(rfc3339(ms), "2026-01-31T18:00:00.000Z");
    }

    #[test]
    fn lengths_count_characters_as_the_database_does() {
        assert_eq!(fault_of_text("äöü", 1..=3), None);
        assert!(fault_of_text("äöüß", 1..=3).is_some());
        assert!(fault_of_text("a\0", 1..=3).is_some());
    }

    #[test]
    fn a_name_has_one_line_and_a_code_is_one_wherever_it_is_read() {
        for wrong in ["", "a\n", "a\tb", "abcd", "a\u{85}"] {
            assert!(fault_of_line(wrong, 1..=3).is_some(), "{wrong:?}");
        }
        assert_eq!(fault_of_line("äé1", 1..=3), None);
        let mut faults = Faults::default();
        let mut fields =
            Fields::of(json!({"a": "so-lo", "b": "so_lo", "c": 4, "d": null})).expect("an object");
        assert_eq!(fields.code("a", &mut faults).map(CodeKey::into_string), Some("S010".to_owned()));
        assert_eq!((fields.code("b", &mut faults), fields.code("c", &mut faults)), (None, None));
        assert_eq!(fields.required("d", 1..=9, &mut faults), None);
        assert_eq!(fields.required("e", 1..=9, &mut faults), None);
        fields.end(&mut faults);
        let named: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(named, ["b", "c", "d", "e"]);
    }
}
