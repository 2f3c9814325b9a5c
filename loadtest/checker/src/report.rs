//! What a check found: one line an invariant, with counts and the first offenders.

use serde::Serialize;
use std::fmt;

/// Offenders that a line names; all are counted.
const FIRST: usize = 5;

macro_rules! invariants {
    ($($(#[$doc:meta])* $name:ident: $title:literal),+ $(,)?) => {
        /// What must always be true.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Invariant { $($(#[$doc])* $name),+ }

        impl Invariant {
            /// All of them, in order.
            pub const ALL: [Self; 12] = [$(Self::$name),+];

            /// In a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

invariants! {
    /// The counters of every coupon add up, and are what its rows say.
    I1: "counters add up and equal the rows",
    /// No code is in two live claims, or redeemed more often than allowed.
    I2: "no code is held or used twice",
    /// Every request answered 202 has exactly one final outcome.
    I3: "every accepted request has one outcome",
    /// Whoever is told, is told the same.
    I4: "every telling of an outcome is the same",
    /// What is told is durable, and what is durable is told.
    I5: "every event is a row, every row an event",
    /// Nobody has more than allowed, or pays less.
    I6: "no limit is exceeded, no price wrong",
    /// No record of the log is skipped.
    I7: "every offset has its result",
    /// A request is decided once.
    I8: "the same id keeps its outcome",
    /// Sold out is said only when nothing is left.
    I9: "nobody is told sold out too early",
    /// What the group has committed is durable.
    I10: "the group is never ahead of Postgres",
    /// A lapsed hold is in stock again, once; nothing lapses early, and nothing is done with what has lapsed.
    I11: "holds lapse once and in time",
    /// Memory is bounded.
    I12: "memory stays bounded",
}

/// What became of one invariant.
#[derive(Clone, Debug)]
pub struct Line {
    /// Which one.
    pub invariant: Invariant,
    /// In a few words.
    pub title: &'static str,
    /// How many things were looked at.
    pub checked: u64,
    /// How many of them break it.
    pub violations: u64,
    /// The first of those, for people.
    pub first: Vec<String>,
    /// Why it was not checked at all.
    pub not_applicable: Option<&'static str>,
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Accepted claims in Postgres.
    pub claims: u64,
    /// Other outcomes in Postgres.
    pub outcomes: u64,
    /// Of the claims, those that were redeemed.
    pub redeemed: u64,
    /// Records of `coupon.requests` that were read.
    pub requests: u64,
    /// Events of `coupon.responses` that were read.
    pub responses: u64,
    /// Records of `coupon.dead-letters` that were read.
    pub dead_letters: u64,
    /// Codes in two live claims in Postgres, or told to two requests.
    pub given_twice: u64,
    /// Requests of the history that were accepted, and have no final outcome in Postgres or were never told one.
    pub unresolved: u64,
    /// Requests that were accepted, and not decided yet at the point that was looked at.
    pub in_flight: u64,
    /// One line an invariant.
    pub lines: Vec<Line>,
    /// What was to be checked and could not be, and why: it is neither in order nor broken.
    pub unchecked: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        let line = |invariant: Invariant| Line {
            invariant,
            title: invariant.title(),
            checked: 0,
            violations: 0,
            first: Vec::new(),
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
    /// Whether nothing that was checked is broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lines.iter().all(|line| line.violations == 0)
    }

    /// How much is broken, in all.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.lines.iter().map(|line| line.violations).sum()
    }

    /// One line of JSON, for a program: `{"invariants": [{"id", "checked", "violations", "offenders"}], "violations",
    /// "unchecked", …}`. `checked` is null where an invariant was not looked at.
    ///
    /// # Errors
    /// None that a report can have.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let invariants = self.lines.iter().map(|line| JsonLine {
            id: format!("{:?}", line.invariant),
            title: line.title,
            checked: line.not_applicable.is_none().then_some(line.checked),
            violations: line.violations,
            offenders: &line.first,
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

    /// What became of one invariant.
    #[must_use]
    pub fn line(&self, invariant: Invariant) -> &Line {
        &self.lines[invariant as usize]
    }

    /// So many things were looked at.
    pub(super) fn checked(&mut self, invariant: Invariant, count: usize) {
        self.lines[invariant as usize].checked += count as u64;
    }

    /// One of them breaks the invariant.
    pub(super) fn broken(&mut self, invariant: Invariant, offender: impl FnOnce() -> String) {
        let line = &mut self.lines[invariant as usize];
        line.violations += 1;
        if line.first.len() < FIRST {
            line.first.push(offender());
        }
    }

    /// Looks at one thing.
    pub(super) fn expect(&mut self, invariant: Invariant, holds: bool, offender: impl FnOnce() -> String) {
        self.checked(invariant, 1);
        if !holds {
            self.broken(invariant, offender);
        }
    }

    pub(crate) fn not_applicable(&mut self, invariant: Invariant, why: &'static str) {
        self.lines[invariant as usize].not_applicable = Some(why);
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// This was to be checked, and could not be.
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
        writeln!(f, "{:<4} {:<42} {:>10} {:>10}", "", "invariant", "checked", "broken")?;
        for line in &self.lines {
            let name = format!("{:?}", line.invariant);
            match line.not_applicable {
                Some(why) => writeln!(f, "{name:<4} {:<42} {:>10} {:>10}", line.title, "-", why)?,
                None => {
                    writeln!(f, "{name:<4} {:<42} {:>10} {:>10}", line.title, line.checked, line.violations)?
                }
            }
            for offender in &line.first {
                writeln!(f, "       {offender}")?;
            }
            if line.violations > line.first.len() as u64 {
                writeln!(f, "       … and {} more", line.violations - line.first.len() as u64)?;
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
        report.expect(Invariant::I2, true, || unreachable!("nothing is described that holds"));
        assert!(!report.is_clean());
        let line = report.line(Invariant::I2);
        assert_eq!((line.checked, line.violations, line.first.len()), (8, 7, 5));
        let table = report.to_string();
        assert!(
            table.contains("code 4") && !table.contains("code 5") && table.contains("… and 2 more"),
            "{table}"
        );
        assert!(table.contains("no holds"), "{table}");
    }
}
