//! I7 over time: epochs, write numbers and positions of partitions are looked at again and again while something
//! happens, and must only grow. One look at the end could not tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::report::{Invariant, Report};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const LOOK_WITHIN: Duration = Duration::from_secs(30);
const NAMES: [&str; 6] = ["epoch", "write_no", "next_offset", "time_ms", "next_emit_seq", "emitted_seq"];

/// A watch over the partitions of a stack.
#[derive(Debug)]
pub struct Watch {
    ending: CancellationToken,
    looks: Arc<AtomicUsize>,
    watching: JoinHandle<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last: BTreeMap<i32, [i64; 6]>,
    looks: usize,
    back: Vec<String>,
}

impl Watch {
    /// Begins. Postgres may come and go meanwhile.
    #[must_use]
    pub fn begin(postgres_url: &str) -> Self {
        let ending = CancellationToken::new();
        let (url, until) = (postgres_url.to_owned(), ending.clone());
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let watching = tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut connection = None;
            while !until.is_cancelled() {
                connection = timeout(LOOK_WITHIN, seen.look(&url, connection)).await.unwrap_or(None);
                counted.store(seen.looks, Ordering::SeqCst);
                tokio::select! { () = until.cancelled() => {}, () = sleep(BETWEEN_LOOKS) => {} }
            }
            seen
        });
        Self { ending, looks, watching }
    }

    /// How many looks have been had.
    #[must_use]
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    /// Ends, and adds what was seen to a report.
    pub async fn end(self, report: &mut Report) {
        self.ending.cancel();
        let Ok(seen) = self.watching.await else { return };
        report.checked(Invariant::I7, seen.looks);
        for back in seen.back {
            report.broken(Invariant::I7, || back);
        }
    }
}

impl Seen {
    /// One look; gives the connection back if it is still good.
    async fn look(&mut self, url: &str, connection: Option<PgConnection>) -> Option<PgConnection> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => PgConnection::connect(url).await.ok()?,
        };
        let sql = "select partition, epoch, write_no, next_offset, time_ms, next_emit_seq, emitted_seq
                     from stampede.partitions";
        let rows = sqlx::query(sql).fetch_all(&mut connection).await.ok()?;
        self.looks += 1;
        for row in rows {
            let mut now = [0; 6];
            for (column, value) in now.iter_mut().enumerate() {
                *value = row.try_get(column + 1).ok()?;
            }
            self.compare(row.try_get(0).ok()?, now);
        }
        Some(connection)
    }

    fn compare(&mut self, partition: i32, now: [i64; 6]) {
        let Some(before) = self.last.insert(partition, now) else { return };
        for (name, (before, now)) in NAMES.iter().zip(before.into_iter().zip(now)) {
            if now < before {
                self.back.push(format!("partition {partition}: {name} went from {before} back to {now}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_goes_back_is_seen_and_one_that_grows_is_not() {
        let mut seen = Seen::default();
        seen.compare(3, [1, 10, 100, 1, 1, 0]);
        seen.compare(3, [2, 11, 100, 1, 1, 0]);
        seen.compare(4, [0; 6]);
        assert!(seen.back.is_empty());
        seen.compare(3, [2, 11, 99, 1, 1, 0]);
        assert_eq!(seen.back, ["partition 3: next_offset went from 100 back to 99"]);
    }
}
