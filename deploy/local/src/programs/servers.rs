//! Finds the executables of Kafka, Postgres and Redis.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::data::cache_dir;
use crate::error::StackError;
use crate::process::{Account, find_on_path};

const PROVISION: &str = "run ./deploy/provision, which installs it where it may";
const OLDEST_POSTGRES: u32 = 15;
const KAFKA: &str = "kafka-4.3.1";

/// The server executables of this machine.
#[derive(Clone, Debug)]
pub(crate) struct ServerPrograms {
    pub(crate) postgres_bin: PathBuf,
    pub(crate) postgres_major: u32,
    /// Set when running as root.
    pub(crate) postgres_account: Option<Account>,
    pub(crate) redis: PathBuf,
    pub(crate) java: PathBuf,
    pub(crate) kafka_libs: PathBuf,
}

impl ServerPrograms {
    pub(crate) fn find() -> Result<Self, StackError> {
        let (postgres_bin, postgres_major) = find_postgres()?;
        let kafka_libs = cache_dir().join(KAFKA).join("libs");
        if !kafka_libs.is_dir() {
            let what = format!("Kafka ({})", kafka_libs.display());
            return Err(StackError::Missing { what, remedy: "run ./deploy/provision, which downloads it" });
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

fn require(name: &'static str) -> Result<PathBuf, StackError> {
    find_on_path(name).ok_or(StackError::Missing { what: name.to_owned(), remedy: PROVISION })
}

fn find_java() -> Result<PathBuf, StackError> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.filter(|java| java.is_file()).map_or_else(|| require("java"), Ok)
}

/// The newest server executables, with their major version.
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
    fn the_major_version_is_parsed_from_every_version_format() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 17.2"), Some(17));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("nonsense"), None);
    }
}
