//! The description of the machine, without which a figure means nothing.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use nix::sys::statfs::{FsType, statfs};
use sqlx::PgConnection;

use crate::BenchError;

/// File systems in memory, on which nothing is durable: figures on them are rejected.
const IN_MEMORY: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
const ON_DISK: [(i64, &str); 6] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
];
/// What decides whether a commit is durable, and how expensive that is.
const SETTINGS: [&str; 6] =
    ["fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_wal_size"];

/// Processors, memory, kernel.
#[must_use]
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(name)?.split_once(':').map(|(_, value)| value.trim().to_owned())
        })
    };
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024 / 1024);
    let cores = available_parallelism().map_or(1, usize::from);
    format!("{cores} × {model}, {memory} GiB, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// The file system that holds `path`.
///
/// # Errors
/// [`BenchError::InMemory`] for one that keeps nothing.
pub fn file_system(path: &Path) -> Result<String, BenchError> {
    let kind = statfs(path).map_err(std::io::Error::from)?.filesystem_type();
    if let Some((_, name)) = named(&IN_MEMORY, kind) {
        return Err(BenchError::InMemory { path: path.to_path_buf(), name });
    }
    Ok(named(&ON_DISK, kind).map_or_else(|| format!("{kind:?}"), |(_, name)| (*name).to_owned()))
}

fn named(known: &[(i64, &'static str)], kind: FsType) -> Option<(i64, &'static str)> {
    // The kernel's type has another width on some architectures; the number is 32 bits on all of them.
    known.iter().copied().find(|(magic, _)| i128::from(kind.0) & 0xffff_ffff == i128::from(*magic))
}

/// The settings of Postgres that concern durability.
///
/// # Errors
/// When it does not response, or when a commit is not durable.
pub async fn durability(connection: &mut PgConnection) -> Result<String, BenchError> {
    let version: String = sqlx::query_scalar("show server_version").fetch_one(&mut *connection).await?;
    let mut out = format!("PostgreSQL {version}");
    for name in SETTINGS {
        let value: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&mut *connection).await?;
        if ["fsync", "synchronous_commit"].contains(&name) && value != "on" {
            return Err(BenchError::NotDurable { name, value });
        }
        out.push_str(&format!(", {name} = {value}"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_distinguished_from_disk() {
        assert!(matches!(file_system(Path::new("/dev/shm")), Err(BenchError::InMemory { .. })));
        assert!(file_system(Path::new("/var/tmp")).is_ok());
        assert!(describe().contains(" GiB"));
    }
}
