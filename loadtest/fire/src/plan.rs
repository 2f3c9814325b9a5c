//! The schedule of faults, determined by the seed alone.
//!
//! It consists of rounds: every scenario is injected once, in random order, before any is injected again.

use super::rng::Rng;

/// One injection.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The index of the scenario in the list.
    pub which: usize,
    /// Seeds the random choices of the scenario.
    pub seed: u64,
    /// The pause before it, as a multiple of the usual pause: from 0.5 to 1.5.
    pub pause: f64,
}

/// An endless schedule.
#[derive(Clone, Debug)]
pub struct Plan {
    rng: Rng,
    scenarios: usize,
    round: Vec<usize>,
}

impl Plan {
    /// A schedule of `scenarios` scenarios.
    #[must_use]
    pub const fn new(seed: u64, scenarios: usize) -> Self {
        Self { rng: Rng::new(seed), scenarios, round: Vec::new() }
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.round.is_empty() {
            self.round = (0..self.scenarios).collect();
            self.rng.shuffle(&mut self.round);
        }
        let which = self.round.pop()?;
        Some(Step { which, seed: self.rng.any(), pause: 0.5 + self.rng.share() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_scenario_comes_once_before_any_comes_again() {
        let steps: Vec<Step> = Plan::new(42, 7).take(21).collect();
        for round in steps.chunks(7) {
            let which: BTreeSet<usize> = round.iter().map(|step| step.which).collect();
            assert_eq!(which.len(), 7, "{round:?}");
        }
        assert!(steps.iter().all(|step| (0.5..1.5).contains(&step.pause)));
        let orders: BTreeSet<Vec<usize>> =
            steps.chunks(7).map(|round| round.iter().map(|step| step.which).collect()).collect();
        assert!(orders.len() > 1, "not every round in the same order");
    }

    #[test]
    fn the_seed_decides_everything() {
        let plan = |seed| Plan::new(seed, 30).take(90).collect::<Vec<_>>();
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn without_scenarios_nothing_is_planned() {
        assert_eq!(Plan::new(1, 0).next(), None);
    }
}
