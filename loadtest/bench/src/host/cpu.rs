//! CPU time by process, from /proc: the cost of a claim, independent of wall-clock time.

use std::fs;
use std::time::Duration;

/// Linux reports CPU time to user space in these, on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time of one process and of its children, those that have ended included.
///
/// Zero for a process that is gone.
#[must_use]
pub fn of_tree(pid: i32) -> Duration {
    let own = Stat::read(pid).map_or(0, |stat| stat.own + stat.ended_children);
    let children = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Stat::read)
        .filter(|stat| stat.parent == pid);
    ticks(own + children.map(|stat| stat.own + stat.ended_children).sum::<u64>())
}

/// CPU time of this process, without children.
#[must_use]
pub fn of_this_process() -> Duration {
    ticks(i32::try_from(std::process::id()).ok().and_then(Stat::read).map_or(0, |stat| stat.own))
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS_PER_SECOND)
}

struct Stat {
    parent: i32,
    own: u64,
    ended_children: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc(5). The name, in parentheses, may hold anything: fields are counted from behind it.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: number(11)? + number(12)?,
            ended_children: number(13)? + number(14)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_whatever_the_process_is_called() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 100 1 2";
        let stat = Stat::parse(line).expect("a stat line");
        assert_eq!((stat.parent, stat.own, stat.ended_children), (7, 110, 15));
        assert!(Stat::parse("nonsense").is_none());
    }

    #[test]
    fn a_process_that_works_is_seen_to_work() {
        let before = of_this_process();
        let mut sum = 0_u64;
        while of_this_process() == before {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        assert!(of_this_process() > before);
    }
}
