//! Our own two programs and the environment they are given.

use crate::process::{Launch, lock};
use crate::stack::Site;
use crate::{Child, Detour, kafka, postgres, redis};

/// Name of the port on which a child answers requests.
pub(crate) fn port_name(child: Child) -> String {
    child.to_string()
}

/// Name of the port on which a child answers probes.
pub(crate) fn probe_port_name(child: Child) -> String {
    format!("{child}/probe")
}

/// `None` for a stack of servers only.
pub(crate) fn launch(site: &Site, child: Child, extra: &[(String, String)]) -> Option<Launch> {
    let programs = site.config.programs.as_ref()?;
    Some(Launch {
        program: if matches!(child, Child::Api(_)) {
            programs.ingest_api.clone()
        } else {
            programs.workers.clone()
        },
        args: Vec::new(),
        env: environment(site, child, extra),
        cwd: site.dir.path().to_path_buf(),
        log: site.dir.log_file(child),
        pid_file: site.dir.pid_file(child),
        account: None,
        death_signal: "KILL",
    })
}

/// All that a child of ours is told; `extra` comes last and wins.
pub(crate) fn environment(site: &Site, child: Child, extra: &[(String, String)]) -> Vec<(String, String)> {
    let mut env = shared(site, child);
    let mut set = |key: &str, value: String| env.push((key.to_owned(), value));
    set("STAMPEDE_PROBE_LISTEN", format!("127.0.0.1:{}", lock(&site.ports).get(&probe_port_name(child))));
    if let Child::Worker(_) = child {
        set("STAMPEDE_WORKER_ID", child.to_string());
    } else {
        set(
            "STAMPEDE_LISTEN",
            format!("{}:{}", site.config.api_host, lock(&site.ports).get(&port_name(child))),
        );
        set("STAMPEDE_JWT_SECRET", site.secrets.jwt.clone());
        set("STAMPEDE_JWT_ISSUER", "stampede".to_owned());
        set("STAMPEDE_JWT_AUDIENCE", "stampede".to_owned());
        set("STAMPEDE_REQUEST_ID_SECRET", site.secrets.request_id.clone());
    }
    env.extend(extra.iter().cloned());
    env
}

fn shared(site: &Site, child: Child) -> Vec<(String, String)> {
    let settings = [
        ("STAMPEDE_KAFKA_BROKERS", kafka::bootstrap_of(site, Detour::to_kafka(child))),
        (
            "STAMPEDE_POSTGRES_URL",
            postgres_url_at(site, port_by(site, Detour::to_postgres(child), postgres::PORT)),
        ),
        ("STAMPEDE_REDIS_URL", redis_url_at(port_by(site, Detour::WorkersToRedis, redis::PORT))),
        ("STAMPEDE_PARTITIONS", site.config.partitions.to_string()),
        ("STAMPEDE_REPLICATION", kafka::replicas(&site.config).to_string()),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

/// The proxy's port if this detour is taken, else the server's own.
fn port_by(site: &Site, detour: Detour, server: &str) -> u16 {
    let ports = lock(&site.ports);
    if site.config.detours.contains(&detour) { ports.get(&detour.port_name(0)) } else { ports.get(server) }
}

pub(crate) fn postgres_url(site: &Site) -> String {
    postgres_url_at(site, lock(&site.ports).get(postgres::PORT))
}

fn postgres_url_at(site: &Site, port: u16) -> String {
    let (user, password, database) = (postgres::USER, &site.secrets.postgres, postgres::DATABASE);
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
}

pub(crate) fn redis_url(site: &Site) -> String {
    redis_url_at(lock(&site.ports).get(redis::PORT))
}

fn redis_url_at(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/")
}

pub(crate) fn probe_url(site: &Site, child: Child) -> String {
    format!("http://127.0.0.1:{}", lock(&site.ports).get(&probe_port_name(child)))
}

pub(crate) fn api_url(site: &Site, child: Child) -> String {
    let host = match site.config.api_host {
        // "Everywhere" is an address to listen on, not one to connect to.
        host if host.is_unspecified() => "127.0.0.1".to_owned(),
        host if host.is_ipv6() => format!("[{host}]"),
        host => host.to_string(),
    };
    format!("http://{host}:{}", lock(&site.ports).get(&port_name(child)))
}
