//! Kafka brokers, each of them a controller as well (KRaft), from the jars that `deploy/provision` fetched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use tokio::process::Command;

use crate::logs::telling_line;
use crate::process::{Launch, lock};
use crate::secrets::random_bytes;
use crate::stack::Site;
use crate::{Child, Detour, StackConfig, StackError};

/// Replicas of the topics, if there are so many brokers: one may be away, and two still agree.
const REPLICAS: usize = 3;

/// Everything to standard output, which goes to the child's log: one file for the broker and for the JVM's own words.
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

/// How many replicas topics have.
pub(crate) fn replicas(config: &StackConfig) -> usize {
    config.brokers.clamp(1, REPLICAS)
}

/// Name of the port on which a broker serves who takes no detour.
pub(crate) fn port_name(broker: Child) -> String {
    broker.to_string()
}

/// Name of the port on which a broker serves who takes this detour.
pub(crate) fn detour_port_name(broker: Child, detour: Detour) -> String {
    format!("{broker}/{detour}")
}

fn controller_port_name(broker: Child) -> String {
    format!("{broker}/controller")
}

/// The names of all of a broker's ports.
pub(crate) fn port_names(config: &StackConfig, broker: Child) -> Vec<String> {
    let detours = listening(config).map(|(_, detour)| detour_port_name(broker, detour));
    [port_name(broker), controller_port_name(broker)].into_iter().chain(detours).collect()
}

/// The detours that need a listener, with its name.
fn listening(config: &StackConfig) -> impl Iterator<Item = (&'static str, Detour)> {
    config.detours.iter().filter_map(|detour| Some((detour.listener()?, *detour)))
}

/// Where clients begin that take no detour.
pub(crate) fn bootstrap(site: &Site) -> String {
    addresses(brokers(&site.config).map(|broker| lock(&site.ports).get(&port_name(broker))))
}

/// Where clients begin that take this detour, if it is there.
pub(crate) fn bootstrap_of(site: &Site, detour: Detour) -> String {
    if !site.config.detours.contains(&detour) {
        return bootstrap(site);
    }
    let proxies = 0..brokers(&site.config).count();
    addresses(proxies.map(|n| lock(&site.ports).get(&detour.port_name(n))))
}

fn addresses(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// From 0.
const fn index(broker: Child) -> usize {
    if let Child::Broker(index) = broker { index } else { 0 }
}

/// Writes a broker's configuration and, the first time, formats its log directory.
pub(crate) async fn prepare(site: &Site, broker: Child) -> Result<(), StackError> {
    let home = site.dir.join(&broker.to_string());
    let (properties, log4j, logs) =
        (home.join("server.properties"), home.join("log4j2.xml"), home.join("logs"));
    fs::create_dir_all(&logs).map_err(StackError::io("cannot create", &logs))?;
    fs::write(&log4j, LOG4J).map_err(StackError::io("cannot write", &log4j))?;
    fs::write(&properties, self::properties(site, broker, &logs))
        .map_err(StackError::io("cannot write", &properties))?;
    if logs.join("meta.properties").exists() { Ok(()) } else { format(site, &properties).await }
}

pub(crate) fn launch(site: &Site, broker: Child) -> Launch {
    let home = site.dir.join(&broker.to_string());
    let heap = site.config.kafka_heap_mb;
    let log4j = format!("-Dlog4j2.configurationFile={}", home.join("log4j2.xml").display());
    // Every request waits for a collection, which takes as long however much there is to collect: the collector shall
    // not keep the young small, as it does to reach a goal for its pauses that it misses on a busy machine.
    let young = heap / 8 * 5;
    let mut args: Vec<OsString> =
        [format!("-Xms{heap}m"), format!("-Xmx{heap}m"), format!("-Xmn{young}m"), log4j]
            .map(OsString::from)
            .to_vec();
    args.push("-XX:+UseG1GC".into());
    // What outlives one collection lives as long as the broker: 45 MB that would else be copied by each of many, while
    // every request waits.
    args.push("-XX:MaxTenuringThreshold=0".into());
    // A broker wanders through its heap and its code with every small request; on a virtual machine each page that the
    // processor does not know costs two walks through page tables.
    args.push("-XX:+UseTransparentHugePages".into());
    // An out-of-memory broker must die and be started again, not linger.
    args.push("-XX:+ExitOnOutOfMemoryError".into());
    // The second compiler takes minutes to pay for itself on two cores, and a stack seldom lives for so long.
    args.push("-XX:TieredStopAtLevel=1".into());
    args.extend([
        "-cp".into(),
        class_path(site),
        "kafka.Kafka".into(),
        home.join("server.properties").into(),
    ]);
    Launch {
        program: site.servers.java.clone(),
        args,
        env: Vec::new(),
        cwd: home,
        log: site.dir.log_file(broker),
        pid_file: site.dir.pid_file(broker),
        account: None,
        death_signal: "KILL",
    }
}

fn class_path(site: &Site) -> OsString {
    site.servers.kafka_libs.join("*").into_os_string()
}

/// The whole `server.properties`; the configuration's own come last and win.
fn properties(site: &Site, broker: Child, logs: &Path) -> String {
    let config = &site.config;
    let replicas = replicas(config).to_string();
    // As for our own topics: an acknowledged commit of a group survives the loss of a broker.
    let in_sync = if config.brokers >= REPLICAS { "2" } else { "1" };
    let session = config.group_session_timeout.as_millis().to_string();
    let heartbeat = config.group_heartbeat.as_millis().to_string();
    let fixed = [
        ("process.roles", "broker,controller"),
        ("controller.listener.names", "CONTROLLER"),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,WORKERS:PLAINTEXT,APIS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ),
        ("auto.create.topics.enable", "false"),
        // The order of time in a partition is the broker's to say, not the producers'.
        ("log.message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", in_sync),
        ("offsets.topic.replication.factor", &replicas),
        // The default of 128 MB is a quarter of our heap, half of a small one; only what groups commit is compacted.
        ("log.cleaner.dedupe.buffer.size", "8388608"),
        // The default of 50 makes the very first consumer group wait for seconds.
        ("offsets.topic.num.partitions", "4"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
        ("share.coordinator.state.topic.num.partitions", "1"),
        ("group.initial.rebalance.delay.ms", "0"),
        // By default three threads read and write and eight handle: on two cores that many mostly wake each other.
        ("num.network.threads", "1"),
        ("num.io.threads", "2"),
        // A killed broker is not let in again before its old session has lapsed; the default is 9 s.
        ("broker.session.timeout.ms", "4000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.min.heartbeat.interval.ms", "100"),
        ("group.min.session.timeout.ms", "1000"),
    ];
    let mut all: BTreeMap<String, String> =
        fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut set = |key: &str, value: String| all.insert(key.to_owned(), value);
    set("node.id", (index(broker) + 1).to_string());
    let [voters, listeners, advertised] = addresses_of(site, broker);
    set("controller.quorum.voters", voters);
    set("listeners", listeners);
    set("advertised.listeners", advertised);
    set("log.dirs", logs.display().to_string());
    set("group.consumer.session.timeout.ms", session);
    set("group.consumer.heartbeat.interval.ms", heartbeat);
    all.extend(config.kafka_properties.iter().cloned());
    all.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

/// The controllers' quorum, where this broker listens, and what it tells clients of that.
fn addresses_of(site: &Site, broker: Child) -> [String; 3] {
    let ports = lock(&site.ports);
    let local = |name: &str| format!("127.0.0.1:{}", ports.get(name));
    let voters =
        brokers(&site.config).map(|one| format!("{}@{}", index(one) + 1, local(&controller_port_name(one))));
    let plain = format!("PLAINTEXT://{}", local(&port_name(broker)));
    let mut listeners = vec![plain.clone(), format!("CONTROLLER://{}", local(&controller_port_name(broker)))];
    let mut advertised = vec![plain];
    for (name, detour) in listening(&site.config) {
        listeners.push(format!("{name}://{}", local(&detour_port_name(broker, detour))));
        advertised.push(format!("{name}://{}", local(&detour.port_name(index(broker)))));
    }
    [voters.collect::<Vec<_>>().join(","), listeners.join(","), advertised.join(",")]
}

async fn format(site: &Site, properties: &Path) -> Result<(), StackError> {
    let id = cluster_id(site)?;
    let output = Command::new(&site.servers.java)
        .arg("-cp")
        .arg(class_path(site))
        .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", &id, "-c"])
        .arg(properties)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(StackError::io("cannot run", &site.servers.java))?;
    if output.status.success() {
        return Ok(());
    }
    let words = [output.stdout, output.stderr].concat();
    Err(StackError::Tool {
        what: "formatting Kafka's log directory",
        last_line: telling_line(&String::from_utf8_lossy(&words)),
    })
}

/// The same for all brokers of a stack: whoever is formatted first chooses it.
fn cluster_id(site: &Site) -> Result<String, StackError> {
    static CHOOSING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = lock(&CHOOSING);
    let file = site.dir.join("kafka-cluster-id");
    if let Ok(id) = fs::read_to_string(&file) {
        return Ok(id);
    }
    let id = random_id().map_err(StackError::io("cannot read", Path::new("/dev/urandom")))?;
    fs::write(&file, &id).map_err(StackError::io("cannot write", &file))?;
    Ok(id)
}

/// 16 random bytes as 22 characters of URL-safe base64. Without `-` and `_`, lest it be taken for an option; the last
/// character carries only two bits.
fn random_id() -> io::Result<String> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let bytes = random_bytes::<21>()?;
    let characters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
    Ok(characters.map(|character| char::from(*character)).chain(['A']).collect())
}
