//! The vocabulary check: replaced words and phrases must not come back.
//!
//! A rule is a regular expression over *plain words*: a line in lower case, in which identifiers are split into their
//! words (`AskedTarget` and `asked_target` both read `asked target`). Exceptions are regular expressions over the line
//! as it stands; what they match is removed before the rules apply.

use std::fmt;
use std::str::FromStr;

use regex::Regex;
use regex::RegexSet;

/// The rules and exceptions of a terms file.
#[derive(Debug)]
pub struct Terms {
    rules: Vec<Rule>,
    any_rule: RegexSet,
    exceptions: Vec<Exception>,
}

#[derive(Debug)]
struct Rule {
    pattern: Regex,
    instead: String,
}

#[derive(Debug)]
struct Exception {
    /// The exception applies to files whose path begins so; empty for all files.
    path: String,
    pattern: Regex,
}

/// A line that uses a replaced term.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line's number, from 1.
    pub line: usize,
    /// The term as found, in plain words.
    pub term: String,
    /// What to write instead.
    pub instead: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: \"{}\" (write: {})", self.line, self.term, self.instead)
    }
}

impl FromStr for Terms {
    type Err = String;

    /// Reads a terms file: empty lines and lines that begin with `#` are skipped; `term REGEX => INSTEAD` is a rule;
    /// `except [PATH] REGEX` is an exception, where PATH is a path prefix that ends with `:`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut rules, mut exceptions) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |fault: &str| format!("line {number} of the terms file: {fault}: {line}");
            let compile = |pattern: &str| Regex::new(pattern).map_err(|error| invalid(&error.to_string()));
            if let Some(rule) = line.strip_prefix("term ") {
                let (pattern, instead) = rule.split_once(" => ").ok_or_else(|| invalid("no ` => `"))?;
                let pattern = compile(&format!(r"\b(?:{})\b", pattern.trim()))?;
                rules.push(Rule { pattern, instead: instead.trim().to_owned() });
            } else if let Some(exception) = line.strip_prefix("except ") {
                let (path, pattern) = exception.split_once(": ").unwrap_or(("", exception));
                exceptions
                    .push(Exception { path: path.trim().to_owned(), pattern: compile(pattern.trim())? });
            } else {
                return Err(invalid("neither `term` nor `except`"));
            }
        }
        let any_rule = RegexSet::new(rules.iter().map(|rule| rule.pattern.as_str()));
        Ok(Self { rules, any_rule: any_rule.map_err(|error| error.to_string())?, exceptions })
    }
}

impl Terms {
    /// The findings in one file, whose path is relative to the repository.
    #[must_use]
    pub fn findings(&self, path: &str, text: &str) -> Vec<Finding> {
        let exceptions: Vec<&Regex> = self
            .exceptions
            .iter()
            .filter(|exception| path.starts_with(&exception.path))
            .map(|exception| &exception.pattern)
            .collect();
        (1..)
            .zip(text.lines())
            .flat_map(|(line, text)| self.findings_in_line(line, text, &exceptions))
            .collect()
    }

    fn findings_in_line(&self, line: usize, text: &str, exceptions: &[&Regex]) -> Vec<Finding> {
        // Most lines match no rule: the exceptions are applied to the others only.
        if !self.any_rule.is_match(&plain_words(text)) {
            return Vec::new();
        }
        let mut text = text.to_owned();
        for exception in exceptions {
            text = exception.replace_all(&text, " ").into_owned();
        }
        let words = plain_words(&text);
        let findings = self.rules.iter().filter_map(|rule| {
            let term = rule.pattern.find(&words)?.as_str().to_owned();
            Some(Finding { line, term, instead: rule.instead.clone() })
        });
        findings.collect()
    }
}

/// The line in lower case, with identifiers split into their words.
fn plain_words(line: &str) -> String {
    let mut words = String::with_capacity(line.len() + 16);
    let mut after_lower_case = false;
    for character in line.chars() {
        if character == '_' {
            words.push(' ');
        } else {
            if after_lower_case && character.is_uppercase() {
                words.push(' ');
            }
            words.extend(character.to_lowercase());
        }
        after_lower_case = character.is_lowercase() || character.is_ascii_digit();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let text =
            "# a comment\n\nterm told|tells? => publish\nterm lets? go => release\nexcept src/a: told_by\n";
        text.parse().expect("the terms are valid")
    }

    fn found(path: &str, text: &str) -> Vec<String> {
        terms().findings(path, text).into_iter().map(|finding| finding.term).collect()
    }

    #[test]
    fn a_term_is_found_in_prose_and_in_identifiers_of_either_case() {
        assert_eq!(found("x", "It tells all."), ["tells"]);
        assert_eq!(found("x", "let was_told = 1;"), ["told"]);
        assert_eq!(found("x", "struct WasTold;"), ["told"]);
        assert_eq!(found("x", "It lets go."), ["lets go"]);
    }

    #[test]
    fn a_longer_word_that_contains_a_term_is_not_found() {
        assert_eq!(found("x", "untold intellect stellar"), [""; 0]);
    }

    #[test]
    fn an_exception_applies_to_its_path_only() {
        assert_eq!(found("src/a.rs", "told_by"), [""; 0]);
        assert_eq!(found("src/b.rs", "told_by"), ["told"]);
    }

    #[test]
    fn a_finding_names_its_line_and_what_to_write_instead() {
        let findings = terms().findings("x", "fine\ntold");
        assert_eq!(
            findings.first().map(ToString::to_string),
            Some("line 2: \"told\" (write: publish)".into())
        );
    }

    #[test]
    fn an_invalid_line_is_an_error_that_names_it() {
        assert!("term told".parse::<Terms>().is_err());
        assert!("told => publish".parse::<Terms>().is_err());
        assert!("term ( => x".parse::<Terms>().is_err());
    }
}
