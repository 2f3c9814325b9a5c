//! A stack that somebody else has started, found from its data directory alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use crate::secrets::Secrets;
use crate::{Endpoints, StackError, postgres, procfs};

impl Endpoints {
    /// Where the stack of a data directory listens, as its launcher has written it there. Programs of ours that do not
    /// run are left out; whether the servers run is for whoever connects to find out.
    ///
    /// # Errors
    /// When no stack was ever started there, or its secrets are not for this user to read.
    pub fn of_data_dir(data_dir: &Path) -> Result<Self, StackError> {
        let (ports, secrets) = (data_dir.join("ports.json"), data_dir.join("secrets.json"));
        if !ports.exists() || !secrets.exists() {
            return Err(StackError::NoStack(data_dir.to_path_buf()));
        }
        // Asked for nothing that it could make: a check leaves no traces.
        let secrets = Secrets::load_or_create(&secrets)?;
        let text = fs::read(&ports).map_err(StackError::io("cannot read", &ports))?;
        let ports: BTreeMap<String, u16> = serde_json::from_slice(&text)
            .map_err(std::io::Error::other)
            .map_err(StackError::io("cannot understand", &ports))?;
        Ok(Self::from_ports(&ports, &secrets, |child| runs(data_dir, child)))
    }

    fn from_ports(ports: &BTreeMap<String, u16>, secrets: &Secrets, runs: impl Fn(&str) -> bool) -> Self {
        let address = |name: &str| format!("127.0.0.1:{}", ports.get(name).copied().unwrap_or(0));
        // Of earlier runs there may be more than there are now.
        let of = |kind: &str| -> Vec<&str> {
            let is_one = |name: &str| {
                name.strip_prefix(kind)
                    .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            };
            let children = ports.keys().map(|name| name.split('/').next().unwrap_or_default());
            let mut children: Vec<&str> = children.filter(|child| is_one(child) && runs(child)).collect();
            children.dedup();
            children
        };
        let urls = |children: Vec<&str>, port: &str| -> Vec<String> {
            children.iter().map(|child| format!("http://{}", address(&format!("{child}{port}")))).collect()
        };
        let brokers: Vec<String> = [vec!["kafka"], of("kafka-")].concat().into_iter().map(address).collect();
        let (user, password, database) = (postgres::USER, &secrets.postgres, postgres::DATABASE);
        Self {
            kafka: brokers.join(","),
            postgres_url: format!("postgres://{user}:{password}@{}/{database}", address(postgres::PORT)),
            redis_url: format!("redis://{}/", address(crate::redis::PORT)),
            apis: urls(of("api-"), ""),
            api_probes: urls(of("api-"), "/probe"),
            worker_probes: urls(of("worker-"), "/probe"),
        }
    }
}

/// Whether the process of this name runs, and not a stranger with its pid.
fn runs(data_dir: &Path, child: &str) -> bool {
    let text = fs::read_to_string(data_dir.join("run").join(format!("{child}.pid"))).unwrap_or_default();
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| word.parse().ok()).map(Pid::from_raw);
    let started = words.next().and_then(|word| word.parse::<u64>().ok());
    pid.is_some_and(|pid| started.is_some() && procfs::start_time(pid) == started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_found_from_its_directory_and_what_does_not_run_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Endpoints::of_data_dir(dir.path()), Err(StackError::NoStack(_))));
        let ports = r#"{"kafka": 1, "kafka/controller": 2, "postgres": 3, "redis": 4, "api-0": 5, "api-0/probe": 6,
                        "worker-0/probe": 7, "worker-1/probe": 8, "worker-x/probe": 9}"#;
        fs::write(dir.path().join("ports.json"), ports).unwrap();
        fs::write(dir.path().join("secrets.json"), r#"{"jwt": "j", "request_id": "r", "postgres": "p"}"#)
            .unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let own = Pid::this();
        let started = procfs::start_time(own).unwrap();
        for (child, started) in [("api-0", started), ("worker-1", started), ("worker-0", 1)] {
            fs::write(dir.path().join(format!("run/{child}.pid")), format!("{own} {started}\n")).unwrap();
        }
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
