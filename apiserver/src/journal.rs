//! The store's memory on disk: an append-only journal and, when that grows, a snapshot.
//!
//! A line is a checksum, a blank and one JSON record. A write is handed to the operating system before it is answered, and not fsynced:
//! it survives the process's death, not the machine's. A torn last line (a crash while writing) is cut off; damage anywhere else is
//! an error, because going on would bring versions back. The lock file keeps a second process out. Secrets lie in here, private keys among
//! them, so what is made is the owner's alone.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::Key;

/// One committed write.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The version that the write was given.
    pub version: u64,
    /// What was written; none in a snapshot's first record, which only carries the version.
    pub key: Option<Key>,
    /// The object after the write; none when it was deleted.
    pub object: Option<Arc<Value>>,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the data directory {path} is in use by another API server: stop that one, or choose another --data-dir")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("could not use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line that is not the last one is damaged.
    #[error("{path} is damaged at byte {offset}: restore it from a copy, or remove the data directory to start anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
}

/// An open journal; it is the only writer of its directory.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    directory: PathBuf,
    bytes: u64,
    compact_at: u64,
    broken: bool,
    _lock: File,
}

impl Journal {
    /// Opens the directory and returns what was committed, oldest first.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::File { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        let lock_path = directory.join("lock");
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true), &lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked { path: directory.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(JournalError::File { path: lock_path, source }),
        }
        let snapshot = directory.join(SNAPSHOT);
        let mut records = if snapshot.exists() { read(&snapshot, Tail::Whole)?.0 } else { Vec::new() };
        let covered = records.first().map_or(0, |first| first.version);
        let path = directory.join(JOURNAL);
        let file = private(OpenOptions::new().create(true).append(true).read(true), &path).map_err(failed(&path))?;
        let (tail, good) = read(&path, Tail::MayBeTorn)?;
        file.set_len(good).map_err(failed(&path))?;
        records.extend(tail.into_iter().filter(|record| record.version > covered));
        let journal = Self { file, directory: directory.to_owned(), bytes: good, compact_at: COMPACT_AT, broken: false, _lock: lock };
        Ok((journal, records))
    }

    /// Appends one write. After a failure that may have left part of a line, the journal takes no more.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write to the journal failed: restart the API server"));
        }
        let line = line(record)?;
        if let Err(error) = self.file.write_all(&line) {
            self.broken = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Whether the journal has grown enough to be replaced by a snapshot.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes >= self.compact_at
    }

    /// Replaces the journal by a snapshot of everything. A crash between the two steps only leaves records that replay skips.
    pub(crate) fn compact(&mut self, version: u64, records: impl Iterator<Item = Record>) -> io::Result<()> {
        let written = self.directory.join("snapshot.new");
        let mut file = BufWriter::new(private(OpenOptions::new().create(true).truncate(true).write(true), &written)?);
        let mut size = 0;
        for record in std::iter::once(Record { version, key: None, object: None }).chain(records) {
            let line = line(&record)?;
            size += line.len() as u64;
            file.write_all(&line)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&written, self.directory.join(SNAPSHOT))?;
        self.file.set_len(0)?;
        self.bytes = 0;
        self.compact_at = COMPACT_AT.max(size * 2);
        Ok(())
    }
}

/// Opens a file that nobody but its owner may read, also when it was there before with other rights.
fn private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[derive(Clone, Copy, PartialEq)]
enum Tail {
    Whole,
    MayBeTorn,
}

/// The records of a file, and how many bytes of it are good.
fn read(path: &Path, tail: Tail) -> Result<(Vec<Record>, u64), JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut records, mut good) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 {
            return Ok((records, good));
        }
        match parse(&line) {
            Some(record) => records.push(record),
            None if tail == Tail::MayBeTorn && reader.fill_buf().map_err(failed)?.is_empty() => return Ok((records, good)),
            None => return Err(JournalError::Damaged { path: path.to_owned(), offset: good }),
        }
        good += length as u64;
    }
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(record)?;
    let mut line = format!("{:016x} ", checksum(&body)).into_bytes();
    line.extend_from_slice(&body);
    line.push(b'\n');
    Ok(line)
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, body) = line.split_at_checked(17)?;
    let sum = u64::from_str_radix(std::str::from_utf8(sum.get(..16)?).ok()?, 16).ok()?;
    (sum == checksum(body)).then(|| serde_json::from_slice(body).ok())?
}

/// FNV-1a: finds a torn or damaged line; nobody attacks their own journal.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

const JOURNAL: &str = "journal";
const SNAPSHOT: &str = "snapshot";
/// A journal of this size is replaced by a snapshot: replaying it takes well under a second.
const COMPACT_AT: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(name: &str, version: u64) -> Record {
        Record { version, key: Some(Key::new("configmaps", "shop", name)), object: Some(Arc::new(json!({"version": version}))) }
    }

    fn replayed(directory: &Path) -> Vec<u64> {
        Journal::open(directory).unwrap().1.iter().map(|record| record.version).collect()
    }

    #[test]
    fn what_was_appended_comes_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, records) = Journal::open(directory.path()).unwrap();
        assert!(records.is_empty());
        for version in 1..4 {
            journal.append(&write("a", version)).unwrap();
        }
        drop(journal);
        assert_eq!(replayed(directory.path()), [1, 2, 3]);
    }

    #[test]
    fn nobody_else_may_read_what_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("data");
        let (mut journal, _) = Journal::open(&directory).unwrap();
        journal.append(&write("a", 1)).unwrap();
        journal.compact(1, std::iter::once(write("a", 1))).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for file in ["lock", JOURNAL, SNAPSHOT] {
            assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
        }
        drop(journal);
        std::fs::set_permissions(directory.join(JOURNAL), Permissions::from_mode(0o644)).unwrap();
        Journal::open(&directory).unwrap();
        assert_eq!(mode(&directory.join(JOURNAL)), 0o600, "one of an earlier release");
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        journal.append(&write("a", 1)).unwrap();
        journal.append(&write("a", 2)).unwrap();
        let whole = std::fs::read(directory.path().join(JOURNAL)).unwrap();
        drop(journal);
        let first = line(&write("a", 1)).unwrap().len();
        for end in first..whole.len() {
            std::fs::write(directory.path().join(JOURNAL), &whole[..end]).unwrap();
            assert_eq!(replayed(directory.path()), [1], "cut at {end}");
            assert_eq!(std::fs::read(directory.path().join(JOURNAL)).unwrap().len(), first);
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        journal.append(&write("a", 1)).unwrap();
        journal.append(&write("a", 2)).unwrap();
        drop(journal);
        let path = directory.path().join(JOURNAL);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[30] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Journal::open(directory.path()), Err(JournalError::Damaged { offset: 0, .. })));
    }

    #[test]
    fn a_snapshot_replaces_the_journal_and_a_crash_in_between_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(directory.path()).unwrap();
        for version in 1..4 {
            journal.append(&write("a", version)).unwrap();
        }
        let before = std::fs::read(directory.path().join(JOURNAL)).unwrap();
        journal.compact(3, std::iter::once(write("a", 3))).unwrap();
        journal.append(&write("b", 4)).unwrap();
        drop(journal);
        assert_eq!(replayed(directory.path()), [3, 3, 4], "the first carries only the version");
        std::fs::write(directory.path().join(JOURNAL), before).unwrap();
        assert_eq!(replayed(directory.path()), [3, 3]);
    }
}
