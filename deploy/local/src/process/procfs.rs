//! What `/proc` tells about processes that are not, or no longer, our children.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Start time of a process in clock ticks since boot. With the pid it names one process for good: pids are used again.
/// `None` when there is no such process, or only its zombie.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let fields = stat(pid)?;
    if fields.first()? == "Z" { None } else { fields.get(19)?.parse().ok() }
}

/// The fields of `/proc/<pid>/stat` from the third on: state, parent, and so forth.
fn stat(pid: Pid) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may itself hold spaces and parentheses.
    let (_, after_command) = stat.rsplit_once(") ")?;
    Some(after_command.split_whitespace().map(str::to_owned).collect())
}

fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// The processes of a Postgres data directory: its postmaster and all backends, also those whose postmaster is dead.
/// They have it as their working directory. Root in a container may not be allowed to see that of other users.
fn postgres_in(dir: &Path) -> Vec<Pid> {
    all()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
        // Not somebody's shell that happens to be there.
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("postgres")))
        .filter(|pid| start_time(*pid).is_some())
        .collect()
}

/// A System V shared memory segment.
struct Segment {
    id: String,
    attached: u32,
}

/// The segment named in `postmaster.pid`, if there is (still) one.
fn shared_memory_of(dir: &Path) -> Option<Segment> {
    let pid_file = fs::read_to_string(dir.join("postmaster.pid")).ok()?;
    let mut named = pid_file.lines().nth(6)?.split_whitespace();
    let (key, id) = (named.next()?, named.next()?);
    let segments = fs::read_to_string("/proc/sysvipc/shm").ok()?;
    let mut rows = segments.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&key) && row.get(1) == Some(&id))?;
    Some(Segment { id: id.to_owned(), attached: row.get(6)?.parse().ok()? })
}

/// Whether a process is attached to it: what the next postmaster itself checks before it starts, and visible to
/// everybody.
fn shared_memory_in_use(dir: &Path) -> bool {
    shared_memory_of(dir).is_some_and(|segment| segment.attached > 0)
}

/// Gives back what a killed postmaster could not. It would stay until the machine is booted again.
pub(crate) fn remove_shared_memory(dir: &Path) {
    if let Some(segment) = shared_memory_of(dir).filter(|segment| segment.attached == 0) {
        Command::new("ipcrm").args(["-m", &segment.id]).stderr(Stdio::null()).status().ok();
    }
}

/// The processes whose parent is this one.
pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    all().filter(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent))).collect()
}

/// Waits until no process of this Postgres data directory is left: backends notice the death of their postmaster only
/// after a moment, and until then the next one cannot start. After `patience` they are killed.
pub(crate) fn end_postgres_in(dir: &Path, patience: Duration) {
    let polite_until = Instant::now() + patience;
    let give_up_at = polite_until + Duration::from_secs(5);
    loop {
        let left = postgres_in(dir);
        let gone = left.is_empty() && !shared_memory_in_use(dir);
        if gone || Instant::now() > give_up_at {
            return;
        }
        if Instant::now() > polite_until {
            for pid in left {
                signal::kill(pid, Signal::SIGKILL).ok();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}
