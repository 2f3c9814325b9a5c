//! `workers reject`: has records rejected whose append time is too far ahead of Postgres' clock, and records who did it.

use sqlx::PgPool;

use super::OperatorError;
use super::args::RejectArgs;

/// Records the rejection; the partition's owner reads it within seconds. Returns the message for the operator.
pub(super) async fn reject(args: &RejectArgs, pool: &PgPool) -> Result<String, OperatorError> {
    let (partition, from, to) = (args.partition, args.offset, args.through.unwrap_or(args.offset));
    if to < from {
        return Err(OperatorError::Rejected(format!("--through {to} is before --offset {from}")));
    }
    let insert = "insert into stampede.rejected_records (partition, from_offset, to_offset, who, reason)
                  select partition, $2, $3, $4, $5 from stampede.partitions
                   where partition = $1 and next_offset <= $2
                  on conflict do nothing returning rejection_id";
    let query =
        sqlx::query_scalar(insert).bind(partition).bind(from).bind(to).bind(&args.who).bind(&args.reason);
    let rejection: Option<i64> = query.fetch_optional(pool).await?;
    rejection.map_or_else(
        || {
            Err(OperatorError::Rejected(format!(
                "partition {partition} was never owned, has decided offset {from} already, or has this rejection; nothing \
                 was changed"
            )))
        },
        |rejection| {
            Ok(format!(
                "rejection {rejection}: partition {partition} rejects the records from offset {from} to {to} that are too \
                 far ahead of Postgres' clock\n"
            ))
        },
    )
}
