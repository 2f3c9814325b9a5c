//! A seeded random generator whose sequence does not depend on the version of any crate: a printed seed stays valid.

/// `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed; neighbouring seeds give unrelated sequences.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A uniform number.
    pub const fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.any() % bound).unwrap_or(0)
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.any() % (to.saturating_sub(from) + 1)
    }

    /// A uniform number from 0 (included) to 1 (excluded).
    pub fn share(&mut self) -> f64 {
        // 53 bits, as many as a double has.
        (self.any() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with a probability of `cases` percent.
    pub const fn percent(&mut self, cases: u64) -> bool {
        self.any() % 100 < cases
    }

    /// A random element; `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> Option<&'a T> {
        among.get(self.below(among.len()))
    }

    /// Shuffles the items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for n in (1..items.len()).rev() {
            items.swap(n, self.below(n + 1));
        }
    }

    /// An independent generator, seeded by this one.
    pub const fn fork(&mut self) -> Self {
        Self(self.any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_seed_others() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            [rng.any(), rng.any(), rng.any()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut rng = Rng::new(1);
        for bound in [1, 2, 3, 100] {
            assert!((0..200).all(|_| rng.below(bound) < bound));
        }
        assert!((0..200).all(|_| (3..=5).contains(&rng.between(3, 5))));
        assert!((0..200).all(|_| (0.0..1.0).contains(&rng.share())));
        assert_eq!((rng.below(0), rng.pick::<u8>(&[])), (0, None));
    }
}
