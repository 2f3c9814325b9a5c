//! `ingest-api` and `workers`: how they are launched, and the environment variables that they get.

use super::{kafka, postgres, redis};
use crate::child::Child;
use crate::context::StackContext;
use crate::process::Launch;
use crate::proxy::ProxiedLink;

/// Name of the port on which an `ingest-api` serves requests.
pub(crate) fn port_name(child: Child) -> String {
    child.to_string()
}

/// Name of the port on which a child serves probes.
pub(crate) fn probe_port_name(child: Child) -> String {
    format!("{child}/probe")
}

/// `None` for a stack of servers only.
pub(crate) fn launch(context: &StackContext, child: Child, extra: &[(String, String)]) -> Option<Launch> {
    let programs = context.config.programs.as_ref()?;
    Some(Launch {
        program: if matches!(child, Child::Api(_)) {
            programs.ingest_api.clone()
        } else {
            programs.workers.clone()
        },
        args: Vec::new(),
        env: environment(context, child, extra),
        cwd: context.dir.path().to_path_buf(),
        log: context.dir.log_file(child),
        pid_file: context.dir.pid_file(child),
        account: None,
        death_signal: "KILL",
    })
}

/// The environment variables of a child; `extra` comes last and overrides the others.
pub(crate) fn environment(
    context: &StackContext,
    child: Child,
    extra: &[(String, String)],
) -> Vec<(String, String)> {
    let mut env = common(context, child);
    let mut set = |key: &str, value: String| env.push((key.to_owned(), value));
    set("STAMPEDE_PROBE_LISTEN", format!("127.0.0.1:{}", context.port(&probe_port_name(child))));
    if let Child::Worker(_) = child {
        set("STAMPEDE_WORKER_ID", child.to_string());
        set("STAMPEDE_MIGRATE", "true".to_owned());
    } else {
        set("STAMPEDE_LISTEN", format!("{}:{}", context.config.api_host, context.port(&port_name(child))));
        set("STAMPEDE_JWT_SECRET", context.secrets.jwt.clone());
        set("STAMPEDE_JWT_ISSUER", "stampede".to_owned());
        set("STAMPEDE_JWT_AUDIENCE", "stampede".to_owned());
        set("STAMPEDE_REQUEST_ID_SECRET", context.secrets.request_id.clone());
    }
    env.extend(extra.iter().cloned());
    env
}

/// The variables that both programs have.
fn common(context: &StackContext, child: Child) -> Vec<(String, String)> {
    let is_api = matches!(child, Child::Api(_));
    let (to_kafka, to_postgres) = if is_api {
        (ProxiedLink::ApisToKafka, ProxiedLink::ApisToPostgres)
    } else {
        (ProxiedLink::WorkersToKafka, ProxiedLink::WorkersToPostgres)
    };
    let postgres = link_port(context, to_postgres, postgres::PORT);
    let redis = link_port(context, ProxiedLink::WorkersToRedis, redis::PORT);
    let settings = [
        ("STAMPEDE_KAFKA_BROKERS", kafka::proxied_bootstrap(context, to_kafka)),
        ("STAMPEDE_POSTGRES_URL", postgres::url(&context.secrets.postgres, postgres)),
        ("STAMPEDE_REDIS_URL", redis::url(redis)),
        ("STAMPEDE_PARTITIONS", context.config.partitions.to_string()),
        ("STAMPEDE_REPLICATION", kafka::replicas(&context.config).to_string()),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

/// The port of the proxy if this link has one, else the port of the server.
fn link_port(context: &StackContext, link: ProxiedLink, server: &str) -> u16 {
    if context.config.proxied_links.contains(&link) {
        context.port(&link.port_name(0))
    } else {
        context.port(server)
    }
}

pub(crate) fn probe_url(context: &StackContext, child: Child) -> String {
    format!("http://127.0.0.1:{}", context.port(&probe_port_name(child)))
}

pub(crate) fn api_url(context: &StackContext, child: Child) -> String {
    let host = match context.config.api_host {
        // The unspecified address is one to listen on, not one to connect to.
        host if host.is_unspecified() => "127.0.0.1".to_owned(),
        host if host.is_ipv6() => format!("[{host}]"),
        host => host.to_string(),
    };
    format!("http://{host}:{}", context.port(&port_name(child)))
}
