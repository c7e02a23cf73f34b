//! The repository in memory: every file that git tracks or would track, as text. Checks see nothing else, so a test can write the
//! tree that it needs in a few lines.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::tokens::{self, Tokens};
use crate::shell;

/// Paths from the root, with `/`, and their texts.
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

/// One file. Its tokens are made when first asked for, since several checks want them.
pub(crate) struct File {
    pub(crate) text: String,
    tokens: OnceCell<Tokens>,
}

/// What a check found: where, what is wrong, and how to mend it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    what: String,
    mend: String,
}

impl Tree {
    /// Reads the work tree: what is tracked, and what is new and not ignored. What is not UTF-8 is no concern of any check.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let listed = shell::read(Command::new("git").current_dir(root).args(["ls-files", "--cached", "--others", "--exclude-standard"]))
            .context("tidy asks git which files are the repository's")?;
        let files = listed.lines().filter_map(|path| Some((path.to_owned(), File::of(std::fs::read_to_string(root.join(path)).ok()?))));
        Ok(Self { files: files.collect() })
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), File::of((*text).to_owned()))).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|file| file.text.as_str())
    }

    /// Whether `path` is a file or a folder of the tree.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        path.is_empty() || self.files.contains_key(path) || self.under(&folder).next().is_some()
    }

    /// The files whose path starts with `prefix`.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a File)> {
        self.files
            .range(prefix.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(prefix))
            .map(|(path, file)| (path.as_str(), file))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &File)> {
        self.under("")
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &File)> {
        self.all().filter(|(path, _)| has_extension(path, "rs"))
    }
}

impl File {
    fn of(text: String) -> Self {
        Self { text, tokens: OnceCell::new() }
    }

    /// The file as Rust tokens. A file that does not lex has none: [`super::sources`] says so, and the other checks stay silent.
    pub(crate) fn tokens(&self) -> &Tokens {
        self.tokens.get_or_init(|| tokens::read(&self.text))
    }
}

impl Finding {
    pub(crate) fn new(file: &str, line: usize, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.what, self.mend)
    }
}

/// Whether `path` ends in `.extension`.
pub(crate) fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Whether the whole file is a test: in a folder `tests` (the crate of that name, and the integration tests of others), a `tests.rs`,
/// or the bench, which measures and serves nobody.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.starts_with("bench/") || path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
}

/// The 1-based line of the first line that `wanted` says yes to, or 1.
pub(crate) fn line_where(text: &str, wanted: impl Fn(&str) -> bool) -> usize {
    text.lines().position(wanted).map_or(1, |index| index + 1)
}
