//! `workers partitions`: the survey, for people and for programs.

use serde_json::{Value, json};

use super::harmless;
use super::survey::Seen;

const HEAD: [&str; 9] = ["PARTITION", "OWNER", "EPOCH", "WRITE", "NEXT", "LOG", "LAG", "UNTOLD", "STATE"];

/// One line for each partition, in columns.
pub(crate) fn table(seen: &[Seen]) -> String {
    let rows: Vec<[String; 9]> = seen.iter().map(cells).collect();
    let head = HEAD.map(str::to_owned);
    let mut widths = [0; 9];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in [&head].into_iter().chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(seen: &Seen) -> [String; 9] {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = seen.row.as_ref();
    let log = seen.found.as_ref().map(|found| format!("{}..{}", found.low, found.high));
    [
        seen.partition.to_string(),
        or_dash(row.and_then(|row| row.owner.as_ref()).map(|owner| harmless::text(owner.as_bytes(), 40))),
        or_dash(row.map(|row| row.epoch.to_string())),
        or_dash(row.map(|row| row.write_no.to_string())),
        or_dash(row.map(|row| row.position.next_offset.to_string())),
        or_dash(log),
        or_dash(lag(seen).map(|lag| lag.to_string())),
        or_dash(row.map(|row| row.unacknowledged.to_string())),
        match &seen.verdict {
            Ok(()) if row.is_none() => "never owned".to_owned(),
            Ok(()) => "in order".to_owned(),
            Err(why) => format!("STOPS: {why}"),
        },
    ]
}

/// Records that are not decided; `None` where nobody can say.
fn lag(seen: &Seen) -> Option<i64> {
    let next = seen.row.as_ref().map_or(0, |row| row.position.next_offset.0);
    seen.found.as_ref().map(|found| (found.high.0 - next.max(found.low.0)).max(0))
}

/// One object a line.
pub(crate) fn json(seen: &[Seen]) -> String {
    seen.iter().map(|seen| format!("{}\n", object(seen))).collect()
}

fn object(seen: &Seen) -> Value {
    let row = seen.row.as_ref();
    json!({
        "partition": seen.partition.0,
        "owner": row.and_then(|row| row.owner.clone()),
        "epoch": row.map(|row| row.epoch),
        "write_no": row.map(|row| row.write_no.0),
        "next_offset": row.map(|row| row.position.next_offset.0),
        "log_start": seen.found.as_ref().map(|found| found.low.0),
        "log_end": seen.found.as_ref().map(|found| found.high.0),
        "lag": lag(seen),
        "outbox_unacknowledged": row.map(|row| row.unacknowledged),
        "in_order": seen.verdict.is_ok(),
        "why_not": seen.verdict.as_ref().err(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Found, Last};
    use crate::operator::survey::Row;
    use crate::topic_identity::Identity;
    use coupon_core::batch::Position;
    use coupon_core::ids::{Offset, Partition, WriteNo};

    #[test]
    fn a_partition_that_would_stop_says_why_on_its_line() {
        let found = Found { low: Offset(5), high: Offset(30), last: Last::NotThere, committed: None };
        let position = Position { next_offset: Offset(20), ..Position::default() };
        let owner = Some("w\x1b[2J".to_owned());
        let row = Row { owner, epoch: 3, write_no: WriteNo(9), position, unacknowledged: 2 };
        let seen = Seen {
            partition: Partition(4),
            row: Some(row),
            found: Some(found),
            identity: Identity::Unknown,
            verdict: Err("the log was cut".to_owned()),
        };
        let never = Seen { partition: Partition(5), row: None, found: None, verdict: Ok(()), ..seen.clone() };
        let text = table(&[seen.clone(), never]);
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..8], ["4", "w\\u{1b}[2J", "3", "9", "20", "5..30", "10", "2"], "{text}");
        assert!(lines[1].ends_with("STOPS: the log was cut") && lines[2].ends_with("never owned"), "{text}");
        let value: Value = serde_json::from_str(&json(&[seen])).unwrap();
        assert_eq!((&value["lag"], &value["in_order"]), (&json!(10), &json!(false)));
    }
}
