//! The files of the repository, without build output and version control.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SKIPPED_DIRECTORIES: [&str; 3] = [".git", "target", "node_modules"];

/// The root of the workspace that this crate belongs to.
#[must_use]
pub fn repository_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// All files below `directory`, sorted by path.
///
/// # Errors
/// When a directory cannot be read.
pub fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if !SKIPPED_DIRECTORIES.contains(&entry.file_name().to_string_lossy().as_ref()) {
                    directories.push(path);
                }
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The directories of the workspace's crates, from the list of members in the root manifest.
///
/// # Errors
/// When the manifest cannot be read.
pub fn crate_directories(root: &Path) -> io::Result<Vec<PathBuf>> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let members = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let names = members.map_or("", |(members, _)| members).split('"').skip(1).step_by(2);
    Ok(names.map(|name| root.join(name)).collect())
}
