//! Documents lead to files and headings that exist, and the README stays short.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use repository_checks::documents::{anchors, fault_of_link, links};
use repository_checks::files::{files_below, repository_root};

#[test]
fn every_link_within_the_repository_leads_to_a_file_and_a_heading() {
    let root = repository_root();
    let (mut checked, mut report) = (0, String::new());
    for file in files_below(&root).unwrap() {
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text) {
            checked += 1;
            if let Some(fault) = fault_of_link(&file, &text, link).unwrap() {
                writeln!(report, "{}: {fault}", file.strip_prefix(&root).unwrap().display()).unwrap();
            }
        }
    }
    assert!(checked > 10, "only {checked} links were found");
    assert!(report.is_empty(), "broken links:\n{report}");
}

/// The files of end-to-end tests whose names begin with `fault_` and this number.
fn files_with_tests_of_fault(root: &Path, number: &str) -> BTreeSet<String> {
    let tests = root.join("loadtest/e2e/tests");
    let name = format!("fn fault_{number}_");
    let files = files_below(&tests).expect("the tests are readable").into_iter();
    let files = files.filter(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&name)));
    files
        .map(|file| file.strip_prefix(&tests).expect("a file below the tests").display().to_string())
        .collect()
}

#[test]
fn the_table_of_faults_names_the_files_of_their_tests() {
    let root = repository_root();
    let text = fs::read_to_string(root.join("loadtest/README.md")).unwrap();
    let (mut checked, mut report) = (0, String::new());
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, number, _, _, files, _] = cells[..] else { continue };
        if number.parse::<u8>().is_err() {
            continue;
        }
        let named: BTreeSet<String> = files.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        for missing in named.iter().filter(|file| !root.join("loadtest/e2e/tests").join(file).exists()) {
            writeln!(report, "fault {number}: {missing} does not exist").unwrap();
        }
        for missing in files_with_tests_of_fault(&root, number).difference(&named) {
            writeln!(report, "fault {number}: {missing} is not named").unwrap();
        }
        checked += named.len();
    }
    assert!(checked > 40, "only {checked} files are named");
    assert!(report.is_empty(), "loadtest/README.md:\n{report}");
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let readme = fs::read_to_string(repository_root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines: move detail into deploy/docs or a crate's README");
}

#[test]
fn links_and_anchors_are_read_as_code_hosts_read_them() {
    let text = "See [a](x.md#how-it-works) and ![b](y.svg).\n```\n[c](z)\n```\n## How it works: `now`";
    assert_eq!(links(text), ["x.md#how-it-works", "y.svg"]);
    assert_eq!(anchors(text), ["how-it-works-now"]);
}
