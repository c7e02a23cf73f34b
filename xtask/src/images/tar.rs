//! A layer of an image as a tar archive, the same bytes for the same content: entries in the order of their paths, every time 0, owned by
//! root. Plain ustar: what containers' files need and no more.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

/// Files and links by their path, without a leading `/`. The folders above them are added by [`Entries::archive`].
#[derive(Default)]
pub(crate) struct Entries {
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    File { mode: u32, content: Vec<u8> },
    Link { to: String },
    Folder { mode: u32 },
}

impl Entries {
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.entries.insert(path.to_owned(), Entry::File { mode, content });
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.entries.insert(path.to_owned(), Entry::Link { to: to.to_owned() });
    }

    pub(crate) fn folder(&mut self, path: &str, mode: u32) {
        self.entries.insert(path.to_owned(), Entry::Folder { mode });
    }

    /// All of it as one archive.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        let mut folders = BTreeSet::new();
        for (path, entry) in &self.entries {
            for (end, _) in path.match_indices('/') {
                let folder = &path[..end];
                if !self.entries.contains_key(folder) && folders.insert(folder.to_owned()) {
                    header(&mut archive, &Head { path: &format!("{folder}/"), mode: 0o755, kind: b'5', size: 0, link: "" })?;
                }
            }
            match entry {
                Entry::Folder { mode } => {
                    header(&mut archive, &Head { path: &format!("{path}/"), mode: *mode, kind: b'5', size: 0, link: "" })?;
                }
                Entry::Link { to } => header(&mut archive, &Head { path, mode: 0o777, kind: b'2', size: 0, link: to })?,
                Entry::File { mode, content } => append(&mut archive, path, *mode, content)?,
            }
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        Ok(archive)
    }
}

/// One file with its header and padding.
fn append(archive: &mut Vec<u8>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    header(archive, &Head { path, mode, kind: b'0', size: content.len(), link: "" })?;
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

struct Head<'a> {
    path: &'a str,
    mode: u32,
    kind: u8,
    size: usize,
    link: &'a str,
}

fn header(archive: &mut Vec<u8>, head: &Head<'_>) -> Result<()> {
    let mut block = [0_u8; BLOCK];
    let (prefix, name) = split(head.path)?;
    put(&mut block, 0, name.as_bytes());
    put(&mut block, 100, format!("{:07o}", head.mode).as_bytes());
    put(&mut block, 108, b"0000000");
    put(&mut block, 116, b"0000000");
    put(&mut block, 124, format!("{:011o}", head.size).as_bytes());
    put(&mut block, 136, b"00000000000");
    put(&mut block, 148, b"        ");
    block[156] = head.kind;
    if head.link.len() > 100 {
        bail!("{} links to a path of more than 100 bytes, which ustar has no room for", head.path);
    }
    put(&mut block, 157, head.link.as_bytes());
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 329, b"0000000");
    put(&mut block, 337, b"0000000");
    put(&mut block, 345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\x00 ").as_bytes());
    archive.extend_from_slice(&block);
    Ok(())
}

/// The two fields that hold a path: a prefix of at most 155 bytes and a name of at most 100, with a `/` between them that is not written.
fn split(path: &str) -> Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let slashes = path.match_indices('/').map(|(at, _)| at);
    let mut fitting = slashes.filter(|at| *at <= 155 && path.len() - at - 1 <= 100 && at + 1 < path.len());
    fitting.next().map(|at| (&path[..at], &path[at + 1..])).with_context(|| format!("{path} is longer than ustar has room for"))
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

const BLOCK: usize = 512;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_itself_reads_what_was_written() {
        let deep = format!("usr/{}/{}", "a".repeat(80), "b".repeat(60));
        let mut entries = Entries::default();
        entries.file("usr/bin/tool", 0o755, b"#!/bin/sh\n".to_vec());
        entries.file(&deep, 0o644, vec![7; 513]);
        entries.link("bin/sh", "dash");
        entries.folder("tmp", 0o1777);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer.tar");
        std::fs::write(&path, entries.archive().unwrap()).unwrap();

        let listed = Command::new("tar").args(["--utc", "--numeric-owner", "-tvf"]).arg(&path).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<String> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "drwxr-xr-x 0/0 0 1970-01-01 00:00 bin/".to_owned(),
            "lrwxrwxrwx 0/0 0 1970-01-01 00:00 bin/sh -> dash".to_owned(),
            "drwxrwxrwt 0/0 0 1970-01-01 00:00 tmp/".to_owned(),
            "drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/".to_owned(),
            format!("drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/{}/", "a".repeat(80)),
            format!("-rw-r--r-- 0/0 513 1970-01-01 00:00 {deep}"),
            "drwxr-xr-x 0/0 0 1970-01-01 00:00 usr/bin/".to_owned(),
            "-rwxr-xr-x 0/0 10 1970-01-01 00:00 usr/bin/tool".to_owned(),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_path_that_has_no_room_is_refused() {
        assert!(split(&"a".repeat(101)).is_err());
        assert_eq!(split("short").unwrap(), ("", "short"));
    }
}
