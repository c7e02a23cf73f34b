//! Replays every corpus, and every entry with one byte changed, dropped or doubled: what a fuzzer would try first, on every run of ci.

use std::fs;
use std::path::Path;

use mesh_fuzz::TARGETS;

#[test]
fn no_entry_of_any_corpus_breaks_its_parser() {
    for (name, run) in TARGETS {
        let entries = corpus(name);
        assert!(!entries.is_empty(), "corpus/{name} is empty: `cargo run --example seed` writes its first entries");
        let understood = entries.iter().filter(|bytes| run(bytes)).count();
        assert!(understood > 0, "no entry of corpus/{name} is understood: the format has changed, and its seeds must too");
    }
}

#[test]
fn no_entry_with_one_byte_changed_breaks_its_parser() {
    for (_, run, entry) in TARGETS.iter().flat_map(|(name, run)| corpus(name).into_iter().map(move |entry| (name, run, entry))) {
        for at in 0..entry.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, entry[at] ^ 1, entry[at] ^ 0x80] {
                let mut changed = entry.clone();
                changed[at] = byte;
                run(&changed);
            }
            let mut dropped = entry.clone();
            dropped.remove(at);
            run(&dropped);
            let mut doubled = entry.clone();
            doubled.insert(at, entry[at]);
            run(&doubled);
            run(&entry[..at]);
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}
