//! The pattern of a load as its row stores it, so that another instance can continue the load.

use coupon_core::codes::{Pattern, PatternSpec};
use serde_json::{Value, json};

/// The stored form; equal for patterns that have the same codes.
pub(crate) fn to_json(spec: &PatternSpec) -> Value {
    let PatternSpec { prefix, charset, length, group } = spec;
    json!({
        "prefix": prefix.to_ascii_uppercase(), "charset": charset.to_ascii_uppercase(), "length": length,
        "group": group,
    })
}

/// The pattern; `None` if the value was not made by [`to_json`].
pub(crate) fn from_json(stored: &Value) -> Option<Pattern> {
    let text = |name: &str| Some(stored.get(name)?.as_str()?.to_owned());
    let number = |name: &str| usize::try_from(stored.get(name)?.as_u64()?).ok();
    let (prefix, charset) = (text("prefix")?, text("charset")?);
    Pattern::new(&PatternSpec { prefix, charset, length: number("length")?, group: number("group")? }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_pattern_is_the_pattern_that_was_requested() {
        let spec = PatternSpec { prefix: "sum".into(), length: 9, group: 3, ..PatternSpec::default() };
        assert_eq!(from_json(&to_json(&spec)), Pattern::new(&spec).ok());
        assert_eq!(from_json(&json!({"prefix": "A"})), None);
    }
}
