//! A certificate and its key, as two files.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where a certificate and its key lie.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    /// `name.crt` and `name.key` in `directory`.
    pub(super) fn of(directory: &Path, name: &str) -> Self {
        Self { certificate: directory.join(format!("{name}.crt")), key: directory.join(format!("{name}.key")) }
    }

    /// Both texts.
    pub(super) fn read(&self) -> anyhow::Result<(String, String)> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()));
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    /// Writes both; neither may be there.
    pub(super) fn write(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        if let Some(directory) = self.key.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
        }
        create(&self.key, key, 0o600)?;
        create(&self.certificate, certificate, 0o644)
    }
}

fn create(path: &Path, content: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("could not create {}: an existing file is never replaced", path.display()))?;
    file.write_all(content.as_bytes()).with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_its_owners_only_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let pair = Pair::of(&directory.path().join("ca"), "root");
        pair.write("certificate", "key").unwrap();
        assert_eq!(std::fs::metadata(&pair.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(pair.write("other", "other").is_err());
        assert_eq!(pair.read().unwrap(), ("certificate".into(), "key".into()));
    }
}
