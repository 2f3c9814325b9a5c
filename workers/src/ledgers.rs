//! The Postgres ledger behind the seams of the driver.

use std::sync::Arc;

use coupon_core::batch::Batch;
use coupon_core::ids::{EmitSeq, Nonce, Partition};
use coupon_core::interface::{CodeEntry, LookupResults, Lookups, PartitionRow, ReadCodes, WriteResult};
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use runtime::registry::schema_definition;
use schemas::SchemaId;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::ledger::{OutboxEntry, PgLedger, PgReader, Spares};
use crate::messages::Messages;
use crate::seams::{Failure, Ledger, Ledgers, Writer};

/// Opens a ledger for each ownership.
pub struct PgLedgers {
    /// How writers connect.
    pub options: PgConnectOptions,
    /// What readers share.
    pub pool: PgPool,
    /// Writers' connections that are open already.
    pub spares: Arc<Spares>,
    /// What this worker is called.
    pub worker: String,
    /// How events and dead letters look.
    pub messages: Messages,
}

impl Ledgers for PgLedgers {
    fn open(&self, partition: Partition) -> (Arc<dyn Ledger>, Arc<dyn Writer>) {
        let reader = PgReader::new(self.pool.clone());
        let writer = PgLedger::new(&self.options, reader.clone(), partition, &self.worker, self.messages)
            .with_spares(Arc::clone(&self.spares));
        (Arc::new(Reader { partition, reader, pool: self.pool.clone() }), Arc::new(writer))
    }
}

struct Reader {
    partition: Partition,
    reader: PgReader,
    pool: PgPool,
}

impl Ledger for Reader {
    fn load(&self, wants: Arc<Lookups>) -> BoxFuture<'_, Result<LookupResults, Failure>> {
        async move { Ok(self.reader.load(self.partition, &wants).await?) }.boxed()
    }

    fn codes(&self, reads: Vec<ReadCodes>) -> BoxFuture<'_, Result<Vec<Vec<CodeEntry>>, Failure>> {
        async move { Ok(self.reader.read_codes(&reads).await?) }.boxed()
    }

    fn entries(&self, from: EmitSeq, to: EmitSeq) -> BoxFuture<'_, Result<Vec<OutboxEntry>, Failure>> {
        self.reader.outbox(self.partition, from, to).map_err(Failure::from).boxed()
    }

    fn definition(&self, id: SchemaId) -> BoxFuture<'_, Result<Option<String>, Failure>> {
        schema_definition(&self.pool, id).map_err(Failure::from).boxed()
    }
}

impl Writer for PgLedger {
    fn take_over(&self, nonce: Nonce) -> BoxFuture<'_, Result<PartitionRow, Failure>> {
        Self::take_over(self, nonce).map_err(Failure::from).boxed()
    }

    fn write(&self, batch: Arc<Batch>) -> BoxFuture<'_, WriteResult> {
        async move { Self::write(self, &batch).await }.boxed()
    }

    fn read_back(&self) -> BoxFuture<'_, Result<PartitionRow, Failure>> {
        Self::read_back(self).map_err(Failure::from).boxed()
    }
}
