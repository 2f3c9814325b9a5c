//! Reads the outbox: batches that an earlier owner wrote and may not have published. Responses are rebuilt from the rows of
//! their outcomes, so a republished response equals the stored outcome.

use std::borrow::Cow;
use std::collections::HashMap;

use coupon_core::batch::Decision;
use coupon_core::ids::{EmitSeq, Offset, Partition, RequestId};
use sqlx::types::Json;
use uuid::Uuid;

use super::reads::outcomes::outcomes;
use super::{LedgerError, PgReader};
use crate::codec::messages::Message;
use crate::ports::OutboxEntry;

const ENTRIES: &str = "
    select seq, next_offset, ids, bodies from stampede.outbox
     where partition = $1 and seq between $2 and $3 order by seq";

const MESSAGES: &str = "
    select seq, topic, key, value, headers from stampede.outbox_messages
     where partition = $1 and seq between $2 and $3 order by seq, n";

type EntryRow = (i64, i64, Vec<Uuid>, Option<Vec<i64>>);
type MessageRow =
    (i64, String, Option<Vec<u8>>, Option<Vec<u8>>, Json<serde_json::Map<String, serde_json::Value>>);

impl PgReader {
    /// The entries `from..=to` of a partition, in order. Entries at or below the watermark may be deleted.
    ///
    /// # Errors
    /// [`LedgerError`]; [`LedgerError::Unreadable`] if an outcome is missing.
    pub async fn outbox(
        &self,
        partition: Partition,
        from: EmitSeq,
        to: EmitSeq,
    ) -> Result<Vec<OutboxEntry>, LedgerError> {
        let entries: Vec<EntryRow> =
            sqlx::query_as(ENTRIES).bind(partition.0).bind(from.0).bind(to.0).fetch_all(&self.pool).await?;
        let messages: Vec<MessageRow> =
            sqlx::query_as(MESSAGES).bind(partition.0).bind(from.0).bind(to.0).fetch_all(&self.pool).await?;
        let identities: Vec<u128> =
            entries.iter().flat_map(|entry| entry.2.iter().map(Uuid::as_u128)).collect();
        let decisions = outcomes(&self.pool, &identities).await?;
        let decisions: HashMap<RequestId, Decision> =
            decisions.into_iter().map(|d| (d.request.id, d)).collect();
        let mut messages = messages.into_iter().peekable();
        entries
            .into_iter()
            .map(|(seq, next_offset, ids, bodies)| {
                let mut entry = OutboxEntry {
                    seq: EmitSeq(seq),
                    next_offset: Offset(next_offset),
                    decisions: decisions_of(&ids, bodies.as_deref(), &decisions)?,
                    messages: Vec::new(),
                };
                while let Some(row) = messages.next_if(|row| row.0 == seq) {
                    entry.messages.push(message(row)?);
                }
                Ok(entry)
            })
            .collect()
    }
}

/// The decisions of one entry.
fn decisions_of(
    ids: &[Uuid],
    bodies: Option<&[i64]>,
    decisions: &HashMap<RequestId, Decision>,
) -> Result<Vec<Decision>, LedgerError> {
    let body = |n: usize| bodies.map_or(0, |bodies| bodies.get(n).copied().unwrap_or(0));
    let decision = |(n, id): (usize, &Uuid)| {
        let id = RequestId { identity: id.as_u128(), body: body(n) };
        let missing = || LedgerError::Unreadable(format!("no outcome of request {id}"));
        decisions.get(&id).cloned().ok_or_else(missing)
    };
    ids.iter().enumerate().map(decision).collect()
}

fn message((seq, topic, key, value, headers): MessageRow) -> Result<Message, LedgerError> {
    let topic = schemas::topics::ALL
        .iter()
        .find(|known| known.name == topic)
        .ok_or_else(|| LedgerError::Unreadable(format!("topic {topic:?} in outbox entry {seq}")))?;
    let headers = headers.0.into_iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (Cow::Owned(name), value)
    });
    Ok(Message { topic: topic.name, key, value, headers: headers.collect() })
}
