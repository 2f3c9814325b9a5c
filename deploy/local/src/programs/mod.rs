//! Executables: `workers` and `ingest-api`, found or built, and those of the servers (`servers`).

mod build;
mod servers;

use std::env;
use std::path::{Path, PathBuf};

use crate::error::StackError;

pub use build::{Profile, cargo_build};
pub(crate) use servers::ServerPrograms;

/// The executables of our own two programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `workers` executable.
    pub workers: PathBuf,
    /// The `ingest-api` executable.
    pub ingest_api: PathBuf,
}

impl Programs {
    /// Both in one directory, such as `target/release`.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn in_dir(dir: &Path) -> Result<Self, StackError> {
        let find = |name: &str| {
            let path = dir.join(name);
            let what = path.display().to_string();
            let remedy = "build it with cargo build --release -p workers -p ingest-api";
            if path.is_file() { Ok(path) } else { Err(StackError::Missing { what, remedy }) }
        };
        Ok(Self { workers: find("workers")?, ingest_api: find("ingest-api")? })
    }

    /// Both in the directory of the running executable: a launcher finds what was built together with it.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn beside_current_exe() -> Result<Self, StackError> {
        let own = env::current_exe().map_err(|source| StackError::Io {
            what: "cannot find this program's own path".to_owned(),
            source,
        })?;
        Self::in_dir(own.parent().unwrap_or(Path::new(".")))
    }

    /// Builds both, so that they are up to date; see [`cargo_build`].
    ///
    /// # Errors
    /// When the build fails.
    pub async fn build(features: &[&str], profile: Profile) -> Result<Self, StackError> {
        let built = cargo_build(&["workers", "ingest-api"], features, profile).await?;
        match <[PathBuf; 2]>::try_from(built) {
            Ok([workers, ingest_api]) => Ok(Self { workers, ingest_api }),
            Err(_) => {
                Err(StackError::Tool { what: "cargo build", last_line: "not both programs".to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_built_is_reported_with_the_remedy() {
        let error = Programs::in_dir(Path::new("/nowhere")).unwrap_err().to_string();
        assert_eq!(
            error,
            "/nowhere/workers is missing: build it with cargo build --release -p workers -p ingest-api"
        );
    }
}
