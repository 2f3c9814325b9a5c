//! Reads a JSON object field by field and collects every error.
//!
//! Guarantees: all invalid fields are reported together; an unknown field is rejected by its name; accepted text passes
//! the checks of [`crate::text`].

use std::borrow::Cow;
use std::ops::RangeInclusive;

use chrono::DateTime;
use coupon_core::codes::{CodeKey, normalise};
use serde_json::{Map, Value};

use crate::http::problem::{FieldError, Problem};
use crate::text::{line_error, text_error};

/// Every error of one body.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Adds one error.
    pub(crate) fn add(&mut self, field: impl Into<String>, detail: impl Into<Cow<'static, str>>) {
        self.0.push(FieldError { field: field.into(), detail: detail.into() });
    }

    /// Ends the validation.
    ///
    /// # Errors
    /// 422 with every error, if there is one.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// One object of a body. Each method takes its field out of the object; [`Self::end`] rejects what is left.
#[derive(Debug)]
pub(crate) struct ObjectReader {
    map: Map<String, Value>,
    /// Prefix of field names: empty, or the path of the enclosing object with a dot.
    prefix: String,
}

impl ObjectReader {
    /// Reads the body itself.
    ///
    /// # Errors
    /// 422 for anything but an object.
    pub(crate) fn of(body: Value) -> Result<Self, Problem> {
        match body {
            Value::Object(map) => Ok(Self { map, prefix: String::new() }),
            _ => Err(Problem::invalid_field("", "the body must be a JSON object")),
        }
    }

    /// The full name of a field.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether the field is present, `null` included.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Takes a field; `null` counts as absent.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Adds the error for a missing required field.
    pub(crate) fn missing(&self, name: &str, errors: &mut FieldErrors) {
        errors.add(self.path(name), "is required");
    }

    /// Takes a text with a bounded number of characters.
    pub(crate) fn text(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        errors: &mut FieldErrors,
    ) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => match text_error(&text, length) {
                None => Some(text),
                Some(error) => {
                    errors.add(self.path(name), error);
                    None
                }
            },
            other => self.wrong_type(name, "a string", &other, errors),
        }
    }

    /// Takes a required text of one line.
    pub(crate) fn required(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        errors: &mut FieldErrors,
    ) -> Option<String> {
        if self.map.get(name).is_none_or(Value::is_null) {
            self.map.remove(name);
            self.missing(name, errors);
            return None;
        }
        self.line(name, length, errors)
    }

    /// Takes a text of one line: ids go into records, logs and exports unescaped.
    pub(crate) fn line(
        &mut self,
        name: &str,
        length: RangeInclusive<usize>,
        errors: &mut FieldErrors,
    ) -> Option<String> {
        let text = self.text(name, length.clone(), errors)?;
        match line_error(&text, length) {
            None => Some(text),
            Some(error) => {
                errors.add(self.path(name), error);
                None
            }
        }
    }

    /// Takes a code and normalises it.
    pub(crate) fn code(&mut self, name: &str, errors: &mut FieldErrors) -> Option<CodeKey> {
        let text = self.text(name, 1..=256, errors)?;
        normalise(&text).map_err(|error| errors.add(self.path(name), error.to_string())).ok()
    }

    /// Takes a whole number within bounds.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        bounds: RangeInclusive<i64>,
        errors: &mut FieldErrors,
    ) -> Option<i64> {
        let value = self.take(name)?;
        match value.as_i64() {
            Some(number) if bounds.contains(&number) => Some(number),
            _ if value.is_number() => {
                let detail = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
                errors.add(self.path(name), detail);
                None
            }
            _ => self.wrong_type(name, "a whole number", &value, errors),
        }
    }

    /// Takes `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str, errors: &mut FieldErrors) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong_type(name, "true or false", &other, errors),
        }
    }

    /// Takes a time (RFC 3339) and returns unix milliseconds.
    pub(crate) fn time(&mut self, name: &str, errors: &mut FieldErrors) -> Option<i64> {
        let text = self.text(name, 1..=40, errors)?;
        match DateTime::parse_from_rfc3339(&text) {
            // RFC 3339 has no years of five digits: a later time could not be returned.
            Ok(time) if (0..=253_402_300_799_999).contains(&time.timestamp_millis()) => {
                Some(time.timestamp_millis())
            }
            Ok(_) => {
                errors.add(self.path(name), "must be between 1970 and 9999");
                None
            }
            Err(_) => {
                errors.add(self.path(name), "must be an RFC 3339 time such as 2026-01-31T18:00:00Z");
                None
            }
        }
    }

    /// Takes an object.
    pub(crate) fn object(&mut self, name: &str, errors: &mut FieldErrors) -> Option<Self> {
        match self.take(name)? {
            Value::Object(map) => Some(Self { map, prefix: format!("{}{name}.", self.prefix) }),
            other => self.wrong_type(name, "an object", &other, errors),
        }
    }

    /// Rejects every field that was not taken.
    pub(crate) fn end(self, errors: &mut FieldErrors) {
        for name in self.map.keys() {
            // The name comes from the client: shortened, so that the response stays small.
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            errors.add(format!("{}{shown}", self.prefix), "unknown field");
        }
    }

    fn wrong_type<T>(
        &self,
        name: &str,
        expected: &str,
        found: &Value,
        errors: &mut FieldErrors,
    ) -> Option<T> {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        errors.add(self.path(name), format!("must be {expected}, not {found}"));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::rfc3339;
    use serde_json::json;

    #[test]
    fn every_error_is_listed_with_its_field_and_none_hides_another() {
        let body = json!({"name": 5, "count": 1.5, "inner": {"text": "a\u{0}b", "odd": 1}, "extra": null});
        let mut errors = FieldErrors::default();
        let mut object = ObjectReader::of(body).expect("an object");
        assert_eq!(object.text("name", 1..=5, &mut errors), None);
        assert_eq!(object.integer("count", 1..=5, &mut errors), None);
        let mut inner = object.object("inner", &mut errors).expect("an object");
        assert_eq!(inner.text("text", 1..=5, &mut errors), None);
        inner.end(&mut errors);
        object.end(&mut errors);
        let named: Vec<_> = errors.0.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["name", "count", "inner.text", "inner.odd", "extra"]);
    }

    #[test]
    fn a_time_is_returned_as_it_was_given() {
        let mut object = ObjectReader::of(json!({"at": "2026-01-31T19:00:00+01:00"})).expect("an object");
        let ms = object.time("at", &mut FieldErrors::default()).expect("a time");
        assert_eq!(rfc3339(ms), "2026-01-31T18:00:00.000Z");
    }

    #[test]
    fn a_code_is_normalised_and_a_required_field_may_not_be_null() {
        let mut errors = FieldErrors::default();
        let mut object =
            ObjectReader::of(json!({"a": "so-lo", "b": "so_lo", "c": 4, "d": null})).expect("an object");
        assert_eq!(object.code("a", &mut errors).map(CodeKey::into_string), Some("S010".to_owned()));
        assert_eq!((object.code("b", &mut errors), object.code("c", &mut errors)), (None, None));
        assert_eq!(object.required("d", 1..=9, &mut errors), None);
        assert_eq!(object.required("e", 1..=9, &mut errors), None);
        object.end(&mut errors);
        let named: Vec<_> = errors.0.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, ["b", "c", "d", "e"]);
    }
}
