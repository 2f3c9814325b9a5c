//! The addresses of a stack: of this process, or of another one, read from its data directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::data::Secrets;
use crate::error::StackError;
use crate::process::PidFile;
use crate::servers::{postgres, redis};

/// The addresses of a stack. URLs have no trailing slash, except those of Redis and Postgres.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Bootstrap addresses of Kafka, `127.0.0.1:port`, separated by commas.
    pub kafka: String,
    /// URL of the database `stampede`, as superuser.
    pub postgres_url: String,
    /// `redis://127.0.0.1:port/`.
    pub redis_url: String,
    /// Base URL of each `ingest-api`, by index.
    pub apis: Vec<String>,
    /// Base URL of the probes of each `ingest-api`: `/healthz`, `/readyz`, `/metrics`.
    pub api_probes: Vec<String>,
    /// Base URL of the probes of each worker.
    pub worker_probes: Vec<String>,
}

impl Endpoints {
    /// The addresses of the stack of a data directory, as its launcher has stored them. `ingest-api` and `workers`
    /// processes that are not running are left out; the servers are listed whether they run or not.
    ///
    /// # Errors
    /// When no stack was ever started there, or this user may not read its secrets.
    pub fn of_data_dir(data_dir: &Path) -> Result<Self, StackError> {
        let (ports, secrets) = (data_dir.join("ports.json"), data_dir.join("secrets.json"));
        if !ports.exists() || !secrets.exists() {
            return Err(StackError::NoStack(data_dir.to_path_buf()));
        }
        // The file exists, so nothing is created here.
        let secrets = Secrets::load_or_create(&secrets)?;
        let text = fs::read(&ports).map_err(StackError::io("cannot read", &ports))?;
        let ports: BTreeMap<String, u16> = serde_json::from_slice(&text)
            .map_err(std::io::Error::other)
            .map_err(StackError::io("cannot parse", &ports))?;
        Ok(Self::from_ports(&ports, &secrets, |child| runs(data_dir, child)))
    }

    fn from_ports(
        ports: &BTreeMap<String, u16>,
        secrets: &Secrets,
        is_running: impl Fn(&str) -> bool,
    ) -> Self {
        let port = |name: &str| ports.get(name).copied().unwrap_or(0);
        let address = |name: &str| format!("127.0.0.1:{}", port(name));
        // The file may contain children of earlier runs.
        let running = |kind: &str| -> Vec<&str> {
            let is_one = |name: &str| {
                name.strip_prefix(kind)
                    .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            };
            let children = ports.keys().map(|name| name.split('/').next().unwrap_or_default());
            let mut children: Vec<&str> =
                children.filter(|child| is_one(child) && is_running(child)).collect();
            children.dedup();
            children
        };
        let urls = |children: Vec<&str>, port: &str| -> Vec<String> {
            children.iter().map(|child| format!("http://{}", address(&format!("{child}{port}")))).collect()
        };
        let brokers: Vec<String> =
            [vec!["kafka"], running("kafka-")].concat().into_iter().map(address).collect();
        Self {
            kafka: brokers.join(","),
            postgres_url: postgres::url(&secrets.postgres, port(postgres::PORT)),
            redis_url: redis::url(port(redis::PORT)),
            apis: urls(running("api-"), ""),
            api_probes: urls(running("api-"), "/probe"),
            worker_probes: urls(running("worker-"), "/probe"),
        }
    }
}

/// Whether the child of this name runs.
fn runs(data_dir: &Path, child: &str) -> bool {
    PidFile::read(&data_dir.join("run").join(format!("{child}.pid"))).is_some_and(|file| file.runs())
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_stack_is_found_by_its_directory_and_children_that_do_not_run_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Endpoints::of_data_dir(dir.path()), Err(StackError::NoStack(_))));
        let ports = r#"{"kafka": 1, "kafka/controller": 2, "postgres": 3, "redis": 4, "api-0": 5, "api-0/probe": 6,
                        "worker-0/probe": 7, "worker-1/probe": 8, "worker-x/probe": 9}"#;
        fs::write(dir.path().join("ports.json"), ports).unwrap();
        fs::write(dir.path().join("secrets.json"), r#"{"jwt": "j", "request_id": "r", "postgres": "p"}"#)
            .unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let file = |child: &str| dir.path().join(format!("run/{child}.pid"));
        PidFile::write(&file("api-0"), Pid::this()).unwrap();
        PidFile::write(&file("worker-1"), Pid::this()).unwrap();
        // Another process with the same pid.
        fs::write(file("worker-0"), format!("{} 1\n", Pid::this())).unwrap();
        let found = Endpoints::of_data_dir(dir.path()).unwrap();
        assert_eq!(found.kafka, "127.0.0.1:1");
        assert_eq!(found.postgres_url, "postgres://stampede:p@127.0.0.1:3/stampede");
        assert_eq!(found.redis_url, "redis://127.0.0.1:4/");
        assert_eq!(
            (found.apis, found.api_probes),
            (vec!["http://127.0.0.1:5".to_owned()], vec!["http://127.0.0.1:6".to_owned()])
        );
        assert_eq!(found.worker_probes, ["http://127.0.0.1:8"]);
    }
}
