//! The module graph of a crate: which module refers to which, and whether the references form a cycle.
//!
//! A module is a file. References are all paths that begin with `crate`, `self` or `super`, and paths in a file whose
//! first part is one of its child modules, in `use` items and in expressions and types alike. Macros and code under
//! `#[cfg(test)]` are not read. References between a module and a module inside it are not counted: a parent assembles
//! its children, and children may use what their parent defines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, UseTree};

/// A module's path within its crate, such as `["kafka", "consumer"]`; empty for the crate's root.
pub type ModulePath = Vec<String>;

/// Modules and their references.
#[derive(Debug, Default)]
pub struct Graph {
    edges: BTreeMap<ModulePath, BTreeSet<ModulePath>>,
}

impl Graph {
    /// The graph of the crate whose root module is the file `root` (`src/lib.rs` or a test's `main.rs`).
    ///
    /// # Errors
    /// When a file cannot be read or is not valid Rust.
    pub fn of_crate(root: &Path) -> io::Result<Self> {
        let mut sources = BTreeMap::new();
        collect_sources(root, &ModulePath::new(), true, &mut sources)?;
        let modules: BTreeSet<ModulePath> = sources.keys().cloned().collect();
        let mut edges = BTreeMap::new();
        for (module, file) in &sources {
            let mut references = References { module, modules: &modules, found: BTreeSet::new() };
            references.visit_file(file);
            edges.insert(module.clone(), references.found);
        }
        Ok(Self { edges })
    }

    /// The number of modules.
    #[must_use]
    pub fn modules(&self) -> usize {
        self.edges.len()
    }

    /// Every group of modules that refer to each other in a circle, as file-level modules.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<ModulePath>> {
        cycles_of(&self.edges)
    }

    /// The same with every module reduced to its first `depth` parts: cycles between folders.
    #[must_use]
    pub fn cycles_between_folders(&self, depth: usize) -> Vec<Vec<ModulePath>> {
        let folder = |path: &ModulePath| path.iter().take(depth).cloned().collect::<ModulePath>();
        let mut edges: BTreeMap<ModulePath, BTreeSet<ModulePath>> = BTreeMap::new();
        for (from, targets) in &self.edges {
            // The root assembles the crate, and its re-exports are no subject of their own.
            let targets = targets.iter().map(folder).filter(|to| !to.is_empty() && *to != folder(from));
            edges.entry(folder(from)).or_default().extend(targets);
        }
        edges.remove(&ModulePath::new());
        cycles_of(&edges)
    }

    /// The modules that `module` refers to.
    #[must_use]
    pub fn references_of(&self, module: &ModulePath) -> Vec<ModulePath> {
        self.edges.get(module).into_iter().flatten().cloned().collect()
    }
}

/// Parses a module's file and, recursively, the files of its child modules.
fn collect_sources(
    file: &Path,
    module: &ModulePath,
    is_root: bool,
    sources: &mut BTreeMap<ModulePath, syn::File>,
) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let parsed = syn::parse_file(&text).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
    })?;
    for item in &parsed.items {
        if let Item::Mod(item) = item
            && item.content.is_none()
            && !is_for_tests(&item.attrs)
        {
            let name = item.ident.to_string();
            let path = file_of_child(file, is_root, &name, &item.attrs)?;
            let child: ModulePath = module.iter().cloned().chain([name]).collect();
            collect_sources(&path, &child, false, sources)?;
        }
    }
    sources.insert(module.clone(), parsed);
    Ok(())
}

/// The file of a child module, by the rules of the language.
fn file_of_child(parent: &Path, is_root: bool, name: &str, attributes: &[Attribute]) -> io::Result<PathBuf> {
    let directory = parent.parent().unwrap_or(Path::new("."));
    if let Some(path) = path_attribute(attributes) {
        return Ok(directory.join(path));
    }
    let owns_directory = is_root || parent.file_name().is_some_and(|name| name == "mod.rs");
    let directory = if owns_directory { directory.to_owned() } else { parent.with_extension("") };
    let candidates = [directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")];
    let missing =
        || io::Error::new(io::ErrorKind::NotFound, format!("{}: no file for mod {name}", parent.display()));
    candidates.into_iter().find(|candidate| candidate.is_file()).ok_or_else(missing)
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    })
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        matches!(&attribute.meta, Meta::List(list)
            if list.path.is_ident("cfg") && list.tokens.to_string().split_whitespace().next() == Some("test"))
    })
}

/// Collects the modules that one module refers to.
struct References<'a> {
    module: &'a ModulePath,
    modules: &'a BTreeSet<ModulePath>,
    found: BTreeSet<ModulePath>,
}

impl References<'_> {
    /// Notes the longest module that the path leads to.
    fn note(&mut self, path: &[String]) {
        let Some(mut target) = self.absolute(path) else { return };
        while !self.modules.contains(&target) {
            target.pop();
        }
        let related = target.starts_with(self.module) || self.module.starts_with(&target);
        if !related {
            self.found.insert(target);
        }
    }

    /// The path from the crate's root; `None` for a path into another crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => ModulePath::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().checked_sub(1)?].to_vec(),
            child => {
                let child: ModulePath = self.module.iter().cloned().chain([child.to_owned()]).collect();
                if !self.modules.contains(&child) {
                    return None;
                }
                child
            }
        };
        for part in rest {
            if part == "super" {
                base.pop();
            } else {
                base.push(part.clone());
            }
        }
        Some(base)
    }

    fn note_use(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.note_use(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_use(tree, prefix)),
            UseTree::Name(name) => self.note_with(prefix, name.ident.to_string()),
            UseTree::Rename(rename) => self.note_with(prefix, rename.ident.to_string()),
            UseTree::Glob(_) => self.note(prefix),
        }
    }

    fn note_with(&mut self, prefix: &[String], name: String) {
        let path: Vec<String> = prefix.iter().cloned().chain((name != "self").then_some(name)).collect();
        self.note(&path);
    }
}

impl<'ast> Visit<'ast> for References<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // A module within the file has other names in scope; only tests are written so here.
        if item.content.is_none() {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.note_use(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.note(&parts);
        }
        visit::visit_path(self, path);
    }
}

/// The strongly connected components with more than one member.
fn cycles_of(edges: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> Vec<Vec<ModulePath>> {
    let mut remaining: BTreeSet<&ModulePath> = edges.keys().collect();
    let mut cycles = Vec::new();
    while let Some(start) = remaining.pop_first() {
        let reaches = reachable(edges, start);
        let component: Vec<ModulePath> = edges
            .keys()
            .filter(|other| {
                *other == start || (reaches.contains(*other) && reachable(edges, other).contains(start))
            })
            .cloned()
            .collect();
        for member in &component {
            remaining.remove(member);
        }
        if component.len() > 1 {
            cycles.push(component);
        }
    }
    cycles
}

fn reachable<'a>(
    edges: &'a BTreeMap<ModulePath, BTreeSet<ModulePath>>,
    start: &'a ModulePath,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut next = vec![start];
    while let Some(module) = next.pop() {
        for target in edges.get(module).into_iter().flatten() {
            if reached.insert(target) {
                next.push(target);
            }
        }
    }
    reached
}
