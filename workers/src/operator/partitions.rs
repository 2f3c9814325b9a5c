//! `workers partitions`: formats the status of the partitions as a table and as JSON.

use serde_json::{Value, json};

use super::escape;
use super::survey::PartitionStatus;

const HEADER: [&str; 9] =
    ["PARTITION", "OWNER", "EPOCH", "WRITE", "NEXT", "LOG", "LAG", "UNPUBLISHED", "STATE"];

/// One line per partition, in columns.
pub(crate) fn table(statuses: &[PartitionStatus]) -> String {
    let rows: Vec<[String; 9]> = statuses.iter().map(cells).collect();
    let header = HEADER.map(str::to_owned);
    let mut widths = [0; 9];
    for row in rows.iter().chain([&header]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in [&header].into_iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(status: &PartitionStatus) -> [String; 9] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = status.row.as_ref();
    let log = status.found.as_ref().map(|found| format!("{}..{}", found.low, found.high));
    [
        status.partition.to_string(),
        or_dash(row.and_then(|row| row.owner.as_ref()).map(|owner| escape::text(owner.as_bytes(), 40))),
        or_dash(row.map(|row| row.epoch.to_string())),
        or_dash(row.map(|row| row.write_no.to_string())),
        or_dash(row.map(|row| row.position.next_offset.to_string())),
        or_dash(log),
        or_dash(lag(status).map(|lag| lag.to_string())),
        or_dash(row.map(|row| row.unacknowledged.to_string())),
        match &status.verdict {
            Ok(()) if row.is_none() => "never owned".to_owned(),
            Ok(()) => "healthy".to_owned(),
            Err(reason) => format!("STOPPED: {reason}"),
        },
    ]
}

/// Number of pending records; `None` if the state of the log is unavailable.
fn lag(status: &PartitionStatus) -> Option<i64> {
    let next = status.row.as_ref().map_or(0, |row| row.position.next_offset.0);
    status.found.as_ref().map(|found| (found.high.0 - next.max(found.low.0)).max(0))
}

/// One JSON object per line.
pub(crate) fn json(statuses: &[PartitionStatus]) -> String {
    statuses.iter().map(|status| format!("{}\n", object(status))).collect()
}

fn object(status: &PartitionStatus) -> Value {
    let row = status.row.as_ref();
    json!({
        "partition": status.partition.0,
        "owner": row.and_then(|row| row.owner.clone()),
        "epoch": row.map(|row| row.epoch),
        "write_no": row.map(|row| row.write_no.0),
        "next_offset": row.map(|row| row.position.next_offset.0),
        "log_start": status.found.as_ref().map(|found| found.low.0),
        "log_end": status.found.as_ref().map(|found| found.high.0),
        "lag": lag(status),
        "outbox_unacknowledged": row.map(|row| row.unacknowledged),
        "healthy": status.verdict.is_ok(),
        "stopped_because": status.verdict.as_ref().err(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::log_state::{LastRecord, LogState};
    use crate::kafka::topic_identity::Identity;
    use crate::operator::survey::Row;
    use coupon_core::batch::Position;
    use coupon_core::ids::{Offset, Partition, WriteNo};

    #[test]
    fn the_line_of_a_stopped_partition_has_the_reason() {
        let found =
            LogState { low: Offset(5), high: Offset(30), last: LastRecord::OutOfBounds, committed: None };
        let position = Position { next_offset: Offset(20), ..Position::default() };
        let owner = Some("w\x1b[2J".to_owned());
        let row = Row { owner, epoch: 3, write_no: WriteNo(9), position, unacknowledged: 2 };
        let status = PartitionStatus {
            partition: Partition(4),
            row: Some(row),
            found: Some(found),
            identity: Identity::Unknown,
            verdict: Err("the log was cut".to_owned()),
        };
        let never = PartitionStatus {
            partition: Partition(5),
            row: None,
            found: None,
            verdict: Ok(()),
            ..status.clone()
        };
        let text = table(&[status.clone(), never]);
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..8], ["4", "w\\u{1b}[2J", "3", "9", "20", "5..30", "10", "2"], "{text}");
        assert!(
            lines[1].ends_with("STOPPED: the log was cut") && lines[2].ends_with("never owned"),
            "{text}"
        );
        let value: Value = serde_json::from_str(&json(&[status])).unwrap();
        assert_eq!((&value["lag"], &value["healthy"]), (&json!(10), &json!(false)));
    }
}
