//! Postgres as of one moment: everything that the checks need, from one read-only snapshot.
//!
//! A million claims are kept as a million small rows: digests of what was decided, not its text.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use coupon_core::ids::RequestId;
use foldhash::fast::FixedState;
use futures::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codes::Codes;
use super::told::{Outcome, Shown, Verdict, shown_digest};

/// A map that is quick with the small keys that are used here.
pub(super) type Map<K, V> = HashMap<K, V, FixedState>;
/// The same as a set.
pub(super) type Set<K> = HashSet<K, FixedState>;

/// The state of a claim that went back to stock.
const RETURNED: i16 = 4;

/// A writer's schema: its id, fingerprint and definition.
pub(super) type Registered = (i32, Vec<u8>, String);

/// Where one partition stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) next_offset: i64,
    pub(super) last_offset: i64,
    pub(super) next_emit_seq: i64,
    pub(super) emitted_seq: i64,
}

/// A coupon with its counters.
#[derive(Clone, Debug)]
pub(super) struct Coupon {
    pub(super) id: Box<str>,
    pub(super) partition: i32,
    pub(super) claims_per_user: Option<i64>,
    pub(super) stock: Option<Stock>,
}

/// A row of `stock`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock {
    pub(super) top: i64,
    pub(super) cursor: i64,
    pub(super) ahead: i64,
    pub(super) returned: i64,
    /// Claims in the states 1, 2, 3 and 5.
    pub(super) live: [i64; 4],
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
    SoldOut,
    KeyReused,
    Unprocessable,
    Other,
}

/// One outcome: a row of `claims` or of `outcomes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: RequestId,
    /// What every telling of it must have.
    pub(super) digest: u64,
    /// What every answer to its user must have.
    pub(super) shown: u64,
    /// The coupon's number, 0 where it is unknown.
    pub(super) coupon: i64,
    /// The code's number, 0 where none was given.
    pub(super) number: i64,
    /// The user within this coupon.
    pub(super) holder: u64,
    pub(super) offset: i64,
    pub(super) partition: i32,
    pub(super) state: i16,
    pub(super) said: Said,
}

impl Row {
    /// Whether it is a claim that holds its code.
    pub(super) fn is_live(&self) -> bool {
        self.said == Said::Claimed && self.state != RETURNED
    }
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
    pub(super) ahead: Vec<(i64, i64)>,
    pub(super) returned: Vec<(i64, i64)>,
    pub(super) rows: Vec<Row>,
    by_identity: Map<u128, u32>,
    /// Rows beyond the first one of an identity.
    siblings: Map<u128, Vec<u32>>,
    /// Requests whose outcomes are still to be told.
    pub(super) owed: Set<RequestId>,
    /// Partitions that have events or dead letters still to be told.
    pub(super) owes_messages: Set<i32>,
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

    /// Identities that have several rows.
    pub(super) fn shared_identities(&self) -> impl Iterator<Item = u128> {
        self.siblings.keys().copied()
    }

    /// A coupon's id, for people.
    pub(super) fn name_of(&self, coupon: i64) -> String {
        self.coupons.get(&coupon).map_or_else(|| format!("coupon number {coupon}"), |c| c.id.to_string())
    }

    fn add(&mut self, row: Row) {
        let index = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        if *self.by_identity.entry(row.id.identity).or_insert(index) != index {
            self.siblings.entry(row.id.identity).or_default().push(index);
        }
        self.rows.push(row);
    }
}

/// An open snapshot: whatever is written from now on is not in it.
#[derive(Debug)]
pub(super) struct Snapshot(PgConnection);

impl Snapshot {
    pub(super) async fn open(postgres_url: &str) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect(postgres_url).await?;
        sqlx::raw_sql("begin isolation level repeatable read read only").execute(&mut connection).await?;
        // The first query takes the snapshot.
        sqlx::raw_sql("select 1 from stampede.partitions").execute(&mut connection).await?;
        Ok(Self(connection))
    }

    /// The schemas that are registered: without them no record can be read.
    pub(super) async fn schemas(&mut self) -> Result<Vec<Registered>, sqlx::Error> {
        let sql = "select schema_id, fingerprint, definition from stampede.schemas";
        rows_of(&mut self.0, sql, |row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).await
    }

    pub(super) async fn read(mut self) -> Result<Ledger, sqlx::Error> {
        let connection = &mut self.0;
        let mut ledger = Ledger::default();
        read_frame(connection, &mut ledger).await?;
        read_coupons(connection, &mut ledger).await?;
        read_claims(connection, &mut ledger).await?;
        read_outcomes(connection, &mut ledger).await?;
        read_outbox(connection, &mut ledger).await?;
        self.0.close().await?;
        Ok(ledger)
    }
}

async fn rows_of<T, C: Default + Extend<T>>(
    connection: &mut PgConnection,
    sql: &'static str,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<C, sqlx::Error> {
    sqlx::query(sql).fetch(connection).and_then(async |row| read(&row)).try_collect().await
}

async fn read_frame(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    ledger.recorded = rows_of(connection, "select name, partitions from stampede.topics", |row| {
        Ok((row.try_get(0)?, row.try_get(1)?))
    })
    .await?;
    let sql =
        "select partition, next_offset, last_offset, next_emit_seq, emitted_seq from stampede.partitions";
    ledger.partitions = rows_of(connection, sql, |row| {
        let position = Position {
            next_offset: row.try_get(1)?,
            last_offset: row.try_get(2)?,
            next_emit_seq: row.try_get(3)?,
            emitted_seq: row.try_get(4)?,
        };
        Ok((row.try_get(0)?, position))
    })
    .await?;
    Ok(())
}

async fn read_coupons(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select c.coupon_no, coupon_id, partition, claims_per_user::bigint, top, cursor, ahead, returned,
                      claimed, locked, redeemed, revoked
                 from stampede.coupons c left join stampede.stock s on s.coupon_no = c.coupon_no";
    ledger.coupons = rows_of(connection, sql, |row| {
        let stock = match row.try_get(4)? {
            None => None,
            Some(top) => Some(Stock {
                top,
                cursor: row.try_get(5)?,
                ahead: row.try_get(6)?,
                returned: row.try_get(7)?,
                live: [row.try_get(8)?, row.try_get(9)?, row.try_get(10)?, row.try_get(11)?],
            }),
        };
        let id = row.try_get::<&str, _>(1)?.into();
        Ok((
            row.try_get(0)?,
            Coupon { id, partition: row.try_get(2)?, claims_per_user: row.try_get(3)?, stock },
        ))
    })
    .await?;
    ledger.coupon_nos = ledger.coupons.iter().map(|(no, coupon)| (coupon.id.clone(), *no)).collect();
    let sql =
        "select load_id, coupon_no, count, base, state = 'open' from stampede.loads order by coupon_no, base";
    ledger.loads = rows_of(connection, sql, |row| {
        let (load, coupon, count) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(Load { load, coupon, count, base: row.try_get(3)?, open: row.try_get(4)? })
    })
    .await?;
    ledger.codes = Codes::read(connection, &ledger.loads).await?;
    let pair = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    ledger.ahead = rows_of(connection, "select coupon_no, number from stampede.stock_ahead", pair).await?;
    ledger.returned =
        rows_of(connection, "select coupon_no, number from stampede.stock_returned", pair).await?;
    Ok(())
}

async fn read_claims(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql = "select identity, body, coupon_no, number, \"offset\", claimed_ms, state, user_id from stampede.claims";
    let mut rows = sqlx::query(sql).fetch(connection);
    let mut text = String::new();
    while let Some(row) = rows.try_next().await? {
        let id = request_id(&row)?;
        let (coupon, number, offset, at): (i64, i64, i64, i64) =
            (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let user: &str = row.try_get(7)?;
        let known = ledger.coupons.get(&coupon);
        let partition = known.map_or(-1, |coupon| coupon.partition);
        let name = known.map_or("", |coupon| &coupon.id);
        let code = ledger.codes.text_of(coupon, number).unwrap_or_default();
        let verdict = Verdict::Claimed { code, number, claimed_ms: at };
        let outcome =
            Outcome { kind: "claim", coupon: name, user, partition, offset, decided_ms: at, verdict };
        let row = Row {
            id,
            digest: outcome.write(&mut text),
            shown: shown_digest("claim", name, Shown::Accepted(code), at),
            coupon,
            number,
            holder: holder(user, coupon),
            offset,
            partition,
            state: row.try_get(6)?,
            said: Said::Claimed,
        };
        ledger.add(row);
    }
    Ok(())
}

async fn read_outcomes(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql =
        "select identity, body, coupon_no, partition, \"offset\", decided_ms, kind, reason, user_id, target
                 from stampede.outcomes";
    let mut rows = sqlx::query(sql).fetch(connection);
    let mut text = String::new();
    while let Some(row) = rows.try_next().await? {
        let id = request_id(&row)?;
        let coupon: Option<i64> = row.try_get(2)?;
        let (partition, offset, decided_ms) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let (kind, reason, user): (&str, &str, &str) = (row.try_get(6)?, row.try_get(7)?, row.try_get(8)?);
        let target: Option<&str> = row.try_get(9)?;
        let known = coupon.and_then(|no| ledger.coupons.get(&no)).map(|coupon| &*coupon.id);
        let name = known.or(target).unwrap_or_default();
        let verdict = Verdict::Rejected(reason);
        let outcome = Outcome { kind, coupon: name, user, partition, offset, decided_ms, verdict };
        let row = Row {
            id,
            digest: outcome.write(&mut text),
            shown: shown_digest(kind, name, Shown::Rejected(reason), decided_ms),
            coupon: coupon.unwrap_or(0),
            number: 0,
            holder: 0,
            offset,
            partition,
            state: 0,
            said: match reason {
                "sold_out" => Said::SoldOut,
                "idempotency_key_reused" => Said::KeyReused,
                "unprocessable" => Said::Unprocessable,
                _ => Said::Other,
            },
        };
        ledger.add(row);
    }
    Ok(())
}

async fn read_outbox(connection: &mut PgConnection, ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let sql = "select ids, bodies, partition,
                      exists (select from stampede.outbox_messages m where m.partition = o.partition and m.seq = o.seq)
                 from stampede.outbox o join stampede.partitions p using (partition) where o.seq > p.emitted_seq";
    let mut rows = sqlx::query(sql).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let ids: Vec<uuid::Uuid> = row.try_get(0)?;
        let bodies: Vec<i64> = row.try_get::<Option<_>, _>(1)?.unwrap_or_else(|| vec![0; ids.len()]);
        let owed = ids.iter().zip(bodies);
        ledger.owed.extend(owed.map(|(id, body)| RequestId { identity: id.as_u128(), body }));
        if row.try_get(3)? {
            ledger.owes_messages.insert(row.try_get(2)?);
        }
        ledger.outbox_entries += 1;
    }
    Ok(())
}

fn request_id(row: &PgRow) -> Result<RequestId, sqlx::Error> {
    let identity: uuid::Uuid = row.try_get(0)?;
    Ok(RequestId { identity: identity.as_u128(), body: row.try_get(1)? })
}

/// A user within a coupon. Of a million users two look alike with a chance of one in thirty million.
fn holder(user: &str, coupon: i64) -> u64 {
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
