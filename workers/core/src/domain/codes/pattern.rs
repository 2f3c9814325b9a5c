//! The pattern of a load's codes, and how many codes it has room for: `SUMMER-7K2M-9QXR-T4VW` has the prefix `SUMMER`
//! and a body of 12 characters in groups of 4, the last of which is the check character.

use std::fmt;

use thiserror::Error;

use super::check::Check;
use super::normalise::{CodeFault, CodeKey, LONGEST, SHORTEST, fold, normalise};

/// Guesses that an attacker needs on average for one code, at least: 2^20. NIST SP 800-63B (section 5.1.2, look-up
/// secrets) requires 20 bits where guesses are limited in rate, as they are here.
pub const GUESSES_PER_CODE: u64 = 1 << 20;

/// Longest prefix, in characters.
pub const LONGEST_PREFIX: usize = 16;

/// A pattern as requested, not validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternSpec {
    /// Prefix of every code: letters and digits, at most 16. Empty: no prefix.
    pub prefix: String,
    /// The characters of the body, 2 to 33 different ones of `0-9A-Z` without `I`, `L` and `O`.
    pub charset: String,
    /// Length of the body, including the check character (the last one).
    pub length: usize,
    /// Characters between two hyphens in the code as shown; 0: no hyphens.
    pub group: usize,
}

impl Default for PatternSpec {
    /// 32 characters without look-alikes (Crockford's), 12 of them in groups of 4: room for 3·10^10 codes.
    fn default() -> Self {
        Self {
            prefix: String::new(),
            charset: "0123456789ABCDEFGHJKMNPQRSTVWXYZ".to_owned(),
            length: 12,
            group: 4,
        }
    }
}

/// The fault of one field of a [`PatternSpec`], and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {fault}")]
pub struct PatternError {
    /// `prefix`, `charset`, `length` or `group`.
    pub field: &'static str,
    /// The fault.
    pub fault: PatternFault,
}

/// The fault of a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternFault {
    /// A character that no code has.
    #[error("has letters A to Z and digits only, not {0:?}")]
    Character(char),
    /// A character that is read as another one: codes are matched with `O` as `0`, `I` and `L` as `1`.
    #[error("must not contain {0}, which is taken for {1}: leave it out")]
    LookAlike(char, char),
    /// A repeated character.
    #[error("contains {0} twice")]
    Repeated(char),
    /// Outside its bounds.
    #[error("must be {from} to {to} characters, not {actual}")]
    Bounds {
        /// At least.
        from: usize,
        /// At most.
        to: usize,
        /// The actual number.
        actual: usize,
    },
    /// The body's space is too small for the codes.
    #[error("leaves room for {room} codes that cannot be guessed, not {wanted}: {remedy}")]
    NoRoom {
        /// Number of codes that it has room for.
        room: u64,
        /// Number of codes that are requested.
        wanted: u64,
        /// The change that makes room.
        remedy: Remedy,
    },
}

/// A change of a pattern that makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// This length, or more.
    Length(usize),
    /// More characters in the charset: no allowed length is sufficient.
    Charset,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "use a length of at least {length}"),
            Self::Charset => f.write_str("use more characters in the charset"),
        }
    }
}

/// Why a text is not a code of a pattern. The first two can be a typing error or a code of another pattern; the last is
/// a typing error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// It is not a code.
    #[error(transparent)]
    NotACode(#[from] CodeFault),
    /// It has another prefix or another length, or a character that the charset lacks.
    #[error("the code is not of this pattern")]
    OtherPattern,
    /// The check character does not match the body.
    #[error("the code is mistyped")]
    Mistyped,
}

/// A valid pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub(super) prefix: String,
    pub(super) prefix_key: String,
    pub(super) charset: Vec<u8>,
    pub(super) length: usize,
    pub(super) group: usize,
    pub(super) check: Check,
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new(&PatternSpec::default()).expect("the default pattern is valid")
    }
}

impl Pattern {
    /// Validates a pattern.
    ///
    /// # Errors
    /// Every fault of every field.
    pub fn new(spec: &PatternSpec) -> Result<Self, Vec<PatternError>> {
        let mut errors = Vec::new();
        let mut found = |field, faults: Vec<PatternFault>| {
            errors.extend(faults.into_iter().map(|fault| PatternError { field, fault }));
        };
        found("prefix", prefix_faults(&spec.prefix));
        found("charset", charset_faults(&spec.charset));
        found("length", bounds(spec.length, SHORTEST, LONGEST - spec.prefix.len().min(LONGEST_PREFIX)));
        if spec.group > spec.length {
            found("group", bounds(spec.group, 0, spec.length));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let charset: Vec<u8> = spec.charset.chars().filter_map(fold).collect();
        Ok(Self {
            prefix: spec.prefix.to_ascii_uppercase(),
            prefix_key: spec.prefix.chars().filter_map(fold).map(char::from).collect(),
            check: Check::new(u8::try_from(charset.len()).unwrap_or(u8::MAX)),
            charset,
            length: spec.length,
            group: spec.group,
        })
    }

    /// Number of different codes.
    #[must_use]
    pub fn space(&self) -> u128 {
        self.check.bodies(self.length)
    }

    /// Number of codes that it has room for before they can be guessed: one per [`GUESSES_PER_CODE`].
    #[must_use]
    pub fn room(&self) -> u64 {
        room(self.check, self.length)
    }

    /// Checks that the pattern has room for `codes` codes: the new ones and those of the coupon's earlier loads with this
    /// pattern.
    ///
    /// # Errors
    /// The room is insufficient; the error contains the remedy.
    pub fn ensure_room(&self, codes: u64) -> Result<(), PatternError> {
        if codes <= self.room() {
            return Ok(());
        }
        let longest = LONGEST - self.prefix_key.len();
        let remedy = (self.length..=longest)
            .find(|length| room(self.check, *length) >= codes)
            .map_or(Remedy::Charset, Remedy::Length);
        let fault = PatternFault::NoRoom { room: self.room(), wanted: codes, remedy };
        Err(PatternError { field: if remedy == Remedy::Charset { "charset" } else { "length" }, fault })
    }

    /// The key of a code of this pattern.
    ///
    /// # Errors
    /// It is not a code of this pattern, or it is mistyped: every wrong character and every swap of neighbours is detected.
    pub fn verify(&self, code: &str) -> Result<CodeKey, VerifyError> {
        let key = normalise(code)?;
        let body = key.as_str().strip_prefix(&self.prefix_key).ok_or(VerifyError::OtherPattern)?;
        if body.len() != self.length {
            return Err(VerifyError::OtherPattern);
        }
        let value = |byte| self.charset.iter().position(|symbol| *symbol == byte).map(|value| value as u8);
        let values: Option<Vec<u8>> = body.bytes().map(value).collect();
        match values {
            None => Err(VerifyError::OtherPattern),
            Some(values) if self.check.holds(&values) => Ok(key),
            Some(_) => Err(VerifyError::Mistyped),
        }
    }
}

fn room(check: Check, length: usize) -> u64 {
    u64::try_from(check.bodies(length) / u128::from(GUESSES_PER_CODE)).unwrap_or(u64::MAX)
}

fn bounds(actual: usize, from: usize, to: usize) -> Vec<PatternFault> {
    if (from..=to).contains(&actual) { Vec::new() } else { vec![PatternFault::Bounds { from, to, actual }] }
}

fn prefix_faults(prefix: &str) -> Vec<PatternFault> {
    let mut faults = bounds(prefix.chars().count(), 0, LONGEST_PREFIX);
    faults.extend(prefix.chars().find(|c| fold(*c).is_none()).map(PatternFault::Character));
    faults
}

fn charset_faults(charset: &str) -> Vec<PatternFault> {
    /// `0-9A-Z` without the three look-alikes.
    const SYMBOLS: usize = 33;
    let mut faults = Vec::new();
    let mut seen: Vec<char> = Vec::new();
    // Bounds the work: a longer charset has a fault within this prefix.
    for character in charset.chars().take(2 * SYMBOLS) {
        let upper = character.to_ascii_uppercase();
        let fault = match fold(character).map(char::from) {
            None => PatternFault::Character(character),
            Some(folded) if folded != upper => PatternFault::LookAlike(upper, folded),
            Some(_) if seen.contains(&upper) => PatternFault::Repeated(upper),
            Some(_) => {
                seen.push(upper);
                continue;
            }
        };
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() {
        faults = bounds(seen.len(), 2, SYMBOLS);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(prefix: &str, charset: &str, length: usize, group: usize) -> PatternSpec {
        PatternSpec { prefix: prefix.to_owned(), charset: charset.to_owned(), length, group }
    }

    fn faults(spec: &PatternSpec) -> Vec<(&'static str, PatternFault)> {
        Pattern::new(spec)
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|error| (error.field, error.fault))
            .collect()
    }

    const DIGITS: &str = "0123456789";

    #[test]
    fn the_default_has_room_for_a_thousand_million_codes() {
        let pattern = Pattern::default();
        assert!(pattern.room() > 1_000_000_000);
        assert_eq!(pattern.ensure_room(1_000_000_000), Ok(()));
    }

    #[test]
    fn the_check_character_of_a_pattern_never_changes() {
        // Printed codes outlive this program: these were valid once and must stay valid.
        let pattern =
            Pattern::new(&PatternSpec { prefix: "SUMMER".to_owned(), ..PatternSpec::default() }).unwrap();
        assert!(pattern.verify("SUMMER-7K2M-9QXR-T4VW").is_ok());
        assert!(Pattern::default().verify("SANV-2T2Y-GVRX").is_ok());
    }

    #[test]
    fn every_fault_of_every_field_is_reported() {
        let found = faults(&spec("SUMMER_SALE_OF_2026", "AABCÖ", 80, 90));
        let fields: Vec<&str> = found.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["prefix", "prefix", "charset", "charset", "length", "group"]);
        assert_eq!(found[0].1, PatternFault::Bounds { from: 0, to: LONGEST_PREFIX, actual: 19 });
        assert_eq!(found[1].1, PatternFault::Character('_'));
        assert_eq!(found[2].1, PatternFault::Repeated('A'));
        assert_eq!(found[3].1, PatternFault::Character('Ö'));
        assert_eq!(
            found[4].1,
            PatternFault::Bounds { from: SHORTEST, to: LONGEST - LONGEST_PREFIX, actual: 80 }
        );
        assert_eq!(found[5].1, PatternFault::Bounds { from: 0, to: 80, actual: 90 });
    }

    #[test]
    fn a_charset_has_no_repeated_characters_and_no_look_alikes() {
        assert_eq!(faults(&spec("", "O0", 12, 0)), [("charset", PatternFault::LookAlike('O', '0'))]);
        assert_eq!(
            faults(&spec("", "abil", 12, 0)),
            [("charset", PatternFault::LookAlike('I', '1')), ("charset", PatternFault::LookAlike('L', '1')),]
        );
        assert_eq!(faults(&spec("", "aA", 12, 0)), [("charset", PatternFault::Repeated('A'))]);
        assert_eq!(
            faults(&spec("", "A", 12, 0)),
            [("charset", PatternFault::Bounds { from: 2, to: 33, actual: 1 })]
        );
        assert_eq!(
            faults(&spec("", "", 12, 0)),
            [("charset", PatternFault::Bounds { from: 2, to: 33, actual: 0 })]
        );
        assert_eq!(
            faults(&spec("", &"A".repeat(1_000_000), 12, 0)),
            [("charset", PatternFault::Repeated('A'))]
        );
        assert_eq!(faults(&spec("", "0123456789ABCDEFGHJKMNPQRSTUVWXYZ", 12, 0)), []);
    }

    #[test]
    fn prefix_and_body_together_stay_within_the_longest_key() {
        assert_eq!(faults(&spec("", DIGITS, LONGEST, 4)), []);
        assert_eq!(faults(&spec("SUMMER", DIGITS, LONGEST - 6, 4)), []);
        let fault = PatternFault::Bounds { from: SHORTEST, to: LONGEST - 6, actual: LONGEST - 5 };
        assert_eq!(faults(&spec("SUMMER", DIGITS, LONGEST - 5, 4)), [("length", fault)]);
    }

    #[test]
    fn a_pattern_without_room_for_its_codes_is_rejected_with_a_remedy() {
        let short = Pattern::new(&spec("", DIGITS, 8, 0)).unwrap();
        let error = short.ensure_room(1_000).unwrap_err();
        assert_eq!(error.field, "length");
        let PatternFault::NoRoom { room, wanted: 1_000, remedy: Remedy::Length(length) } = error.fault else {
            panic!("{error}")
        };
        assert_eq!(room, short.room());
        assert_eq!(short.ensure_room(room), Ok(()));
        assert!(short.ensure_room(room + 1).is_err());
        let has_room =
            |length| Pattern::new(&spec("", DIGITS, length, 0)).unwrap().ensure_room(1_000).is_ok();
        assert!(has_room(length) && !has_room(length - 1));

        let two = Pattern::new(&spec("", "AB", 12, 0)).unwrap();
        let error = two.ensure_room(u64::MAX).unwrap_err();
        assert_eq!(error.field, "charset");
        assert!(error.to_string().ends_with("use more characters in the charset"), "{error}");
    }

    #[test]
    fn a_code_of_another_pattern_is_distinguished_from_a_mistyped_one() {
        let pattern = Pattern::new(&spec("SOLO", DIGITS, 5, 0)).unwrap();
        assert_eq!(pattern.verify("S0L0-00000").map(CodeKey::into_string), Ok("S01000000".to_owned()));
        assert_eq!(pattern.verify("SOLO-00001"), Err(VerifyError::Mistyped));
        for other in ["OTHER-00000", "SOLO-000000", "SOLO-0000", "SOLO-0000A"] {
            assert_eq!(pattern.verify(other), Err(VerifyError::OtherPattern), "{other}");
        }
        assert_eq!(pattern.verify("SOLO_00000"), Err(VerifyError::NotACode(CodeFault::Character('_'))));
    }
}
