//! The lists of codes in Redis, as far as they go: what is wrong with them is worth knowing, and breaks nothing.
//!
//! Nobody believes Redis. An owner takes an entry only if it is the next free number and bears the seal of this very
//! list, so a list that holds anything else costs speed. Nor is there a moment at which lists and rows could be
//! compared: entries are popped before their claims are written. So nothing here is ever a violation.

use std::time::{Duration, Instant};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::ledger::Ledger;
use super::report::Report;

/// Names that owners give: coupon, epoch, nonce, generation.
const LISTS: &str = "stampede:stock:*";
/// For all of it: a Redis that is slow is no reason to wait.
const WITHIN: Duration = Duration::from_secs(30);
/// Long commands keep others waiting.
const AT_ONCE: isize = 1_000;

/// What was found in the lists.
#[derive(Debug, Default)]
struct Found {
    lists: usize,
    /// Of those, lists of the owners that partitions have now.
    present: usize,
    entries: usize,
    /// Entries that are no number and code of their coupon.
    foreign: usize,
    first_foreign: Option<String>,
    /// Lists that would stay for ever.
    lasting: usize,
    /// Keys that are no lists.
    no_lists: usize,
}

/// Looks at every list, and notes what there is.
pub(super) async fn look(url: &str, ledger: &Ledger, report: &mut Report) {
    match timeout(WITHIN, read(url, ledger)).await {
        Ok(Ok(found)) => found.tell(report),
        Ok(Err(error)) => report.unchecked(format!("the lists in Redis: {error}")),
        Err(_) => report.unchecked(format!("the lists in Redis: not read within {WITHIN:?}")),
    }
}

async fn read(url: &str, ledger: &Ledger) -> redis::RedisResult<Found> {
    // By itself it gives up after half a second, which a loaded machine may take.
    let patient =
        AsyncConnectionConfig::new().set_connection_timeout(Some(WITHIN)).set_response_timeout(Some(WITHIN));
    let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patient).await?;
    let (mut found, mut cursor, begun) = (Found::default(), 0_u64, Instant::now());
    loop {
        let scan =
            redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(LISTS).arg("COUNT").arg(AT_ONCE).to_owned();
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut redis).await?;
        for key in keys {
            one(&mut redis, &key, ledger, &mut found).await?;
        }
        cursor = next;
        if cursor == 0 || begun.elapsed() > WITHIN {
            return Ok(found);
        }
    }
}

async fn one(
    redis: &mut MultiplexedConnection,
    key: &str,
    ledger: &Ledger,
    found: &mut Found,
) -> redis::RedisResult<()> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(redis).await?;
    match kind.as_str() {
        "list" => {}
        // It has been emptied meanwhile.
        "none" => return Ok(()),
        _ => {
            found.no_lists += 1;
            return Ok(());
        }
    }
    found.lists += 1;
    let expires: i64 = redis::cmd("TTL").arg(key).query_async(redis).await?;
    found.lasting += usize::from(expires == -1);
    let coupon = owner_of(key, ledger, found);
    let mut from = 0;
    loop {
        let range = redis::cmd("LRANGE").arg(key).arg(from).arg(from + AT_ONCE - 1).to_owned();
        let entries: Vec<Vec<u8>> = range.query_async(redis).await?;
        found.entries += entries.len();
        for entry in &entries {
            if !is_of(ledger, coupon, entry) {
                found.foreign += 1;
                let what = || format!("{key} holds {:?}", String::from_utf8_lossy(entry));
                found.first_foreign.get_or_insert_with(what);
            }
        }
        if entries.len() < AT_ONCE.unsigned_abs() {
            return Ok(());
        }
        from += AT_ONCE;
    }
}

/// The coupon of a list; counts lists of the owners of now.
fn owner_of(key: &str, ledger: &Ledger, found: &mut Found) -> Option<i64> {
    let mut parts = key.split(':').skip(2);
    let coupon = parts.next()?.parse().ok()?;
    let (epoch, nonce) = (parts.next()?.parse::<i64>().ok()?, u128::from_str_radix(parts.next()?, 16).ok()?);
    let position = ledger.coupons.get(&coupon).and_then(|coupon| ledger.partitions.get(&coupon.partition));
    found.present += usize::from(position.is_some_and(|p| p.epoch == epoch && p.nonce == Some(nonce)));
    Some(coupon)
}

/// `number|code|seal`. Codes of loads that came after the snapshot are not known, and not doubted.
fn is_of(ledger: &Ledger, coupon: Option<i64>, entry: &[u8]) -> bool {
    let parts = || {
        let (number, rest) = std::str::from_utf8(entry).ok()?.split_once('|')?;
        let (code, _seal) = rest.rsplit_once('|')?;
        Some((number.parse::<i64>().ok()?, code))
    };
    let (Some(coupon), Some((number, code))) = (coupon, parts()) else { return false };
    ledger.codes.text_of(coupon, number).is_none_or(|text| text == code)
}

impl Found {
    fn tell(self, report: &mut Report) {
        let Self { lists, present, entries, foreign, lasting, no_lists, .. } = self;
        report
            .note(format!("Redis: {lists} lists, {present} of them of present owners, with {entries} codes"));
        if let Some(first) = self.first_foreign {
            report.note(format!(
                "Redis: {foreign} entries are none of their list's codes, and no owner takes them: {first}"
            ));
        }
        if lasting > 0 {
            report.note(format!("Redis: {lasting} lists never expire"));
        }
        if no_lists > 0 {
            report.note(format!("Redis: {no_lists} keys have the name of a list, and are none"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_number_and_code_is_foreign() {
        let ledger = Ledger::default();
        assert!(is_of(&ledger, Some(1), b"7|AB|C|0123456789abcdef"), "of a load that is not known yet");
        for foreign in [&b""[..], b"7|ABC", b"x|ABC|seal", b"\xff|A|b"] {
            assert!(!is_of(&ledger, Some(1), foreign), "{foreign:?}");
        }
        assert!(!is_of(&ledger, None, b"7|ABC|seal"));
    }
}
