//! The checker: holds Postgres, the topics and what clients were told against the invariants I1 to I12.
//!
//! It decides nothing with the code that it checks: from the workers it takes only the form of request ids, and the
//! codec of the records. What it knows of the rules it states itself.
//!
//! Everything is looked at as of one moment, so that a running stack can be checked too, and nothing that goes on
//! meanwhile is taken for a fault. The order of reading is what makes that so:
//!
//! 1. What clients were told so far, what the group has committed, the ends of what is told (responses, events, dead
//!    letters). All of it follows a commit, so whatever stands there must be in Postgres.
//! 2. Postgres, as of one snapshot.
//! 3. The ends of all topics again. Whatever Postgres has told, and every record that it has decided, lies before them.
//!    Those of `coupon.requests` come last: an event that is read has its record among those that are read.
//!
//! What was told between the first marks and the last may be in the snapshot, or have come after it: it must not
//! contradict the rows that are there, and may lack one. Requests beyond the snapshot's offsets are in flight. With
//! [`CheckConfig::settled`] nothing may be under way any more.
//!
//! Reading order: [`check`] here; `ledger.rs`, `frame.rs`, `rows.rs`, `codes.rs` (Postgres); `topics.rs`, `log.rs`,
//! `aside.rs` (Kafka); `history.rs`, `history_file.rs` (clients); then one file for each group of invariants: `stock.rs`, `outcomes.rs`,
//! `events.rs`, `offsets.rs`, `asked.rs`, `clients.rs`, `memory.rs`; for the life of a code `lapses.rs`, `steps.rs`,
//! `life.rs` with `shared.rs`, `timeline.rs`, `refusals.rs`, `money.rs`; and beside them `lists.rs` (Redis, which nobody
//! believes), `watch.rs` (what only time shows), `settle.rs` (waiting for rest).

mod aside;
mod asked;
mod clients;
mod codes;
mod events;
mod frame;
mod history;
mod history_file;
mod lapses;
mod ledger;
mod life;
mod lists;
mod log;
mod memory;
mod money;
mod offsets;
mod outcomes;
mod refusals;
mod report;
mod rows;
mod settle;
mod shared;
mod steps;
mod stock;
mod timeline;
mod told;
mod topics;
pub mod verify;
mod watch;

pub use history::{Answer, Asked, Entry, Heard, History, Told};
pub use history_file::HistoryUnreadable;
pub use report::{Invariant, Line, Report};
pub use settle::{Rest, ends, rest, settle};
pub use topics::TopicsUnread;
pub use watch::Watch;

use std::collections::BTreeMap;
use std::time::Duration;

use local_stack::Endpoints;
use runtime::postgres::SCHEMA_VERSION;
use schemas::topics::{DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES};
use thiserror::Error;
use tokio::task::spawn_blocking;

use aside::Aside;
use ledger::{Ledger, Snapshot};
use log::{Log, decoder};
use topics::{Committed, Kafka, Spans};

/// The consumer group of the workers, unless they are told otherwise.
pub const WORKERS: &str = "stampede-workers";

/// Where to look, and what to expect.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// Bootstrap servers.
    pub kafka: String,
    /// A user that may read the schema `stampede`.
    pub postgres_url: String,
    /// Where the lists of codes are; `None`: they are not looked at.
    pub redis_url: Option<String>,
    /// The workers' consumer group.
    pub group: String,
    /// Base URLs of the workers' probe ports; may be empty.
    pub worker_probes: Vec<String>,
    /// Base URLs of the APIs' probe ports; may be empty.
    pub api_probes: Vec<String>,
    /// Nothing is under way: every record is consumed, every outcome told.
    pub settled: bool,
}

impl CheckConfig {
    /// A stack that has nothing left to do.
    #[must_use]
    pub fn settled(endpoints: &Endpoints) -> Self {
        Self {
            kafka: endpoints.kafka.clone(),
            postgres_url: endpoints.postgres_url.clone(),
            redis_url: Some(endpoints.redis_url.clone()),
            group: WORKERS.to_owned(),
            worker_probes: endpoints.worker_probes.clone(),
            api_probes: endpoints.api_probes.clone(),
            settled: true,
        }
    }

    /// A stack at work.
    #[must_use]
    pub fn running(endpoints: &Endpoints) -> Self {
        Self { settled: false, ..Self::settled(endpoints) }
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Postgres cannot be read.
    #[error("Postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Kafka cannot be read.
    #[error(transparent)]
    Kafka(#[from] TopicsUnread),
    /// The tables are not those that this checker knows.
    #[error(
        "Postgres has {}, and this checker reads version {SCHEMA_VERSION}: use the checker of the programs that run there",
        .found.map_or("no tables of Stampede".to_owned(), |found| format!("tables of version {found}"))
    )]
    OtherSchema {
        /// The newest migration there.
        found: Option<i64>,
    },
    /// The stack is still at work.
    #[error("not settled after {waited:?}: {left}")]
    NotSettled {
        /// How long it was given.
        waited: Duration,
        /// What is left to do.
        left: String,
    },
    /// A part of the check was lost.
    #[error("the check itself broke: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

impl From<rdkafka::error::KafkaError> for CheckError {
    fn from(error: rdkafka::error::KafkaError) -> Self {
        Self::Kafka(error.into())
    }
}

/// Checks everything once.
///
/// # Errors
/// When the truth cannot be read; what is broken is in the report.
pub async fn check(config: &CheckConfig, history: Option<&History>) -> Result<Report, CheckError> {
    let kafka = Kafka::new(&config.kafka);
    let heard_before = history.map(History::age);
    let before = marks(&kafka, &config.group).await?;
    let mut snapshot = Snapshot::open(&config.postgres_url).await?;
    let registered = snapshot.schemas().await?;
    let (requests, others) = after(&kafka).await?;

    let (reader, decodes) = (kafka.clone(), decoder(&registered));
    let log = spawn_blocking(move || Log::read(&reader, requests, &decodes));
    let ledger = snapshot.read().await?;
    let log = log.await??;
    let mut report = Report::default();

    let settled = config.settled;
    let finished = spawn_blocking(move || {
        let [_, events, letters] = &others;
        let told = [&before.events, &before.letters];
        let aside = Aside::read(&kafka, [events, letters], told, &ledger, &decoder(&registered))?;
        against_each_other(&ledger, &log, &aside, settled, &mut report);
        let [responses, ..] = &others;
        let decodes = decoder(&registered);
        report.responses =
            events::told(&ledger, &kafka, responses, &before.responses, &decodes, &mut report)?;
        offsets::group_behind(&ledger, &before.committed, &mut report);
        Ok::<_, CheckError>((ledger, log, report))
    });
    let (ledger, log, mut report) = finished.await??;
    if let (Some(history), Some(before)) = (history, heard_before) {
        let before = if settled { Duration::MAX } else { before };
        report.given_twice +=
            history.look(|entries| clients::told(entries, before, &ledger, &log, settled, &mut report));
    }
    if report.in_flight > 0 {
        let count = report.in_flight;
        report.note(format!(
            "{count} requests are in flight: accepted, and not decided when this was looked at"
        ));
    }
    if let Some(url) = &config.redis_url {
        lists::look(url, &ledger, &mut report).await;
    }
    let probes: Vec<String> = config.worker_probes.iter().chain(&config.api_probes).cloned().collect();
    memory::bounded(&probes, &mut report).await;
    Ok(report)
}

fn against_each_other(ledger: &Ledger, log: &Log, aside: &Aside, settled: bool, report: &mut Report) {
    let claims = ledger.rows.iter().filter(|row| row.said == ledger::Said::Claimed);
    report.claims = claims.clone().count() as u64;
    report.redeemed = claims.filter(|row| row.state == 3).count() as u64;
    report.outcomes = ledger.rows.len() as u64 - report.claims;
    report.requests = log.count as u64;
    report.dead_letters = aside.letter_count;
    stock::counters(ledger, report);
    report.given_twice = stock::codes(ledger, report);
    stock::limits(ledger, report);
    outcomes::all_decided(ledger, log, aside, settled, report);
    outcomes::one_each(ledger, report);
    stock::deadlines(ledger, settled, report);
    let lapses = lapses::lapses(ledger, log, aside, report);
    if aside.incomplete {
        report.note("events were dropped by age: the lives of codes are unchecked".to_owned());
    } else {
        life::lives(ledger, log, &lapses, report);
        refusals::in_time(ledger, log, aside, &lapses, report);
        timeline::in_order(ledger, log, aside, &lapses, report);
    }
    money::prices(ledger, report);
    asked::granted(ledger, log, report);
    offsets::none_skipped(ledger, log, aside, settled, report);
    events::aside(ledger, log, aside, report);
    if ledger.outbox_entries > 0 {
        let entries = ledger.outbox_entries;
        if settled {
            report.broken(Invariant::I5, || format!("{entries} outbox entries are not acknowledged"));
        } else {
            report.note(format!("{entries} outbox entries are not acknowledged yet"));
        }
    }
    if aside.without_origin > 0 {
        report.note(format!("{} dead letters do not say where they are from", aside.without_origin));
    }
    if let Some((partition, span)) = log.spans.iter().find(|(_, span)| span.from > 0) {
        report.note(format!(
            "partition {partition} of the log begins with {}: what was before is unchecked",
            span.from
        ));
    }
}

/// What was there before the snapshot.
struct Before {
    responses: Spans,
    events: Spans,
    letters: Spans,
    committed: BTreeMap<i32, Committed>,
}

async fn marks(kafka: &Kafka, group: &str) -> Result<Before, CheckError> {
    let (kafka, group) = (kafka.clone(), group.to_owned());
    let marks = spawn_blocking(move || {
        let committed = kafka.committed(&group, REQUESTS)?;
        let [responses, events, letters] = spans(&kafka, [RESPONSES, EVENTS, DEAD_LETTERS])?;
        Ok::<_, CheckError>(Before { responses, events, letters, committed })
    });
    marks.await?
}

/// What is there after the snapshot: the log, and the other topics.
async fn after(kafka: &Kafka) -> Result<(Spans, [Spans; 3]), CheckError> {
    let kafka = kafka.clone();
    let marks = spawn_blocking(move || {
        let [responses, events, letters] = spans(&kafka, [RESPONSES, EVENTS, DEAD_LETTERS])?;
        let [requests] = spans(&kafka, [REQUESTS])?;
        Ok::<_, CheckError>((requests, [responses, events, letters]))
    });
    marks.await?
}

fn spans<const N: usize>(kafka: &Kafka, topics: [&str; N]) -> Result<[Spans; N], CheckError> {
    let mut found = kafka.spans(&topics)?.into_iter();
    Ok(topics.map(|_| found.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    /// Who shares code with what it checks shares its mistakes.
    #[test]
    fn the_checker_takes_nothing_from_the_workers_but_the_form_of_request_ids() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let mut files = 0;
        for file in std::fs::read_dir(directory).expect("the checker") {
            let path = file.expect("a file").path();
            let text = std::fs::read_to_string(&path).expect("its text");
            let text = text
                .replace("coupon_core::ids::RequestId", "")
                .replace("runtime::postgres::SCHEMA_VERSION", "");
            for theirs in ["coupon_core", "workers", "ingest_api", "runtime"].map(|name| format!("{name}::"))
            {
                assert!(!text.contains(&theirs), "{} uses {theirs}", path.display());
            }
            files += 1;
        }
        assert!(files > 20, "{files} files");
    }
}
