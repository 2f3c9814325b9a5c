//! One Kafka broker that is its own controller (KRaft), from the jars that `deploy/provision` fetched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::logs::telling_line;
use crate::process::{Launch, lock};
use crate::secrets::random_bytes;
use crate::stack::Site;
use crate::{Child, StackError};

pub(crate) const PORT: &str = "kafka";
pub(crate) const CONTROLLER_PORT: &str = "kafka/controller";

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

/// Writes the broker's configuration and, the first time, formats its log directory.
pub(crate) async fn prepare(site: &Site) -> Result<(), StackError> {
    let home = site.dir.join("kafka");
    let (properties, log4j, logs) =
        (home.join("server.properties"), home.join("log4j2.xml"), home.join("logs"));
    fs::create_dir_all(&logs).map_err(StackError::io("cannot create", &logs))?;
    fs::write(&log4j, LOG4J).map_err(StackError::io("cannot write", &log4j))?;
    fs::write(&properties, self::properties(site, &logs))
        .map_err(StackError::io("cannot write", &properties))?;
    if logs.join("meta.properties").exists() { Ok(()) } else { format(site, &properties).await }
}

pub(crate) fn launch(site: &Site) -> Launch {
    let home = site.dir.join("kafka");
    let heap = site.config.kafka_heap_mb;
    let log4j = format!("-Dlog4j2.configurationFile={}", home.join("log4j2.xml").display());
    let mut args: Vec<OsString> =
        [format!("-Xms{heap}m"), format!("-Xmx{heap}m"), "-XX:+UseG1GC".to_owned(), log4j]
            .map(OsString::from)
            .to_vec();
    // An out-of-memory broker must die and be started again, not linger.
    args.push("-XX:+ExitOnOutOfMemoryError".into());
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
        log: site.dir.log_file(Child::Kafka),
        pid_file: site.dir.pid_file(Child::Kafka),
        account: None,
        death_signal: "KILL",
    }
}

fn class_path(site: &Site) -> OsString {
    site.servers.kafka_libs.join("*").into_os_string()
}

/// The whole `server.properties`; the configuration's own come last and win.
fn properties(site: &Site, logs: &Path) -> String {
    let (port, controller) = {
        let ports = lock(&site.ports);
        (ports.get(PORT), ports.get(CONTROLLER_PORT))
    };
    let config = &site.config;
    let session = config.group_session_timeout.as_millis().to_string();
    let heartbeat = config.group_heartbeat.as_millis().to_string();
    let fixed = [
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.listener.names", "CONTROLLER"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("auto.create.topics.enable", "false"),
        // The order of time in a partition is the broker's to say, not the producers'.
        ("log.message.timestamp.type", "LogAppendTime"),
        ("offsets.topic.replication.factor", "1"),
        // The default of 50 makes the very first consumer group wait for seconds.
        ("offsets.topic.num.partitions", "4"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
        ("share.coordinator.state.topic.num.partitions", "1"),
        ("group.initial.rebalance.delay.ms", "0"),
        // A killed broker is not let in again before its old session has lapsed; the default is 9 s.
        ("broker.session.timeout.ms", "4000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.min.heartbeat.interval.ms", "300"),
        ("group.min.session.timeout.ms", "1000"),
    ];
    let mut all: BTreeMap<String, String> =
        fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut set = |key: &str, value: String| all.insert(key.to_owned(), value);
    set("controller.quorum.voters", format!("1@127.0.0.1:{controller}"));
    set("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"));
    set("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}"));
    set("log.dirs", logs.display().to_string());
    set("group.consumer.session.timeout.ms", session);
    set("group.consumer.heartbeat.interval.ms", heartbeat);
    all.extend(config.kafka_properties.iter().cloned());
    all.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

async fn format(site: &Site, properties: &Path) -> Result<(), StackError> {
    let id = cluster_id().map_err(StackError::io("cannot read", Path::new("/dev/urandom")))?;
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

/// 16 random bytes as 22 characters of URL-safe base64. Without `-` and `_`, lest it be taken for an option; the last
/// character carries only two bits.
fn cluster_id() -> io::Result<String> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let bytes = random_bytes::<21>()?;
    let characters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()));
    Ok(characters.map(|character| char::from(*character)).chain(['A']).collect())
}
