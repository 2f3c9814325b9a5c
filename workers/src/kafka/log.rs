//! The log port: commands to the consumer thread, and the check at a takeover that the log is the one that Postgres
//! has recorded.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use coupon_core::batch::Position;
use coupon_core::ids::{Partition, WriteNo};
use futures::future::{BoxFuture, FutureExt as _};

use crate::kafka::consumer::{Assigned, Command};
use crate::kafka::inspector::Inspector;
use crate::kafka::topic_identity::{self, Identities, Identity};
use crate::ports::{ConsumerCommand, Log, PortError};

/// The log of this process.
pub struct KafkaLog {
    commands: Sender<Command>,
    assigned: Arc<Assigned>,
    inspector: Arc<Inspector>,
    identities: Identities,
}

impl KafkaLog {
    /// `commands` is the channel of the consumer thread, `assigned` the assignment that it maintains.
    #[must_use]
    pub const fn new(
        commands: Sender<Command>,
        assigned: Arc<Assigned>,
        inspector: Arc<Inspector>,
        identities: Identities,
    ) -> Self {
        Self { commands, assigned, inspector, identities }
    }
}

impl Log for KafkaLog {
    fn check(
        &self,
        partition: Partition,
        position: Position,
        write_no: WriteNo,
    ) -> BoxFuture<'_, Result<Result<(), String>, PortError>> {
        let inspector = Arc::clone(&self.inspector);
        async move {
            let inspection =
                tokio::task::spawn_blocking(move || inspector.inspect(partition, position.last_offset));
            let (state, identity, recorded) =
                tokio::join!(inspection, self.identities.current(), self.identities.recorded(partition));
            let recorded = recorded?;
            // The identity comes first: of a deleted topic the inspector returns only an error.
            if let Err(text) = topic_identity::verify(partition, identity, recorded) {
                return Ok(Err(text));
            }
            if let Err(text) = state??.verify(partition, &position, write_no) {
                return Ok(Err(text));
            }
            if let (Identity::Known(id), None) = (identity, recorded) {
                self.identities.record(partition, id).await?;
            }
            Ok(Ok(()))
        }
        .boxed()
    }

    fn send_command(&self, partition: Partition, command: ConsumerCommand) {
        drop(self.commands.send(Command::Partition(partition, command)));
    }

    fn is_assigned(&self, partition: Partition) -> bool {
        self.assigned.contains(partition)
    }
}
