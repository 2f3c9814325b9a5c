//! `workers repair`: resumes a stopped partition at the offset that an operator chooses, and records the repair.

use coupon_core::batch::Position;
use coupon_core::ids::{Offset, Partition, WriteNo};
use sqlx::PgPool;
use uuid::Uuid;

use super::OperatorError;
use super::args::{RepairArgs, ResumeFrom};
use super::survey::{PartitionStatus, Row, Surveyor};
use crate::kafka::log_state::{LastRecord, LogState};
use crate::kafka::topic_identity::Identity;

/// The change that a repair makes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Why the partition had stopped.
    finding: String,
    from: Offset,
    to: Offset,
    was_write_no: WriteNo,
    write_no: WriteNo,
    topic: Option<Uuid>,
}

/// Repairs one partition, or with no confirmation only plans the repair. Returns the message for the operator.
pub(crate) async fn repair(
    args: &RepairArgs,
    partition: i32,
    pool: &PgPool,
) -> Result<String, OperatorError> {
    let surveyor = Surveyor::new(&args.servers, pool).await?;
    let status = surveyor.status(Partition(partition)).await?;
    let rejected = |reason: String| OperatorError::Rejected(format!("partition {partition}: {reason}"));
    let (row, found) = match (&status.row, &status.found) {
        (Some(row), Some(found)) => (row, found),
        (None, _) => return Err(rejected("it was never owned, so there is nothing to repair".to_owned())),
        (_, None) => {
            let reason = status.verdict.err().unwrap_or_default();
            return Err(rejected(format!("{reason}; it can be repaired once the topic exists")));
        }
    };
    let plan = plan(&status, row, found, args).map_err(rejected)?;
    let change = describe(partition, &plan, found);
    if !args.confirm {
        return Ok(format!("planned: {change}\n"));
    }
    let last = surveyor.inspect(Partition(partition), Offset(plan.to.0 - 1)).await?.last;
    match write(args, partition, &plan, found, last, row, pool).await? {
        Some(repair) => Ok(format!("repaired (repair {repair}): {change}\n")),
        None => {
            Err(rejected("its row has changed in between: check again with `workers partitions`".to_owned()))
        }
    }
}

fn plan(status: &PartitionStatus, row: &Row, found: &LogState, args: &RepairArgs) -> Result<Plan, String> {
    let finding = match &status.verdict {
        Err(reason) => reason.clone(),
        Ok(()) if args.force => "no fault found; forced".to_owned(),
        Ok(()) => {
            return Err("no fault found; nothing was changed. If it stops at the same record again and again, use --force"
                .to_owned());
        }
    };
    let from = row.position.next_offset;
    let to = match args.resume_from {
        ResumeFrom::Recorded => from,
        ResumeFrom::Earliest => found.low,
        ResumeFrom::Latest => found.high,
        ResumeFrom::Offset(offset) => Offset(offset),
    };
    if to < found.low || to > found.high {
        return Err(format!(
            "it cannot resume at {to}: its log begins at {} and ends at {}; nothing was changed",
            found.low, found.high
        ));
    }
    let highest = found.committed.unwrap_or_default().max(row.write_no);
    let topic = if let Identity::Known(id) = status.identity { Some(id) } else { None };
    Ok(Plan { finding, from, to, was_write_no: row.write_no, write_no: highest.next(), topic })
}

fn describe(partition: i32, plan: &Plan, found: &LogState) -> String {
    let Plan { finding, from, to, .. } = plan;
    let skipped = match to.0 - from.0 {
        0 => "nothing is skipped".to_owned(),
        skipped @ 1.. => format!(
            "{skipped} offsets are skipped: their requests are never decided ({} of them are still in the log)",
            (to.0 - from.0.max(found.low.0)).max(0)
        ),
        again => format!("{} offsets are read again: requests decided before keep their outcome", -again),
    };
    format!(
        "partition {partition} resumes at offset {to} instead of {from}; {skipped}. It had stopped because: {finding}"
    )
}

async fn write(
    args: &RepairArgs,
    partition: i32,
    plan: &Plan,
    found: &LogState,
    last: LastRecord,
    row: &Row,
    pool: &PgPool,
) -> Result<Option<i64>, OperatorError> {
    let Position { last_offset, last_digest, .. } = match last {
        // The next takeover compares the digest again.
        LastRecord::Digest(last_digest) => {
            Position { last_offset: Offset(plan.to.0 - 1), last_digest, ..row.position }
        }
        LastRecord::OutOfBounds | LastRecord::Missing => {
            Position { last_offset: Offset(-1), last_digest: 0, ..row.position }
        }
    };
    let sql = "select stampede.repair_partition($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let done = sqlx::query_scalar(sql)
        .bind(partition)
        .bind(plan.was_write_no.0)
        .bind(plan.from.0)
        .bind(plan.write_no.0)
        .bind(plan.to.0)
        .bind(last_offset.0)
        .bind(last_digest)
        .bind(plan.topic)
        .bind(&args.who)
        .bind(&args.reason)
        .bind(&plan.finding)
        .bind(found.low.0)
        .bind(found.high.0);
    Ok(done.fetch_one(pool).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};

    fn args(more: &[&str]) -> RepairArgs {
        let base = [
            "workers",
            "repair",
            "--kafka-brokers",
            "k:9",
            "--postgres-url",
            "postgres://p",
            "--partition",
            "2",
        ];
        let all = base.iter().chain(more).chain(&["--reason", "why", "--who", "ann"]);
        match Cli::from_args(all.map(Into::into)).command {
            Command::Repair(args) => args,
            other => unreachable!("{other:?}"),
        }
    }

    fn planned(status: &PartitionStatus, more: &[&str]) -> Result<Plan, String> {
        plan(status, status.row.as_ref().unwrap(), status.found.as_ref().unwrap(), &args(more))
    }

    fn stopped() -> PartitionStatus {
        let position = Position { next_offset: Offset(20), last_offset: Offset(19), ..Position::default() };
        PartitionStatus {
            partition: Partition(2),
            row: Some(Row { owner: None, epoch: 1, write_no: WriteNo(7), position, unacknowledged: 0 }),
            found: Some(LogState {
                low: Offset(25),
                high: Offset(30),
                last: LastRecord::OutOfBounds,
                committed: Some(WriteNo(9)),
            }),
            identity: Identity::Known(Uuid::from_u128(1)),
            verdict: Err("retention".to_owned()),
        }
    }

    #[test]
    fn a_healthy_partition_is_repaired_only_with_force() {
        let healthy = PartitionStatus { verdict: Ok(()), ..stopped() };
        assert!(planned(&healthy, &["--resume-from", "earliest"]).unwrap_err().contains("no fault found"));
        assert!(planned(&healthy, &["--resume-from", "earliest", "--force"]).is_ok());
    }

    #[test]
    fn it_resumes_only_within_the_log_and_above_every_write_number_in_kafka() {
        let plan = planned(&stopped(), &["--resume-from", "earliest"]).unwrap();
        assert_eq!((plan.from, plan.to, plan.write_no), (Offset(20), Offset(25), WriteNo(10)));
        let text = describe(2, &plan, stopped().found.as_ref().unwrap());
        assert!(text.contains("5 offsets are skipped") && text.contains("(0 of them"), "{text}");
        assert_eq!(planned(&stopped(), &["--resume-from", "latest"]).unwrap().to, Offset(30));
        assert_eq!(planned(&stopped(), &["--resume-from", "27"]).unwrap().to, Offset(27));
        for outside in ["recorded", "24", "31"] {
            assert!(planned(&stopped(), &["--resume-from", outside]).unwrap_err().contains("cannot resume"));
        }
    }
}
