//! Default directories.

use std::env;
use std::path::PathBuf;

/// The default data directory: `/var/lib/stampede` for root, because Postgres' own user must be able to reach it, and
/// `$XDG_DATA_HOME/stampede` (by default below `~/.local/share`) for every other user.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/stampede");
    }
    xdg_dir("XDG_DATA_HOME", ".local/share").join("stampede")
}

/// Where `deploy/provision` stores what it downloads: `$STAMPEDE_CACHE`, by default below `$XDG_CACHE_HOME` or
/// `~/.cache`.
pub(crate) fn cache_dir() -> PathBuf {
    match env::var_os("STAMPEDE_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => xdg_dir("XDG_CACHE_HOME", ".cache").join("stampede"),
    }
}

fn xdg_dir(variable: &str, below_home: &str) -> PathBuf {
    if let Some(dir) = env::var_os(variable).filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    env::var_os("HOME").map_or_else(env::temp_dir, PathBuf::from).join(below_home)
}
