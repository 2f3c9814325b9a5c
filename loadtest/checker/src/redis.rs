//! The cache lists of codes in Redis. What is wrong with them is noted, and is never a violation.
//!
//! Stampede does not rely on Redis: an owner takes an entry only if it is the next free number and carries the seal of
//! this very list, so any other entry only costs speed. Nor can lists and rows be compared at one point in time, because
//! entries are popped before their claims are written.

use std::time::{Duration, Instant};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::postgres::Ledger;
use crate::report::Report;

/// The names that owners give to lists: coupon, epoch, nonce, generation.
const LISTS: &str = "stampede:stock:*";
/// For everything: a slow Redis must not delay the check.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Keys or entries for each command: a long command delays other clients.
const BATCH: isize = 1_000;

#[derive(Debug, Default)]
struct Lists {
    count: usize,
    /// Lists of the current owners.
    current: usize,
    entries: usize,
    /// Entries that are not a number and a code of their coupon.
    foreign: usize,
    first_foreign: Option<String>,
    without_expiry: usize,
    /// Keys that have the name of a list, but another type.
    wrong_type: usize,
}

/// Reads every list, and adds notes to the report.
pub(crate) async fn note_lists(url: &str, ledger: &Ledger, report: &mut Report) {
    match timeout(TIMEOUT, read(url, ledger)).await {
        Ok(Ok(lists)) => lists.note(report),
        Ok(Err(error)) => report.unchecked(format!("the lists in Redis: {error}")),
        Err(_) => report.unchecked(format!("the lists in Redis: not read within {TIMEOUT:?}")),
    }
}

async fn read(url: &str, ledger: &Ledger) -> redis::RedisResult<Lists> {
    // The default timeout is half a second, which a loaded machine may exceed.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?;
    let (mut lists, mut cursor, started) = (Lists::default(), 0_u64, Instant::now());
    loop {
        let scan = redis::cmd("SCAN").arg(cursor).arg("MATCH").arg(LISTS).arg("COUNT").arg(BATCH).to_owned();
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut redis).await?;
        for key in keys {
            read_list(&mut redis, &key, ledger, &mut lists).await?;
        }
        cursor = next;
        if cursor == 0 || started.elapsed() > TIMEOUT {
            return Ok(lists);
        }
    }
}

async fn read_list(
    redis: &mut MultiplexedConnection,
    key: &str,
    ledger: &Ledger,
    lists: &mut Lists,
) -> redis::RedisResult<()> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(redis).await?;
    match kind.as_str() {
        "list" => {}
        // Its last entry was popped since the scan.
        "none" => return Ok(()),
        _ => {
            lists.wrong_type += 1;
            return Ok(());
        }
    }
    lists.count += 1;
    let expires: i64 = redis::cmd("TTL").arg(key).query_async(redis).await?;
    lists.without_expiry += usize::from(expires == -1);
    let coupon = coupon_of(key, ledger, lists);
    let mut start = 0;
    loop {
        let range = redis::cmd("LRANGE").arg(key).arg(start).arg(start + BATCH - 1).to_owned();
        let entries: Vec<Vec<u8>> = range.query_async(redis).await?;
        lists.entries += entries.len();
        for entry in entries.iter().filter(|entry| !is_of_coupon(ledger, coupon, entry)) {
            lists.foreign += 1;
            let describe = || format!("{key} contains {:?}", String::from_utf8_lossy(entry));
            lists.first_foreign.get_or_insert_with(describe);
        }
        if entries.len() < BATCH.unsigned_abs() {
            return Ok(());
        }
        start += BATCH;
    }
}

/// The coupon of a list. Counts the lists of current owners.
fn coupon_of(key: &str, ledger: &Ledger, lists: &mut Lists) -> Option<i64> {
    let mut parts = key.split(':').skip(2);
    let coupon = parts.next()?.parse().ok()?;
    let (epoch, nonce) = (parts.next()?.parse::<i64>().ok()?, u128::from_str_radix(parts.next()?, 16).ok()?);
    let position = ledger.coupons.get(&coupon).and_then(|coupon| ledger.partitions.get(&coupon.partition));
    lists.current += usize::from(position.is_some_and(|p| p.epoch == epoch && p.nonce == Some(nonce)));
    Some(coupon)
}

/// Whether an entry is `number|code|seal` of a coupon. A number of a load that is newer than the snapshot is accepted.
fn is_of_coupon(ledger: &Ledger, coupon: Option<i64>, entry: &[u8]) -> bool {
    let parts = || {
        let (number, rest) = std::str::from_utf8(entry).ok()?.split_once('|')?;
        let (code, _seal) = rest.rsplit_once('|')?;
        Some((number.parse::<i64>().ok()?, code))
    };
    let (Some(coupon), Some((number, code))) = (coupon, parts()) else { return false };
    ledger.codes.text_of(coupon, number).is_none_or(|text| text == code)
}

impl Lists {
    fn note(self, report: &mut Report) {
        let Self { count, current, entries, foreign, without_expiry, wrong_type, .. } = self;
        report
            .note(format!("Redis: {count} lists, {current} of them of current owners, with {entries} codes"));
        if let Some(first) = self.first_foreign {
            report.note(format!(
                "Redis: {foreign} entries are not codes of their list's coupon, and owners ignore them: {first}"
            ));
        }
        if without_expiry > 0 {
            report.note(format!("Redis: {without_expiry} lists never expire"));
        }
        if wrong_type > 0 {
            report.note(format!("Redis: {wrong_type} keys have the name of a list, but another type"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_not_a_number_and_a_code_is_foreign() {
        let ledger = Ledger::default();
        assert!(
            is_of_coupon(&ledger, Some(1), b"7|AB|C|0123456789abcdef"),
            "of a load newer than the snapshot"
        );
        for foreign in [&b""[..], b"7|ABC", b"x|ABC|seal", b"\xff|A|b"] {
            assert!(!is_of_coupon(&ledger, Some(1), foreign), "{foreign:?}");
        }
        assert!(!is_of_coupon(&ledger, None, b"7|ABC|seal"));
    }
}
