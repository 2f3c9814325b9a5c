//! Detours: proxies on the way from our programs to the servers, so that a line can fail without anybody's death.
//!
//! They run on a thread of their own, because a stack may be started in one runtime and used in another. Kafka's
//! clients follow the addresses that brokers advertise, so a broker has a listener of its own for each kind of program
//! that takes a detour, and what it advertises there is the proxy.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::config::StackConfig;
use crate::ports::Ports;
use crate::proxy::Proxy;
use crate::{Child, StackError, kafka, postgres, redis};

/// A line from one kind of program to one kind of server, displayed as `workers-to-postgres`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detour {
    /// Every worker's connections to every broker.
    WorkersToKafka,
    /// Every worker's connections to Postgres.
    WorkersToPostgres,
    /// Every worker's connections to Redis.
    WorkersToRedis,
    /// Every `ingest-api`'s connections to every broker.
    ApisToKafka,
    /// Every `ingest-api`'s connections to Postgres.
    ApisToPostgres,
}

impl Detour {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::WorkersToKafka,
        Self::WorkersToPostgres,
        Self::WorkersToRedis,
        Self::ApisToKafka,
        Self::ApisToPostgres,
    ];

    /// The one that this program would take to Kafka.
    pub(crate) const fn to_kafka(child: Child) -> Self {
        if matches!(child, Child::Api(_)) { Self::ApisToKafka } else { Self::WorkersToKafka }
    }

    /// The one that this program would take to Postgres.
    pub(crate) const fn to_postgres(child: Child) -> Self {
        if matches!(child, Child::Api(_)) { Self::ApisToPostgres } else { Self::WorkersToPostgres }
    }

    /// Name of the broker's listener for it; `None` where it does not lead to Kafka.
    pub(crate) const fn listener(self) -> Option<&'static str> {
        match self {
            Self::WorkersToKafka => Some("WORKERS"),
            Self::ApisToKafka => Some("APIS"),
            Self::WorkersToPostgres | Self::WorkersToRedis | Self::ApisToPostgres => None,
        }
    }

    /// Name of the port on which its proxy stands in for the `n`-th of its servers.
    pub(crate) fn port_name(self, n: usize) -> String {
        format!("{self}/{n}")
    }

    /// Names of the ports of the servers that it leads to.
    fn servers(self, config: &StackConfig) -> Vec<String> {
        match self {
            Self::WorkersToKafka | Self::ApisToKafka => {
                kafka::brokers(config).map(|broker| kafka::detour_port_name(broker, self)).collect()
            }
            Self::WorkersToPostgres | Self::ApisToPostgres => vec![postgres::PORT.to_owned()],
            Self::WorkersToRedis => vec![redis::PORT.to_owned()],
        }
    }
}

impl fmt::Display for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkersToKafka => "workers-to-kafka",
            Self::WorkersToPostgres => "workers-to-postgres",
            Self::WorkersToRedis => "workers-to-redis",
            Self::ApisToKafka => "apis-to-kafka",
            Self::ApisToPostgres => "apis-to-postgres",
        })
    }
}

/// The detours of one stack.
pub(crate) struct Detours {
    proxies: BTreeMap<Detour, Proxy>,
    /// `None` where there are no detours.
    runtime: Option<Runtime>,
}

impl Detours {
    /// Reserves the proxies' ports; before the servers are made known, which advertise them.
    pub(crate) fn reserve(config: &StackConfig, ports: &mut Ports) -> Result<(), StackError> {
        for detour in &config.detours {
            for n in 0..detour.servers(config).len() {
                ports.reserve(&detour.port_name(n))?;
            }
        }
        Ok(())
    }

    /// Opens them; the servers' ports are reserved.
    pub(crate) fn open(config: &StackConfig, ports: &mut Ports) -> Result<Self, StackError> {
        let failed = |source| StackError::Io { what: "cannot open a detour".to_owned(), source };
        if config.detours.is_empty() {
            return Ok(Self { proxies: BTreeMap::new(), runtime: None });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("detours")
            .enable_all()
            .build()
            .map_err(failed)?;
        let mut detours = Self { proxies: BTreeMap::new(), runtime: None };
        for detour in &config.detours {
            let proxy = Proxy::new();
            for (n, server) in detour.servers(config).iter().enumerate() {
                let Some(listener) = ports.take(&detour.port_name(n)) else { continue };
                listener.set_nonblocking(true).map_err(failed)?;
                let _within = runtime.enter();
                let listener = TcpListener::from_std(listener).map_err(failed)?;
                let server = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.get(server)));
                runtime.spawn(proxy.clone().serve(listener, server));
            }
            detours.proxies.insert(*detour, proxy);
        }
        detours.runtime = Some(runtime);
        Ok(detours)
    }

    pub(crate) fn get(&self, detour: Detour) -> Option<&Proxy> {
        self.proxies.get(&detour)
    }
}

impl Drop for Detours {
    fn drop(&mut self) {
        // Without waiting: a stack may be dropped within a runtime, where waiting for another one is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
