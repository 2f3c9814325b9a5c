//! One check: read every source, then compare.
//!
//! The order of reading makes a running stack checkable, because concurrent work never looks like a violation:
//!
//! 1. The responses that clients have received so far, the group's committed offsets, and the ends of the published
//!    topics (responses, events, dead letters). All of these follow a commit, so Postgres must contain them.
//! 2. Postgres, in one snapshot.
//! 3. The ends of all topics again. Everything that Postgres has decided or published lies before them. The end of
//!    `coupon.requests` is read last: the record of every event that is read is then among the records that are read.
//!
//! What was published between the first and the second reading of the ends may be in the snapshot or may follow it: it
//! must not contradict an existing row, but may have none. Requests beyond the offsets of the snapshot are in flight.
//! With [`CheckConfig::settled`] no work may remain.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::topics::{DEAD_LETTERS, EVENTS, REQUESTS, RESPONSES};
use tokio::task::spawn_blocking;

use crate::config::CheckConfig;
use crate::error::CheckError;
use crate::history::History;
use crate::invariants::{self, clients, events, memory, offsets};
use crate::kafka::{Committed, EventsAndDeadLetters, Kafka, Log, OffsetRanges, decoder};
use crate::postgres::Snapshot;
use crate::redis;
use crate::report::Report;

/// Checks everything once.
///
/// # Errors
/// When a source cannot be read. Violations are in the report.
pub async fn check(config: &CheckConfig, history: Option<&History>) -> Result<Report, CheckError> {
    let kafka = Kafka::new(&config.kafka);
    let history_age = history.map(History::age);
    let before = Before::read(&kafka, &config.group).await?;
    let mut snapshot = Snapshot::open(&config.postgres_url).await?;
    let schemas = snapshot.schemas().await?;
    let (requests, after) = read_ends(&kafka).await?;

    let (reader, log_decoder) = (kafka.clone(), decoder(&schemas));
    let log = spawn_blocking(move || Log::read(&reader, requests, &log_decoder));
    let ledger = snapshot.read().await?;
    let mut log = log.await??;

    let settled = config.settled;
    let compared = spawn_blocking(move || {
        let mut report = Report::default();
        let ends = [&after.events, &after.dead_letters];
        let ends_before = [&before.published.events, &before.published.dead_letters];
        let published = EventsAndDeadLetters::read(&kafka, ends, ends_before, &ledger, &decoder(&schemas))?;
        log.ignore_times_of(&published.too_far_ahead);
        invariants::check_all(&ledger, &log, &published, settled, &mut report);
        let ranges = [&after.responses, &before.published.responses];
        report.responses = events::check_responses(&ledger, &kafka, ranges, &decoder(&schemas), &mut report)?;
        offsets::check_committed(&ledger, &before.committed, &mut report);
        Ok::<_, CheckError>((ledger, log, report))
    });
    let (ledger, log, mut report) = compared.await??;
    if let (Some(history), Some(age)) = (history, history_age) {
        let durable_until = if settled { Duration::MAX } else { age };
        report.given_twice += history.with_requests(|requests| {
            clients::check_history(requests, durable_until, &ledger, &log, settled, &mut report)
        });
    }
    if report.in_flight > 0 {
        let count = report.in_flight;
        report.note(format!("{count} requests are in flight: accepted, but not decided in this snapshot"));
    }
    if let Some(url) = &config.redis_url {
        redis::note_lists(url, &ledger, &mut report).await;
    }
    let probes: Vec<String> = config.worker_probes.iter().chain(&config.api_probes).cloned().collect();
    memory::check_gauges(&probes, &mut report).await;
    Ok(report)
}

/// The offsets of the topics that the workers publish.
struct Published {
    responses: OffsetRanges,
    events: OffsetRanges,
    dead_letters: OffsetRanges,
}

impl Published {
    fn read(kafka: &Kafka) -> Result<Self, CheckError> {
        let [responses, events, dead_letters] = kafka.ranges([RESPONSES, EVENTS, DEAD_LETTERS])?;
        Ok(Self { responses, events, dead_letters })
    }
}

/// What exists before the snapshot is taken.
struct Before {
    committed: BTreeMap<i32, Committed>,
    published: Published,
}

impl Before {
    async fn read(kafka: &Kafka, group: &str) -> Result<Self, CheckError> {
        let (kafka, group) = (kafka.clone(), group.to_owned());
        let read = spawn_blocking(move || {
            let committed = kafka.committed(&group, REQUESTS)?;
            Ok::<_, CheckError>(Self { committed, published: Published::read(&kafka)? })
        });
        read.await?
    }
}

/// What exists after the snapshot is taken: the log of requests, and the published topics.
async fn read_ends(kafka: &Kafka) -> Result<(OffsetRanges, Published), CheckError> {
    let kafka = kafka.clone();
    let read = spawn_blocking(move || {
        let published = Published::read(&kafka)?;
        let [requests] = kafka.ranges([REQUESTS])?;
        Ok::<_, CheckError>((requests, published))
    });
    read.await?
}
