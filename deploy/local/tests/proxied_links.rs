//! Three brokers, and a proxy on each link: programs of that link connect through it, and no others do.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use local_stack::{Child, ProxiedLink, Stack, StackConfig};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sqlx::{Connection as _, PgConnection};

const TIMEOUT: Duration = Duration::from_secs(60);

fn variable(stack: &Stack, child: Child, name: &str) -> String {
    stack.environment(child).into_iter().rev().find(|(key, _)| key == name).unwrap().1
}

/// The ports that brokers advertise to a client with this bootstrap address, in order.
async fn advertised(bootstrap: String) -> Vec<i32> {
    let fetch = move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
        let metadata = client.fetch_metadata(None, TIMEOUT).unwrap();
        let mut ports: Vec<i32> = metadata.brokers().iter().map(|broker| broker.port()).collect();
        ports.sort_unstable();
        ports
    };
    tokio::task::spawn_blocking(fetch).await.unwrap()
}

fn ports_in(bootstrap: &str) -> Vec<i32> {
    let mut ports: Vec<i32> =
        bootstrap.split(',').map(|address| address.rsplit(':').next().unwrap().parse().unwrap()).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
async fn a_proxied_link_leads_through_a_proxy_to_each_of_three_brokers_and_to_postgres() {
    let proxied_links =
        ProxiedLink::ALL.into_iter().filter(|link| *link != ProxiedLink::ApisToPostgres).collect();
    let config = StackConfig { brokers: 3, kafka_heap_mb: 256, proxied_links, ..StackConfig::servers_only() };
    let stack = Stack::start(config).await.unwrap();
    assert!(stack.is_running(Child::Broker(1)) && stack.is_running(Child::Broker(2)));

    let direct = stack.endpoints().kafka;
    let [workers, apis] = [Child::Worker(0), Child::Api(0)].map(|child| {
        assert_eq!(variable(&stack, child, "STAMPEDE_REPLICATION"), "3");
        variable(&stack, child, "STAMPEDE_KAFKA_BROKERS")
    });
    let mut seen = Vec::new();
    for bootstrap in [direct, workers, apis] {
        // A client that connects to one broker receives the addresses of all of them on its own link.
        let first = bootstrap.split(',').next().unwrap().to_owned();
        assert_eq!(advertised(first).await, ports_in(&bootstrap));
        seen.extend(ports_in(&bootstrap));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 9, "three links to three brokers");

    let proxy = stack.proxy(ProxiedLink::WorkersToPostgres).unwrap();
    let mut worker =
        PgConnection::connect(&variable(&stack, Child::Worker(0), "STAMPEDE_POSTGRES_URL")).await.unwrap();
    let mut api =
        PgConnection::connect(&variable(&stack, Child::Api(0), "STAMPEDE_POSTGRES_URL")).await.unwrap();
    assert_eq!(proxy.cut(), 1);
    assert!(sqlx::query("select 1").execute(&mut worker).await.is_err(), "its connection was cut");
    sqlx::query("select 1").execute(&mut api).await.unwrap();
    assert!(stack.proxy(ProxiedLink::ApisToPostgres).is_none());
    stack.stop().await.unwrap();
}
