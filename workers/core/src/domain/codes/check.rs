//! The check character: the last one of a code's body, chosen so that a weighted sum over the whole body is zero
//! modulo a prime, as in ISBN-10 and the pure systems of ISO/IEC 7064.
//!
//! Proof that it detects every such error, for any charset: let the characters' values be `x`, their weights
//! `2^i mod p`, `p` the smallest odd prime that is not less than the number of characters.
//! - One wrong character changes the sum by `2^i (x' - x)`, which is not zero: neither factor is divisible by `p`.
//! - Two different neighbours swapped change it by `2^i (2 - 1)(x' - x)`, which is not zero either.
//!
//! Where `p` is larger than the charset, some check values have no character. Bodies with such a check value are not
//! used, and the space is smaller by their number. Schemes without unusable bodies miss transpositions (Luhn mod N), or
//! do not exist for 2 and 6 characters (Damm).

/// The weighted sum of one charset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    symbols: u32,
    prime: u32,
}

impl Check {
    /// The check of a charset of `symbols` characters, at least 2.
    #[must_use]
    pub fn new(symbols: u8) -> Self {
        let symbols = u32::from(symbols).max(2);
        let is_prime = |n: u32| (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        let prime = (symbols.max(3)..).find(|n| is_prime(*n)).unwrap_or(u32::MAX);
        Self { symbols, prime }
    }

    /// The value of the check character after `values`; `None` if the charset has no such character.
    #[must_use]
    pub fn character(self, values: &[u8]) -> Option<u8> {
        let check = (self.prime - self.sum(values.iter().rev(), 2)) % self.prime;
        u8::try_from(check).ok().filter(|_| check < self.symbols)
    }

    /// Whether `body`, including its check character, is valid.
    #[must_use]
    pub fn holds(self, body: &[u8]) -> bool {
        self.sum(body.iter().rev(), 1) == 0
    }

    /// Number of valid bodies of `length` characters, check character included; saturates at `u128::MAX`.
    #[must_use]
    pub fn bodies(self, length: usize) -> u128 {
        // by_sum[r]: number of bodies of the characters so far whose sum is r.
        let mut by_sum = vec![0_u128; self.prime as usize];
        by_sum[0] = 1;
        let mut weight = 1;
        for _ in 0..length {
            let mut next = vec![0_u128; self.prime as usize];
            for (sum, bodies) in by_sum.iter().enumerate() {
                for value in 0..self.symbols {
                    let sum = (sum as u32 + weight * value) % self.prime;
                    next[sum as usize] = next[sum as usize].saturating_add(*bodies);
                }
            }
            by_sum = next;
            weight = weight * 2 % self.prime;
        }
        by_sum[0]
    }

    fn sum<'a>(self, values: impl Iterator<Item = &'a u8>, first_weight: u32) -> u32 {
        let mut weight = first_weight;
        let mut sum = 0;
        for value in values {
            sum = (sum + weight * u32::from(*value)) % self.prime;
            weight = weight * 2 % self.prime;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every body of `length` characters over `symbols`, valid or not.
    fn all_bodies(symbols: u8, length: usize) -> impl Iterator<Item = Vec<u8>> {
        let count = u64::from(symbols).pow(length as u32);
        (0..count).map(move |mut n| {
            let mut digit = || {
                let digit = n % u64::from(symbols);
                n /= u64::from(symbols);
                digit as u8
            };
            (0..length).map(|_| digit()).collect()
        })
    }

    fn assert_every_typo_is_detected(check: Check, symbols: u8, body: &[u8]) {
        let mut typo = body.to_vec();
        for at in 0..body.len() {
            for wrong in (0..symbols).filter(|wrong| *wrong != body[at]) {
                typo[at] = wrong;
                assert!(!check.holds(&typo), "{symbols} symbols: {body:?} and {typo:?}");
            }
            typo[at] = body[at];
        }
        for at in 1..body.len() {
            if body[at] != body[at - 1] {
                typo.swap(at, at - 1);
                assert!(!check.holds(&typo), "{symbols} symbols: {body:?} and {typo:?}");
                typo.swap(at, at - 1);
            }
        }
    }

    #[test]
    fn every_substitution_and_transposition_is_detected_in_every_body_of_small_charsets() {
        for (symbols, length) in [(2, 12), (3, 8), (4, 7), (5, 6), (6, 6), (7, 5), (8, 5), (10, 5), (16, 4)] {
            let check = Check::new(symbols);
            let mut valid = 0_u128;
            for body in all_bodies(symbols, length).filter(|body| check.holds(body)) {
                assert_every_typo_is_detected(check, symbols, &body);
                valid += 1;
            }
            assert_eq!(valid, check.bodies(length), "{symbols} symbols");
        }
    }

    #[test]
    fn every_substitution_and_transposition_is_detected_for_every_size_of_charset() {
        // Neighbours can have any pair of weights only within a whole period of the weights: the three characters are
        // moved through a body of forty.
        for symbols in 2..=33 {
            let check = Check::new(symbols);
            for (n, three) in all_bodies(symbols, 3).enumerate().step_by(97) {
                let mut body = vec![0; 40];
                let at = n % 37;
                body[at..at + 3].copy_from_slice(&three);
                if let Some(character) = check.character(&body[..39]) {
                    body[39] = character;
                    assert!(check.holds(&body));
                    assert_every_typo_is_detected(check, symbols, &body);
                }
            }
        }
    }

    #[test]
    fn exactly_one_check_character_is_valid() {
        for symbols in [2, 6, 10, 32, 33] {
            let check = Check::new(symbols);
            for values in all_bodies(symbols, 3) {
                let holding: Vec<u8> =
                    (0..symbols).filter(|last| check.holds(&[&values[..], &[*last]].concat())).collect();
                assert_eq!(holding, check.character(&values).into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_space_is_counted_exactly_and_never_overflows() {
        assert_eq!(Check::new(31).bodies(5), 31_u128.pow(4));
        assert_eq!(Check::new(2).bodies(0), 1);
        assert_eq!(Check::new(33).bodies(64), u128::MAX);
        // About 32/37 of the bodies have a check character.
        let share = Check::new(32).bodies(12) as f64 / 32_f64.powi(11);
        assert!((share - 32.0 / 37.0).abs() < 1e-6, "{share}");
    }
}
