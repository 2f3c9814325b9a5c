//! Postgres, as durable as in production: `fsync` and `synchronous_commit` are on.
//!
//! It never runs as root: under root it runs as the user `postgres`, who owns its data directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::disk;
use crate::child::Child;
use crate::context::StackContext;
use crate::error::StackError;
use crate::process::{Launch, end_postgres_in, finished};

/// Name of the port.
pub(crate) const PORT: &str = "postgres";
const USER: &str = "stampede";
const DATABASE: &str = "stampede";
/// How long the backends of a dead postmaster may take to end by themselves.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(5);

/// The URL of the database on this port, as superuser.
pub(crate) fn url(password: &str, port: u16) -> String {
    format!("postgres://{USER}:{password}@127.0.0.1:{port}/{DATABASE}")
}

/// The data directory.
pub(crate) fn home(context: &StackContext) -> PathBuf {
    context.dir.join("postgres")
}

/// Creates the cluster if it does not exist; otherwise removes what a killed postmaster left. Blocks.
pub(crate) fn prepare(context: &StackContext) -> Result<(), StackError> {
    let home = home(context);
    if home.join("PG_VERSION").exists() {
        check_version(context, &home)?;
        end_postgres_in(&home, ORPHAN_TIMEOUT);
        // No process is left, because we hold the lock of the data directory. The pid in this file may have been
        // reused, and the server would then refuse to start.
        fs::remove_file(home.join("postmaster.pid")).ok();
        return Ok(());
    }
    check_reach(context)?;
    create_cluster(context, &home)?;
    match context.config.postgres_disk_mb {
        Some(megabytes) => disk::move_tables(&home.join("base"), context.dir.path(), megabytes),
        None => Ok(()),
    }
}

pub(crate) fn launch(context: &StackContext) -> Launch {
    let port = context.port(PORT).to_string();
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
        // In the data directory, so that it is removed with it, and nothing stays in /dev/shm after a kill.
        ("dynamic_shared_memory_type", "mmap"),
    ];
    let mut settings: BTreeMap<&str, &str> = fixed.into_iter().collect();
    settings
        .extend(context.config.postgres_settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let home = home(context);
    let mut args: Vec<OsString> = vec!["-D".into(), home.clone().into()];
    args.extend(settings.iter().flat_map(|(key, value)| ["-c".into(), format!("{key}={value}").into()]));
    Launch {
        program: context.servers.postgres_bin.join("postgres"),
        args,
        env: Vec::new(),
        cwd: home,
        log: context.dir.log_file(Child::Postgres),
        pid_file: context.dir.pid_file(Child::Postgres),
        account: context.servers.postgres_account.clone(),
        // Immediate shutdown: no checkpoint, but it ends its backends and removes its System V segment.
        death_signal: "QUIT",
    }
}

fn check_version(context: &StackContext, home: &Path) -> Result<(), StackError> {
    let created_by = fs::read_to_string(home.join("PG_VERSION")).unwrap_or_default().trim().to_owned();
    let installed = context.servers.postgres_major.to_string();
    if created_by == installed { Ok(()) } else { Err(StackError::OtherVersion { created_by, installed }) }
}

/// Another user cannot reach a directory below a closed home directory, and initdb's error for it is obscure.
fn check_reach(context: &StackContext) -> Result<(), StackError> {
    let Some(account) = &context.servers.postgres_account else { return Ok(()) };
    let reachable =
        as_account(context, Path::new("test")).arg("-x").arg(context.dir.path()).current_dir("/").status();
    if reachable.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(StackError::Unreachable { dir: context.dir.path().to_path_buf(), user: account.name.clone() })
}

/// Created under a temporary name and renamed when complete: a partial cluster would not start, and would never be
/// completed.
fn create_cluster(context: &StackContext, home: &Path) -> Result<(), StackError> {
    let temporary = home.with_extension("new");
    let failed = |error| StackError::io("cannot create", &temporary)(error);
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(failed)?;
    }
    fs::create_dir(&temporary).map_err(failed)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    // Owned by a user who may read nothing else of ours.
    let password = temporary.with_extension("password");
    fs::write(&password, &context.secrets.postgres).map_err(failed)?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    if let Some(account) = &context.servers.postgres_account {
        for path in [&temporary, &password] {
            chown(path, Some(account.uid), Some(account.gid)).map_err(failed)?;
        }
    }
    let created = initdb(context, &temporary, &password).and_then(|()| create_database(context, &temporary));
    fs::remove_file(&password).map_err(failed)?;
    created?;
    fs::rename(&temporary, home).map_err(failed)
}

fn initdb(context: &StackContext, dir: &Path, password: &Path) -> Result<(), StackError> {
    let output = as_account(context, &context.servers.postgres_bin.join("initdb"))
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

/// In single-user mode, before the server listens for the first time: no client sees a cluster without the database.
fn create_database(context: &StackContext, dir: &Path) -> Result<(), StackError> {
    let single = || {
        let mut child = as_account(context, &context.servers.postgres_bin.join("postgres"))
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

fn as_account(context: &StackContext, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(account) = &context.servers.postgres_account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}
