//! No crate has modules that import each other in a circle, except parent and child.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use repository_checks::files::{crate_directories, repository_root};
use repository_checks::imports::{Graph, ModulePath};

fn shown(cycle: &[ModulePath]) -> String {
    cycle.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(", ")
}

#[test]
fn no_crate_has_an_import_cycle() {
    let root = repository_root();
    let (mut modules, mut report) = (0, String::new());
    for directory in crate_directories(&root).unwrap() {
        for file in ["src/lib.rs", "src/main.rs"].map(|file| directory.join(file)) {
            if !file.is_file() {
                continue;
            }
            let graph = Graph::of_crate(&file).unwrap();
            modules += graph.modules();
            let name = file.strip_prefix(&root).unwrap().display().to_string();
            for cycle in graph.cycles() {
                writeln!(report, "{name}: {}", shown(&cycle)).unwrap();
                for module in &cycle {
                    let inside = graph.references_of(module).into_iter().filter(|to| cycle.contains(to));
                    writeln!(report, "    {} -> {}", module.join("::"), shown(&inside.collect::<Vec<_>>()))
                        .unwrap();
                }
            }
            for cycle in graph.cycles_between_folders(1) {
                writeln!(report, "{name}, folders: {}", shown(&cycle)).unwrap();
            }
        }
    }
    assert!(modules > 150, "only {modules} modules were read");
    assert!(report.is_empty(), "import cycles:\n{report}");
}

fn graph_of(files: &[(&str, &str)]) -> Graph {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).unwrap();
        fs::write(file, text).unwrap();
    }
    Graph::of_crate(&directory.path().join("lib.rs")).unwrap()
}

#[test]
fn a_cycle_of_imports_is_found_whatever_form_they_have() {
    let graph = graph_of(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B; fn f() { super::c::g(); }"),
        ("c.rs", "pub fn g(_: &crate::a::A) {}"),
        ("d.rs", "use crate::{a::A, b};"),
    ]);
    assert_eq!(graph.cycles().iter().map(|cycle| shown(cycle)).collect::<Vec<_>>(), ["a, b, c"]);
}

#[test]
fn parent_and_child_may_refer_to_each_other() {
    let graph = graph_of(&[
        ("lib.rs", "mod a; pub struct Root;"),
        ("a/mod.rs", "mod inner; use inner::Inner; pub struct A;"),
        ("a/inner.rs", "use super::A; use crate::Root; pub struct Inner;"),
    ]);
    assert_eq!(graph.cycles(), Vec::<Vec<ModulePath>>::new());
}

#[test]
fn folders_that_refer_to_each_other_are_a_cycle_though_their_files_are_not() {
    let graph = graph_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "pub mod one; pub mod two;"),
        ("a/one.rs", "use crate::b::one::One;"),
        ("a/two.rs", "pub struct Two;"),
        ("b/mod.rs", "pub mod one; pub mod two;"),
        ("b/one.rs", "pub struct One;"),
        ("b/two.rs", "use crate::a::two::Two;"),
    ]);
    assert!(graph.cycles().is_empty());
    assert_eq!(
        graph.cycles_between_folders(1).iter().map(|cycle| shown(cycle)).collect::<Vec<_>>(),
        ["a, b"]
    );
}

#[test]
fn imports_of_tests_are_not_counted() {
    let graph = graph_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
        ("b.rs", "use crate::a::A; pub struct B;"),
    ]);
    assert!(graph.cycles().is_empty());
}
