//! Every file, function and metric that the README names exists.

use std::path::Path;

/// Every `path::function` between backticks.
fn places(readme: &str) -> Vec<(&str, &str)> {
    readme
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.rsplit_once("::"))
        .filter(|(file, _)| file.ends_with(".rs") || file.ends_with(".sql"))
        .collect()
}

#[test]
fn every_file_and_function_that_the_readme_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = include_str!("../README.md");
    let places = places(readme);
    assert!(places.len() > 15, "only {} names found: check the format of the README", places.len());
    for (file, function) in places {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let defined =
            [format!("fn {function}("), format!("fn {function}<"), format!("create function {function}(")];
        assert!(defined.iter().any(|form| text.contains(form)), "{file} defines no {function}");
    }
}

#[test]
fn every_metric_that_the_readme_names_exists() {
    let metrics = include_str!("../src/metrics.rs");
    let table = include_str!("../README.md").split_once("## Metrics").unwrap_or_default().1;
    let names: Vec<_> = table
        .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("stampede_"))
        .collect();
    assert!(names.len() > 10);
    for name in names {
        assert!(metrics.contains(&format!("\"{name}\"")), "{name} is not a metric of the workers");
    }
}
