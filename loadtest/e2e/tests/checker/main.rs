//! The checker finds planted violations: each fixture is clean, and a test breaks it in one place.

#![expect(clippy::unwrap_used, reason = "tests")]

use checker::{Invariant, Report};

mod claims;
mod external;
mod fixtures;
mod transitions;
mod verify;

/// These invariants and no others are broken, and an offender is named.
fn expect_broken(report: &Report, broken: &[Invariant], named: &str) {
    let found: Vec<Invariant> =
        report.lines.iter().filter(|line| line.violations > 0).map(|line| line.invariant).collect();
    assert_eq!(found, broken, "\n{report}");
    let offenders = || report.lines.iter().flat_map(|line| &line.offenders);
    assert!(offenders().any(|offender| offender.contains(named)), "no offender contains {named:?}\n{report}");
}
