//! Every file, function and metric that the README names exists.

#![expect(clippy::panic, reason = "tests")]

use std::path::Path;

const README: &str = include_str!("../README.md");

/// The texts between backticks, outside code blocks.
fn quoted() -> Vec<&'static str> {
    let text = README.split("\n```").step_by(2);
    text.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn defines(text: &str, function: &str) -> bool {
    let forms = ["fn {}(", "fn {}<", "create function {}("];
    forms.iter().any(|form| text.contains(&form.replace("{}", function)))
}

#[test]
fn every_function_that_the_readme_names_is_defined_in_its_file() {
    let names: Vec<_> = quoted().into_iter().filter_map(|quoted| quoted.rsplit_once("::")).collect();
    assert!(names.len() > 60, "only {} names found: check the format of the README", names.len());
    for (file, function) in names {
        let is_source = [".rs", ".sql"].iter().any(|extension| file.ends_with(extension));
        assert!(is_source, "{file}::{function}: write the file's path, relative to workers/");
        assert!(defines(&read(file), function), "{file} defines no {function}");
    }
}

#[test]
fn every_source_file_that_the_readme_names_exists() {
    let files = quoted().into_iter().filter(|quoted| quoted.contains('/') && quoted.ends_with(".rs"));
    for file in files {
        assert!(!read(file).is_empty(), "{file} is empty");
    }
}

#[test]
fn every_metric_of_the_workers_is_in_the_readme_and_no_other() {
    let metrics = include_str!("../src/metrics.rs");
    let table = README.split_once("## Metrics").unwrap_or_default().1;
    let names: Vec<_> = table
        .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("stampede_"))
        .collect();
    for name in &names {
        assert!(metrics.contains(&format!("\"{name}\"")), "{name} is not a metric of the workers");
    }
    let defined = metrics.split('"').filter(|text| text.starts_with("stampede_"));
    for name in defined {
        assert!(names.contains(&name), "{name} is missing in the README's table");
    }
}
