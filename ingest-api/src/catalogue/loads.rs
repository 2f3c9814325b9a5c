//! Codes in bulk: generated here, stored in chunks beside the owner of the coupon, and handed over by one record.
//!
//! Guarantees: those of [`crate::db::loads`]; a sealed load is announced until its owner has applied it; a load whose
//! process died is continued by another one once its lease is over ([`Leases`]), or sealed as it stands, with a reason,
//! if its codes cannot be generated again. A living process keeps its load, however long Postgres is away. Memory is
//! bounded by two chunks, however many codes are requested.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coupon_core::codes::{Code, Pattern};
use metrics::counter;
use schemas::{CouponRequest, kinds, partition_for};
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::leases::Leases;
use super::stored_pattern;
use crate::clock::unix_ms;
use crate::crash_points::{Point, pass};
use crate::db::loads::{Held, Job, LoadStore, OpenLoad, Stored};
use crate::requests::producer::RequestProducer;
use crate::telemetry::metrics as names;

/// Codes in one transaction.
const CHUNK: i64 = 10_000;
/// Loads that one instance fills concurrently; others wait for a slot.
const MAX_CONCURRENT: usize = 2;
/// How often a waiting load renews its lease.
const RENEWAL: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Well below a lease: a renewal follows each failure.
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(5);

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
    held: Held,
    coupon_id: String,
    wanted: i64,
    /// Codes stored when this process began.
    stored: i64,
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
            let Some(held) = opened else { return Ok(None) };
            let load = Load { held, coupon_id, wanted, stored: 0, pattern: Arc::new(pattern) };
            drop(tokio::spawn(async move { loads.run(load).await }));
            Ok(Some(Job { job_id, state: "open".to_owned(), count: 0, wanted, reason: None }))
        });
        opened.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn run(&self, load: Load) {
        let Some(slot) = self.wait_for_slot(&load).await else { return };
        let sealed = self.fill(&load).await;
        drop(slot);
        if sealed {
            pass(Point::AfterLoadSealed).await;
            self.announce(load.held.load, &load.coupon_id).await;
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
            self.renew(load.held).await;
        }
    }

    async fn renew(&self, held: Held) {
        if let Err(error) = self.store.renew(held).await {
            tracing::warn!(load = held.load, %error, "lease of a load not renewed");
        }
    }

    /// Stores all codes and seals the load; `false` if some instance has to continue it.
    async fn fill(&self, load: &Load) -> bool {
        let (mut stored, mut pause) = (load.stored, FIRST_RETRY_PAUSE);
        let mut next_chunk = None;
        while stored < load.wanted {
            if self.stop.is_cancelled() {
                return false;
            }
            let chunk = next_chunk.take().unwrap_or_else(|| generate(&load.pattern, load.wanted - stored));
            let Some(codes) = generated(load, chunk.await) else { return false };
            let added = i64::try_from(codes.len()).unwrap_or(i64::MAX);
            if added == 0 {
                return self.seal(load.held, Some("its pattern has no more codes")).await;
            }
            // The next chunk is generated while this one is stored.
            let rest = load.wanted - stored - added;
            next_chunk = (rest > 0).then(|| generate(&load.pattern, rest));
            match self.store.store(load.held, stored, &codes).await {
                Ok(Stored::Yes) => {
                    pass(Point::AfterLoadChunk).await;
                    counter!(names::CODES_GENERATED).increment(codes.len() as u64);
                    (stored, pause) = (stored + added, FIRST_RETRY_PAUSE);
                }
                Ok(Stored::Collision) => {
                    // Or the chunk was committed although its response was lost.
                    (next_chunk, stored) = (None, self.stored(load, stored).await);
                }
                Ok(Stored::LeaseLost) => return false,
                Err(error) => {
                    tracing::warn!(load = load.held.load, stored, %error, "chunk of codes not stored; retrying");
                    tokio::time::sleep(pause).await;
                    (next_chunk, pause) = (None, (pause * 2).min(LONGEST_RETRY_PAUSE));
                    self.renew(load.held).await;
                    // The transaction may have been committed although the response was lost.
                    stored = self.stored(load, stored).await;
                }
            }
        }
        self.seal(load.held, None).await
    }

    /// Codes stored so far; `known` if Postgres does not respond.
    async fn stored(&self, load: &Load, known: i64) -> i64 {
        self.store.count(load.held.load).await.unwrap_or(known)
    }

    async fn seal(&self, held: Held, reason: Option<&str>) -> bool {
        self.store.seal(held, reason).await.unwrap_or_else(|error| {
            tracing::warn!(load = held.load, %error, "load not sealed; it is sealed when its lease is over");
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

    /// Continues loads whose process died, and announces sealed loads until they are applied. Ends with the process.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut leases = Leases::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            }
            if let Err(error) = self.sweep_once(&mut leases).await {
                tracing::warn!(%error, "sweep of loads failed");
            }
        }
    }

    async fn sweep_once(self: &Arc<Self>, leases: &mut Leases) -> Result<(), sqlx::Error> {
        let now = Instant::now();
        for open in leases.observe(now, self.store.open_loads().await?) {
            self.continue_load(open).await?;
        }
        for (load, coupon_id) in self.store.take_unannounced().await? {
            self.announce(load, &coupon_id).await;
        }
        Ok(())
    }

    /// Continues a load whose lease is over, unless another instance does.
    async fn continue_load(self: &Arc<Self>, open: OpenLoad) -> Result<(), sqlx::Error> {
        let Some(held) = self.store.replace_holder(&open).await? else { return Ok(()) };
        let OpenLoad { load_id, coupon_id, wanted, count, pattern, .. } = open;
        if let Some(pattern) = pattern.as_ref().and_then(stored_pattern::from_json) {
            tracing::warn!(
                load = load_id,
                count,
                wanted,
                "the process that filled a load is gone: continuing it"
            );
            let load = Load { held, coupon_id, wanted, stored: count, pattern: Arc::new(pattern) };
            let loads = Arc::clone(self);
            drop(tokio::spawn(async move { loads.run(load).await }));
        } else {
            tracing::warn!(
                load = load_id,
                count,
                wanted,
                "the source of a load is gone: sealing it as it stands"
            );
            let reason = "the process that loaded the codes died, and their source cannot be read again";
            let _sealed: bool = self.seal(held, Some(reason)).await;
        }
        Ok(())
    }
}

/// Starts to generate the next chunk of at most `rest` codes.
fn generate(pattern: &Arc<Pattern>, rest: i64) -> JoinHandle<Vec<Code>> {
    let (pattern, size) = (Arc::clone(pattern), usize::try_from(CHUNK.min(rest)).unwrap_or(0));
    // Milliseconds of computation must not block a thread that serves requests.
    tokio::task::spawn_blocking(move || pattern.generate(rand::rng()).take(size).collect())
}

/// The chunk; `None` after a panic, or when the process stops.
fn generated(load: &Load, chunk: Result<Vec<Code>, JoinError>) -> Option<Vec<Code>> {
    chunk
        .inspect_err(|error| {
            tracing::error!(load = load.held.load, %error, "codes not generated; an instance retries when the lease is over");
        })
        .ok()
}
