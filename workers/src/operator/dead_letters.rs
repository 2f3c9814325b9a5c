//! `workers dead-letters list`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use chrono::DateTime;
use rdkafka::error::KafkaError;
use schemas::topics::REQUESTS;
use serde_json::json;

use super::args::{LetterId, ListArgs};
use super::letters::{Letter, Letters};
use super::{OperatorError, escape};

/// Longest key, reason or error in a line, in characters.
const MAX_IN_LINE: usize = 80;
/// The same in JSON.
const MAX_IN_JSON: usize = 1_000;

/// The formatted line of a dead letter; the value is not kept.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    at_ms: i64,
    id: LetterId,
    text: String,
}

/// The newest dead letters, as text.
pub(crate) async fn list(args: ListArgs) -> Result<String, OperatorError> {
    let read = move || -> Result<String, KafkaError> {
        let letters = Letters::open(&args.kafka)?;
        let mut newest: BinaryHeap<Reverse<Line>> = BinaryHeap::new();
        letters.all(|letter| {
            let matches =
                args.reason.as_ref().is_none_or(|reason| letter.header("reason") == reason.as_bytes());
            if let (true, Some(id)) = (matches, letter.id) {
                let text = if args.json { object(&letter, id) } else { line(&letter, id) };
                newest.push(Reverse(Line { at_ms: letter.at_ms.unwrap_or(0), id, text }));
                if newest.len() > args.limit as usize {
                    newest.pop();
                }
            }
            Ok(())
        })?;
        let mut lines: Vec<Line> = newest.into_iter().map(|line| line.0).collect();
        lines.sort_unstable();
        Ok(lines.into_iter().map(|line| line.text + "\n").collect())
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}

fn line(letter: &Letter, id: LetterId) -> String {
    let shown = |bytes: &[u8]| escape::text(bytes, MAX_IN_LINE);
    let at = letter.at_ms.and_then(DateTime::from_timestamp_millis);
    let at = at.map_or_else(|| "-".to_owned(), |at| at.format("%FT%T%.3fZ").to_string());
    let key =
        letter.key.as_deref().map_or_else(|| "no key".to_owned(), |key| format!("key \"{}\"", shown(key)));
    let length = letter.number("length").map_or_else(|| "?".to_owned(), |length| length.to_string());
    let replayable = letter
        .replayable()
        .map_or_else(|reason| format!("not replayable: {reason}"), |()| "replayable".to_owned());
    format!(
        "{id}  {at}  {}  from {REQUESTS} {}:{}  {key}  {length} bytes  {replayable}  {}",
        shown(letter.header("reason")),
        shown(letter.header("partition")),
        shown(letter.header("offset")),
        shown(letter.header("error")),
    )
}

fn object(letter: &Letter, id: LetterId) -> String {
    let text = |bytes: &[u8]| escape::text(bytes, MAX_IN_JSON);
    json!({
        "id": id.to_string(),
        "partition": id.partition,
        "offset": id.offset,
        "at_ms": letter.at_ms,
        "reason": text(letter.header("reason")),
        "error": text(letter.header("error")),
        "from_partition": letter.number("partition"),
        "from_offset": letter.number("offset"),
        "key": letter.key.as_deref().map(text),
        "length": letter.number("length"),
        "digest": text(letter.header("digest")),
        "replayable": letter.replayable().is_ok(),
        "not_replayable_because": letter.replayable().err(),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_letter_is_one_line_without_control_characters() {
        let hostile = b"\x1b[2J\r\nx".to_vec();
        let letter = Letter {
            key: Some(hostile.clone()),
            headers: ["reason", "error", "partition", "offset", "length", "digest"]
                .map(|name| (name.to_owned(), hostile.clone()))
                .into(),
            ..Letter::default()
        };
        let id = LetterId { partition: 1, offset: 2 };
        for text in [line(&letter, id), object(&letter, id)] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert!(text.contains("u{1b}[2J"), "{text}");
        }
        let other = line(&Letter::default(), id);
        assert!(other.starts_with("1:2  -  ") && other.contains("not replayable"), "{other}");
    }
}
