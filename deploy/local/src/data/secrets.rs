//! Secrets of a data directory: generated once, stored in a file that only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StackError;

/// Secrets shared by the launcher, the programs and the clients of a stack.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// Signs access tokens (HS256).
    pub(crate) jwt: String,
    /// Signs request ids.
    pub(crate) request_id: String,
    /// Password of the database superuser: other users of this machine can connect to 127.0.0.1 too.
    pub(crate) postgres: String,
}

impl Secrets {
    /// Loads the secrets from `file`, or generates and stores new ones.
    pub(crate) fn load_or_create(file: &Path) -> Result<Self, StackError> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(io::Error::other)
                .map_err(StackError::io("cannot parse (delete it with --fresh)", file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(file).map_err(StackError::io("cannot write", file))
            }
            Err(error) => Err(StackError::io("cannot read", file)(error)),
        }
    }

    fn create(file: &Path) -> io::Result<Self> {
        let secrets = Self { jwt: random_hex()?, request_id: random_hex()?, postgres: random_hex()? };
        // Written to a temporary file and renamed: a partial file would lock us out of our own database.
        let temporary = file.with_extension("new");
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        out.write_all(&serde_json::to_vec_pretty(&secrets).map_err(io::Error::other)?)?;
        out.sync_all()?;
        fs::rename(&temporary, file)?;
        Ok(secrets)
    }
}

/// Random bytes from the kernel.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn random_hex() -> io::Result<String> {
    Ok(random_bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_are_generated_once_and_readable_only_by_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secrets.json");
        let first = Secrets::load_or_create(&file).unwrap();
        let second = Secrets::load_or_create(&file).unwrap();
        assert_eq!(first.jwt, second.jwt);
        assert_ne!(first.jwt, first.request_id);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
