//! Documents lead to files and headings that exist, and the README stays short.

use std::fmt::Write as _;
use std::fs;

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
