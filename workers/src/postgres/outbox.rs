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
        let decisions = self.decisions(partition, &entries).await?;
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

    /// The decisions of entries. An entry that has waited for long, or that repeats an old outcome, refers to a day of its
    /// own: then all days are searched.
    async fn decisions(
        &self,
        partition: Partition,
        entries: &[EntryRow],
    ) -> Result<HashMap<RequestId, Decision>, LedgerError> {
        let mut decisions: HashMap<RequestId, Decision> = HashMap::new();
        for days in [sqlx::query_scalar(DAYS).bind(partition.0), sqlx::query_scalar(ALL_DAYS)] {
            let ids = entries.iter().flat_map(|(.., ids, bodies)| ids_of(ids, bodies.as_deref()));
            let missing = ids.filter(|id| !decisions.contains_key(id)).map(|id| id.identity);
            let missing: Vec<u128> = missing.collect();
            if missing.is_empty() {
                break;
            }
            let days: Vec<i32> = days.fetch_all(&self.pool).await?;
            let stored = outcomes(&self.pool, &missing, &days).await?;
            decisions.extend(stored.into_iter().map(|decision| (decision.request.id, decision)));
        }
        Ok(decisions)
    }
}

/// The days before the partition's time whose outcomes an entry usually refers to, and all days that are kept.
const DAYS: &str = "
    select t.day - generate_series(0, 2) from (select (time_ms / 86400000)::int as day from stampede.partitions
                                                where partition = $1) t";
const ALL_DAYS: &str = "
    select to_date(right(c.relname, 8), 'YYYYMMDD') - date '1970-01-01'
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'stampede.outcomes'::regclass";

/// The decisions of one entry.
fn decisions_of(
    ids: &[Uuid],
    bodies: Option<&[i64]>,
    decisions: &HashMap<RequestId, Decision>,
) -> Result<Vec<Decision>, LedgerError> {
    let decision = |id| {
        let missing = || LedgerError::Unreadable(format!("no outcome of request {id}"));
        decisions.get(&id).cloned().ok_or_else(missing)
    };
    ids_of(ids, bodies).map(decision).collect()
}

fn ids_of(ids: &[Uuid], bodies: Option<&[i64]>) -> impl Iterator<Item = RequestId> {
    let body = move |n: usize| bodies.map_or(0, |bodies| bodies.get(n).copied().unwrap_or(0));
    ids.iter().enumerate().map(move |(n, id)| RequestId { identity: id.as_u128(), body: body(n) })
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
