//! Codes in bulk: generated here, stored in chunks beside the owner of the coupon, and handed over by one record.
//!
//! Guarantees: those of [`crate::db::loads`]; a sealed load is announced until its owner has applied it; a load whose
//! process died is sealed as it stands once its lease has expired. Memory is bounded by two chunks, however many codes
//! are requested.

use std::sync::Arc;
use std::time::Duration;

use coupon_core::codes::{Code, Pattern};
use metrics::counter;
use schemas::{CouponRequest, kinds, partition_for};
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::unix_ms;
use crate::crash_points::{Point, pass};
use crate::db::loads::{Job, LoadStore, Stored};
use crate::requests::producer::RequestProducer;
use crate::telemetry::metrics as names;

/// Codes in one transaction.
const CHUNK: i64 = 10_000;
/// Loads that one instance fills concurrently; others wait for a slot.
const MAX_CONCURRENT: usize = 2;
/// How often a waiting load renews its lease.
const RENEWAL: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Consecutive failures after which the lease is left to expire.
const MAX_FAILURES: u32 = 100;

/// Fills and announces loads.
pub(crate) struct Loads {
    store: LoadStore,
    producer: Arc<RequestProducer>,
    partitions: i32,
    slots: Semaphore,
    stop: CancellationToken,
}

/// A load that this process fills.
struct Load {
    id: i64,
    coupon_id: String,
    wanted: i64,
    pattern: Arc<Pattern>,
}

impl Loads {
    pub(crate) fn new(
        pool: PgPool,
        producer: Arc<RequestProducer>,
        partitions: i32,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (store, slots) = (LoadStore::new(pool), Semaphore::new(MAX_CONCURRENT));
        Arc::new(Self { store, producer, partitions, slots, stop })
    }

    /// The rows of loads.
    pub(crate) const fn store(&self) -> &LoadStore {
        &self.store
    }

    /// Opens a load and starts to fill it; `None` for an unknown coupon. Filling continues without the client.
    ///
    /// # Errors
    /// Those of Postgres.
    pub(crate) async fn open(
        self: &Arc<Self>,
        coupon_id: &str,
        wanted: i64,
        pattern: Pattern,
        pattern_json: Value,
    ) -> Result<Option<Job>, sqlx::Error> {
        let job_id = Uuid::from_u128(rand::random());
        let (loads, coupon_id) = (Arc::clone(self), coupon_id.to_owned());
        // A task of its own: a client that disconnects must not leave an open load that no task fills.
        let opened = tokio::spawn(async move {
            let opened = loads.store.open(job_id, &coupon_id, wanted, pattern_json).await?;
            let Some(id) = opened else { return Ok(None) };
            let load = Load { id, coupon_id, wanted, pattern: Arc::new(pattern) };
            drop(tokio::spawn(async move { loads.run(load).await }));
            Ok(Some(Job { job_id, state: "open".to_owned(), count: 0, wanted }))
        });
        opened.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn run(&self, load: Load) {
        let Some(slot) = self.wait_for_slot(&load).await else { return };
        let sealed = self.fill(&load).await;
        drop(slot);
        if sealed {
            pass(Point::AfterLoadSealed).await;
            self.announce(load.id, &load.coupon_id).await;
        }
    }

    /// Waits for a slot, and renews the lease meanwhile. `None` when the process stops.
    async fn wait_for_slot(&self, load: &Load) -> Option<SemaphorePermit<'_>> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                slot = self.slots.acquire() => return slot.ok(),
                () = tokio::time::sleep(RENEWAL) => {}
            }
            if let Err(error) = self.store.renew(load.id).await {
                tracing::warn!(load = load.id, %error, "lease of a waiting load not renewed");
            }
        }
    }

    /// Stores all codes and seals the load; `false` if the sweep of some instance has to finish it.
    async fn fill(&self, load: &Load) -> bool {
        let (mut stored, mut failures) = (0, 0);
        let mut next_chunk = None;
        while stored < load.wanted {
            if self.stop.is_cancelled() || failures > MAX_FAILURES {
                return false;
            }
            let size = CHUNK.min(load.wanted - stored);
            let codes = generated(next_chunk.take().unwrap_or_else(|| generate(&load.pattern, size))).await;
            // The next chunk is generated while this one is stored.
            let rest = load.wanted - stored - size;
            if rest > 0 {
                next_chunk = Some(generate(&load.pattern, CHUNK.min(rest)));
            }
            match self.store.store(load.id, stored, &codes).await {
                Ok(Stored::Yes) => {
                    pass(Point::AfterLoadChunk).await;
                    counter!(names::CODES_GENERATED).increment(codes.len() as u64);
                    (stored, failures) = (stored + size, 0);
                }
                Ok(Stored::Collision) => next_chunk = None,
                Ok(Stored::LeaseLost) => return false,
                Err(error) => {
                    tracing::warn!(load = load.id, stored, %error, "chunk of codes not stored; retrying");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    (next_chunk, failures) = (None, failures + 1);
                    // The transaction may have been committed although the response was lost.
                    stored = self.store.count(load.id).await.unwrap_or(stored);
                }
            }
        }
        self.seal(load.id).await
    }

    async fn seal(&self, load: i64) -> bool {
        self.store.seal(load).await.unwrap_or_else(|error| {
            tracing::warn!(load, %error, "full load not sealed; it is sealed when its lease expires");
            false
        })
    }

    /// Sends a sealed load to the owner of the coupon. A load that is announced twice is applied once.
    async fn announce(&self, load: i64, coupon_id: &str) {
        pass(Point::BeforeAnnounce).await;
        let record = CouponRequest {
            kind: kinds::STOCK_ADDED.to_owned(),
            coupon_id: coupon_id.to_owned(),
            minted_at_ms: unix_ms(),
            load_id: Some(load),
            ..CouponRequest::default()
        };
        let partition = partition_for(coupon_id.as_bytes(), self.partitions);
        let sent = match self.producer.send_internal(&record, partition) {
            Ok(acknowledgement) => acknowledgement.received().await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => counter!(names::LOADS_ANNOUNCED).increment(1),
            Err(error) => tracing::warn!(load, %error, "sealed load not announced; the next sweep retries"),
        }
    }

    /// Seals loads whose process died, and announces sealed loads until they are applied. Ends with the process.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            }
            match self.due().await {
                Ok(due) => {
                    for (load, coupon_id) in due {
                        self.announce(load, &coupon_id).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "sweep of loads failed"),
            }
        }
    }

    async fn due(&self) -> Result<Vec<(i64, String)>, sqlx::Error> {
        for (load, count, wanted) in self.store.seal_expired().await? {
            tracing::warn!(load, count, wanted, "lease of a load expired; sealed with the codes that it has");
        }
        self.store.take_unannounced().await
    }
}

fn generate(pattern: &Arc<Pattern>, size: i64) -> JoinHandle<Vec<Code>> {
    let (pattern, size) = (Arc::clone(pattern), usize::try_from(size).unwrap_or(0));
    // Milliseconds of computation must not block a thread that serves requests.
    tokio::task::spawn_blocking(move || pattern.generate(rand::rng()).take(size).collect())
}

async fn generated(generating: JoinHandle<Vec<Code>>) -> Vec<Code> {
    generating.await.unwrap_or_default()
}
