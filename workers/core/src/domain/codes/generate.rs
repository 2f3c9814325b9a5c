//! Generates codes: each code of a pattern's space with the same probability, none twice, and the next one cannot be
//! computed from all those before it.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

use foldhash::{fast, quality};
use rand::{CryptoRng, RngExt as _};

use super::normalise::CodeKey;
use super::pattern::Pattern;

/// A new code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code as shown to people, with prefix and hyphens.
    pub shown: String,
    /// The key by which it is matched.
    pub key: CodeKey,
}

/// Draws codes of one pattern, none twice, until the space is exhausted. It keeps 8 bytes for each drawn code (and the
/// slack of a hash set), whatever the length of the codes.
///
/// Check [`Pattern::ensure_room`] first: the last codes of a space take ever more draws.
#[derive(Debug)]
pub struct Generator<'p, R> {
    pattern: &'p Pattern,
    rng: R,
    /// Hashes of the drawn bodies. A hash collision skips a code (once in 2^44 draws, with a million drawn); it never
    /// draws one twice.
    drawn: HashSet<u64, fast::FixedState>,
    space: u128,
    /// Values of the current body.
    body: Vec<u8>,
}

impl Pattern {
    /// Draws codes with `rng`, which must be cryptographic and seeded from the system, else codes can be computed. Codes
    /// are distinct within one generator: draw a whole load from one.
    pub fn generate<R: CryptoRng>(&self, rng: R) -> Generator<'_, R> {
        Generator {
            pattern: self,
            rng,
            drawn: HashSet::default(),
            space: self.space(),
            body: vec![0; self.length],
        }
    }
}

impl<R: CryptoRng> Iterator for Generator<'_, R> {
    type Item = Code;

    fn next(&mut self) -> Option<Code> {
        while (self.drawn.len() as u128) < self.space {
            if self.draw() && self.drawn.insert(quality::FixedState::default().hash_one(&self.body)) {
                return Some(self.code());
            }
        }
        None
    }
}

impl<R: CryptoRng> Generator<'_, R> {
    /// Draws a body; returns false if it has no check character. Discarding whole bodies keeps the others equally likely.
    fn draw(&mut self) -> bool {
        let symbols = self.pattern.charset.len() as u32;
        let Some((last, values)) = self.body.split_last_mut() else { return false };
        for value in values.iter_mut() {
            *value = self.rng.random_range(0..symbols) as u8;
        }
        match self.pattern.check.character(values) {
            Some(character) => {
                *last = character;
                true
            }
            None => false,
        }
    }

    fn code(&self) -> Code {
        let Pattern { prefix, prefix_key, charset, length, group, .. } = self.pattern;
        let mut shown = String::with_capacity(prefix.len() + 2 * length + 1);
        let mut key = String::with_capacity(prefix_key.len() + length);
        shown.push_str(prefix);
        key.push_str(prefix_key);
        for (at, value) in self.body.iter().enumerate() {
            if *group > 0 && at.is_multiple_of(*group) && !shown.is_empty() {
                shown.push('-');
            }
            let symbol = char::from(charset[usize::from(*value)]);
            shown.push(symbol);
            key.push(symbol);
        }
        Code { shown, key: CodeKey::from_normalised(key) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::domain::codes::{PatternSpec, VerifyError, normalise};

    fn rng(seed: u64) -> StdRng {
        StdRng::seed_from_u64(seed)
    }

    fn pattern(prefix: &str, charset: &str, length: usize, group: usize) -> Pattern {
        let spec = PatternSpec { prefix: prefix.to_owned(), charset: charset.to_owned(), length, group };
        Pattern::new(&spec).unwrap()
    }

    #[test]
    fn a_code_is_shown_with_its_prefix_and_in_groups() {
        let shape = |pattern: &Pattern| {
            let code = pattern.generate(rng(1)).next().unwrap();
            assert_eq!(normalise(&code.shown), Ok(code.key));
            code.shown.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>()
        };
        assert_eq!(shape(&pattern("", "0123456789", 12, 4)), "9999-9999-9999");
        assert_eq!(shape(&pattern("solo", "0123456789", 10, 4)), "SOLO-9999-9999-99");
        assert_eq!(shape(&pattern("SOLO", "0123456789", 10, 0)), "SOLO9999999999");
        assert_eq!(shape(&pattern("X", "0123456789", 4, 4)), "X-9999");
    }

    #[test]
    fn a_million_codes_are_all_different_and_all_verified() {
        let pattern = Pattern::default();
        pattern.ensure_room(1_000_000).unwrap();
        let mut keys: Vec<String> =
            pattern.generate(rng(2)).take(1_000_000).map(|code| code.key.into_string()).collect();
        assert!(keys.iter().all(|key| pattern.verify(key).is_ok()));
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 1_000_000);
    }

    #[test]
    fn a_small_space_is_drawn_to_the_last_code_and_then_ends() {
        for pattern in
            [pattern("", "AB", 8, 0), pattern("P", "ABCDEF", 4, 2), pattern("", "0123456789", 4, 0)]
        {
            let mut codes: Vec<String> = pattern.generate(rng(3)).map(|code| code.shown).collect();
            assert_eq!(codes.len() as u128, pattern.space());
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len() as u128, pattern.space());
        }
    }

    #[test]
    fn every_code_is_equally_likely() {
        // 91 codes; the first draw of 91,000 generators. Chi-squared with 90 degrees of freedom exceeds 150 once in ten
        // thousand seeds, and the seeds are fixed.
        let pattern = pattern("", "ABCDEF", 4, 0);
        let mut times: HashMap<String, f64> = HashMap::new();
        let draws = 1_000 * pattern.space() as u64;
        for seed in 0..draws {
            let code = pattern.generate(rng(seed)).next().unwrap();
            *times.entry(code.shown).or_default() += 1.0;
        }
        assert_eq!(times.len() as u128, pattern.space());
        let chi_squared: f64 = times.values().map(|n| (n - 1_000.0).powi(2) / 1_000.0).sum();
        let freedom = times.len() as f64 - 1.0;
        assert!(chi_squared < freedom + 4.5 * (2.0 * freedom).sqrt(), "{chi_squared} for {freedom}");
    }

    proptest! {
        #[test]
        fn every_typing_error_in_a_code_is_detected(
            seed: u64, at in any::<prop::sample::Index>(), wrong in any::<prop::sample::Index>(),
        ) {
            let pattern = pattern("SOLO", "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 12, 4);
            let key = pattern.generate(rng(seed)).next().unwrap().key.into_string();
            prop_assert!(pattern.verify(&key.to_lowercase()).is_ok());

            let at = 4 + at.index(12);
            let mut typo = key.clone().into_bytes();
            typo[at] = pattern.charset[wrong.index(32)];
            let typo = String::from_utf8(typo).unwrap();
            prop_assert_eq!(pattern.verify(&typo).is_ok(), typo == key);

            let mut swapped = key.clone().into_bytes();
            swapped.swap(at, at - 1);
            let swapped = String::from_utf8(swapped).unwrap();
            prop_assert_eq!(pattern.verify(&swapped).is_ok(), swapped == key);
            if swapped != key && at > 4 {
                prop_assert_eq!(pattern.verify(&swapped), Err(VerifyError::Mistyped));
            }
        }
    }
}
