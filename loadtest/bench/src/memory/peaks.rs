//! How much memory each process of a stack has had at most.
//!
//! Of a process with its children: what is theirs alone, and their part of what they share (PSS), so that Postgres'
//! shared buffers count once. Looked at every second; what comes and goes in between is missed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use local_stack::Stack;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const KIB_PER_MIB: u64 = 1024;

/// See the module's documentation.
pub struct Peaks {
    enough: oneshot::Sender<()>,
    watch: JoinHandle<BTreeMap<String, u64>>,
}

impl Peaks {
    /// Looks at all children of this stack from now on.
    #[must_use]
    pub fn watch(stack: &Arc<Stack>) -> Self {
        let (enough, mut published) = oneshot::channel();
        let stack = Arc::clone(stack);
        let watch = tokio::spawn(async move {
            let mut peaks = BTreeMap::new();
            loop {
                look(&stack, &mut peaks);
                tokio::select! {
                    _ = &mut published => break,
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                }
            }
            look(&stack, &mut peaks);
            peaks
        });
        Self { enough, watch }
    }

    /// Stops, and returns the peak of each child in MiB.
    pub async fn end(self) -> BTreeMap<String, u64> {
        let Self { enough, watch } = self;
        drop(enough);
        watch.await.unwrap_or_default()
    }
}

fn look(stack: &Stack, peaks: &mut BTreeMap<String, u64>) {
    for child in stack.children() {
        let now = stack.pid(child).map_or(0, of_tree) / KIB_PER_MIB;
        let peak = peaks.entry(child.to_string()).or_default();
        *peak = now.max(*peak);
    }
}

/// Memory of a process and its children now, in KiB; 0 for one that is gone.
#[must_use]
pub fn of_tree(pid: i32) -> u64 {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|other| *other == pid || parent(*other) == Some(pid)).map(of).sum()
}

/// The most that a process has had resident so far, by the kernel's own count, in KiB.
#[must_use]
pub fn most_resident(pid: i32) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

/// Without proportional figures from the kernel, all resident memory counts.
fn of(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let part = rollup.and_then(|text| field(&text, "Pss:"));
    let resident = || field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:");
    part.or_else(resident).unwrap_or(0)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// `Name:   123 kB`
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_what_is_shared_is_read() {
        let text = "Rss:  10 kB\nPss:  7 kB\nPss_Dirty:  3 kB\n";
        assert_eq!((field(text, "Pss:"), field(text, "Swap:")), (Some(7), None));
    }

    #[test]
    fn what_this_process_takes_is_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = of_tree(own);
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(of_tree(own) > before + (32 << 10), "{before} KiB, then {} KiB", of_tree(own));
        assert!(most_resident(own).unwrap() >= 64 << 10);
        drop(taken);
    }
}
