//! The decided requests of a user, by time.

use uuid::Uuid;

use super::query_pool::QueryPool;
use crate::http::pagination::Cursor;

/// The key of a decided request in the order of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct HistoryKey {
    /// When it was decided, in unix milliseconds.
    pub(crate) ms: i64,
    pub(crate) identity: Uuid,
    pub(crate) body: i64,
    /// The day on which it is stored, since 1970; none for claims and redemptions.
    pub(crate) day: Option<i32>,
}

/// The newest of each kind of row, then the newest of those. (The indexes of claims and redemptions hold hashes of user
/// ids; the index of outcomes is a hash index, one per day.)
const SELECT: &str = "
    select ms, identity, body, day
      from ((select claimed_ms as ms, identity, body, null::int as day from claims
              where hashtextextended(user_id, 0) = hashtextextended($1, 0)
                and user_id = $1 and (claimed_ms, identity, body) < ($2, $3, $4)
              order by claimed_ms desc, identity desc, body desc limit $5)
            union all
            (select redeemed_ms, identity, body, null from redemptions
              where hashtextextended(user_id, 0) = hashtextextended($1, 0)
                and user_id = $1 and (redeemed_ms, identity, body) < ($2, $3, $4)
              order by redeemed_ms desc, identity desc, body desc limit $5)
            union all
            (select ms, identity, body, day from outcome_keys_of($1, $2, $3, $4, $5::int))) r
     order by ms desc, identity desc, body desc limit $5";

/// Reads the newest keys before `before`, newest first.
pub(crate) async fn keys(
    pool: &QueryPool,
    user: &str,
    before: Cursor,
    rows: i64,
) -> Result<Vec<HistoryKey>, sqlx::Error> {
    sqlx::query_as(SELECT)
        .bind(user)
        .bind(before.ms)
        .bind(before.identity)
        .bind(before.body)
        .bind(rows)
        .fetch_all(&mut *pool.connection().await?)
        .await
}
