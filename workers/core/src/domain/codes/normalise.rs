//! One normalisation for all coupons: what people type, hear and copy leads to one key.
//!
//! It can never change: keys are stored, unique in the whole system, and the partition of an unknown code is computed
//! from its key.

use std::fmt;

use thiserror::Error;

/// Shortest key, in characters.
pub const SHORTEST: usize = 4;
/// Longest key, in characters.
pub const LONGEST: usize = 64;
/// Longest input that is looked at, in bytes: a key, generously spaced.
const LONGEST_INPUT: usize = 4 * LONGEST;

/// A code after normalisation: 4 to 64 characters of `0-9A-Z` without `I`, `L` and `O`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeKey(String);

impl CodeKey {
    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// For text that is made of normalised characters already, and of a proper length.
    pub(super) fn trusted(text: String) -> Self {
        debug_assert_eq!(normalise(&text).as_ref().map(CodeKey::as_str), Ok(text.as_str()));
        Self(text)
    }
}

impl fmt::Display for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot be a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodeFault {
    /// It has a character that no code has.
    #[error("a code has letters A to Z, digits, spaces and hyphens only, not {0:?}")]
    Character(char),
    /// Too little is left of it.
    #[error("a code has at least {SHORTEST} letters and digits")]
    TooShort,
    /// There is too much of it.
    #[error("a code has at most {LONGEST} letters and digits")]
    TooLong,
}

/// The key of a code as somebody wrote it: capitals, without spaces and hyphens, `O` as `0`, `I` and `L` as `1`.
///
/// # Errors
/// The text cannot be a code, whatever coupon it is for.
pub fn normalise(code: &str) -> Result<CodeKey, CodeFault> {
    if code.len() > LONGEST_INPUT {
        return Err(CodeFault::TooLong);
    }
    let mut key = String::with_capacity(code.len());
    for character in code.chars() {
        if !is_separator(character) {
            key.push(char::from(fold(character).ok_or(CodeFault::Character(character))?));
        }
    }
    match key.len() {
        ..SHORTEST => Err(CodeFault::TooShort),
        SHORTEST..=LONGEST => Ok(CodeKey(key)),
        _ => Err(CodeFault::TooLong),
    }
}

/// The character as it stands in keys; none for one that no code has.
pub(super) fn fold(character: char) -> Option<u8> {
    match u8::try_from(character).ok()?.to_ascii_uppercase() {
        b'O' => Some(b'0'),
        b'I' | b'L' => Some(b'1'),
        plain @ (b'0'..=b'9' | b'A'..=b'Z') => Some(plain),
        _ => None,
    }
}

/// Spaces and hyphens, also those that word processors put in their place.
fn is_separator(character: char) -> bool {
    matches!(character, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}') || character.is_whitespace()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(code: &str) -> Result<String, CodeFault> {
        normalise(code).map(CodeKey::into_string)
    }

    #[test]
    fn case_spaces_hyphens_and_look_alikes_make_no_difference() {
        for code in ["SOLO-1I1L", "solo-1i1l", "S0L0 ILIL", " s o l o \u{2013}1111\n", "S0101111"] {
            assert_eq!(key(code), Ok("S0101111".to_owned()), "{code}");
        }
        assert_eq!(key("ab-12\u{a0}cd"), Ok("AB12CD".to_owned()));
    }

    #[test]
    fn what_no_code_has_is_refused_by_name() {
        for (code, character) in
            [("ABCD_1", '_'), ("ABCDÉ", 'É'), ("ABC\0D", '\0'), ("ＡBCD", 'Ａ'), ("ABßD", 'ß')]
        {
            assert_eq!(key(code), Err(CodeFault::Character(character)));
        }
    }

    #[test]
    fn length_is_counted_without_separators() {
        assert_eq!(key(""), Err(CodeFault::TooShort));
        assert_eq!(key("A-B-C"), Err(CodeFault::TooShort));
        assert_eq!(key("A-B-C-D"), Ok("ABCD".to_owned()));
        assert_eq!(key(&"A-".repeat(LONGEST)), Ok("A".repeat(LONGEST)));
        assert_eq!(key(&"A".repeat(LONGEST + 1)), Err(CodeFault::TooLong));
        assert_eq!(key(&"-".repeat(1_000_000)), Err(CodeFault::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_a_key_is_its_own_key(text in any::<String>()) {
            if let Ok(key) = normalise(&text) {
                prop_assert_eq!(normalise(key.as_str()), Ok(key.clone()));
                prop_assert_eq!(normalise(&key.as_str().to_lowercase()), Ok(key));
            }
        }
    }
}
