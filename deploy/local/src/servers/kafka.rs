//! Kafka brokers, each of them a controller as well (KRaft), run from the jars that `deploy/provision` downloads.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use tokio::process::Command;

use crate::child::Child;
use crate::config::StackConfig;
use crate::context::StackContext;
use crate::data::random_bytes;
use crate::error::StackError;
use crate::process::{Launch, finished, lock};
use crate::proxy::ProxiedLink;

/// Replicas of each topic, if there are as many brokers: one may be down, and two are still in sync.
const REPLICAS: usize = 3;

/// Logs everything to standard output, so that the child's log has the broker's lines and those of the JVM.
const LOG4J: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT"><PatternLayout pattern="%d{ISO8601} %p %m (%c{1})%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.clients" level="WARN"/>
    <Logger name="org.apache.kafka.common.config" level="WARN"/>
    <Logger name="state.change.logger" level="WARN"/>
    <Root level="INFO"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"#;

/// All brokers of a stack.
pub(crate) fn brokers(config: &StackConfig) -> impl Iterator<Item = Child> + use<> {
    (0..config.brokers.max(1)).map(|n| if n == 0 { Child::Kafka } else { Child::Broker(n) })
}

/// Replication factor of the topics.
pub(crate) fn replicas(config: &StackConfig) -> usize {
    config.brokers.clamp(1, REPLICAS)
}

/// Name of the port of a broker for direct connections.
pub(crate) fn port_name(broker: Child) -> String {
    broker.to_string()
}

/// Name of the port of a broker behind the proxy of this link.
pub(crate) fn proxied_port_name(broker: Child, link: ProxiedLink) -> String {
    format!("{broker}/{link}")
}

fn controller_port_name(broker: Child) -> String {
    format!("{broker}/controller")
}

/// The names of all ports of a broker.
pub(crate) fn port_names(config: &StackConfig, broker: Child) -> Vec<String> {
    let proxied = proxied_listeners(config).map(|(_, link)| proxied_port_name(broker, link));
    [port_name(broker), controller_port_name(broker)].into_iter().chain(proxied).collect()
}

/// The proxied links that need a listener, with its name.
fn proxied_listeners(config: &StackConfig) -> impl Iterator<Item = (&'static str, ProxiedLink)> {
    config.proxied_links.iter().filter_map(|link| Some((link.kafka_listener()?, *link)))
}

/// Bootstrap addresses for direct connections.
pub(crate) fn bootstrap(context: &StackContext) -> String {
    addresses(brokers(&context.config).map(|broker| context.port(&port_name(broker))))
}

/// Bootstrap addresses for this link: those of its proxy, if it has one.
pub(crate) fn proxied_bootstrap(context: &StackContext, link: ProxiedLink) -> String {
    if !context.config.proxied_links.contains(&link) {
        return bootstrap(context);
    }
    let proxies = 0..brokers(&context.config).count();
    addresses(proxies.map(|n| context.port(&link.port_name(n))))
}

fn addresses(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// Index of a broker, from 0.
const fn index(broker: Child) -> usize {
    if let Child::Broker(index) = broker { index } else { 0 }
}

/// Writes a broker's configuration and, the first time, formats its log directory.
pub(crate) async fn prepare(context: &StackContext, broker: Child) -> Result<(), StackError> {
    let home = context.dir.join(&broker.to_string());
    let (properties, log4j, logs) =
        (home.join("server.properties"), home.join("log4j2.xml"), home.join("logs"));
    fs::create_dir_all(&logs).map_err(StackError::io("cannot create", &logs))?;
    fs::write(&log4j, LOG4J).map_err(StackError::io("cannot write", &log4j))?;
    fs::write(&properties, self::properties(context, broker, &logs))
        .map_err(StackError::io("cannot write", &properties))?;
    if logs.join("meta.properties").exists() { Ok(()) } else { format(context, &properties).await }
}

pub(crate) fn launch(context: &StackContext, broker: Child) -> Launch {
    let home = context.dir.join(&broker.to_string());
    let heap = context.config.kafka_heap_mb;
    let log4j = format!("-Dlog4j2.configurationFile={}", home.join("log4j2.xml").display());
    // A fixed young generation. A collection stops every request and takes as long however much garbage there is. Left to
    // itself, the collector shrinks the young generation to reach a pause goal that it misses on a busy machine.
    let young = heap / 8 * 5;
    let mut args: Vec<OsString> =
        [format!("-Xms{heap}m"), format!("-Xmx{heap}m"), format!("-Xmn{young}m"), log4j]
            .map(OsString::from)
            .to_vec();
    args.push("-XX:+UseG1GC".into());
    // What survives one collection lives as long as the broker: 45 MB that would otherwise be copied by many collections,
    // while every request waits.
    args.push("-XX:MaxTenuringThreshold=0".into());
    // Every small request touches many pages of heap and code; on a virtual machine each TLB miss costs two page table
    // walks.
    args.push("-XX:+UseTransparentHugePages".into());
    // A broker that is out of memory must exit and be started again.
    args.push("-XX:+ExitOnOutOfMemoryError".into());
    // The C2 compiler pays off only after minutes on two cores, and a stack seldom runs that long.
    args.push("-XX:TieredStopAtLevel=1".into());
    args.extend([
        "-cp".into(),
        class_path(context),
        "kafka.Kafka".into(),
        home.join("server.properties").into(),
    ]);
    Launch {
        program: context.servers.java.clone(),
        args,
        env: Vec::new(),
        cwd: home,
        log: context.dir.log_file(broker),
        pid_file: context.dir.pid_file(broker),
        account: None,
        death_signal: "KILL",
    }
}

fn class_path(context: &StackContext) -> OsString {
    context.servers.kafka_libs.join("*").into_os_string()
}

/// Properties that are the same in every stack.
const FIXED: [(&str, &str); 21] = [
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    (
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,WORKERS:PLAINTEXT,APIS:PLAINTEXT,CONTROLLER:PLAINTEXT",
    ),
    ("auto.create.topics.enable", "false"),
    // Time within a partition must be assigned by the broker, not by producers.
    ("log.message.timestamp.type", "LogAppendTime"),
    // The default of 128 MB is a quarter of the heap; only group offsets are compacted.
    ("log.cleaner.dedupe.buffer.size", "8388608"),
    // With the default of 50 partitions the first consumer group waits for seconds.
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    // The defaults are 3 and 8: on two cores, more threads mostly add context switches.
    ("num.network.threads", "1"),
    ("num.io.threads", "2"),
    // A killed broker can register again only after its old session has expired; the default is 9 s.
    ("broker.session.timeout.ms", "4000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
    ("group.min.session.timeout.ms", "1000"),
];

/// The content of `server.properties`; the properties of the configuration override the others.
fn properties(context: &StackContext, broker: Child, logs: &Path) -> String {
    let config = &context.config;
    let mut all: BTreeMap<String, String> =
        FIXED.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut set = |key: &str, value: String| all.insert(key.to_owned(), value);
    set("node.id", (index(broker) + 1).to_string());
    let [voters, listeners, advertised] = addresses_of(context, broker);
    set("controller.quorum.voters", voters);
    set("listeners", listeners);
    set("advertised.listeners", advertised);
    set("log.dirs", logs.display().to_string());
    set("offsets.topic.replication.factor", replicas(config).to_string());
    // As for the topics of Stampede: an acknowledged group commit survives the loss of a broker.
    set("min.insync.replicas", if config.brokers >= REPLICAS { "2" } else { "1" }.to_owned());
    set("group.consumer.session.timeout.ms", config.group_session_timeout.as_millis().to_string());
    set("group.consumer.heartbeat.interval.ms", config.group_heartbeat.as_millis().to_string());
    all.extend(config.kafka_properties.iter().cloned());
    all.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

/// The controller quorum, the listeners of this broker, and the addresses it advertises.
fn addresses_of(context: &StackContext, broker: Child) -> [String; 3] {
    let local = |name: &str| format!("127.0.0.1:{}", context.port(name));
    let voters = brokers(&context.config)
        .map(|one| format!("{}@{}", index(one) + 1, local(&controller_port_name(one))));
    let plain = format!("PLAINTEXT://{}", local(&port_name(broker)));
    let mut listeners = vec![plain.clone(), format!("CONTROLLER://{}", local(&controller_port_name(broker)))];
    let mut advertised = vec![plain];
    for (name, link) in proxied_listeners(&context.config) {
        listeners.push(format!("{name}://{}", local(&proxied_port_name(broker, link))));
        advertised.push(format!("{name}://{}", local(&link.port_name(index(broker)))));
    }
    [voters.collect::<Vec<_>>().join(","), listeners.join(","), advertised.join(",")]
}

async fn format(context: &StackContext, properties: &Path) -> Result<(), StackError> {
    let id = cluster_id(context)?;
    let output = Command::new(&context.servers.java)
        .arg("-cp")
        .arg(class_path(context))
        .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", &id, "-c"])
        .arg(properties)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    finished("formatting Kafka's log directory", output)
}

/// The cluster id of all brokers of a stack; generated when the first broker is formatted.
fn cluster_id(context: &StackContext) -> Result<String, StackError> {
    static GENERATING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = lock(&GENERATING);
    let file = context.dir.join("kafka-cluster-id");
    if let Ok(id) = fs::read_to_string(&file) {
        return Ok(id);
    }
    let id = random_id().map_err(StackError::io("cannot read", Path::new("/dev/urandom")))?;
    fs::write(&file, &id).map_err(StackError::io("cannot write", &file))?;
    Ok(id)
}

/// A random id in the form of 16 bytes in 22 characters of URL-safe base64. Without `-` and `_`, so that it cannot be
/// parsed as an option; the last character carries two bits only.
fn random_id() -> io::Result<String> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let bytes = random_bytes::<21>()?;
    let characters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
    Ok(characters.map(|character| char::from(*character)).chain(['A']).collect())
}
