//! Three brokers, and detours to all servers: who takes one comes through a proxy, and nobody else does.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use local_stack::{Child, Detour, Stack, StackConfig};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use sqlx::{Connection as _, PgConnection};

const PATIENCE: Duration = Duration::from_secs(60);

fn told(stack: &Stack, child: Child, name: &str) -> String {
    stack.environment(child).into_iter().rev().find(|(key, _)| key == name).unwrap().1
}

/// The ports that brokers advertise to who begins there, in order.
async fn advertised(bootstrap: String) -> Vec<i32> {
    let ask = move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
        let metadata = client.fetch_metadata(None, PATIENCE).unwrap();
        let mut ports: Vec<i32> = metadata.brokers().iter().map(|broker| broker.port()).collect();
        ports.sort_unstable();
        ports
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

fn ports_in(bootstrap: &str) -> Vec<i32> {
    let mut ports: Vec<i32> =
        bootstrap.split(',').map(|address| address.rsplit(':').next().unwrap().parse().unwrap()).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test]
async fn whoever_takes_a_detour_comes_through_a_proxy_to_each_of_three_brokers_and_to_postgres() {
    let detours = Detour::ALL.into_iter().filter(|detour| *detour != Detour::ApisToPostgres).collect();
    let config = StackConfig { brokers: 3, kafka_heap_mb: 256, detours, ..StackConfig::servers_only() };
    let stack = Stack::start(config).await.unwrap();
    assert!(stack.is_running(Child::Broker(1)) && stack.is_running(Child::Broker(2)));

    let direct = stack.endpoints().kafka;
    let [workers, apis] = [Child::Worker(0), Child::Api(0)].map(|child| {
        assert_eq!(told(&stack, child, "STAMPEDE_REPLICATION"), "3");
        told(&stack, child, "STAMPEDE_KAFKA_BROKERS")
    });
    let mut seen = Vec::new();
    for bootstrap in [direct, workers, apis] {
        // A client that begins at one broker is told of all of them, under the addresses of its own way.
        let first = bootstrap.split(',').next().unwrap().to_owned();
        assert_eq!(advertised(first).await, ports_in(&bootstrap));
        seen.extend(ports_in(&bootstrap));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 9, "three ways to three brokers");

    let proxy = stack.detour(Detour::WorkersToPostgres).unwrap();
    let mut worker =
        PgConnection::connect(&told(&stack, Child::Worker(0), "STAMPEDE_POSTGRES_URL")).await.unwrap();
    let mut api = PgConnection::connect(&told(&stack, Child::Api(0), "STAMPEDE_POSTGRES_URL")).await.unwrap();
    assert_eq!(proxy.cut(), 1);
    assert!(sqlx::query("select 1").execute(&mut worker).await.is_err(), "its line was cut");
    sqlx::query("select 1").execute(&mut api).await.unwrap();
    assert!(stack.detour(Detour::ApisToPostgres).is_none());
    stack.stop().await.unwrap();
}
