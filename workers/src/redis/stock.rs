//! Cache lists of codes in Redis.
//!
//! Nothing read from Redis is trusted: the owner compares every entry's number with its own counters and invalidates the
//! list at the first mismatch, and a seal proves that this process pushed the entry onto this list. No call is retried;
//! an uncertain result is `Unknown`. Unused lists are deleted; a list that is not deleted (its owner was killed, Redis
//! was down) expires.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coupon_core::ids::CodeNumber;
use coupon_core::interface::{CacheListName, CodeEntry, Pop, Popped, RefillResult};
use futures::future::{BoxFuture, FutureExt as _};
use redis::aio::ConnectionManager;
use redis::{Pipeline, Value};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::crash_points::{Point, pass};
use crate::metrics;
use crate::ports::Stock;

/// Codes per `RPUSH`: a long command blocks others.
const CODES_PER_PUSH: usize = 1_000;
/// Lists per `UNLINK`.
const LISTS_PER_UNLINK: usize = 500;
/// `UNLINK` is retried: it is idempotent.
const UNLINK_ATTEMPTS: u32 = 3;
/// Expiry of a list whose owner was killed. Each refill renews it; a list that expires while its owner is idle costs a read
/// from Postgres.
const LIST_TTL_SECONDS: u64 = 900;
/// Time limit of a call, with the time to connect again.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a shutdown waits for lists that are being deleted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The stock of this process.
pub struct RedisStock {
    connection: ConnectionManager,
    /// Seeds the seals. Lists are popped only by the process that has filled them, so no other process needs it.
    secret: u64,
    deletions: Mutex<JoinSet<()>>,
}

impl RedisStock {
    /// Uses this connection, which reconnects by itself and sends no command twice.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection, secret: rand::random(), deletions: Mutex::default() }
    }

    async fn query(&self, call: &'static str, pipeline: &Pipeline) -> Option<Vec<Value>> {
        let mut connection = self.connection.clone();
        let query = pipeline.query_async::<Vec<Value>>(&mut connection);
        let error = match tokio::time::timeout(CALL_TIMEOUT, query).await {
            Ok(Ok(replies)) => return Some(replies),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no response within {CALL_TIMEOUT:?}"),
        };
        ::metrics::counter!(metrics::REDIS_FAILURES, "call" => call).increment(1);
        tracing::warn!(error, call, "Redis failed: reading codes from Postgres instead");
        None
    }

    /// Waits for a bounded time until running deletions are done. Call it before the process ends.
    pub async fn drain(&self) {
        let mut deletions = std::mem::take(&mut *self.lock());
        let all = async { while deletions.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
            tracing::debug!("lists not deleted in time: they expire");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes lists. A list that no longer exists is not an error.
async fn unlink(mut connection: ConnectionManager, lists: Vec<CacheListName>) {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for lists in lists.chunks(LISTS_PER_UNLINK) {
        let unlink = pipeline.cmd("UNLINK");
        for list in lists {
            unlink.arg(key(list));
        }
    }
    for attempt in 1..=UNLINK_ATTEMPTS {
        let Err(error) = pipeline.query_async::<Vec<Value>>(&mut connection).await else { break };
        tracing::debug!(%error, attempt, lists = lists.len(), "lists not deleted: they expire");
    }
    pass(Point::AfterDeleteLists).await;
}

impl Stock for RedisStock {
    fn pop(&self, pops: Vec<Pop>) -> BoxFuture<'_, Vec<Popped>> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            for pop in &pops {
                pipeline.cmd("LPOP").arg(key(&pop.list)).arg(pop.count);
            }
            let replies = self.query("pop", &pipeline).await.filter(|replies| replies.len() == pops.len());
            replies.map_or_else(
                || vec![Popped::Unknown; pops.len()],
                |replies| {
                    let seals = pops.iter().map(|pop| Seal::of(&pop.list, self.secret));
                    replies.iter().zip(seals).map(|(reply, seal)| popped(reply, seal)).collect()
                },
            )
        }
        .boxed()
    }

    fn append(&self, list: CacheListName, codes: Vec<CodeEntry>) -> BoxFuture<'_, RefillResult> {
        async move {
            let Some(last) = codes.last().map(|code| code.number) else {
                return RefillResult::Refilled { count: 0, last: CodeNumber(0) };
            };
            let (key, seal) = (key(&list), Seal::of(&list, self.secret));
            let mut chunks = codes.chunks(CODES_PER_PUSH);
            let mut first = redis::pipe();
            first.ignore_errors();
            // In one transaction: a list whose owner dies between the two would never expire.
            first.cmd("MULTI");
            push(&mut first, "RPUSH", &key, seal, chunks.next().unwrap_or_default());
            first.cmd("EXPIRE").arg(&key).arg(LIST_TTL_SECONDS).cmd("EXEC");
            let Some(created) = self.query("refill", &first).await else { return RefillResult::Unknown };
            pass(Point::AmidRefill).await;
            let mut rest = redis::pipe();
            rest.ignore_errors();
            // Only onto an existing list: its owner cannot have popped it empty, so a missing one was flushed or evicted.
            chunks.for_each(|chunk| push(&mut rest, "RPUSHX", &key, seal, chunk));
            let pushed = match rest.is_empty() {
                true => Some(Vec::new()),
                false => self.query("refill", &rest).await,
            };
            let Some(pushed) = pushed else { return RefillResult::Unknown };
            let lengths: Vec<Value> = created_length(&created).into_iter().chain(pushed).collect();
            if lengths_match(&lengths, codes.len()) {
                return RefillResult::Refilled { count: codes.len(), last };
            }
            ::metrics::counter!(metrics::REDIS_FAILURES, "call" => "refill").increment(1);
            tracing::warn!(
                key,
                ?lengths,
                "unexpected list length, maybe flushed: reading codes from Postgres instead"
            );
            RefillResult::Unknown
        }
        .boxed()
    }

    fn delete_lists(&self, lists: Vec<CacheListName>) {
        if lists.is_empty() {
            return;
        }
        let mut deletions = self.lock();
        while deletions.try_join_next().is_some() {}
        deletions.spawn(unlink(self.connection.clone(), lists));
    }
}

fn push(pipeline: &mut Pipeline, command: &str, key: &str, seal: Seal, codes: &[CodeEntry]) {
    let push = pipeline.cmd(command).arg(key);
    for code in codes {
        push.arg(seal.entry(code));
    }
}

/// The reply of `RPUSH` in a transaction that also set the expiry.
fn created_length(replies: &[Value]) -> Option<Value> {
    match replies.last() {
        Some(Value::Array(done)) => match &done[..] {
            [length, Value::Int(1)] => Some(length.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The key of a list. It belongs to one generation of one ownership, so an older owner pops from its own lists only.
fn key(list: &CacheListName) -> String {
    let CacheListName { coupon, epoch, nonce, generation } = list;
    format!("stampede:stock:{coupon}:{epoch}:{:032x}:{generation}", nonce.0)
}

/// Distinguishes the entries of one list from all others.
#[derive(Clone, Copy)]
struct Seal(u64);

impl Seal {
    fn of(list: &CacheListName, secret: u64) -> Self {
        Self(xxh3_64_with_seed(key(list).as_bytes(), secret))
    }

    /// `number|code|seal`.
    fn entry(self, code: &CodeEntry) -> String {
        let mut entry = format!("{}|{}", code.number, code.code);
        let seal = self.seal(&entry);
        entry.push('|');
        entry.push_str(&seal);
        entry
    }

    fn code(self, entry: &Value) -> Option<CodeEntry> {
        let Value::BulkString(bytes) = entry else { return None };
        let (entry, seal) = std::str::from_utf8(bytes).ok()?.rsplit_once('|')?;
        let (number, code) = entry.split_once('|').filter(|_| seal == self.seal(entry))?;
        Some(CodeEntry { number: CodeNumber(number.parse().ok()?), code: code.into() })
    }

    fn seal(self, entry: &str) -> String {
        format!("{:016x}", xxh3_64_with_seed(entry.as_bytes(), self.0))
    }
}

fn popped(reply: &Value, seal: Seal) -> Popped {
    match reply {
        Value::Nil => Popped::Codes(Vec::new()),
        Value::Array(entries) => {
            let codes = entries.iter().map(|entry| seal.code(entry)).collect::<Option<_>>();
            codes.map_or(Popped::Unknown, Popped::Codes)
        }
        _ => Popped::Unknown,
    }
}

/// A push returns the list's new length. The owner may pop during a refill, so a list may be shorter than the previous push
/// left it, but never longer than all pushes make it (another client pushes), nor shorter than what was just pushed: 0
/// means that it was flushed or evicted in between.
fn lengths_match(pushes: &[Value], codes: usize) -> bool {
    let mut left = i64::try_from(codes).unwrap_or(i64::MAX);
    let mut before = None;
    for push in pushes {
        let Value::Int(length) = push else { return false };
        let pushed = left.min(CODES_PER_PUSH as i64);
        left -= pushed;
        if *length < pushed || before.is_some_and(|before: i64| *length > before + pushed) {
            return false;
        }
        before = Some(*length);
    }
    left == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use coupon_core::ids::{CouponNo, Epoch, Nonce};

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(coupon: i64) -> CacheListName {
        CacheListName { coupon: CouponNo(coupon), epoch: Epoch(1), nonce: Nonce(1), generation: 0 }
    }

    #[test]
    fn one_invalid_entry_makes_the_result_of_a_pop_unknown() {
        let seal = Seal::of(&list(1), 7);
        let abc = CodeEntry { number: CodeNumber(12), code: "AB|C".into() };
        let own = bulk(&seal.entry(&abc));
        assert_eq!(popped(&Value::Array(vec![own.clone()]), seal), Popped::Codes(vec![abc]));
        assert_eq!(popped(&Value::Nil, seal), Popped::Codes(Vec::new()), "a missing list is an empty one");
        for invalid in ["", "ABC", "x|ABC", "|ABC", "1|A"] {
            let reply = Value::Array(vec![own.clone(), bulk(invalid)]);
            assert_eq!(popped(&reply, seal), Popped::Unknown, "{invalid}");
        }
        assert_eq!(popped(&Value::Int(3), seal), Popped::Unknown);
    }

    #[test]
    fn an_entry_of_another_list_number_or_process_is_rejected() {
        let seal = Seal::of(&list(1), 7);
        let code = |code: &str| CodeEntry { number: CodeNumber(12), code: code.into() };
        let (own, other) = (seal.entry(&code("OWN")), Seal::of(&list(2), 7).entry(&code("OTHER")));
        let (_, seal_of_own) = own.rsplit_once('|').expect("a seal");
        for foreign in [other, format!("12|OTHER|{seal_of_own}"), Seal::of(&list(1), 8).entry(&code("OWN"))] {
            let reply = Value::Array(vec![bulk(&foreign)]);
            assert_eq!(popped(&reply, seal), Popped::Unknown, "{foreign}");
        }
    }

    #[test]
    fn a_refill_is_certain_only_if_every_length_matches() {
        let replies = |lengths: &[i64]| lengths.iter().map(|length| Value::Int(*length)).collect::<Vec<_>>();
        assert!(lengths_match(&replies(&[10]), 10));
        assert!(lengths_match(&replies(&[17]), 10), "the list was not empty");
        assert!(lengths_match(&replies(&[1_005, 2_005, 2_105]), 2_100));
        assert!(lengths_match(&replies(&[9_005, 9_655, 9_255]), 2_100), "its owner pops during the refill");
        assert!(!lengths_match(&replies(&[1_005, 2_006, 2_106]), 2_100), "another client pushes");
        assert!(!lengths_match(&replies(&[1_005, 0, 0]), 2_100), "flushed in between");
        assert!(!lengths_match(&replies(&[9]), 10));
        assert!(!lengths_match(&replies(&[1_000]), 2_100), "a reply is missing");
        assert!(!lengths_match(&[Value::Nil], 10));
        assert!(!lengths_match(&[], 10));
    }

    #[test]
    fn a_list_is_created_together_with_its_expiry_or_not_at_all() {
        let queued = || Value::SimpleString("QUEUED".to_owned());
        let created = |result| created_length(&[Value::Okay, queued(), queued(), result]);
        assert_eq!(created(Value::Array(vec![Value::Int(10), Value::Int(1)])), Some(Value::Int(10)));
        assert_eq!(created(Value::Array(vec![Value::Int(10), Value::Int(0)])), None, "it would never expire");
        assert_eq!(created(Value::Nil), None);
        assert_eq!(created_length(&[]), None);
    }

    #[test]
    fn two_ownerships_never_share_a_list() {
        let list = |epoch, nonce| {
            key(&CacheListName {
                coupon: CouponNo(1),
                epoch: Epoch(epoch),
                nonce: Nonce(nonce),
                generation: 0,
            })
        };
        assert_ne!(list(1, 1), list(2, 1));
        assert_ne!(list(1, 1), list(1, 2));
    }
}
