//! Clients of Kafka that are made anew when they cannot find back to it.
//!
//! A cluster all of whose brokers slept answers the first question after it wakes with an empty list of brokers.
//! librdkafka then forgets those that it knew, its bootstrap servers among them, and may lose its own order to begin anew
//! with these (confluentinc/librdkafka#5301, not mended in 2.12): such a client never connects again, and says
//! nothing. It shows only in questions that stay without an answer while a newcomer gets one.

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

/// How often every client is asked.
const RHYTHM: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions in a row that a client may leave unanswered while others are answered.
const MISSES: u32 = 2;

/// Counts clients that were made anew, by `client`.
pub const RENEWED: &str = "stampede_kafka_clients_renewed_total";

/// A client that can say whether it reaches a broker.
pub trait Client: Send + Sync + 'static {
    /// Asks a broker for something small. Blocks.
    ///
    /// # Errors
    /// When none answers within `patience`.
    fn reach(&self, patience: Duration) -> KafkaResult<()>;
}

impl<C: ConsumerContext + 'static> Client for BaseConsumer<C> {
    fn reach(&self, patience: Duration) -> KafkaResult<()> {
        self.fetch_metadata(Some(REQUESTS), patience).map(drop)
    }
}

impl<C: ProducerContext + 'static> Client for ThreadedProducer<C> {
    fn reach(&self, patience: Duration) -> KafkaResult<()> {
        self.client().fetch_metadata(Some(REQUESTS), patience).map(drop)
    }
}

/// What [`watch`] keeps alive.
pub trait Watched: Send + Sync {
    /// For the log and for metrics.
    fn name(&self) -> &'static str;

    /// As [`Client::reach`].
    ///
    /// # Errors
    /// As [`Client::reach`].
    fn reach(&self, patience: Duration) -> KafkaResult<()>;

    /// Begins anew. What the old client still had to do fails, or is done twice.
    ///
    /// # Errors
    /// What librdkafka has against it.
    fn renew(&self) -> KafkaResult<()>;
}

/// A client, and how to make another one.
pub struct Renewable<C> {
    name: &'static str,
    current: ArcSwap<C>,
    make: Box<dyn Fn() -> KafkaResult<C> + Send + Sync>,
}

impl<C> Renewable<C> {
    /// Makes the first one.
    ///
    /// # Errors
    /// What librdkafka has against the settings.
    pub fn new(
        name: &'static str,
        make: impl Fn() -> KafkaResult<C> + Send + Sync + 'static,
    ) -> KafkaResult<Arc<Self>> {
        let current = ArcSwap::from_pointee(make()?);
        Ok(Arc::new(Self { name, current, make: Box::new(make) }))
    }

    /// The client of this moment, for one use.
    pub fn now(&self) -> Guard<Arc<C>> {
        self.current.load()
    }

    /// The client of this moment, to be kept until [`Self::is_now`] denies it.
    #[must_use]
    pub fn keep(&self) -> Arc<C> {
        self.current.load_full()
    }

    /// Whether this is still the client to use.
    #[must_use]
    pub fn is_now(&self, kept: &Arc<C>) -> bool {
        Arc::ptr_eq(&self.current.load(), kept)
    }

    /// Puts another client in the place of this one, which ends when the last one that keeps it lets go.
    ///
    /// # Errors
    /// What librdkafka has against the settings.
    pub fn replace(&self) -> KafkaResult<()> {
        self.current.store(Arc::new((self.make)()?));
        Ok(())
    }
}

impl<C: ProducerContext + Clone + 'static> Renewable<ThreadedProducer<C>> {
    /// A producer with these settings, and another one like it whenever that is needed.
    ///
    /// # Errors
    /// What librdkafka has against the settings.
    pub fn producer(name: &'static str, config: ClientConfig, context: C) -> KafkaResult<Arc<Self>> {
        Self::new(name, move || ThreadedProducer::from_config_and_context(&config, context.clone()))
    }
}

impl<C: Client> Renewable<C> {
    /// This one, among others of other kinds.
    #[must_use]
    pub fn watched(self: &Arc<Self>) -> Arc<dyn Watched> {
        Arc::<Self>::clone(self)
    }
}

impl<C: Client> Watched for Renewable<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reach(&self, patience: Duration) -> KafkaResult<()> {
        self.keep().reach(patience)
    }

    fn renew(&self) -> KafkaResult<()> {
        self.replace()
    }
}

/// Asks all clients from time to time, and renews those that are not answered while a newcomer is. Never ends by itself.
pub async fn watch(args: KafkaArgs, clients: Vec<Arc<dyn Watched>>) {
    let mut watched: Vec<Watch> = clients.into_iter().map(|client| Watch { client, misses: 0 }).collect();
    loop {
        tokio::time::sleep(RHYTHM).await;
        let config = kafka::client(&args, "stampede-newcomer");
        // A round that panicked says so, and nobody is watched any more.
        let round = tokio::task::spawn_blocking(move || {
            look_after(&mut watched, || newcomer_is_answered(&config));
            watched
        });
        match round.await {
            Ok(looked_after) => watched = looked_after,
            Err(error) => return tracing::error!(%error, "Kafka's clients are not watched any more"),
        }
    }
}

/// One client, and how many questions in a row it left unanswered while others were answered.
struct Watch {
    client: Arc<dyn Watched>,
    misses: u32,
}

/// One round. Blocks.
fn look_after(watched: &mut [Watch], newcomer_is_answered: impl Fn() -> bool) {
    for Watch { client, misses } in &mut *watched {
        *misses = if client.reach(PATIENCE).is_ok() { 0 } else { *misses + 1 };
    }
    let any_missed = watched.iter().any(|watch| watch.misses > 0);
    if any_missed && !newcomer_is_answered() {
        // Kafka is away, for everybody.
        watched.iter_mut().for_each(|watch| watch.misses = 0);
    }
    for Watch { client, misses } in watched.iter_mut().filter(|watch| watch.misses >= MISSES) {
        *misses = 0;
        let client_name = client.name();
        match client.renew() {
            Ok(()) => {
                metrics::counter!(RENEWED, "client" => client_name).increment(1);
                tracing::warn!(client = client_name, "cut off from Kafka while others are not: begun anew");
            }
            Err(error) => {
                tracing::error!(client = client_name, %error, "cut off from Kafka, and cannot begin anew")
            }
        }
    }
}

fn newcomer_is_answered(config: &ClientConfig) -> bool {
    let asked = config
        .create::<BaseConsumer>()
        .and_then(|newcomer| Ok(newcomer.fetch_metadata(Some(REQUESTS), PATIENCE)?.brokers().len()));
    asked.is_ok_and(|brokers| brokers > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rdkafka::error::KafkaError;

    use super::*;

    /// Reaches Kafka unless it is the first of its kind.
    struct Made(u32);

    impl Client for Made {
        fn reach(&self, _: Duration) -> KafkaResult<()> {
            if self.0 == 0 { Err(KafkaError::Canceled) } else { Ok(()) }
        }
    }

    fn cut_off() -> (Arc<Renewable<Made>>, [Watch; 1]) {
        let made = AtomicU32::new(0);
        let client = Renewable::new("test", move || Ok(Made(made.fetch_add(1, Ordering::Relaxed))));
        let client = client.expect("nothing is against it");
        let watch = Watch { client: client.watched(), misses: 0 };
        (client, [watch])
    }

    #[test]
    fn a_client_that_is_cut_off_while_a_newcomer_is_not_begins_anew() {
        let (client, mut watched) = cut_off();
        let kept = client.keep();
        look_after(&mut watched, || true);
        assert!(client.is_now(&kept), "once may be chance");
        look_after(&mut watched, || true);
        assert!(!client.is_now(&kept));
        let renewed = client.keep();
        for _ in 0..5 {
            look_after(&mut watched, || true);
        }
        assert!(client.is_now(&renewed), "one that is answered stays");
    }

    #[test]
    fn nobody_begins_anew_while_kafka_itself_is_away() {
        let (client, mut watched) = cut_off();
        let kept = client.keep();
        for _ in 0..5 {
            look_after(&mut watched, || false);
        }
        assert!(client.is_now(&kept));
        look_after(&mut watched, || true);
        assert!(client.is_now(&kept), "what it missed with everybody does not count");
    }
}
