//! The result of a check: one line for each invariant, with counts and the first offenders.

use serde::Serialize;
use std::fmt;

/// Offenders that a line names; all are counted.
const MAX_OFFENDERS: usize = 5;

macro_rules! invariants {
    ($($(#[$doc:meta])* $name:ident: $title:literal),+ $(,)?) => {
        /// What must always be true.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Invariant { $($(#[$doc])* $name),+ }

        impl Invariant {
            /// All of them, in order.
            pub const ALL: [Self; 12] = [$(Self::$name),+];

            /// A short description.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

invariants! {
    /// The counters of every coupon add up, and equal its rows.
    I1: "counters add up and equal the rows",
    /// No code is in two live claims, and no code is redeemed more often than allowed.
    I2: "no code is held or used twice",
    /// Every request accepted with 202 has exactly one final outcome.
    I3: "every accepted request has one outcome",
    /// All responses for one request carry the same outcome.
    I4: "all responses of a request are equal",
    /// Every published event is in Postgres, and every result in Postgres is published.
    I5: "every event has a row, every row an event",
    /// No limit is exceeded, and every price is right.
    I6: "no limit is exceeded, no price is wrong",
    /// No record of the log is skipped, and positions only grow.
    I7: "every offset has its result",
    /// A request id is decided once.
    I8: "the same id keeps its outcome",
    /// A request is rejected as sold out only when no code is left.
    I9: "sold out only when no code is left",
    /// The offsets that the consumer group has committed are durable in Postgres.
    I10: "the group is never ahead of Postgres",
    /// A lapsed hold returns to stock once, nothing lapses early, and nothing lapsed is used.
    I11: "holds lapse once and on time",
    /// Memory is bounded.
    I12: "memory stays bounded",
}

/// The result for one invariant.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which invariant.
    pub invariant: Invariant,
    /// Its short description.
    pub title: &'static str,
    /// How many things were checked.
    pub checked: u64,
    /// How many of them violate it.
    pub violations: u64,
    /// Descriptions of the first of those.
    pub offenders: Vec<String>,
    /// Why it was not checked at all.
    pub not_applicable: Option<&'static str>,
}

/// The result of a check.
#[derive(Clone, Debug)]
pub struct Report {
    /// Accepted claims in Postgres.
    pub claims: u64,
    /// Other outcomes in Postgres.
    pub outcomes: u64,
    /// Accepted claims that are redeemed.
    pub redeemed: u64,
    /// Records of `coupon.requests` that were read.
    pub requests: u64,
    /// Events of `coupon.responses` that were read.
    pub responses: u64,
    /// Records of `coupon.dead-letters` that were read.
    pub dead_letters: u64,
    /// Codes in two live claims in Postgres, or in the responses of two requests.
    pub given_twice: u64,
    /// Requests of the history that were accepted, but have no final outcome in Postgres or received none.
    pub unresolved: u64,
    /// Requests that were accepted, but not decided in the snapshot.
    pub in_flight: u64,
    /// One line for each invariant.
    pub lines: Vec<Line>,
    /// What could not be checked, and why. It is neither clean nor violated.
    pub unchecked: Vec<String>,
    /// Further findings that violate nothing.
    pub notes: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        let line = |invariant: Invariant| Line {
            invariant,
            title: invariant.title(),
            checked: 0,
            violations: 0,
            offenders: Vec::new(),
            not_applicable: None,
        };
        Self {
            claims: 0,
            outcomes: 0,
            redeemed: 0,
            requests: 0,
            responses: 0,
            dead_letters: 0,
            given_twice: 0,
            unresolved: 0,
            in_flight: 0,
            lines: Invariant::ALL.map(line).to_vec(),
            unchecked: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Report {
    /// Whether nothing that was checked is violated.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lines.iter().all(|line| line.violations == 0)
    }

    /// The violations of all invariants.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.lines.iter().map(|line| line.violations).sum()
    }

    /// One line of JSON: `{"invariants": [{"id", "title", "checked", "violations", "offenders"}], "violations",
    /// "unchecked", …}`. `checked` is null where an invariant was not checked.
    ///
    /// # Errors
    /// Never, for the contents of a report.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let invariants = self.lines.iter().map(|line| JsonLine {
            id: format!("{:?}", line.invariant),
            title: line.title,
            checked: line.not_applicable.is_none().then_some(line.checked),
            violations: line.violations,
            offenders: &line.offenders,
        });
        serde_json::to_string(&Json {
            invariants: invariants.collect(),
            violations: self.violations(),
            unchecked: &self.unchecked,
            unresolved: self.unresolved,
            given_twice: self.given_twice,
            in_flight: self.in_flight,
            notes: &self.notes,
        })
    }

    /// The result for one invariant.
    #[must_use]
    pub fn line(&self, invariant: Invariant) -> &Line {
        &self.lines[invariant as usize]
    }

    /// Counts things that were checked.
    pub(crate) fn checked(&mut self, invariant: Invariant, count: usize) {
        self.lines[invariant as usize].checked += count as u64;
    }

    /// Counts one violation. `offender` is called for the first few of an invariant.
    pub(crate) fn violated(&mut self, invariant: Invariant, offender: impl FnOnce() -> String) {
        let line = &mut self.lines[invariant as usize];
        line.violations += 1;
        if line.offenders.len() < MAX_OFFENDERS {
            line.offenders.push(offender());
        }
    }

    /// Checks one thing.
    pub(crate) fn expect(&mut self, invariant: Invariant, holds: bool, offender: impl FnOnce() -> String) {
        self.checked(invariant, 1);
        if !holds {
            self.violated(invariant, offender);
        }
    }

    pub(crate) fn not_applicable(&mut self, invariant: Invariant, reason: &'static str) {
        self.lines[invariant as usize].not_applicable = Some(reason);
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Records what could not be checked, and why.
    pub(crate) fn unchecked(&mut self, what: String) {
        self.unchecked.push(what);
    }
}

#[derive(Serialize)]
struct Json<'a> {
    invariants: Vec<JsonLine<'a>>,
    violations: u64,
    unchecked: &'a [String],
    unresolved: u64,
    given_twice: u64,
    in_flight: u64,
    notes: &'a [String],
}

#[derive(Serialize)]
struct JsonLine<'a> {
    id: String,
    title: &'a str,
    checked: Option<u64>,
    violations: u64,
    offenders: &'a [String],
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<4} {:<42} {:>10} {:>10}", "", "invariant", "checked", "violations")?;
        for line in &self.lines {
            let name = format!("{:?}", line.invariant);
            match line.not_applicable {
                Some(reason) => writeln!(f, "{name:<4} {:<42} {:>10} {:>10}", line.title, "-", reason)?,
                None => {
                    writeln!(f, "{name:<4} {:<42} {:>10} {:>10}", line.title, line.checked, line.violations)?
                }
            }
            for offender in &line.offenders {
                writeln!(f, "       {offender}")?;
            }
            let named = line.offenders.len() as u64;
            if line.violations > named {
                writeln!(f, "       … and {} more", line.violations - named)?;
            }
        }
        let Self { claims, outcomes, requests, responses, dead_letters, .. } = self;
        write!(
            f,
            "read {claims} claims, {outcomes} other outcomes, {requests} records, {responses} responses, {dead_letters} dead letters"
        )?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_every_offender_and_names_the_first_five() {
        let mut report = Report::default();
        report.not_applicable(Invariant::I11, "no holds");
        assert!(report.is_clean());
        for n in 0..7 {
            report.expect(Invariant::I2, false, || format!("code {n}"));
        }
        report.expect(Invariant::I2, true, || unreachable!("only violations are described"));
        assert!(!report.is_clean());
        let line = report.line(Invariant::I2);
        assert_eq!((line.checked, line.violations, line.offenders.len()), (8, 7, 5));
        let table = report.to_string();
        assert!(
            table.contains("code 4") && !table.contains("code 5") && table.contains("… and 2 more"),
            "{table}"
        );
        assert!(table.contains("no holds"), "{table}");
    }
}
