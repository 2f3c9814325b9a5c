//! The ledger ports, implemented by [`PgReader`] and [`PgLedger`].

use std::sync::Arc;

use coupon_core::ids::{EmitSeq, Millis, Nonce, Offset, Partition};
use coupon_core::interface::{CodeEntry, LookupResults, Lookups, PartitionRow, ReadCodes, WriteResult};
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use runtime::registry::schema_definition;
use schemas::SchemaId;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::{PgLedger, PgReader, WarmConnections};
use crate::codec::messages::EncodedBatch;
use crate::ports::{Ledger, Ledgers, OutboxEntry, PortError, Writer};

/// Opens a ledger for each ownership.
pub struct PgLedgers {
    /// Options of writing connections.
    pub options: PgConnectOptions,
    /// The pool that readers share.
    pub pool: PgPool,
    /// Open connections for takeovers.
    pub warm_connections: Arc<WarmConnections>,
    /// The name of this worker.
    pub worker: String,
}

impl Ledgers for PgLedgers {
    fn open(&self, partition: Partition) -> (Arc<dyn Ledger>, Arc<dyn Writer>) {
        let reader = PgReader::new(self.pool.clone());
        let writer = PgLedger::new(&self.options, reader.clone(), partition, &self.worker)
            .with_warm_connections(Arc::clone(&self.warm_connections));
        (Arc::new(Reader { partition, reader, pool: self.pool.clone() }), Arc::new(writer))
    }
}

struct Reader {
    partition: Partition,
    reader: PgReader,
    pool: PgPool,
}

impl Ledger for Reader {
    fn lookup(&self, lookups: Arc<Lookups>) -> BoxFuture<'_, Result<LookupResults, PortError>> {
        async move { Ok(self.reader.lookup(self.partition, &lookups).await?) }.boxed()
    }

    fn read_codes(&self, reads: Vec<ReadCodes>) -> BoxFuture<'_, Result<Vec<Vec<CodeEntry>>, PortError>> {
        async move { Ok(self.reader.read_codes(&reads).await?) }.boxed()
    }

    fn clock(&self, offset: Offset) -> BoxFuture<'_, Result<(Millis, Option<Offset>), PortError>> {
        self.reader.clock(self.partition, offset).map_err(PortError::from).boxed()
    }

    fn outbox_entries(
        &self,
        from: EmitSeq,
        to: EmitSeq,
    ) -> BoxFuture<'_, Result<Vec<OutboxEntry>, PortError>> {
        self.reader.outbox(self.partition, from, to).map_err(PortError::from).boxed()
    }

    fn schema_definition(&self, id: SchemaId) -> BoxFuture<'_, Result<Option<String>, PortError>> {
        schema_definition(&self.pool, id).map_err(PortError::from).boxed()
    }
}

impl Writer for PgLedger {
    fn take_over(&self, nonce: Nonce) -> BoxFuture<'_, Result<PartitionRow, PortError>> {
        Self::take_over(self, nonce).map_err(PortError::from).boxed()
    }

    fn write(&self, batch: Arc<EncodedBatch>) -> BoxFuture<'_, WriteResult> {
        async move { Self::write(self, &batch).await }.boxed()
    }

    fn read_back(&self) -> BoxFuture<'_, Result<PartitionRow, PortError>> {
        Self::read_back(self).map_err(PortError::from).boxed()
    }
}
