//! Postgres as of one moment: everything that the checks need, from one read-only snapshot.
//!
//! A million claims are kept as a million small rows: digests of what was decided, not its text. What only the life
//! of a code has (terms, changes, redemptions) lies beside them, so that a plain claim costs nothing of it; where all
//! claims have a life, it is some 300 bytes a claim, and as much again for each step of it.
//!
//! `frame.rs` reads partitions, coupons and stock, `rows.rs` the outcomes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::io::ErrorKind;
use std::time::Duration;

use coupon_core::ids::RequestId;
use foldhash::fast::FixedState;
use runtime::postgres::SCHEMA_VERSION;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::CheckError;
use super::codes::Codes;
use super::money::Discount;
use super::{frame, rows};

/// A map that is quick with the small keys that are used here.
pub(super) type Map<K, V> = HashMap<K, V, FixedState>;
/// The same as a set.
pub(super) type Set<K> = HashSet<K, FixedState>;
/// A code: the number of its coupon, and its own within that.
pub(super) type Place = (i64, i64);

/// The states of claims, as rows hold them.
pub(super) const CLAIMED: i16 = 1;
pub(super) const LOCKED: i16 = 2;
pub(super) const REDEEMED: i16 = 3;
/// Back in stock.
pub(super) const RETURNED: i16 = 4;
pub(super) const REVOKED: i16 = 5;

/// The word of a state, as responses have it.
pub(super) fn word_of(state: i16) -> Option<&'static str> {
    let words = ["CLAIMED", "LOCKED", "REDEEMED", "RETURNED", "REVOKED"];
    words.get(usize::try_from(state - 1).ok()?).copied()
}

/// A writer's schema: its id, fingerprint and definition.
pub(super) type Registered = (i32, Vec<u8>, String);

/// Where one partition stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) epoch: i64,
    pub(super) nonce: Option<u128>,
    pub(super) write_no: i64,
    pub(super) next_offset: i64,
    pub(super) last_offset: i64,
    pub(super) next_emit_seq: i64,
    pub(super) emitted_seq: i64,
    pub(super) time_ms: i64,
}

/// A coupon with its rules and counters.
#[derive(Clone, Debug)]
pub(super) struct Coupon {
    pub(super) id: Box<str>,
    pub(super) partition: i32,
    pub(super) rules: Rules,
    pub(super) stock: Option<Stock>,
}

/// The rules of a coupon. No version so far changes them once the coupon is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) claims_per_user: Option<i64>,
    pub(super) redemptions_per_user: Option<i64>,
    pub(super) redemptions_per_code: Option<i64>,
    pub(super) redemptions_total: Option<i64>,
    pub(super) hold_ms: Option<i64>,
    pub(super) lock_ms: i64,
    pub(super) requires_lock: bool,
    /// `None`: the definition has none that can be read.
    pub(super) discount: Option<Discount>,
}

impl Rules {
    /// Whether its codes are redeemed by anybody, without a claim.
    pub(super) fn is_shared(&self) -> bool {
        self.redemptions_per_code != Some(1)
    }
}

/// A row of `stock`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock {
    pub(super) top: i64,
    pub(super) cursor: i64,
    pub(super) ahead: i64,
    pub(super) returned: i64,
    /// Claims in the states 1, 2 and 3, and codes that were withdrawn.
    pub(super) live: [i64; 4],
    /// Redemptions that were not rolled back.
    pub(super) redemptions: i64,
}

impl Stock {
    pub(super) const fn available(&self) -> i64 {
        self.top - self.cursor - self.ahead + self.returned
    }
}

/// A row of `code_marks`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) uses: i64,
    pub(super) revoked: bool,
}

/// A bulk load of codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) load: i64,
    pub(super) coupon: i64,
    pub(super) count: i64,
    /// The number before its first code's; `None` while it is no stock.
    pub(super) base: Option<i64>,
    pub(super) open: bool,
}

/// What a row says, as far as a check depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Claimed,
    /// A redemption was made.
    Redeemed,
    /// Any other accepted request: there is a [`Change`] beside the row.
    Changed,
    SoldOut,
    KeyReused,
    Unprocessable,
    UserLimit,
    HoldLapsed,
    LockLapsed,
    Other,
}

/// One outcome: a row of `claims`, `redemptions` or `outcomes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: RequestId,
    /// What every telling of it must have.
    pub(super) digest: u64,
    /// What every answer to its user must have.
    pub(super) shown: u64,
    /// The coupon's number, 0 where it is unknown.
    pub(super) coupon: i64,
    /// The code's number, 0 where it was rejected.
    pub(super) number: i64,
    /// The user within this coupon; 0 where the coupon is unknown.
    pub(super) holder: u64,
    pub(super) offset: i64,
    pub(super) decided_ms: i64,
    pub(super) partition: i32,
    /// The state of a claim, 0 of anything else.
    pub(super) state: i16,
    pub(super) said: Said,
}

impl Row {
    /// Whether it is a claim that holds its code.
    pub(super) fn is_live(&self) -> bool {
        self.said == Said::Claimed && self.state != RETURNED
    }

    /// Its code.
    pub(super) const fn place(&self) -> Place {
        (self.coupon, self.number)
    }
}

/// What a claim has that is more than a plain one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) first_hold_ms: Option<i64>,
    pub(super) hold_until_ms: Option<i64>,
    pub(super) lock_until_ms: Option<i64>,
    pub(super) order: Option<Box<str>>,
    pub(super) lapsed_ms: Option<i64>,
    pub(super) deadline_ms: Option<i64>,
    pub(super) partition: Option<i32>,
}

/// What an accepted request did to a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Lock,
    Unlock,
    Return,
    Rollback,
    Revoke,
    /// A kind that is never accepted like this.
    Nonsense,
}

/// An accepted request that is neither a claim nor a redemption: how its outcome says that it left the code.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Its row.
    pub(super) row: u32,
    pub(super) did: Did,
    /// 0 where there is no claim.
    pub(super) state: i16,
    pub(super) claimed_ms: Option<i64>,
    pub(super) hold_until_ms: Option<i64>,
    pub(super) lock_until_ms: Option<i64>,
    pub(super) order: Option<Box<str>>,
    /// rollback: which redemption.
    pub(super) redemption: Option<RequestId>,
}

/// A redemption.
#[derive(Clone, Debug)]
pub(super) struct Redemption {
    /// Its row.
    pub(super) row: u32,
    pub(super) claimed_ms: Option<i64>,
    pub(super) order: Box<str>,
    /// Order amount, discount and final price, as they are shown.
    pub(super) money: [Box<str>; 3],
    pub(super) currency: Box<str>,
    pub(super) rolled_back_ms: Option<i64>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) recorded: Map<String, i32>,
    pub(super) partitions: BTreeMap<i32, Position>,
    pub(super) coupons: BTreeMap<i64, Coupon>,
    pub(super) coupon_nos: Map<Box<str>, i64>,
    pub(super) loads: Vec<Load>,
    pub(super) codes: Codes,
    pub(super) ahead: Vec<Place>,
    pub(super) returned: Vec<Place>,
    pub(super) marks: Map<Place, Mark>,
    pub(super) rows: Vec<Row>,
    /// Of claims that are not plain, by their rows.
    pub(super) terms: Map<u32, Terms>,
    pub(super) changes: Vec<Change>,
    pub(super) redemptions: Vec<Redemption>,
    /// Where the redemption of a row is.
    pub(super) redemption_at: Map<u32, u32>,
    by_identity: Map<u128, u32>,
    /// Rows beyond the first one of an identity.
    siblings: Map<u128, Vec<u32>>,
    /// Requests whose outcomes are still to be told.
    pub(super) owed: Set<RequestId>,
    /// Partitions that have events still to be told.
    pub(super) owes_events: Set<i32>,
    /// Events that are still to be told, as they will be.
    pub(super) owed_events: Vec<Vec<u8>>,
    /// Records of which it is still to be told that they are dead letters.
    pub(super) owed_letters: Set<(i32, i64)>,
    pub(super) outbox_entries: u64,
}

impl Ledger {
    /// Every row of an identity.
    pub(super) fn of_identity(&self, identity: u128) -> impl Iterator<Item = &Row> {
        let first = self.by_identity.get(&identity).copied();
        let others = self.siblings.get(&identity).into_iter().flatten().copied();
        first.into_iter().chain(others).filter_map(|index| self.rows.get(index as usize))
    }

    /// The row of a request.
    pub(super) fn row(&self, id: RequestId) -> Option<&Row> {
        self.index_of(id).and_then(|index| self.rows.get(index))
    }

    /// Where in `rows` the row of a request is.
    pub(super) fn index_of(&self, id: RequestId) -> Option<usize> {
        let first = *self.by_identity.get(&id.identity)? as usize;
        if self.rows.get(first)?.id == id {
            return Some(first);
        }
        let others = self.siblings.get(&id.identity)?;
        others
            .iter()
            .map(|index| *index as usize)
            .find(|index| self.rows.get(*index).is_some_and(|r| r.id == id))
    }

    /// Where in `redemptions` the one that a request made is.
    pub(super) fn redemption_of(&self, id: RequestId) -> Option<usize> {
        let row = u32::try_from(self.index_of(id)?).ok()?;
        self.redemption_at.get(&row).map(|index| *index as usize)
    }

    /// Identities that have several rows.
    pub(super) fn shared_identities(&self) -> impl Iterator<Item = u128> {
        self.siblings.keys().copied()
    }

    /// A coupon's id, for people.
    pub(super) fn name_of(&self, coupon: i64) -> String {
        self.coupons.get(&coupon).map_or_else(|| format!("coupon number {coupon}"), |c| c.id.to_string())
    }

    /// A code, for people.
    pub(super) fn code_name(&self, (coupon, number): Place) -> String {
        let text = self.codes.text_of(coupon, number).unwrap_or("?");
        format!("code {number} ({text}) of {}", self.name_of(coupon))
    }

    /// The first record of a partition that is not decided yet.
    pub(super) fn next_of(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).map_or(0, |position| position.next_offset)
    }

    /// Adds a row; answers where it is.
    pub(super) fn add(&mut self, row: Row) -> u32 {
        let index = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        if *self.by_identity.entry(row.id.identity).or_insert(index) != index {
            self.siblings.entry(row.id.identity).or_default().push(index);
        }
        self.rows.push(row);
        index
    }
}

const CONNECTS_WITHIN: Duration = Duration::from_secs(60);

/// An open snapshot: whatever is written from now on is not in it.
#[derive(Debug)]
pub(super) struct Snapshot(PgConnection);

impl Snapshot {
    pub(super) async fn open(postgres_url: &str) -> Result<Self, CheckError> {
        let connected = timeout(CONNECTS_WITHIN, PgConnection::connect(postgres_url)).await;
        let mut connection =
            connected.map_err(|_| sqlx::Error::from(std::io::Error::from(ErrorKind::TimedOut)))??;
        sqlx::raw_sql("begin isolation level repeatable read read only").execute(&mut connection).await?;
        // The first query takes the snapshot.
        let is_there = "select to_regclass('stampede._sqlx_migrations') is not null";
        let newest = "select max(version) from stampede._sqlx_migrations where success";
        let found: Option<i64> = if sqlx::query_scalar(is_there).fetch_one(&mut connection).await? {
            sqlx::query_scalar(newest).fetch_one(&mut connection).await?
        } else {
            None
        };
        match found {
            Some(SCHEMA_VERSION) => Ok(Self(connection)),
            found => Err(CheckError::OtherSchema { found }),
        }
    }

    /// The schemas that are registered: without them no record can be read.
    pub(super) async fn schemas(&mut self) -> Result<Vec<Registered>, sqlx::Error> {
        let sql = "select schema_id, fingerprint, definition from stampede.schemas";
        let read = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        frame::rows_of(&mut self.0, sql, read).await
    }

    pub(super) async fn read(mut self) -> Result<Ledger, sqlx::Error> {
        let connection = &mut self.0;
        let mut ledger = Ledger::default();
        frame::read(connection, &mut ledger).await?;
        rows::read(connection, &mut ledger).await?;
        self.0.close().await?;
        Ok(ledger)
    }
}

/// A user within a coupon. Of a million users two look alike with a chance of one in thirty million.
pub(super) fn holder(user: &str, coupon: i64) -> u64 {
    xxh3_64_with_seed(user.as_bytes(), coupon.cast_unsigned())
}

/// How often each key comes.
pub(super) fn counts<K: Hash + Eq>(keys: impl Iterator<Item = K>) -> Map<K, i64> {
    let mut counts = Map::default();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_knows_the_newest_migration() {
        let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../workers/migrations");
        let names =
            std::fs::read_dir(migrations).expect("migrations").map(|entry| entry.expect("one").file_name());
        let version = |name: std::ffi::OsString| name.to_str()?.split('_').next()?.parse::<i64>().ok();
        let newest = names.filter_map(version).max();
        let advice = "see what the newest migration changes for the checker, and let SCHEMA_VERSION follow";
        assert_eq!(newest, Some(SCHEMA_VERSION), "{advice}");
    }
}
