//! Which coupons exist, so that a claim of an unknown one is 404 without costing every claim a query.
//!
//! Guarantees: that a coupon exists is remembered (coupons are never removed); that one does not is forgotten
//! after a second, since somebody may be making it; however many ask for the same id at once, Postgres is asked
//! once; while Postgres does not answer nothing is claimed to be unknown (the owner will decide).

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::{FixedState, RandomState};
use sqlx::PgPool;
use std::hash::BuildHasher as _;
use tokio::sync::OnceCell;

const SHARDS: usize = 16;
/// How long an answer other than "it exists" counts.
const BRIEF: Duration = Duration::from_secs(1);
/// How long a claim waits for Postgres to say whether its coupon exists.
const PATIENCE: Duration = Duration::from_millis(500);
/// Ids that are being asked for, or were not found, per shard.
const ASKED: usize = 1_024;

/// What is known of a coupon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It exists.
    There,
    /// It did not exist a moment ago.
    Absent,
    /// Postgres did not say.
    Unsure,
}

/// The coupons that were asked for last.
#[derive(Debug)]
pub(crate) struct KnownCoupons {
    shards: Vec<Mutex<Shard>>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    new: HashMap<Box<str>, (), RandomState>,
    old: HashMap<Box<str>, (), RandomState>,
    asked: HashMap<Box<str>, Asked, RandomState>,
}

#[derive(Clone, Debug)]
struct Asked {
    since: Instant,
    answer: Arc<OnceCell<Known>>,
}

impl KnownCoupons {
    /// Remembers at most this many.
    pub(crate) fn new(coupons: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, capacity: (coupons / SHARDS / 2).max(1) }
    }

    /// Whether the coupon exists.
    pub(crate) async fn look(&self, coupon_id: &str, pool: &PgPool) -> Known {
        if self.remembers(coupon_id) {
            return Known::There;
        }
        let asked = self.ask(coupon_id, Instant::now());
        let known = *asked.get_or_init(|| query(coupon_id.to_owned(), pool.clone())).await;
        if known == Known::There {
            self.insert(coupon_id);
        }
        known
    }

    /// The coupon was just made.
    pub(crate) fn insert(&self, coupon_id: &str) {
        let mut shard = self.shard(coupon_id);
        shard.asked.remove(coupon_id);
        if shard.new.len() >= self.capacity {
            let shard = &mut *shard;
            mem::swap(&mut shard.new, &mut shard.old);
            shard.new.clear();
        }
        shard.new.insert(coupon_id.into(), ());
    }

    fn remembers(&self, coupon_id: &str) -> bool {
        let shard = self.shard(coupon_id);
        shard.new.contains_key(coupon_id) || shard.old.contains_key(coupon_id)
    }

    fn ask(&self, coupon_id: &str, now: Instant) -> Arc<OnceCell<Known>> {
        let mut shard = self.shard(coupon_id);
        if let Some(asked) = shard.asked.get(coupon_id)
            && now.duration_since(asked.since) < BRIEF
        {
            return Arc::clone(&asked.answer);
        }
        if shard.asked.len() >= ASKED {
            shard.asked.retain(|_, asked| now.duration_since(asked.since) < BRIEF);
        }
        if shard.asked.len() >= ASKED {
            shard.asked.clear();
        }
        let asked = Asked { since: now, answer: Arc::default() };
        shard.asked.insert(coupon_id.into(), asked.clone());
        asked.answer
    }

    fn shard(&self, coupon_id: &str) -> MutexGuard<'_, Shard> {
        let hash = FixedState::default().hash_one(coupon_id);
        self.shards[(hash as usize) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn query(coupon_id: String, pool: PgPool) -> Known {
    let asked =
        sqlx::query_scalar("select exists (select from coupons where coupon_id = $1)").bind(coupon_id);
    match tokio::time::timeout(PATIENCE, asked.fetch_one(&pool)).await {
        Ok(Ok(true)) => Known::There,
        Ok(Ok(false)) => Known::Absent,
        Ok(Err(error)) => {
            tracing::warn!(%error, "Postgres does not say whether a coupon exists");
            Known::Unsure
        }
        Err(_) => Known::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_coupon_that_was_just_made_is_known_although_it_was_absent_a_moment_ago() {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .connect_lazy("postgres://nobody@127.0.0.1:1/none")
            .expect("an address");
        let known = KnownCoupons::new(1_000);
        // Nobody answers there: that is not the same as absent.
        assert_eq!(known.look("spring", &pool).await, Known::Unsure);
        known.insert("spring");
        assert_eq!(known.look("spring", &pool).await, Known::There);
    }

    #[test]
    fn the_number_of_remembered_coupons_is_bounded() {
        let known = KnownCoupons::new(SHARDS * 8);
        for n in 0..10_000 {
            known.insert(&format!("c{n}"));
            drop(known.ask(&format!("d{n}"), Instant::now()));
        }
        let (kept, asked) = known.shards.iter().fold((0, 0), |(kept, asked), shard| {
            let shard = shard.lock().expect("nobody panicked");
            (kept + shard.new.len() + shard.old.len(), asked + shard.asked.len())
        });
        assert!(kept <= SHARDS * 8 && asked <= SHARDS * ASKED, "{kept} {asked}");
    }
}
