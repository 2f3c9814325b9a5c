//! Redis. It stores nothing on disk: its stock lists can be rebuilt from Postgres at any time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use crate::child::Child;
use crate::context::StackContext;
use crate::error::StackError;
use crate::process::Launch;

/// Name of the port.
pub(crate) const PORT: &str = "redis";

/// The URL of Redis on this port.
pub(crate) fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/")
}

pub(crate) fn prepare(context: &StackContext) -> Result<(), StackError> {
    let home = context.dir.join("redis");
    fs::create_dir_all(&home).map_err(StackError::io("cannot create", &home))
}

pub(crate) fn launch(context: &StackContext) -> Launch {
    let home = context.dir.join("redis");
    let port = context.port(PORT).to_string();
    let fixed = [
        ("port", port.as_str()),
        ("bind", "127.0.0.1"),
        ("save", ""),
        ("appendonly", "no"),
        ("daemonize", "no"),
        // Evicted stock would look like sold stock.
        ("maxmemory-policy", "noeviction"),
    ];
    let mut settings: BTreeMap<&str, &str> = fixed.into_iter().collect();
    settings.extend(context.config.redis_settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let args = settings.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]);
    Launch {
        program: context.servers.redis.clone(),
        args: args.map(OsString::from).collect(),
        env: Vec::new(),
        cwd: home,
        log: context.dir.log_file(Child::Redis),
        pid_file: context.dir.pid_file(Child::Redis),
        account: None,
        death_signal: "KILL",
    }
}
