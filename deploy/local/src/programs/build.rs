//! Builds the programs that a test starts, so that they are up to date.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::error::StackError;
use crate::process::relevant_line;

/// The cargo profile of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// Unoptimised, with assertions: the profile of `cargo test`.
    Dev,
    /// Optimised.
    Release,
}

type Executables = BTreeMap<String, PathBuf>;

/// Builds the programs of the workspace with these features, and returns the executables of `packages`, in their order.
///
/// Builds the whole workspace, not only the packages: cargo then unifies the features of shared dependencies as in
/// `cargo test --workspace`, and compiles hardly anything again. Builds once per process and set of features. Each
/// executable is hard-linked into a directory of its own, where a build with other features does not replace it between
/// two starts.
///
/// # Errors
/// When cargo is missing, the build fails, or a package has no executable.
pub async fn cargo_build(
    packages: &[&str],
    features: &[&str],
    profile: Profile,
) -> Result<Vec<PathBuf>, StackError> {
    static BUILT: Mutex<BTreeMap<(String, Profile), Executables>> = Mutex::const_new(BTreeMap::new());
    let features = features.join(",");
    // Held while building: concurrent callers want the same executables.
    let mut built = BUILT.lock().await;
    let key = (features.clone(), profile);
    if !built.contains_key(&key) {
        let executables = build(&features, profile).await?;
        built.insert(key.clone(), executables);
    }
    let executables = built.get(&key);
    let path = |name: &&str| {
        executables.and_then(|all| all.get(*name)).cloned().ok_or_else(|| StackError::Tool {
            what: "cargo build",
            last_line: format!("package {name} has no executable"),
        })
    };
    packages.iter().map(path).collect()
}

async fn build(features: &str, profile: Profile) -> Result<Executables, StackError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // From the source tree: the working directory of the caller may be anywhere.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bins", "--locked", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    if !features.is_empty() {
        command.args(["--features", features]);
    }
    // Variables that cargo sets for a test. Build scripts that depend on them would run again, and everything that
    // depends on those crates would be built again.
    let is_package_variable =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_package_variable)) {
        command.env_remove(name);
    }
    let output = command
        .current_dir(workspace)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| StackError::Io { what: "cannot run cargo".to_owned(), source })?;
    if !output.status.success() {
        let last_line = relevant_line(&String::from_utf8_lossy(&output.stderr));
        return Err(StackError::Tool { what: "cargo build", last_line });
    }
    let dir_name =
        format!("{profile:?} {features}").to_lowercase().replace(|c: char| !c.is_alphanumeric(), "-");
    executables(&output.stdout)
        .map(|(package, built)| {
            let kept = keep(&built, &dir_name).map_err(StackError::io("cannot link", &built))?;
            Ok((package, kept))
        })
        .collect()
}

/// One line of cargo's output; only artifacts have an executable.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executables(report: &[u8]) -> impl Iterator<Item = (String, PathBuf)> {
    report.split(|byte| *byte == b'\n').filter_map(|line| {
        let message: Message = serde_json::from_slice(line).ok()?;
        Some((message.target?.name, message.executable?))
    })
}

/// Links the executable into `<profile>/stack/<dir_name>/`, atomically.
fn keep(built: &Path, dir_name: &str) -> io::Result<PathBuf> {
    let (Some(dir), Some(name)) = (built.parent(), built.file_name()) else {
        return Err(io::Error::other("no such path"));
    };
    let dir = dir.join("stack").join(dir_name);
    fs::create_dir_all(&dir)?;
    let (kept, temporary) = (dir.join(name), dir.join(format!(".new-{}", std::process::id())));
    fs::hard_link(built, &temporary).or_else(|_| fs::copy(built, &temporary).map(|_| ()))?;
    fs::rename(&temporary, &kept)?;
    // Renaming one hard link of a file over another link of the same file leaves both.
    fs::remove_file(&temporary).ok();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_the_output_of_cargo_and_other_lines_are_skipped() {
        let report = br#"{"reason":"compiler-artifact","target":{"name":"schemas"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"workers"},"executable":"/t/debug/workers"}
{"reason":"build-finished","success":true}
"#;
        let found: Vec<_> = executables(report).collect();
        assert_eq!(found, [("workers".to_owned(), PathBuf::from("/t/debug/workers"))]);
    }

    #[test]
    fn a_linked_executable_is_not_replaced_by_a_build_with_other_features() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("workers");
        fs::write(&built, "one").unwrap();
        let kept = keep(&built, "a").unwrap();
        assert_eq!(keep(&built, "a").unwrap(), kept);
        fs::remove_file(&built).unwrap();
        fs::write(&built, "two").unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), "one");
        assert_eq!(fs::read_dir(dir.path().join("stack/a")).unwrap().count(), 1);
    }
}
