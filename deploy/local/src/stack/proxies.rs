//! The proxies of a stack, between our programs and the servers: connections can fail while every process runs.
//!
//! They run on a thread of their own, because a stack may be started in one runtime and used in another. Kafka's clients
//! connect to the addresses that brokers advertise. A broker therefore has a separate listener for each proxied link, and
//! advertises the proxy's address there.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::config::StackConfig;
use crate::data::Ports;
use crate::error::StackError;
use crate::proxy::{ProxiedLink, Proxy};
use crate::servers::{kafka, postgres, redis};

/// The proxies of one stack.
pub(super) struct Proxies {
    proxies: BTreeMap<ProxiedLink, Proxy>,
    /// `None` without proxied links.
    runtime: Option<Runtime>,
}

impl Proxies {
    /// Reserves the proxies' ports, which brokers advertise.
    pub(super) fn reserve(config: &StackConfig, ports: &mut Ports) -> Result<(), StackError> {
        for link in &config.proxied_links {
            for n in 0..server_ports(*link, config).len() {
                ports.reserve(&link.port_name(n))?;
            }
        }
        Ok(())
    }

    /// Starts the proxies. The ports of the servers must be reserved.
    pub(super) fn open(config: &StackConfig, ports: &mut Ports) -> Result<Self, StackError> {
        let failed = |source| StackError::Io { what: "cannot start a proxy".to_owned(), source };
        if config.proxied_links.is_empty() {
            return Ok(Self { proxies: BTreeMap::new(), runtime: None });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxies")
            .enable_all()
            .build()
            .map_err(failed)?;
        let mut proxies = BTreeMap::new();
        for link in &config.proxied_links {
            let proxy = Proxy::new();
            for (n, server) in server_ports(*link, config).iter().enumerate() {
                let Some(listener) = ports.take(&link.port_name(n)) else { continue };
                listener.set_nonblocking(true).map_err(failed)?;
                let _within = runtime.enter();
                let listener = TcpListener::from_std(listener).map_err(failed)?;
                let server = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.get(server)));
                runtime.spawn(proxy.clone().serve(listener, server));
            }
            proxies.insert(*link, proxy);
        }
        Ok(Self { proxies, runtime: Some(runtime) })
    }

    pub(super) fn get(&self, link: ProxiedLink) -> Option<&Proxy> {
        self.proxies.get(&link)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        // Without waiting: a stack may be dropped within a runtime, which must not block on another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Names of the ports of the servers that a link leads to.
fn server_ports(link: ProxiedLink, config: &StackConfig) -> Vec<String> {
    match link {
        ProxiedLink::WorkersToKafka | ProxiedLink::ApisToKafka => {
            kafka::brokers(config).map(|broker| kafka::proxied_port_name(broker, link)).collect()
        }
        ProxiedLink::WorkersToPostgres | ProxiedLink::ApisToPostgres => vec![postgres::PORT.to_owned()],
        ProxiedLink::WorkersToRedis => vec![redis::PORT.to_owned()],
    }
}
