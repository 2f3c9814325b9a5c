//! Postgres, with the durability it has in production: `fsync` and `synchronous_commit` are on.
//!
//! It never runs as root: when we are root, it runs as the user `postgres`, to whom its data directory belongs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::logs::telling_line;
use crate::process::{Launch, lock};
use crate::stack::Site;
use crate::{Child, StackError, disk, procfs};

pub(crate) const PORT: &str = "postgres";
pub(crate) const USER: &str = "stampede";
pub(crate) const DATABASE: &str = "stampede";
/// How long the backends of a dead postmaster get to notice.
const ORPHANS_GET: Duration = Duration::from_secs(5);

/// The data directory.
pub(crate) fn home(site: &Site) -> PathBuf {
    site.dir.join("postgres")
}

/// Makes the cluster if there is none, and clears away what a killed postmaster left. Blocks.
pub(crate) fn prepare(site: &Site) -> Result<(), StackError> {
    let home = home(site);
    if home.join("PG_VERSION").exists() {
        check_version(site, &home)?;
        procfs::end_postgres_in(&home, ORPHANS_GET);
        // Nobody is left (we hold the directory's lock), but the pid in this file may be somebody else's by now, and
        // then the server would refuse to start.
        fs::remove_file(home.join("postmaster.pid")).ok();
        return Ok(());
    }
    check_reach(site)?;
    create_cluster(site, &home)?;
    disk::prepare(site)
}

pub(crate) fn launch(site: &Site) -> Launch {
    let port = lock(&site.ports).get(PORT).to_string();
    let fixed = [
        ("listen_addresses", "127.0.0.1"),
        ("port", port.as_str()),
        ("unix_socket_directories", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "15min"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        // In the data directory, so that it goes with it, and nothing stays in /dev/shm after a kill.
        ("dynamic_shared_memory_type", "mmap"),
    ];
    let mut settings: BTreeMap<&str, &str> = fixed.into_iter().collect();
    settings.extend(site.config.postgres_settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let home = home(site);
    let mut args: Vec<OsString> = vec!["-D".into(), home.clone().into()];
    args.extend(settings.iter().flat_map(|(key, value)| ["-c".into(), format!("{key}={value}").into()]));
    Launch {
        program: site.servers.postgres_bin.join("postgres"),
        args,
        env: Vec::new(),
        cwd: home,
        log: site.dir.log_file(Child::Postgres),
        pid_file: site.dir.pid_file(Child::Postgres),
        account: site.servers.postgres_account.clone(),
        // Immediate shutdown: no checkpoint, but it ends its backends and gives back its System V segment.
        death_signal: "QUIT",
    }
}

fn check_version(site: &Site, home: &Path) -> Result<(), StackError> {
    let made_by = fs::read_to_string(home.join("PG_VERSION")).unwrap_or_default().trim().to_owned();
    let found = site.servers.postgres_major.to_string();
    if made_by == found { Ok(()) } else { Err(StackError::OtherVersion { made_by, found }) }
}

/// A directory below a closed home is out of reach for another user, and initdb's own words for it are obscure.
fn check_reach(site: &Site) -> Result<(), StackError> {
    let Some(account) = &site.servers.postgres_account else { return Ok(()) };
    let reached =
        as_account(site, Path::new("test")).arg("-x").arg(site.dir.path()).current_dir("/").status();
    if reached.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(StackError::Unreachable { dir: site.dir.path().to_path_buf(), user: account.name.clone() })
}

/// Aside and renamed when complete: half a cluster would never start, and never be made again.
fn create_cluster(site: &Site, home: &Path) -> Result<(), StackError> {
    let aside = home.with_extension("new");
    let failed = |error| StackError::io("cannot create", &aside)(error);
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(failed)?;
    }
    fs::create_dir(&aside).map_err(failed)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    // Of a user who may read nothing else of ours.
    let password = aside.with_extension("password");
    fs::write(&password, &site.secrets.postgres).map_err(failed)?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    if let Some(account) = &site.servers.postgres_account {
        for path in [&aside, &password] {
            chown(path, Some(account.uid), Some(account.gid)).map_err(failed)?;
        }
    }
    let made = initdb(site, &aside, &password).and_then(|()| create_database(site, &aside));
    fs::remove_file(&password).map_err(failed)?;
    made?;
    fs::rename(&aside, home).map_err(failed)
}

fn initdb(site: &Site, dir: &Path, password: &Path) -> Result<(), StackError> {
    let output = as_account(site, &site.servers.postgres_bin.join("initdb"))
        .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"])
        .arg("--pwfile")
        .arg(password)
        .arg("-D")
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .output();
    finished("initdb", output)
}

/// Before the server ever listens, in single-user mode: nobody sees a cluster without the database.
fn create_database(site: &Site, dir: &Path) -> Result<(), StackError> {
    let single = || {
        let mut child = as_account(site, &site.servers.postgres_bin.join("postgres"))
            .args(["--single", "-D"])
            .arg(dir)
            .arg("postgres")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            writeln!(input, "CREATE DATABASE {DATABASE};")?;
        }
        child.wait_with_output()
    };
    finished("creating the database", single())
}

pub(crate) fn finished(what: &'static str, output: std::io::Result<Output>) -> Result<(), StackError> {
    let output = output.map_err(|source| StackError::Io { what: format!("cannot run {what}"), source })?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    Err(StackError::Tool { what, last_line: telling_line(&String::from_utf8_lossy(&words)) })
}

fn as_account(site: &Site, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(account) = &site.servers.postgres_account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}
