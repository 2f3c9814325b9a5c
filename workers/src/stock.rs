//! Lists of codes in Redis. Nothing here is believed: the owner checks every entry's number against its own counters,
//! and abandons a list at the first doubt. That the text is the number's own says a seal, made when the list is
//! filled: an entry that was not pushed by this process onto this list is as good as none. So a call is made once,
//! and whatever is not certain is `Unknown`.

use coupon_core::effect::{CodeEntry, FillResult, ListName, Pop, Popped};
use coupon_core::ids::CodeNumber;
use futures::future::{BoxFuture, FutureExt as _};
use redis::aio::ConnectionManager;
use redis::{Pipeline, Value};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::crash_points::{Point, pass};
use crate::metrics;
use crate::seams::Stock;

/// Codes in one `RPUSH`: long commands keep others waiting.
const PUSHED_AT_ONCE: usize = 1_000;
/// Abandoned lists go away by themselves; one in use is filled again, which renews it, long before.
const LIST_LIVES_SECONDS: u64 = 3_600;

/// The stock of this process.
#[derive(Clone)]
pub struct RedisStock {
    connection: ConnectionManager,
    /// Of the seals. Who pops from a list has filled it, so nobody else needs it.
    secret: u64,
}

impl RedisStock {
    /// On this connection, which reconnects by itself and sends nothing twice.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection, secret: rand::random() }
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

    fn append(&self, list: ListName, codes: Vec<CodeEntry>) -> BoxFuture<'_, FillResult> {
        async move {
            let Some(last) = codes.last().map(|code| code.number) else {
                return FillResult::Filled { count: 0, last: CodeNumber(0) };
            };
            let (key, seal) = (key(&list), Seal::of(&list, self.secret));
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            for chunk in codes.chunks(PUSHED_AT_ONCE) {
                let push = pipeline.cmd("RPUSH").arg(&key);
                for code in chunk {
                    push.arg(seal.entry(code));
                }
            }
            pipeline.cmd("EXPIRE").arg(&key).arg(LIST_LIVES_SECONDS);
            pass(Point::AmidFill).await;
            match self.ask("fill", &pipeline).await {
                Some(answers) if pushed_as_meant(&answers, codes.len()) => {
                    FillResult::Filled { count: codes.len(), last }
                }
                _ => FillResult::Unknown,
            }
        }
        .boxed()
    }
}

/// The name of a list: unique to one filling by one ownership, so that an older owner's pops can hurt nobody.
fn key(list: &ListName) -> String {
    let ListName { coupon, epoch, nonce, generation } = list;
    format!("stampede:stock:{coupon}:{epoch}:{:032x}:{generation}", nonce.0)
}

/// Tells the entries of one list from all others.
#[derive(Clone, Copy)]
struct Seal(u64);

impl Seal {
    fn of(list: &ListName, secret: u64) -> Self {
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

/// `RPUSH` answers the list's new length: one after another they must grow by exactly what was pushed, or somebody
/// else (an eviction, a flush) touched the list in between.
fn pushed_as_meant(answers: &[Value], codes: usize) -> bool {
    let Some((Value::Int(1), pushes)) = answers.split_last() else { return false };
    let mut left = i64::try_from(codes).unwrap_or(i64::MAX);
    let mut before = None;
    for push in pushes {
        let Value::Int(length) = push else { return false };
        let pushed = left.min(PUSHED_AT_ONCE as i64);
        left -= pushed;
        if *length < pushed || before.is_some_and(|before: i64| before + pushed != *length) {
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

    fn list(coupon: i64) -> ListName {
        ListName { coupon: CouponNo(coupon), epoch: Epoch(1), nonce: Nonce(1), generation: 0 }
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
        let answer = |lengths: &[i64]| {
            let mut answers: Vec<Value> = lengths.iter().map(|length| Value::Int(*length)).collect();
            answers.push(Value::Int(1));
            answers
        };
        assert!(pushed_as_meant(&answer(&[10]), 10));
        assert!(pushed_as_meant(&answer(&[17]), 10), "there was something before");
        assert!(pushed_as_meant(&answer(&[1_005, 2_005, 2_105]), 2_100));
        assert!(!pushed_as_meant(&answer(&[1_005, 1_000, 1_100]), 2_100), "flushed in between");
        assert!(!pushed_as_meant(&answer(&[9]), 10));
        assert!(!pushed_as_meant(&answer(&[1_000]), 2_100), "an answer is missing");
        assert!(!pushed_as_meant(&[Value::Int(10), Value::Int(0)], 10), "gone before it could expire");
        assert!(!pushed_as_meant(&[Value::Nil, Value::Int(1)], 10));
        assert!(!pushed_as_meant(&[], 10));
    }

    #[test]
    fn two_ownerships_never_share_a_list() {
        let list = |epoch, nonce| {
            key(&ListName { coupon: CouponNo(1), epoch: Epoch(epoch), nonce: Nonce(nonce), generation: 0 })
        };
        assert_ne!(list(1, 1), list(2, 1));
        assert_ne!(list(1, 1), list(1, 2));
    }
}
