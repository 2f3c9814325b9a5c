//! What a stack keeps in its data directory: the directory itself, ports by name, and secrets.

mod directory;
mod locations;
mod ports;
mod secrets;

pub(crate) use directory::DataDir;
pub(crate) use locations::cache_dir;
pub use locations::default_data_dir;
pub(crate) use ports::Ports;
pub(crate) use secrets::{Secrets, random_bytes};
