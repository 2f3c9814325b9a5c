//! Lists of codes in Redis. Nothing here is believed: the owner checks every entry's number against its own counters,
//! and abandons a list at the first doubt. What its owner is done with is thrown away, and what nobody throws away
//! (its owner was killed, Redis was not there) expires by itself. That the text is the number's own says a seal, made when the list is
//! filled: an entry that was not pushed by this process onto this list is as good as none. So a call is made once,
//! and whatever is not certain is `Unknown`.

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
use crate::seams::Stock;

/// Codes in one `RPUSH`: long commands keep others waiting.
const PUSHED_AT_ONCE: usize = 1_000;
/// Lists in one `UNLINK`.
const UNLINKED_AT_ONCE: usize = 500;
/// Throwing away twice does no harm.
const UNLINK_ATTEMPTS: u32 = 3;
/// A list whose owner was killed goes away by itself after this time. One in use is filled again, which renews it; one
/// that expires before its owner comes back to it costs a read from Postgres.
const LIST_LIVES_SECONDS: u64 = 900;
/// How long an end waits for lists that are being thrown away.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The stock of this process.
pub struct RedisStock {
    connection: ConnectionManager,
    /// Of the seals. Who pops from a list has filled it, so nobody else needs it.
    secret: u64,
    throwing_away: Mutex<JoinSet<()>>,
}

impl RedisStock {
    /// On this connection, which reconnects by itself and sends nothing twice.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection, secret: rand::random(), throwing_away: Mutex::default() }
    }

    async fn ask(&self, call: &'static str, pipeline: &Pipeline) -> Option<Vec<Value>> {
        let mut connection = self.connection.clone();
        match pipeline.query_async::<Vec<Value>>(&mut connection).await {
            Ok(answers) => Some(answers),
            Err(error) => {
                ::metrics::counter!(metrics::REDIS_FAILURES, "call" => call).increment(1);
                tracing::warn!(%error, call, "Redis did not answer: reading codes from Postgres instead");
                None
            }
        }
    }

    /// Before the process ends: waits, but not for long, until what was thrown away is gone.
    pub async fn last_words(&self) {
        let mut under_way = std::mem::take(&mut *self.lock());
        let all = async { while under_way.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, all).await.is_err() {
            tracing::debug!("Redis does not answer: the lists of this process expire by themselves");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.throwing_away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is gone already, or holds something else than a list, is as well.
async fn unlink(mut connection: ConnectionManager, lists: Vec<CacheListName>) {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for lists in lists.chunks(UNLINKED_AT_ONCE) {
        let unlink = pipeline.cmd("UNLINK");
        for list in lists {
            unlink.arg(key(list));
        }
    }
    for attempt in 1..=UNLINK_ATTEMPTS {
        let Err(error) = pipeline.query_async::<Vec<Value>>(&mut connection).await else { break };
        tracing::debug!(%error, attempt, lists = lists.len(), "lists are not thrown away: they expire by themselves");
    }
    pass(Point::AfterThrowAway).await;
}

impl Stock for RedisStock {
    fn pop(&self, pops: Vec<Pop>) -> BoxFuture<'_, Vec<Popped>> {
        async move {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            for pop in &pops {
                pipeline.cmd("LPOP").arg(key(&pop.list)).arg(pop.count);
            }
            let answers = self.ask("pop", &pipeline).await.filter(|answers| answers.len() == pops.len());
            answers.map_or_else(
                || vec![Popped::Unknown; pops.len()],
                |answers| {
                    let sealed = pops.iter().map(|pop| Seal::of(&pop.list, self.secret));
                    answers.iter().zip(sealed).map(|(answer, seal)| popped(answer, seal)).collect()
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
            let mut chunks = codes.chunks(PUSHED_AT_ONCE);
            let mut first = redis::pipe();
            first.ignore_errors();
            // Both or none: a list whose owner dies in between would stay for ever.
            first.cmd("MULTI");
            push(&mut first, "RPUSH", &key, seal, chunks.next().unwrap_or_default());
            first.cmd("EXPIRE").arg(&key).arg(LIST_LIVES_SECONDS).cmd("EXEC");
            let Some(made) = self.ask("fill", &first).await else { return RefillResult::Unknown };
            pass(Point::AmidFill).await;
            let mut rest = redis::pipe();
            rest.ignore_errors();
            // Only onto what is there: its owner cannot have popped it empty, so it was flushed or evicted.
            chunks.for_each(|chunk| push(&mut rest, "RPUSHX", &key, seal, chunk));
            let pushed = match rest.is_empty() {
                true => Some(Vec::new()),
                false => self.ask("fill", &rest).await,
            };
            let Some(pushed) = pushed else { return RefillResult::Unknown };
            let lengths: Vec<Value> = made_with(&made).into_iter().chain(pushed).collect();
            if pushed_as_meant(&lengths, codes.len()) {
                return RefillResult::Refilled { count: codes.len(), last };
            }
            ::metrics::counter!(metrics::REDIS_FAILURES, "call" => "fill").increment(1);
            tracing::warn!(
                key,
                ?lengths,
                "a list is not as it was filled (flushed?): reading codes from Postgres instead"
            );
            RefillResult::Unknown
        }
        .boxed()
    }

    fn throw_away(&self, lists: Vec<CacheListName>) {
        if lists.is_empty() {
            return;
        }
        let mut under_way = self.lock();
        while under_way.try_join_next().is_some() {}
        under_way.spawn(unlink(self.connection.clone(), lists));
    }
}

fn push(pipeline: &mut Pipeline, command: &str, key: &str, seal: Seal, codes: &[CodeEntry]) {
    let push = pipeline.cmd(command).arg(key);
    for code in codes {
        push.arg(seal.entry(code));
    }
}

/// What `RPUSH` answered in a transaction that also set the time after which the list expires.
fn made_with(answers: &[Value]) -> Option<Value> {
    match answers.last() {
        Some(Value::Array(done)) => match &done[..] {
            [length, Value::Int(1)] => Some(length.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The name of a list: unique to one filling by one ownership, so that an older owner's pops can hurt nobody.
fn key(list: &CacheListName) -> String {
    let CacheListName { coupon, epoch, nonce, generation } = list;
    format!("stampede:stock:{coupon}:{epoch}:{:032x}:{generation}", nonce.0)
}

/// Tells the entries of one list from all others.
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

fn popped(answer: &Value, seal: Seal) -> Popped {
    match answer {
        Value::Nil => Popped::Codes(Vec::new()),
        Value::Array(entries) => {
            let codes = entries.iter().map(|entry| seal.code(entry)).collect::<Option<_>>();
            codes.map_or(Popped::Unknown, Popped::Codes)
        }
        _ => Popped::Unknown,
    }
}

/// A push answers the list's new length. The owner may pop while it fills, so a list may be shorter than the push before
/// has left it, but never longer than all pushes make it (somebody else pushes), nor shorter than what was just pushed:
/// 0 says that it was flushed or evicted in between.
fn pushed_as_meant(pushes: &[Value], codes: usize) -> bool {
    let mut left = i64::try_from(codes).unwrap_or(i64::MAX);
    let mut before = None;
    for push in pushes {
        let Value::Int(length) = push else { return false };
        let pushed = left.min(PUSHED_AT_ONCE as i64);
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
    fn a_popped_list_is_read_entry_by_entry_and_one_unreadable_entry_spoils_it() {
        let seal = Seal::of(&list(1), 7);
        let abc = CodeEntry { number: CodeNumber(12), code: "AB|C".into() };
        let own = bulk(&seal.entry(&abc));
        assert_eq!(popped(&Value::Array(vec![own.clone()]), seal), Popped::Codes(vec![abc]));
        assert_eq!(popped(&Value::Nil, seal), Popped::Codes(Vec::new()), "no list is an empty one");
        for spoiled in ["", "ABC", "x|ABC", "|ABC", "1|A"] {
            let answer = Value::Array(vec![own.clone(), bulk(spoiled)]);
            assert_eq!(popped(&answer, seal), Popped::Unknown, "{spoiled}");
        }
        assert_eq!(popped(&Value::Int(3), seal), Popped::Unknown);
    }

    #[test]
    fn a_foreign_code_is_believed_under_no_number_and_from_no_other_list() {
        let seal = Seal::of(&list(1), 7);
        let code = |code: &str| CodeEntry { number: CodeNumber(12), code: code.into() };
        let (own, other) = (seal.entry(&code("OWN")), Seal::of(&list(2), 7).entry(&code("OTHER")));
        let (_, seal_of_own) = own.rsplit_once('|').expect("a seal");
        for foreign in [other, format!("12|OTHER|{seal_of_own}"), Seal::of(&list(1), 8).entry(&code("OWN"))] {
            let answer = Value::Array(vec![bulk(&foreign)]);
            assert_eq!(popped(&answer, seal), Popped::Unknown, "{foreign}");
        }
    }

    #[test]
    fn a_fill_is_certain_only_if_every_length_fits() {
        let answer = |lengths: &[i64]| lengths.iter().map(|length| Value::Int(*length)).collect::<Vec<_>>();
        assert!(pushed_as_meant(&answer(&[10]), 10));
        assert!(pushed_as_meant(&answer(&[17]), 10), "there was something before");
        assert!(pushed_as_meant(&answer(&[1_005, 2_005, 2_105]), 2_100));
        assert!(pushed_as_meant(&answer(&[9_005, 9_655, 9_255]), 2_100), "its owner pops meanwhile");
        assert!(!pushed_as_meant(&answer(&[1_005, 2_006, 2_106]), 2_100), "somebody else pushes");
        assert!(!pushed_as_meant(&answer(&[1_005, 0, 0]), 2_100), "flushed in between");
        assert!(!pushed_as_meant(&answer(&[9]), 10));
        assert!(!pushed_as_meant(&answer(&[1_000]), 2_100), "an answer is missing");
        assert!(!pushed_as_meant(&[Value::Nil], 10));
        assert!(!pushed_as_meant(&[], 10));
    }

    #[test]
    fn a_list_is_made_together_with_the_time_after_which_it_expires_or_not_at_all() {
        let queued = || Value::SimpleString("QUEUED".to_owned());
        let made = |done| made_with(&[Value::Okay, queued(), queued(), done]);
        assert_eq!(made(Value::Array(vec![Value::Int(10), Value::Int(1)])), Some(Value::Int(10)));
        assert_eq!(made(Value::Array(vec![Value::Int(10), Value::Int(0)])), None, "it would stay for ever");
        assert_eq!(made(Value::Nil), None);
        assert_eq!(made_with(&[]), None);
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
