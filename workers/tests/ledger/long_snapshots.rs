//! Beside a long snapshot (a backup, an export) Postgres removes nothing, so the index entries of deadlines that have
//! fired, and of returned numbers that were claimed again, stay. A read that starts at the owner's lower bound does not
//! walk them.

use coupon_core::ids::{CodeNumber, Millis};
use coupon_core::interface::{DueLookup, LookupResults, Lookups, ReturnedLookup};
use sqlx::{Connection as _, PgConnection};
use workers::postgres::{PgReader, read_pool};

use crate::fixture::{COUPON, Fixture, PARTITION};

/// Deadlines that have fired, and returned numbers that were claimed again.
const ENDED: i64 = 20_000;
/// Those that are left.
const LEFT: i64 = 10;

const BEGUN: &str = "
    insert into claims (identity, body, coupon_no, number, \"offset\", claimed_ms, user_id, first_hold_ms, hold_until_ms,
                        deadline_ms, partition)
    select gen_random_uuid(), 0, 1, n, n, 1, 'user-' || n, 1000 + n, 1000 + n, 1000 + n, 5
      from generate_series(1, 20010) n;
    insert into stock_returned select 1, n from generate_series(1, 20010) n;
    analyze";
const ENDS: &str = "
    update claims set state = 4, deadline_ms = null where number <= 20000;
    delete from stock_returned where number <= 20000";

/// A reader with one connection, so that its statistics can be flushed.
struct Reader {
    pool: sqlx::PgPool,
    reader: PgReader,
}

impl Reader {
    /// Looks up, and returns how many blocks of the two tables and their indexes were read or hit.
    async fn blocks(&self, lookups: &Lookups) -> (LookupResults, i64) {
        let before = self.total().await;
        let results = self.reader.lookup(PARTITION, lookups).await.unwrap();
        (results, self.total().await - before)
    }

    async fn total(&self) -> i64 {
        sqlx::query("select pg_stat_force_next_flush()").execute(&self.pool).await.unwrap();
        let blocks = "select sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
                        from pg_statio_user_tables where relname in ('claims', 'stock_returned')";
        sqlx::query_scalar(blocks).fetch_one(&self.pool).await.unwrap()
    }
}

fn lookups(due_from: i64, returned_from: i64) -> Lookups {
    let limit = usize::try_from(LEFT).unwrap();
    Lookups {
        due: Some(DueLookup { from: Millis(due_from), until: Millis(1_000 + ENDED + LEFT), limit }),
        returned: vec![ReturnedLookup { coupon: COUPON, from: CodeNumber(returned_from), limit }],
        ..Lookups::default()
    }
}

#[tokio::test]
async fn reads_beside_a_long_snapshot_do_not_walk_deadlines_and_returned_numbers_that_have_ended() {
    let owner = Fixture::new(ENDED + LEFT).await;
    owner.run(BEGUN).await;
    let mut export = PgConnection::connect_with(&owner.options).await.unwrap();
    let mut snapshot = export.begin_with("begin isolation level repeatable read").await.unwrap();
    sqlx::query("select count(*) from claims").execute(&mut *snapshot).await.unwrap();
    owner.run(ENDS).await;

    let pool = read_pool(&owner.options, 1);
    let reader = Reader { reader: PgReader::new(pool.clone()), pool };
    let bounded = lookups(1_000 + ENDED + 1, ENDED + 1);
    // The first lookups of a connection read the catalogue, and prepare.
    for _ in 0..7 {
        reader.blocks(&bounded).await;
    }
    let (results, few) = reader.blocks(&bounded).await;
    let (unbounded, many) = reader.blocks(&lookups(i64::MIN, 0)).await;
    assert_eq!(results, unbounded, "nothing that is live lies below the bounds");
    assert_eq!(results.due.unwrap().claims.len(), usize::try_from(LEFT).unwrap());
    assert_eq!(results.returned[0].1.len(), usize::try_from(LEFT).unwrap());
    assert!(many > 300, "the snapshot keeps what has ended: {many} blocks");
    assert!(few < 100, "{few} blocks were read for {LEFT} rows of each table; without bounds {many}");
    snapshot.rollback().await.unwrap();
}
