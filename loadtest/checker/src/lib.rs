//! The checker: compares Postgres, the Kafka topics and the responses that clients received with the invariants I1 to
//! I12, from outside.
//!
//! It shares no decision logic with the code that it checks. From the workers it takes only the format of request ids
//! and the schema version, and from `schemas` the codec of the records. It states the rules itself.
//!
//! Reading order:
//!
//! 1. [`check`] in `check.rs`: what is read in which order, and why concurrent work never looks like a violation.
//! 2. `outcome.rs`: the outcome of one request, and the digests by which outcomes are compared.
//! 3. The sources: `postgres/`, `kafka/`, `history/` (clients), `redis.rs`.
//! 4. `invariants/`: one file for each group of invariants.
//! 5. `settle.rs` (wait for a stack without work), `watch.rs` (what only repeated reads show), `verify/` (the program).

mod check;
mod collections;
mod config;
mod error;
mod history;
mod invariants;
mod kafka;
mod outcome;
mod postgres;
mod redis;
mod report;
mod settle;
pub mod verify;
mod watch;

pub use check::check;
pub use config::{CheckConfig, WORKERS};
pub use error::CheckError;
pub use history::{
    ApiResponse, ClientRequest, History, HistoryError, Received, ReceivedResponse, RequestHandle,
};
pub use kafka::TopicReadError;
pub use postgres::SnapshotError;
pub use report::{Invariant, Line, Report};
pub use settle::settle;
pub use watch::Watch;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The source files of a folder and its subfolders, with their text.
    fn sources(folder: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).expect("text")));
            }
        }
        found
    }

    /// Shared code would share its mistakes with the checker.
    #[test]
    fn the_checker_shares_only_request_ids_and_the_schema_version_with_the_workers() {
        let sources = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
        assert!(sources.len() > 20, "{} files", sources.len());
        for (path, text) in sources {
            let text = text
                .replace("coupon_core::ids::RequestId", "")
                .replace("runtime::postgres::SCHEMA_VERSION", "");
            for name in ["coupon_core", "workers", "ingest_api", "runtime"].map(|name| format!("{name}::")) {
                assert!(!text.contains(&name), "{path} uses {name}");
            }
        }
    }
}
