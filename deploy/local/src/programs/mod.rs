//! Finds the programs: the three servers, and our own two.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::config::cache_dir;
use crate::{Profile, StackError, cargo_build};

const PROVISION: &str = "run ./deploy/provision, which installs it where it may";
const OLDEST_POSTGRES: u32 = 15;
const KAFKA: &str = "kafka-4.3.1";

/// Where our own two programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `workers` executable.
    pub workers: PathBuf,
    /// The `ingest-api` executable.
    pub ingest_api: PathBuf,
}

impl Programs {
    /// Both in one directory, such as `target/release`.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn in_dir(dir: &Path) -> Result<Self, StackError> {
        let find = |name: &str| {
            let path = dir.join(name);
            let what = path.display().to_string();
            let remedy = "build it with cargo build --release -p workers -p ingest-api";
            if path.is_file() { Ok(path) } else { Err(StackError::Missing { what, remedy }) }
        };
        Ok(Self { workers: find("workers")?, ingest_api: find("ingest-api")? })
    }

    /// Both beside the program that asks: how the launcher finds what was built with it.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn beside_current_exe() -> Result<Self, StackError> {
        let own = env::current_exe().map_err(|source| StackError::Io {
            what: "cannot find this program's own path".to_owned(),
            source,
        })?;
        Self::in_dir(own.parent().unwrap_or(Path::new(".")))
    }

    /// Builds both, so that what is started is never stale; see [`cargo_build`].
    ///
    /// # Errors
    /// When they do not build.
    pub async fn build(features: &[&str], profile: Profile) -> Result<Self, StackError> {
        let built = cargo_build(&["workers", "ingest-api"], features, profile).await?;
        match <[PathBuf; 2]>::try_from(built) {
            Ok([workers, ingest_api]) => Ok(Self { workers, ingest_api }),
            Err(_) => {
                Err(StackError::Tool { what: "cargo build", last_line: "not both programs".to_owned() })
            }
        }
    }
}

/// The user that runs Postgres, when it is not our own.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The servers' programs on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    pub(crate) postgres_bin: PathBuf,
    pub(crate) postgres_major: u32,
    /// Set when we are root.
    pub(crate) postgres_account: Option<Account>,
    pub(crate) redis: PathBuf,
    pub(crate) java: PathBuf,
    pub(crate) kafka_libs: PathBuf,
}

impl Servers {
    pub(crate) fn find() -> Result<Self, StackError> {
        let (postgres_bin, postgres_major) = find_postgres()?;
        let kafka_libs = cache_dir().join(KAFKA).join("libs");
        if !kafka_libs.is_dir() {
            let what = format!("Kafka ({})", kafka_libs.display());
            return Err(StackError::Missing { what, remedy: "run ./deploy/provision, which fetches it" });
        }
        Ok(Self {
            postgres_bin,
            postgres_major,
            postgres_account: postgres_account()?,
            redis: require("redis-server")?,
            java: find_java()?,
            kafka_libs,
        })
    }
}

/// An executable of this name on `PATH`, or where Debian keeps those of administrators.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn require(name: &'static str) -> Result<PathBuf, StackError> {
    find_on_path(name).ok_or(StackError::Missing { what: name.to_owned(), remedy: PROVISION })
}

fn find_java() -> Result<PathBuf, StackError> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.filter(|java| java.is_file()).map_or_else(|| require("java"), Ok)
}

/// Newest server binaries, with their major version.
fn find_postgres() -> Result<(PathBuf, u32), StackError> {
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let configured = find_on_path("pg_config").and_then(|program| output_of(&program, "--bindir"));
    let on_path = find_on_path("postgres").and_then(|file| file.parent().map(Path::to_path_buf));
    debian
        .chain(configured.map(PathBuf::from))
        .chain(on_path)
        .filter(|bin| bin.join("initdb").is_file())
        .filter_map(|bin| Some((major(&output_of(&bin.join("postgres"), "--version")?)?, bin)))
        .max_by_key(|(major, _)| *major)
        .filter(|(major, _)| *major >= OLDEST_POSTGRES)
        .map(|(major, bin)| (bin, major))
        .ok_or(StackError::Missing {
            what: "the PostgreSQL server (15 or later)".to_owned(),
            remedy: PROVISION,
        })
}

/// From `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major(version: &str) -> Option<u32> {
    version.split_whitespace().nth(2)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn postgres_account() -> Result<Option<Account>, StackError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres") {
        Ok(Some(user)) => {
            Ok(Some(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
        }
        _ => Err(StackError::Missing {
            what: "the user postgres (Postgres refuses to run as root)".to_owned(),
            remedy: "create it with adduser --system postgres, or start as an ordinary user",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_form_of_version() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 17.2"), Some(17));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn a_program_of_ours_that_is_not_built_is_named_with_what_to_do() {
        let refused = Programs::in_dir(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(
            refused,
            "/nowhere/workers is missing: build it with cargo build --release -p workers -p ingest-api"
        );
    }
}
