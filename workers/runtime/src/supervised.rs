//! Kafka clients that are recreated when they no longer work. This is the only way in which a client is replaced.
//!
//! librdkafka recovers from most errors by itself. From two it never does, and it reports only one of them:
//! - A fatal error, for example a consumer group without room for another member, or a fenced producer.
//! - The first metadata response of a cluster whose brokers were all frozen lists no brokers. librdkafka then drops every
//!   broker it had, the bootstrap servers included, and may lose its own request to bootstrap again
//!   (confluentinc/librdkafka#5301, not fixed in 2.12): such a client never connects again.
//!
//! Guarantee: a client that fails [`MAX_MISSES`] probes in a row, while each time a new client with the same settings
//! passes, is replaced. While new clients fail too, Kafka itself is unreachable and no client is replaced.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use schemas::topics::REQUESTS;

/// Time between two probes of a client.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Time limit of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive failed probes after which a client is replaced.
const MAX_MISSES: u32 = 2;

/// Counter of recreated clients, by `client`.
pub const CLIENTS_RECREATED: &str = "stampede_kafka_clients_recreated_total";

/// A Kafka client that can be probed.
pub trait Client: Send + Sync + 'static {
    /// Sends a broker a small request. Blocks.
    ///
    /// # Errors
    /// When the client has failed permanently, or no broker responds in time.
    fn probe(&self) -> KafkaResult<()>;
}

impl<C: ConsumerContext + 'static> Client for BaseConsumer<C> {
    fn probe(&self) -> KafkaResult<()> {
        probe(self.client())
    }
}

impl<C: ProducerContext + 'static> Client for ThreadedProducer<C> {
    fn probe(&self) -> KafkaResult<()> {
        probe(self.client())
    }
}

fn probe<C: ClientContext>(client: &rdkafka::client::Client<C>) -> KafkaResult<()> {
    if let Some((code, _)) = client.fatal_error() {
        return Err(KafkaError::Global(code));
    }
    let metadata = client.fetch_metadata(Some(REQUESTS), PROBE_TIMEOUT)?;
    if metadata.brokers().is_empty() {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown));
    }
    Ok(())
}

/// A client that is replaced when it no longer works.
pub struct Supervised<C> {
    name: &'static str,
    current: ArcSwap<C>,
    create: Box<dyn Fn() -> KafkaResult<C> + Send + Sync>,
}

impl<C: Client> Supervised<C> {
    /// Creates the first client, and supervises it and its replacements until the last `Arc` is dropped. Must be called
    /// within a Tokio runtime. `name` is the name in logs and metrics. What a replaced client had not finished fails, or
    /// is done twice.
    ///
    /// # Errors
    /// When librdkafka rejects the settings.
    pub fn new(
        name: &'static str,
        create: impl Fn() -> KafkaResult<C> + Send + Sync + 'static,
    ) -> KafkaResult<Arc<Self>> {
        let current = ArcSwap::from_pointee(create()?);
        let supervised = Arc::new(Self { name, current, create: Box::new(create) });
        drop(tokio::spawn(Self::supervise(Arc::downgrade(&supervised))));
        Ok(supervised)
    }

    /// The current client, for one call.
    pub fn current(&self) -> Guard<Arc<C>> {
        self.current.load()
    }

    /// The current client, to be kept for as long as [`Self::is_current`] holds. A replaced client is closed when its
    /// last `Arc` is dropped.
    #[must_use]
    pub fn current_owned(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Whether this client has not been replaced.
    #[must_use]
    pub fn is_current(&self, client: &Arc<C>) -> bool {
        Arc::ptr_eq(&self.current.load(), client)
    }

    async fn supervise(supervised: Weak<Self>) {
        let mut misses = 0;
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            let Some(supervised) = supervised.upgrade() else { return };
            let name = supervised.name;
            match tokio::task::spawn_blocking(move || supervised.check(misses)).await {
                Ok(counted) => misses = counted,
                Err(error) => {
                    return tracing::error!(client = name, %error, "supervision of the Kafka client has ended");
                }
            }
        }
    }

    /// One probe, after this many consecutive failed ones. Returns their new number. Blocks.
    fn check(&self, misses: u32) -> u32 {
        let Err(reason) = self.current_owned().probe() else { return 0 };
        let name = self.name;
        let replacement = match (self.create)().and_then(|client| client.probe().map(|()| client)) {
            Ok(replacement) => replacement,
            Err(error) => {
                tracing::info!(client = name, %error, "Kafka client not recreated: a new client fails, too");
                return 0;
            }
        };
        if misses + 1 < MAX_MISSES {
            return misses + 1; // One failed probe may be a coincidence.
        }
        self.current.store(Arc::new(replacement));
        metrics::counter!(CLIENTS_RECREATED, "client" => name).increment(1);
        tracing::warn!(client = name, %reason, "Kafka client recreated: it failed permanently, a new client works");
        0
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    /// Reaches Kafka while it is up, unless it is the first one created.
    struct Numbered(u32, Arc<AtomicBool>);

    impl Client for Numbered {
        fn probe(&self) -> KafkaResult<()> {
            let works = self.0 > 0 && self.1.load(Ordering::Relaxed);
            if works { Ok(()) } else { Err(KafkaError::Canceled) }
        }
    }

    fn supervised(kafka_is_up: &Arc<AtomicBool>) -> Arc<Supervised<Numbered>> {
        let (created, kafka_is_up) = (AtomicU32::new(0), Arc::clone(kafka_is_up));
        let create = move || Ok(Numbered(created.fetch_add(1, Ordering::Relaxed), Arc::clone(&kafka_is_up)));
        Supervised::new("test", create).expect("creation does not fail")
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_recreated_when_it_fails_its_probes_and_a_new_client_passes() {
        let client = supervised(&Arc::new(AtomicBool::new(true)));
        let first = client.current_owned();
        tokio::time::sleep(PROBE_INTERVAL * 3 / 2).await;
        assert!(client.is_current(&first), "one failed probe may be a coincidence");
        tokio::time::sleep(PROBE_INTERVAL * 2).await;
        assert!(!client.is_current(&first));
        let second = client.current_owned();
        tokio::time::sleep(PROBE_INTERVAL * 9).await;
        assert!(client.is_current(&second), "a client that works is kept");
        let weak = Arc::downgrade(&client);
        drop(client);
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert!(weak.upgrade().is_none(), "supervision keeps no client alive");
    }

    #[tokio::test]
    async fn no_client_is_recreated_while_kafka_is_unreachable() {
        let kafka_is_up = Arc::new(AtomicBool::new(false));
        let client = supervised(&kafka_is_up);
        let first = client.current_owned();
        let misses = (0..5).fold(0, |misses, _| client.check(misses));
        kafka_is_up.store(true, Ordering::Relaxed);
        let misses = client.check(misses);
        assert!(client.is_current(&first), "failed probes during an outage do not count");
        client.check(misses);
        assert!(!client.is_current(&first));
    }
}
