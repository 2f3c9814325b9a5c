//! Postgres' clock, with which append times are compared.

use coupon_core::ids::{Millis, Offset, Partition};

use crate::postgres::{LedgerError, PgReader};

const CLOCK: &str = "
    select (extract(epoch from clock_timestamp()) * 1000)::bigint,
           (select max(to_offset) from stampede.rejected_records
             where partition = $1 and $2 between from_offset and to_offset)";

impl PgReader {
    /// Postgres' clock. If an operator has had the record at this offset rejected: the last such record, too.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn clock(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<(Millis, Option<Offset>), LedgerError> {
        let query = sqlx::query_as(CLOCK).bind(partition.0).bind(offset.0);
        let (now, rejected): (i64, Option<i64>) = query.fetch_one(&self.pool).await?;
        Ok((Millis(now), rejected.map(Offset)))
    }
}
