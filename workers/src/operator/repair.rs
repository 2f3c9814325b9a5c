//! `workers repair`: lets a stopped partition go on, from where an operator says, and records that.

use coupon_core::batch::Position;
use coupon_core::ids::{Offset, Partition, WriteNo};
use sqlx::PgPool;
use uuid::Uuid;

use super::OperatorError;
use super::args::{GoOnFrom, RepairArgs};
use super::survey::{Row, Seen, Surveyor};
use crate::log::{Found, Last};
use crate::topic_identity::Identity;

/// How a partition is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Why it had stopped.
    finding: String,
    from: Offset,
    to: Offset,
    was_write_no: WriteNo,
    write_no: WriteNo,
    topic: Option<Uuid>,
}

/// Repairs one partition, or only says how it would be; answers what to tell the operator.
pub(crate) async fn repair(
    args: &RepairArgs,
    partition: i32,
    pool: &PgPool,
) -> Result<String, OperatorError> {
    let surveyor = Surveyor::new(&args.servers, pool).await?;
    let seen = surveyor.look(Partition(partition)).await?;
    let refused = |why: String| OperatorError::Refused(format!("partition {partition}: {why}"));
    let (row, found) = match (&seen.row, &seen.found) {
        (Some(row), Some(found)) => (row, found),
        (None, _) => return Err(refused("nobody ever owned it, so there is nothing to repair".to_owned())),
        (_, None) => {
            let why = seen.verdict.err().unwrap_or_default();
            return Err(refused(format!("{why}; it can be repaired once the topic is there")));
        }
    };
    let plan = plan(&seen, row, found, args).map_err(refused)?;
    let what = describe(partition, &plan, found);
    if !args.confirm {
        return Ok(format!("would do: {what}\n"));
    }
    let last = surveyor.find(Partition(partition), Offset(plan.to.0 - 1)).await?.last;
    match write(args, partition, &plan, found, last, row, pool).await? {
        Some(repair) => Ok(format!("done, as repair {repair}: {what}\n")),
        None => Err(refused("its row has changed meanwhile: look again (workers partitions)".to_owned())),
    }
}

fn plan(seen: &Seen, row: &Row, found: &Found, args: &RepairArgs) -> Result<Plan, String> {
    let finding = match &seen.verdict {
        Err(why) => why.clone(),
        Ok(()) if args.although_in_order => "nothing that the command could see".to_owned(),
        Ok(()) => {
            return Err("it is in order, as far as can be seen: nothing was changed. If it stops at one record again \
                        and again, see --although-in-order"
                .to_owned());
        }
    };
    let from = row.position.next_offset;
    let to = match args.go_on_from {
        GoOnFrom::Recorded => from,
        GoOnFrom::Earliest => found.low,
        GoOnFrom::Latest => found.high,
        GoOnFrom::Offset(offset) => Offset(offset),
    };
    if to < found.low || to > found.high {
        return Err(format!(
            "it cannot go on from {to}: its log begins at {} and ends at {}; nothing was changed",
            found.low, found.high
        ));
    }
    let heard_of = found.committed.unwrap_or_default().max(row.write_no);
    let topic = if let Identity::Is(id) = seen.identity { Some(id) } else { None };
    Ok(Plan { finding, from, to, was_write_no: row.write_no, write_no: heard_of.next(), topic })
}

fn describe(partition: i32, plan: &Plan, found: &Found) -> String {
    let Plan { finding, from, to, .. } = plan;
    let skipped = match to.0 - from.0 {
        0 => "nothing is skipped".to_owned(),
        skipped @ 1.. => format!(
            "{skipped} offsets are skipped: what was in them is never decided ({} of them are still in the log)",
            (to.0 - from.0.max(found.low.0)).max(0)
        ),
        back => format!("{} offsets are read again: requests decided before keep their outcome", -back),
    };
    format!(
        "partition {partition} goes on from offset {to} instead of {from}; {skipped}. It had stopped because: {finding}"
    )
}

async fn write(
    args: &RepairArgs,
    partition: i32,
    plan: &Plan,
    found: &Found,
    last: Last,
    row: &Row,
    pool: &PgPool,
) -> Result<Option<i64>, OperatorError> {
    let Position { last_offset, last_digest, .. } = match last {
        // The next takeover compares it again.
        Last::Digest(last_digest) => {
            Position { last_offset: Offset(plan.to.0 - 1), last_digest, ..row.position }
        }
        Last::NotThere | Last::Missing => {
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

    fn planned(seen: &Seen, more: &[&str]) -> Result<Plan, String> {
        plan(seen, seen.row.as_ref().unwrap(), seen.found.as_ref().unwrap(), &args(more))
    }

    fn stopped() -> Seen {
        let position = Position { next_offset: Offset(20), last_offset: Offset(19), ..Position::default() };
        Seen {
            partition: Partition(2),
            row: Some(Row { owner: None, epoch: 1, write_no: WriteNo(7), position, unacknowledged: 0 }),
            found: Some(Found {
                low: Offset(25),
                high: Offset(30),
                last: Last::NotThere,
                committed: Some(WriteNo(9)),
            }),
            identity: Identity::Is(Uuid::from_u128(1)),
            verdict: Err("retention".to_owned()),
        }
    }

    #[test]
    fn a_partition_in_order_is_left_alone_unless_the_operator_insists() {
        let in_order = Seen { verdict: Ok(()), ..stopped() };
        assert!(planned(&in_order, &["--go-on-from", "earliest"]).unwrap_err().contains("in order"));
        assert!(planned(&in_order, &["--go-on-from", "earliest", "--although-in-order"]).is_ok());
    }

    #[test]
    fn it_goes_on_only_where_the_log_is_and_past_every_write_that_kafka_has_heard_of() {
        let plan = planned(&stopped(), &["--go-on-from", "earliest"]).unwrap();
        assert_eq!((plan.from, plan.to, plan.write_no), (Offset(20), Offset(25), WriteNo(10)));
        let text = describe(2, &plan, stopped().found.as_ref().unwrap());
        assert!(text.contains("5 offsets are skipped") && text.contains("(0 of them"), "{text}");
        assert_eq!(planned(&stopped(), &["--go-on-from", "latest"]).unwrap().to, Offset(30));
        assert_eq!(planned(&stopped(), &["--go-on-from", "27"]).unwrap().to, Offset(27));
        for outside in ["recorded", "24", "31"] {
            assert!(planned(&stopped(), &["--go-on-from", outside]).unwrap_err().contains("cannot go on"));
        }
    }
}
