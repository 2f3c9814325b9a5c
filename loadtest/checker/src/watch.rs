//! I7 over time: the positions of all partitions are read repeatedly during a run, and must only grow. A single check at
//! the end cannot detect a position that decreased and grew again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::report::{Invariant, Report};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(30);
const COLUMNS: [&str; 6] = ["epoch", "write_no", "next_offset", "time_ms", "next_emit_seq", "emitted_seq"];

/// A background task that samples the positions of all partitions.
#[derive(Debug)]
pub struct Watch {
    cancelled: CancellationToken,
    samples: Arc<AtomicUsize>,
    task: JoinHandle<Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    last: BTreeMap<i32, [i64; 6]>,
    count: usize,
    decreases: Vec<String>,
}

impl Watch {
    /// Starts the task. Postgres may be unavailable for some of the time.
    #[must_use]
    pub fn begin(postgres_url: &str) -> Self {
        let cancelled = CancellationToken::new();
        let (url, until) = (postgres_url.to_owned(), cancelled.clone());
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut samples = Samples::default();
            let mut connection = None;
            while !until.is_cancelled() {
                let sample = timeout(SAMPLE_TIMEOUT, samples.take(&url, connection));
                connection = sample.await.unwrap_or(None);
                counter.store(samples.count, Ordering::SeqCst);
                tokio::select! { () = until.cancelled() => {}, () = sleep(SAMPLE_INTERVAL) => {} }
            }
            samples
        });
        Self { cancelled, samples: count, task }
    }

    /// How many samples were taken.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples.load(Ordering::SeqCst)
    }

    /// Stops the task, and adds its result to a report.
    pub async fn end(self, report: &mut Report) {
        self.cancelled.cancel();
        let Ok(samples) = self.task.await else { return };
        report.checked(Invariant::I7, samples.count);
        for decrease in samples.decreases {
            report.violated(Invariant::I7, || decrease);
        }
    }
}

impl Samples {
    /// Takes one sample. Returns the connection if it is still usable.
    async fn take(&mut self, url: &str, connection: Option<PgConnection>) -> Option<PgConnection> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => PgConnection::connect(url).await.ok()?,
        };
        let sql = "select partition, epoch, write_no, next_offset, time_ms, next_emit_seq, emitted_seq
                     from stampede.partitions";
        let rows = sqlx::query(sql).fetch_all(&mut connection).await.ok()?;
        self.count += 1;
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
        for (name, (before, now)) in COLUMNS.iter().zip(before.into_iter().zip(now)) {
            if now < before {
                self.decreases
                    .push(format!("partition {partition}: {name} decreased from {before} to {now}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_decreases_is_a_violation_and_one_that_grows_is_not() {
        let mut samples = Samples::default();
        samples.compare(3, [1, 10, 100, 1, 1, 0]);
        samples.compare(3, [2, 11, 100, 1, 1, 0]);
        samples.compare(4, [0; 6]);
        assert!(samples.decreases.is_empty());
        samples.compare(3, [2, 11, 99, 1, 1, 0]);
        assert_eq!(samples.decreases, ["partition 3: next_offset decreased from 100 to 99"]);
    }
}
