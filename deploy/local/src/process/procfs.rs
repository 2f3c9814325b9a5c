//! What `/proc` shows about processes that are not, or no longer, our children.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// How long processes that received SIGKILL may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Start time of a process in clock ticks since boot. Together with the pid it identifies a process: pids are reused.
/// `None` when there is no such process, or only its zombie.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let fields = stat(pid)?;
    if fields.first()? == "Z" { None } else { fields.get(19)?.parse().ok() }
}

/// The fields of `/proc/<pid>/stat` from the third on: state, parent, and so forth.
fn stat(pid: Pid) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may itself contain spaces and parentheses.
    let (_, after_command) = stat.rsplit_once(") ")?;
    Some(after_command.split_whitespace().map(str::to_owned).collect())
}

fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// The processes whose parent is this one.
pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.to_string();
    all().filter(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent))).collect()
}

/// The processes of a Postgres data directory: its postmaster and all backends, including those whose postmaster has
/// died. The directory is their working directory, which root in a container may not be allowed to see.
fn postgres_in(dir: &Path) -> Vec<Pid> {
    all()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
        // Excludes a shell whose working directory it is.
        .filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("postgres")))
        .filter(|pid| start_time(*pid).is_some())
        .collect()
}

/// Waits until no process of this Postgres data directory is left: backends end a moment after their postmaster, and
/// until then the next one cannot start. After `timeout` they are killed.
pub(crate) fn end_postgres_in(dir: &Path, timeout: Duration) {
    let kill_at = Instant::now() + timeout;
    let return_at = kill_at + KILL_TIMEOUT;
    loop {
        let left = postgres_in(dir);
        let ended = left.is_empty() && !shared_memory_in_use(dir);
        if ended || Instant::now() > return_at {
            return;
        }
        if Instant::now() > kill_at {
            for pid in left {
                signal::kill(pid, Signal::SIGKILL).ok();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A System V shared memory segment.
struct Segment {
    id: String,
    attached: u32,
}

/// The segment named in `postmaster.pid`, if it still exists.
fn shared_memory_of(dir: &Path) -> Option<Segment> {
    let pid_file = fs::read_to_string(dir.join("postmaster.pid")).ok()?;
    let mut named = pid_file.lines().nth(6)?.split_whitespace();
    let (key, id) = (named.next()?, named.next()?);
    let segments = fs::read_to_string("/proc/sysvipc/shm").ok()?;
    let mut rows = segments.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&key) && row.get(1) == Some(&id))?;
    Some(Segment { id: id.to_owned(), attached: row.get(6)?.parse().ok()? })
}

/// Whether a process is attached to the segment. The next postmaster makes the same check before it starts, and every
/// user can see the result.
fn shared_memory_in_use(dir: &Path) -> bool {
    shared_memory_of(dir).is_some_and(|segment| segment.attached > 0)
}

/// Removes the segment that a killed postmaster left. It would stay until the next boot.
pub(crate) fn remove_shared_memory(dir: &Path) {
    if let Some(segment) = shared_memory_of(dir).filter(|segment| segment.attached == 0) {
        Command::new("ipcrm").args(["-m", &segment.id]).stderr(Stdio::null()).status().ok();
    }
}
