//! Builds what a test is about to start, so that it is never stale.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::StackError;
use crate::logs::telling_line;

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// Unoptimised, with assertions; what `cargo test` builds.
    Dev,
    /// Optimised.
    Release,
}

type Executables = BTreeMap<String, PathBuf>;

/// Builds the workspace's programs with these features and answers the executables of `packages`, in their order.
///
/// The whole workspace is built, not only the packages, because then cargo settles on the same features of shared
/// dependencies as `cargo test --workspace` does, and hardly compiles anything again. Once per process and set of
/// features. The executables are linked to a place of their own, where a build with other features does not replace
/// them between two starts.
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
    // Held while building: who asks meanwhile wants the same.
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
    // From the source tree: the caller may stand anywhere.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bins", "--locked", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    if !features.is_empty() {
        command.args(["--features", features]);
    }
    // What cargo told a test about its package: build scripts that look at it (of ring) would run again, and everything
    // that depends on them would be built again.
    let of_a_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_a_package)) {
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
        let last_line = telling_line(&String::from_utf8_lossy(&output.stderr));
        return Err(StackError::Tool { what: "cargo build", last_line });
    }
    let place = format!("{profile:?} {features}").to_lowercase().replace(|c: char| !c.is_alphanumeric(), "-");
    executables(&output.stdout)
        .map(|(package, built)| {
            let kept = keep(&built, &place).map_err(StackError::io("cannot link", &built))?;
            Ok((package, kept))
        })
        .collect()
}

/// One line of cargo's report; all but artifacts are of no interest.
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

/// Links the executable into `<profile>/stack/<place>/`, atomically.
fn keep(built: &Path, place: &str) -> io::Result<PathBuf> {
    let (Some(dir), Some(name)) = (built.parent(), built.file_name()) else {
        return Err(io::Error::other("no such path"));
    };
    let dir = dir.join("stack").join(place);
    fs::create_dir_all(&dir)?;
    let (kept, aside) = (dir.join(name), dir.join(format!(".new-{}", std::process::id())));
    fs::hard_link(built, &aside).or_else(|_| fs::copy(built, &aside).map(|_| ()))?;
    fs::rename(&aside, &kept)?;
    // Renaming one link of a file over another link of the same file leaves both.
    fs::remove_file(&aside).ok();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_report_and_other_lines_are_skipped() {
        let report = br#"{"reason":"compiler-artifact","target":{"name":"schemas"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"workers"},"executable":"/t/debug/workers"}
{"reason":"build-finished","success":true}
"#;
        let found: Vec<_> = executables(report).collect();
        assert_eq!(found, [("workers".to_owned(), PathBuf::from("/t/debug/workers"))]);
    }

    #[test]
    fn a_kept_program_survives_a_build_with_other_features() {
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
