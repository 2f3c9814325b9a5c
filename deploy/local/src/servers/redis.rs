//! Redis holds stock that can be rebuilt from Postgres at any time, so it keeps nothing on disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use crate::process::{Launch, lock};
use crate::stack::Site;
use crate::{Child, StackError};

pub(crate) const PORT: &str = "redis";

pub(crate) fn prepare(site: &Site) -> Result<(), StackError> {
    let home = site.dir.join("redis");
    fs::create_dir_all(&home).map_err(StackError::io("cannot create", &home))
}

pub(crate) fn launch(site: &Site) -> Launch {
    let home = site.dir.join("redis");
    let port = lock(&site.ports).get(PORT).to_string();
    let fixed = [
        ("port", port.as_str()),
        ("bind", "127.0.0.1"),
        ("save", ""),
        ("appendonly", "no"),
        ("daemonize", "no"),
        // Stock that is thrown out to make room would look like sold stock.
        ("maxmemory-policy", "noeviction"),
    ];
    let mut settings: BTreeMap<&str, &str> = fixed.into_iter().collect();
    settings.extend(site.config.redis_settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let args = settings.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]);
    Launch {
        program: site.servers.redis.clone(),
        args: args.map(OsString::from).collect(),
        env: Vec::new(),
        cwd: home,
        log: site.dir.log_file(Child::Redis),
        pid_file: site.dir.pid_file(Child::Redis),
        account: None,
        death_signal: "KILL",
    }
}
