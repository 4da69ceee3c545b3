//! Pins the bytes of protocol version 1, as `SPEC.md` describes them.
//!
//! `golden/v1.txt` is the list of vectors, one `name = hex` a line, for this
//! implementation and for a second one. What is computed here has to be that
//! file, line by line; a difference means that nodes of two builds would not
//! understand each other, so a new protocol version gets a new file and this
//! one stays. Compressed bytes are not pinned, because zstd's versions differ:
//! of them the file holds samples that have to decompress.

// Everything here is a test, also what lies in functions of its own.
#![allow(clippy::unwrap_used)]

#[path = "golden/messages.rs"]
mod messages;
#[path = "golden/parts.rs"]
mod parts;
#[path = "golden/trees.rs"]
mod trees;

use protocol::suite::Suite;
use std::{fmt::Write as _, fs, path::Path};

/// The vectors in the order of the file.
#[derive(Default)]
struct Vectors(Vec<(String, String)>);

impl Vectors {
    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        let mut hex = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        self.text(name, hex);
    }

    /// A vector that is not bytes, such as a list of numbers.
    fn text(&mut self, name: &str, text: String) {
        assert!(self.0.iter().all(|(known, _)| known != name), "{name} stands twice");
        self.0.push((name.to_owned(), text));
    }
}

fn golden_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.txt")
}

/// The committed vectors.
fn committed() -> Vec<(String, String)> {
    let text = fs::read_to_string(golden_path()).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(" = ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_bytes_of_version_1_are_the_committed_ones() {
    let mut computed = Vectors::default();
    parts::add(&mut computed);
    trees::add(&mut computed);
    messages::add(&mut computed);

    let pinned: Vec<_> =
        committed().into_iter().filter(|(name, _)| !name.starts_with("sample.")).collect();
    let differing: Vec<&str> = computed
        .0
        .iter()
        .filter(|vector| !pinned.contains(vector))
        .map(|(name, _)| name.as_str())
        .collect();
    if computed.0 != pinned {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden-v1.txt");
        let text: String = computed.0.iter().map(|(n, v)| format!("{n} = {v}\n")).collect();
        fs::write(&path, text).unwrap();
        panic!("not as committed: {differing:?}; what was computed is in {}", path.display());
    }
}

#[test]
fn compressed_samples_of_any_zstd_decompress() {
    let committed = committed();
    let bytes = |name: &str| {
        let found = committed.iter().find(|(known, _)| known == name);
        parts::unhex(&found.unwrap_or_else(|| panic!("{name} is not committed")).1)
    };
    let repeated = b"creditsync ".repeat(1000);
    for (sample, raw) in [
        ("sample.leaf", bytes("leaf.raw")),
        ("sample.changes", bytes("changes.body")),
        ("sample.repeated", repeated),
    ] {
        assert_eq!(protocol::codec::decompress(&bytes(sample), 1 << 20), Ok(raw), "{sample}");
    }
    let leaf = protocol::page::Leaf::decode(&bytes("sample.leaf")).unwrap();
    assert_eq!(leaf.describe(Suite::One).hash.as_bytes(), bytes("leaf.hash"));
}
