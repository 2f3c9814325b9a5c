//! Secrets of one data directory: made once, kept in a file only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::StackError;

/// What the launcher, the programs and the clients of one stack share.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secrets {
    /// Signs access tokens (HS256).
    pub(crate) jwt: String,
    /// Signs request ids.
    pub(crate) request_id: String,
    /// Password of the database's superuser: other users of this machine reach 127.0.0.1 too.
    pub(crate) postgres: String,
}

impl Secrets {
    /// Those in `file`, or new ones written there.
    pub(crate) fn load_or_create(file: &Path) -> Result<Self, StackError> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(io::Error::other)
                .map_err(StackError::io("cannot understand (drop it with --fresh)", file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::create(file).map_err(StackError::io("cannot write", file))
            }
            Err(error) => Err(StackError::io("cannot read", file)(error)),
        }
    }

    fn create(file: &Path) -> io::Result<Self> {
        let secrets = Self { jwt: random_hex()?, request_id: random_hex()?, postgres: random_hex()? };
        // Written aside and renamed: half a file would lock us out of our own database.
        let aside = file.with_extension("new");
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        out.write_all(&serde_json::to_vec_pretty(&secrets).map_err(io::Error::other)?)?;
        out.sync_all()?;
        fs::rename(&aside, file)?;
        Ok(secrets)
    }
}

/// Bytes from the kernel's generator.
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
    fn secrets_are_made_once_and_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secrets.json");
        let first = Secrets::load_or_create(&file).unwrap();
        let second = Secrets::load_or_create(&file).unwrap();
        assert_eq!(first.jwt, second.jwt);
        assert_ne!(first.jwt, first.request_id);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
