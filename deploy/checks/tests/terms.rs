//! No file of the repository uses a term that `deploy/docs/terms.txt` replaces.

use std::fmt::Write as _;
use std::fs;

use repository_checks::files::{files_below, repository_root};
use repository_checks::terms::Terms;

const CHECKED: [&str; 14] =
    ["rs", "sql", "md", "toml", "yml", "yaml", "sh", "js", "ts", "html", "css", "py", "json", "avsc"];
/// Programs without an extension.
const SCRIPTS: [&str; 4] = ["deploy/run", "deploy/test", "deploy/provision", ".ci/run"];

#[test]
fn no_file_uses_a_replaced_term() {
    let root = repository_root();
    let terms: Terms = fs::read_to_string(root.join("deploy/docs/terms.txt")).unwrap().parse().unwrap();
    let (mut files, mut report) = (0, String::new());
    for file in files_below(&root).unwrap() {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !CHECKED.contains(&extension) && !SCRIPTS.contains(&path.as_str()) {
            continue;
        }
        files += 1;
        for finding in terms.findings(&path, &fs::read_to_string(&file).unwrap()) {
            writeln!(report, "{path}: {finding}").unwrap();
        }
    }
    assert!(files > 300, "only {files} files were found: is the list of extensions still right?");
    assert!(report.is_empty(), "{} lines use replaced terms:\n{report}", report.lines().count());
}
