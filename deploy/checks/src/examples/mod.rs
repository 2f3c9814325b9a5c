//! Examples in a Markdown document that a test executes: blocks of shell commands, each with the output that the document
//! shows for it.
//!
//! A block ```` ```sh ```` is one example. A block ```` ```json ```` or ```` ```text ```` after it is its output; in both,
//! `…` stands for what is not shown. [`script`] runs all examples in one shell, so that a later one uses variables of an
//! earlier one, and [`results`] separates their outputs again.

mod pattern;

use std::fmt::Write as _;

use pattern::is_like;

/// Precedes each result in the output of a [`script`].
const BOUNDARY: &str = "== end of example, exit code";

/// A block of commands, and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The line of its first command in the document, from 1.
    pub line: usize,
    /// The commands.
    pub commands: String,
    /// The output that the document shows; `None` if it shows none.
    pub expected: Option<Expected>,
}

/// The output of an example, as a document shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// JSON values, one after another.
    Json(String),
    /// Text, which is compared line by line.
    Text(String),
}

/// What an example has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleResult {
    /// The exit code of its last command.
    pub exit_code: i32,
    /// Standard output.
    pub stdout: String,
}

/// The examples of a document, in order.
///
/// # Errors
/// An output without commands before it, or a block without an end.
pub fn examples(markdown: &str) -> Result<Vec<Example>, String> {
    let mut examples: Vec<Example> = Vec::new();
    // Whether the last block was one of commands, whose output may follow.
    let mut expects_output = false;
    let mut lines = markdown.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let mut content = String::new();
        loop {
            let (_, line) = lines.next().ok_or_else(|| format!("line {}: the block has no end", n + 1))?;
            if line == "```" {
                break;
            }
            content += line;
            content.push('\n');
        }
        let is_output = matches!(language, "json" | "text");
        if language == "sh" {
            examples.push(Example { line: n + 2, commands: content, expected: None });
        } else if is_output {
            let example = examples.last_mut().filter(|_| expects_output);
            let example = example.ok_or_else(|| format!("line {}: no commands before this output", n + 1))?;
            let expected = if language == "json" { Expected::Json } else { Expected::Text };
            example.expected = Some(expected(content));
        }
        expects_output = language == "sh";
    }
    Ok(examples)
}

/// A shell script that runs the examples one after another and prints after each its exit code.
#[must_use]
pub fn script(examples: &[Example]) -> String {
    let mut script = String::new();
    for Example { commands, .. } in examples {
        _ = writeln!(script, "{commands}printf '\\n%s %s\\n' '{BOUNDARY}' $?");
    }
    script
}

/// The results in the output of a [`script`]: fewer than examples, if one of them did not end.
#[must_use]
pub fn results(stdout: &str) -> Vec<ExampleResult> {
    let boundary = format!("\n{BOUNDARY} ");
    let mut results: Vec<ExampleResult> = Vec::new();
    let mut rest = stdout;
    while let Some((output, after)) = rest.split_once(&boundary) {
        let (exit_code, after) = after.split_once('\n').unwrap_or((after, ""));
        results.push(ExampleResult { exit_code: exit_code.parse().unwrap_or(-1), stdout: output.to_owned() });
        rest = after;
    }
    results
}

impl Example {
    /// Compares the output with the expected one.
    ///
    /// # Errors
    /// A description of the first difference.
    pub fn check(&self, result: &ExampleResult) -> Result<(), String> {
        if result.exit_code != 0 {
            return Err(format!("exit code {}", result.exit_code));
        }
        match &self.expected {
            None => Ok(()),
            Some(Expected::Json(expected)) => check_json(expected, &result.stdout),
            Some(Expected::Text(expected)) => check_text(expected, &result.stdout),
        }
    }

    /// What a failed test prints: where the example is, what it should print, and what it printed.
    #[must_use]
    pub fn report(&self, document: &str, problem: &str, stdout: &str) -> String {
        let Self { line, commands, expected } = self;
        let Some(Expected::Json(expected) | Expected::Text(expected)) = expected else {
            return format!("{document}:{line}: {problem}\n{commands}--- printed\n{stdout}");
        };
        format!("{document}:{line}: {problem}\n{commands}--- expected\n{expected}--- printed\n{stdout}")
    }
}

fn check_json(expected: &str, stdout: &str) -> Result<(), String> {
    let expected = pattern::parse(expected)?;
    let actual = pattern::values(stdout).map_err(|error| format!("the output is not JSON: {error}"))?;
    if expected.len() != actual.len() {
        return Err(format!("{} JSON values instead of {}", actual.len(), expected.len()));
    }
    let different = expected.iter().zip(&actual).enumerate().find_map(|(n, (expected, actual))| {
        pattern::difference(
            &if n == 0 { "$".to_owned() } else { format!("value {}: $", n + 1) },
            expected,
            actual,
        )
    });
    different.map_or(Ok(()), Err)
}

fn check_text(expected: &str, stdout: &str) -> Result<(), String> {
    let (expected, actual) = (expected.trim_end(), stdout.trim_end());
    let lines = expected.lines().count().max(actual.lines().count());
    for n in 0..lines {
        let line = |text: &'_ str| text.lines().nth(n).map(str::to_owned);
        match (line(expected), line(actual)) {
            (Some(expected), Some(actual)) if is_like(&expected, &actual) => {}
            (expected, actual) => {
                let shown =
                    |line: Option<String>| line.map_or("nothing".to_owned(), |line| format!("`{line}`"));
                return Err(format!("line {} is {} instead of {}", n + 1, shown(actual), shown(expected)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# A document
```sh
A=1
```
Text.
```sh
echo \"{\\\"a\\\": $A}\"
```
```json
{\"a\": 1}
```
```toml
other = true
```
```sh
echo one; echo two
```
It prints:
```text
one
t…
```
";

    fn result(exit_code: i32, stdout: &str) -> ExampleResult {
        ExampleResult { exit_code, stdout: stdout.to_owned() }
    }

    #[test]
    fn a_block_of_commands_is_an_example_and_the_next_block_may_be_its_output() {
        let examples = examples(DOCUMENT).expect("examples");
        let lines: Vec<_> = examples.iter().map(|example| example.line).collect();
        assert_eq!(lines, [3, 7, 16]);
        assert_eq!(examples[0].expected, None);
        assert_eq!(examples[1].expected, Some(Expected::Json("{\"a\": 1}\n".to_owned())));
        assert_eq!(examples[2].expected, Some(Expected::Text("one\nt…\n".to_owned())));
    }

    #[test]
    fn an_output_without_commands_and_a_block_without_an_end_are_errors() {
        for (wrong, error) in [
            ("```json\n1\n```\n", "line 1: no commands before this output"),
            ("```sh\n1\n```\n```json\n1\n```\n```json\n2\n```\n", "line 7: no commands before this output"),
            ("```sh\n1\n```\n```toml\n```\n```text\n1\n```\n", "line 6: no commands before this output"),
            ("\n```sh\n1\n", "line 2: the block has no end"),
        ] {
            assert_eq!(examples(wrong), Err(error.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn the_examples_of_a_document_run_in_one_shell_and_their_results_are_separated() {
        let examples = examples(DOCUMENT).expect("examples");
        let output =
            std::process::Command::new("bash").arg("-c").arg(script(&examples)).output().expect("bash");
        let results = results(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(results, [result(0, ""), result(0, "{\"a\": 1}\n"), result(0, "one\ntwo\n")]);
        for (example, result) in examples.iter().zip(&results) {
            assert_eq!(example.check(result), Ok(()));
        }
        let failing = Example { commands: "false\n".to_owned(), ..examples[0].clone() };
        let output =
            std::process::Command::new("bash").arg("-c").arg(script(&[failing])).output().expect("bash");
        assert_eq!(super::results(&String::from_utf8_lossy(&output.stdout)), [result(1, "")]);
    }

    #[test]
    fn an_output_that_differs_is_reported_with_its_line_in_the_document() {
        let examples = examples(DOCUMENT).expect("examples");
        for (example, printed, wanted) in [
            (0, result(2, ""), "exit code 2"),
            (1, result(7, "{\"a\": 1}"), "exit code 7"),
            (1, result(0, "{\"a\": 2}"), "$.a is 2 instead of 1"),
            (1, result(0, ""), "0 JSON values instead of 1"),
            (1, result(0, "a"), "the output is not JSON: expected value at line 1 column 1"),
            (2, result(0, "one\nthree"), ""),
            (2, result(0, "one\nfour"), "line 2 is `four` instead of `t…`"),
            (2, result(0, "one"), "line 2 is nothing instead of `t…`"),
            (2, result(0, "one\ntwo\nthree"), "line 3 is `three` instead of nothing"),
        ] {
            let problem = examples[example].check(&printed).err().unwrap_or_default();
            assert_eq!(problem, wanted);
        }
        let report = examples[1].report("a.md", "$.a is 2 instead of 1", "{\"a\": 2}");
        let wanted = "a.md:7: $.a is 2 instead of 1\necho \"{\\\"a\\\": $A}\"\n--- expected\n{\"a\": 1}\n--- printed\n{\"a\": 2}";
        assert_eq!(report, wanted);
    }
}
