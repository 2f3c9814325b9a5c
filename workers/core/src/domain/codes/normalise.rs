//! One normalisation for all coupons: the variants of a code that people type and copy have one key.
//!
//! It must never change: keys are stored, are unique in the whole system, and the partition of an unknown code is
//! computed from its key.

use std::fmt;

use thiserror::Error;

/// Shortest key, in characters.
pub const SHORTEST: usize = 4;
/// Longest key, in characters.
pub const LONGEST: usize = 64;
/// Longest input in bytes: room for a key and its separators.
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

    /// A key from a text that is normalised and of a valid length.
    pub(super) fn from_normalised(text: String) -> Self {
        debug_assert_eq!(normalise(&text).as_ref().map(CodeKey::as_str), Ok(text.as_str()));
        Self(text)
    }
}

impl fmt::Display for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodeFault {
    /// It contains a character that no code has.
    #[error("a code has letters A to Z, digits, spaces and hyphens only, not {0:?}")]
    Character(char),
    /// Too few letters and digits.
    #[error("a code has at least {SHORTEST} letters and digits")]
    TooShort,
    /// Too many letters and digits.
    #[error("a code has at most {LONGEST} letters and digits")]
    TooLong,
}

/// The key of a code as entered: capitals, without spaces and hyphens, `O` as `0`, `I` and `L` as `1`.
///
/// # Errors
/// The text is not a code of any coupon.
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

/// The character as it appears in keys; `None` for one that no code has.
pub(super) fn fold(character: char) -> Option<u8> {
    match u8::try_from(character).ok()?.to_ascii_uppercase() {
        b'O' => Some(b'0'),
        b'I' | b'L' => Some(b'1'),
        plain @ (b'0'..=b'9' | b'A'..=b'Z') => Some(plain),
        _ => None,
    }
}

/// Spaces and hyphens, including the variants that word processors insert.
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
    fn case_spaces_hyphens_and_look_alikes_do_not_change_the_key() {
        for code in ["SOLO-1I1L", "solo-1i1l", "S0L0 ILIL", " s o l o \u{2013}1111\n", "S0101111"] {
            assert_eq!(key(code), Ok("S0101111".to_owned()), "{code}");
        }
        assert_eq!(key("ab-12\u{a0}cd"), Ok("AB12CD".to_owned()));
    }

    #[test]
    fn a_character_that_no_code_has_is_rejected_and_reported() {
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
        fn no_text_panics_and_a_key_normalises_to_itself(text in any::<String>()) {
            if let Ok(key) = normalise(&text) {
                prop_assert_eq!(normalise(key.as_str()), Ok(key.clone()));
                prop_assert_eq!(normalise(&key.as_str().to_lowercase()), Ok(key));
            }
        }
    }
}
