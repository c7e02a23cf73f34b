//! The cache: a folder outside the clone, so that a fresh clone is warm. A tool is a folder in `tools/`, named by everything that its
//! content depends on, and made elsewhere first: whoever sees it sees all of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `$ISTHMUS_CACHE`, else `$XDG_CACHE_HOME/isthmus`, else `~/.cache/isthmus`.
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn open() -> Result<Self> {
        let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = choose(named("ISTHMUS_CACHE"), named("XDG_CACHE_HOME"), named("HOME"))?;
        let cache = Self { root };
        fs::create_dir_all(cache.tools())
            .with_context(|| format!("could not make {}: set ISTHMUS_CACHE to a folder you may write", cache.root.display()))?;
        Ok(cache)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Held while the file lives. Whoever comes second waits, and then finds the tools there.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::options().create(true).append(true).open(&path).with_context(|| format!("could not open {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("tools: waiting for another `cargo xtask tools`");
            file.lock().with_context(|| format!("could not lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// The folders that are there.
    pub(crate) fn present(&self) -> Result<BTreeSet<String>> {
        let entries = fs::read_dir(self.tools())?.collect::<std::io::Result<Vec<_>>>()?;
        Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    /// Lets `make` fill a fresh folder, and moves it into place when it succeeds.
    pub(crate) fn fill(&self, folder: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let stage = self.root.join("staging").join(folder);
        if stage.exists() {
            fs::remove_dir_all(&stage)?;
        }
        fs::create_dir_all(&stage)?;
        make(&stage).with_context(|| format!("could not fetch {folder}"))?;
        fs::rename(&stage, self.tools().join(folder)).with_context(|| format!("could not move {folder} into place"))
    }
}

fn choose(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    let named = own.or_else(|| xdg.map(|xdg| xdg.join("isthmus"))).or_else(|| home.map(|home| home.join(".cache").join("isthmus")));
    named.context("no folder for the cache: set ISTHMUS_CACHE, XDG_CACHE_HOME or HOME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_of_the_cache_wins() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(choose(path("/a"), path("/b"), path("/c")).unwrap(), PathBuf::from("/a"));
        assert_eq!(choose(None, path("/b"), path("/c")).unwrap(), PathBuf::from("/b/isthmus"));
        assert_eq!(choose(None, None, path("/c")).unwrap(), PathBuf::from("/c/.cache/isthmus"));
        assert!(choose(None, None, None).is_err());
    }

    #[test]
    fn a_tool_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { root: folder.path().to_path_buf() };
        fs::create_dir_all(cache.tools()).unwrap();
        let half = cache.fill("dig-1", |stage| {
            fs::write(stage.join("half"), "").unwrap();
            anyhow::bail!("the network went away")
        });
        assert!(half.is_err() && cache.present().unwrap().is_empty());
        cache.fill("dig-1", |stage| Ok(fs::write(stage.join("dig"), "whole")?)).unwrap();
        assert_eq!(cache.present().unwrap(), BTreeSet::from(["dig-1".to_owned()]));
        assert!(!cache.tools().join("dig-1/half").exists());
    }
}
