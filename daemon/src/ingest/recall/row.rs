//! What a row is recognised by.

use std::{fmt, io};

use highway::{HighwayHash as _, HighwayHasher, Key};
use protocol::{schema::Schema, suite::checksum::Checksum};

/// Bytes of a [`RowKey`].
pub const ROW_KEY_BYTES: usize = 32;
/// Bytes of a [`RowHash`].
pub const HASH_BYTES: usize = 16;

/// What rows are hashed with. It is drawn for each side file and stays in it, so
/// that whoever delivers rows cannot look for two that are taken for one.
#[derive(Clone)]
pub struct RowKey([u8; ROW_KEY_BYTES]);

impl RowKey {
    pub fn draw() -> io::Result<Self> {
        let mut bytes = [0; ROW_KEY_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub fn from_bytes(bytes: [u8; ROW_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; ROW_KEY_BYTES] {
        &self.0
    }

    /// The same key, ready for many rows.
    pub fn hasher(&self) -> RowHasher {
        let (words, _) = self.0.as_chunks::<8>();
        RowHasher(Key(std::array::from_fn(|word| u64::from_be_bytes(words[word]))))
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowKey")
    }
}

/// Hashes rows.
pub struct RowHasher(Key);

impl RowHasher {
    /// Of a row's bytes as they lie in the file.
    pub fn hash(&self, body: &[u8]) -> RowHash {
        let [low, high] = HighwayHasher::new(self.0).hash128(body);
        RowHash(u128::from(high) << 64 | u128::from(low)).noted(false)
    }
}

/// What identifies a row: a hash of its bytes as they lie in the file. The lowest
/// bit says whether anything had to be told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowHash(u128);

impl RowHash {
    pub fn noted(self, noted: bool) -> Self {
        Self(self.0 & !1 | u128::from(noted))
    }

    pub fn is_noted(self) -> bool {
        self.0 & 1 == 1
    }

    /// As many of its first bits, from 1 to 64.
    pub fn front(self, bits: u32) -> usize {
        (self.0 >> (128 - bits)) as usize
    }

    pub fn to_bytes(self) -> [u8; HASH_BYTES] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// Counts up whenever the same row may come to something else than before: what is
/// noted under earlier rules is not recalled.
const RULES_VERSION: &str = "2";

/// Everything but its bytes that decides what a row is: how it is read, and the
/// rules under which it is checked.
pub fn rules(reading: &[String], schema: &Schema) -> Checksum {
    let mut text = Vec::new();
    let version = schema.version().to_string();
    let fixed =
        [env!("CARGO_PKG_VERSION"), RULES_VERSION, schema.dataset().as_str(), version.as_str()];
    for part in fixed.into_iter().chain(reading.iter().map(String::as_str)) {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    Checksum::of(&[&text])
}
