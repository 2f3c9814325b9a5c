//! Kafka clients that are recreated when they cannot reconnect.
//!
//! The first metadata response of a cluster whose brokers were all frozen lists no brokers. librdkafka then drops every
//! broker it had, the bootstrap servers included, and may lose its own request to bootstrap again
//! (confluentinc/librdkafka#5301, not fixed in 2.12): such a client never connects again, and reports nothing.
//!
//! Guarantee: a client that fails [`MAX_MISSES`] probes in a row while a newly created probe client succeeds is replaced.
//! While the probe client fails too, Kafka itself is unreachable and no client is replaced.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use schemas::topics::REQUESTS;

use crate::config::KafkaArgs;
use crate::kafka;

/// Time between two probes of a client.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Time limit of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive failed probes after which a client is recreated.
const MAX_MISSES: u32 = 2;

/// Counter of recreated clients, by `client`.
pub const CLIENTS_RECREATED: &str = "stampede_kafka_clients_recreated_total";

/// A Kafka client that can be probed.
pub trait Client: Send + Sync + 'static {
    /// Sends a broker a small request. Blocks.
    ///
    /// # Errors
    /// When no broker responds within `timeout`.
    fn probe(&self, timeout: Duration) -> KafkaResult<()>;
}

impl<C: ConsumerContext + 'static> Client for BaseConsumer<C> {
    fn probe(&self, timeout: Duration) -> KafkaResult<()> {
        self.fetch_metadata(Some(REQUESTS), timeout).map(drop)
    }
}

impl<C: ProducerContext + 'static> Client for ThreadedProducer<C> {
    fn probe(&self, timeout: Duration) -> KafkaResult<()> {
        self.client().fetch_metadata(Some(REQUESTS), timeout).map(drop)
    }
}

/// A client that [`supervise`] probes and recreates.
pub trait SupervisedClient: Send + Sync {
    /// Name in logs and metrics.
    fn name(&self) -> &'static str;

    /// As [`Client::probe`].
    ///
    /// # Errors
    /// As [`Client::probe`].
    fn probe(&self, timeout: Duration) -> KafkaResult<()>;

    /// Replaces the client with a new one. Unfinished work of the previous client fails, or is done twice.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    fn recreate(&self) -> KafkaResult<()>;
}

/// A client together with the function that creates a replacement.
pub struct Supervised<C> {
    name: &'static str,
    current: ArcSwap<C>,
    create: Box<dyn Fn() -> KafkaResult<C> + Send + Sync>,
}

impl<C> Supervised<C> {
    /// Creates the first client.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn new(
        name: &'static str,
        create: impl Fn() -> KafkaResult<C> + Send + Sync + 'static,
    ) -> KafkaResult<Arc<Self>> {
        let current = ArcSwap::from_pointee(create()?);
        Ok(Arc::new(Self { name, current, create: Box::new(create) }))
    }

    /// The current client, for one call.
    pub fn current(&self) -> Guard<Arc<C>> {
        self.current.load()
    }

    /// The current client, to be kept for as long as [`Self::is_current`] holds.
    #[must_use]
    pub fn current_owned(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Whether this client has not been replaced.
    #[must_use]
    pub fn is_current(&self, client: &Arc<C>) -> bool {
        Arc::ptr_eq(&self.current.load(), client)
    }

    /// Replaces the current client, which is closed when its last `Arc` is dropped.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn replace(&self) -> KafkaResult<()> {
        self.current.store(Arc::new((self.create)()?));
        Ok(())
    }
}

impl<C: ProducerContext + Clone + 'static> Supervised<ThreadedProducer<C>> {
    /// A producer with these settings; replacements get the same settings.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn producer(name: &'static str, config: ClientConfig, context: C) -> KafkaResult<Arc<Self>> {
        Self::new(name, move || ThreadedProducer::from_config_and_context(&config, context.clone()))
    }
}

impl<C: Client> Supervised<C> {
    /// This client as a trait object, to be passed to [`supervise`].
    #[must_use]
    pub fn as_supervised(self: &Arc<Self>) -> Arc<dyn SupervisedClient> {
        Arc::<Self>::clone(self)
    }
}

impl<C: Client> SupervisedClient for Supervised<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn probe(&self, timeout: Duration) -> KafkaResult<()> {
        self.current_owned().probe(timeout)
    }

    fn recreate(&self) -> KafkaResult<()> {
        self.replace()
    }
}

/// Probes all clients periodically, and recreates those that cannot reconnect. Returns only after a panic.
pub async fn supervise(args: KafkaArgs, clients: Vec<Arc<dyn SupervisedClient>>) {
    let mut watched: Vec<Watch> = clients.into_iter().map(|client| Watch { client, misses: 0 }).collect();
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let config = kafka::client(&args, "stampede-probe");
        let round = tokio::task::spawn_blocking(move || {
            probe_all(&mut watched, || new_client_connects(&config));
            watched
        });
        match round.await {
            Ok(probed) => watched = probed,
            Err(error) => return tracing::error!(%error, "supervision of the Kafka clients has ended"),
        }
    }
}

/// A client, and its consecutive failed probes in rounds in which Kafka was reachable.
struct Watch {
    client: Arc<dyn SupervisedClient>,
    misses: u32,
}

/// One round of probes. Blocks.
fn probe_all(watched: &mut [Watch], new_client_connects: impl Fn() -> bool) {
    for Watch { client, misses } in &mut *watched {
        *misses = if client.probe(PROBE_TIMEOUT).is_ok() { 0 } else { *misses + 1 };
    }
    let any_missed = watched.iter().any(|watch| watch.misses > 0);
    if any_missed && !new_client_connects() {
        // Kafka itself is unreachable: a replacement could not connect either.
        watched.iter_mut().for_each(|watch| watch.misses = 0);
    }
    for Watch { client, misses } in watched.iter_mut().filter(|watch| watch.misses >= MAX_MISSES) {
        *misses = 0;
        let name = client.name();
        match client.recreate() {
            Ok(()) => {
                metrics::counter!(CLIENTS_RECREATED, "client" => name).increment(1);
                tracing::warn!(
                    client = name,
                    "Kafka client recreated: it did not reconnect, a new client did"
                );
            }
            Err(error) => {
                tracing::error!(client = name, %error, "Kafka client does not reconnect and cannot be recreated");
            }
        }
    }
}

fn new_client_connects(config: &ClientConfig) -> bool {
    let brokers = config
        .create::<BaseConsumer>()
        .and_then(|client| Ok(client.fetch_metadata(Some(REQUESTS), PROBE_TIMEOUT)?.brokers().len()));
    brokers.is_ok_and(|brokers| brokers > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rdkafka::error::KafkaError;

    use super::*;

    /// Reaches Kafka unless it is the first one created.
    struct Numbered(u32);

    impl Client for Numbered {
        fn probe(&self, _: Duration) -> KafkaResult<()> {
            if self.0 == 0 { Err(KafkaError::Canceled) } else { Ok(()) }
        }
    }

    fn disconnected() -> (Arc<Supervised<Numbered>>, [Watch; 1]) {
        let created = AtomicU32::new(0);
        let client = Supervised::new("test", move || Ok(Numbered(created.fetch_add(1, Ordering::Relaxed))));
        let client = client.expect("creation does not fail");
        let watch = Watch { client: client.as_supervised(), misses: 0 };
        (client, [watch])
    }

    #[test]
    fn a_client_is_recreated_when_it_does_not_reconnect_and_a_new_client_connects() {
        let (client, mut watched) = disconnected();
        let first = client.current_owned();
        probe_all(&mut watched, || true);
        assert!(client.is_current(&first), "one failed probe may be a coincidence");
        probe_all(&mut watched, || true);
        assert!(!client.is_current(&first));
        let second = client.current_owned();
        for _ in 0..5 {
            probe_all(&mut watched, || true);
        }
        assert!(client.is_current(&second), "a connected client is kept");
    }

    #[test]
    fn no_client_is_recreated_while_kafka_is_unreachable() {
        let (client, mut watched) = disconnected();
        let first = client.current_owned();
        for _ in 0..5 {
            probe_all(&mut watched, || false);
        }
        assert!(client.is_current(&first));
        probe_all(&mut watched, || true);
        assert!(client.is_current(&first), "failed probes during an outage do not count");
    }
}
