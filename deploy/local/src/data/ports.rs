//! Free ports by name. A name keeps its port from run to run, unless another process has taken it.
//!
//! Ports lie below the range from which the kernel assigns ports to outgoing connections. Inside that range, a client
//! that keeps connecting to a server that is down eventually connects to itself, and the server cannot bind any more.
//! A port is kept bound until its child is started, so that two stacks do not choose the same one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use super::secrets::random_bytes;
use crate::error::StackError;

const LOWEST: u16 = 15_000;
/// The default of Linux, for when `/proc` cannot be read.
const DEFAULT_EPHEMERAL_START: u16 = 32_768;

pub(crate) struct Ports {
    file: PathBuf,
    /// Of earlier runs and this one, as stored in the file.
    stored: BTreeMap<String, u16>,
    /// Of this run.
    chosen: BTreeMap<String, u16>,
    /// Bound ports whose child was not started yet.
    bound: BTreeMap<String, TcpListener>,
}

impl Ports {
    /// Loads the ports of earlier runs; if `file` cannot be read, new ports are chosen.
    pub(crate) fn load(file: PathBuf) -> Self {
        let text = fs::read(&file).unwrap_or_default();
        let stored = serde_json::from_slice(&text).unwrap_or_default();
        Self { file, stored, chosen: BTreeMap::new(), bound: BTreeMap::new() }
    }

    /// Reserves a port for `name`: the one of the previous run, if it is still free.
    pub(crate) fn reserve(&mut self, name: &str) -> Result<u16, StackError> {
        if let Some(port) = self.chosen.get(name) {
            return Ok(*port);
        }
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let previous = self.stored.get(name).filter(|port| !self.is_chosen(**port));
        let listener = match previous.map(|port| TcpListener::bind((localhost, *port))) {
            Some(Ok(listener)) => listener,
            _ => self.free_listener(localhost)?,
        };
        let port = listener.local_addr().map_err(|_| StackError::NoFreePort)?.port();
        self.choose(name, port, listener)?;
        Ok(port)
    }

    /// Reserves exactly this port, or fails with [`StackError::PortTaken`].
    pub(crate) fn reserve_exactly(&mut self, name: &str, host: IpAddr, port: u16) -> Result<(), StackError> {
        let listener = TcpListener::bind((host, port)).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => StackError::PortTaken { port },
            _ => StackError::Io { what: format!("cannot listen on {host}:{port}"), source: error },
        })?;
        self.choose(name, port, listener)
    }

    /// The port of `name`; 0 if it was not reserved in this run.
    pub(crate) fn get(&self, name: &str) -> u16 {
        self.chosen.get(name).copied().unwrap_or(0)
    }

    /// Releases the port for the child that is about to listen on it.
    pub(crate) fn release(&mut self, name: &str) {
        self.bound.remove(name);
    }

    /// The bound listener of the port, for a server within this process.
    pub(crate) fn take(&mut self, name: &str) -> Option<TcpListener> {
        self.bound.remove(name)
    }

    fn choose(&mut self, name: &str, port: u16, listener: TcpListener) -> Result<(), StackError> {
        self.bound.insert(name.to_owned(), listener);
        self.chosen.insert(name.to_owned(), port);
        self.stored.insert(name.to_owned(), port);
        let text = serde_json::to_vec_pretty(&self.stored).map_err(io::Error::other);
        text.and_then(|text| fs::write(&self.file, text)).map_err(StackError::io("cannot write", &self.file))
    }

    fn is_chosen(&self, port: u16) -> bool {
        self.chosen.values().any(|chosen| *chosen == port)
    }

    fn free_listener(&self, host: IpAddr) -> Result<TcpListener, StackError> {
        let range = LOWEST..ephemeral_start();
        let random = random_bytes().map_err(StackError::io("cannot read", Path::new("/dev/urandom")))?;
        let start = usize::from(u16::from_le_bytes(random)) % range.len().max(1);
        // From a random offset, so that two stacks that start at the same time do not try the same ports.
        let candidates = range.clone().skip(start).chain(range.clone().take(start));
        candidates
            .filter(|port| !self.is_chosen(*port))
            .find_map(|port| TcpListener::bind((host, port)).ok())
            .ok_or(StackError::NoFreePort)
    }
}

fn ephemeral_start() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let start = range.split_whitespace().next().and_then(|first| first.parse().ok());
    start.filter(|start| *start > LOWEST + 1_000).unwrap_or(DEFAULT_EPHEMERAL_START)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(dir: &tempfile::TempDir) -> Ports {
        Ports::load(dir.path().join("ports.json"))
    }

    #[test]
    fn a_name_keeps_its_port_from_run_to_run_unless_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = ports(&dir).reserve("kafka").unwrap();
        let mut second = ports(&dir);
        assert_eq!(second.reserve("kafka").unwrap(), first);
        assert_ne!(ports(&dir).reserve("kafka").unwrap(), first, "still bound by the second");
    }

    #[test]
    fn ports_lie_below_those_of_outgoing_connections() {
        let dir = tempfile::tempdir().unwrap();
        let port = ports(&dir).reserve("redis").unwrap();
        assert!((LOWEST..ephemeral_start()).contains(&port));
    }

    #[test]
    fn the_error_names_a_taken_port() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = ports(&dir);
        let port = first.reserve("x").unwrap();
        let error = ports(&dir).reserve_exactly("api-0", IpAddr::V4(Ipv4Addr::LOCALHOST), port).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("port {port} is taken: stop what listens there, or choose another one with --port")
        );
        first.release("x");
        ports(&dir).reserve_exactly("api-0", IpAddr::V4(Ipv4Addr::LOCALHOST), port).unwrap();
    }
}
