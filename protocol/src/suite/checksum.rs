//! Checksums: what is the same in every suite, because no history rests on it.
//!
//! They find damage in files of this node and in texts that people copy, tell
//! delivered files apart, and name certificates that both sides hold. Nothing that
//! an origin signs holds one. They are BLAKE3 with 256 bits whatever the
//! federation's suite is, so that a file can be checked before anybody knows to
//! which federation it belongs.

use std::{cell::RefCell, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::hex;

/// The context string; part of the format: `SPEC.md`, section "Suites and hashes".
pub const CONTEXT: &str = "creditsync/1 checksum";

/// A checksum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checksum(pub [u8; Checksum::BYTES]);

impl Checksum {
    /// Bytes of a checksum.
    pub const BYTES: usize = 32;
    /// Stands for none.
    pub const ZERO: Checksum = Checksum([0; Self::BYTES]);

    /// Of the concatenation of `parts`.
    pub fn of(parts: &[&[u8]]) -> Self {
        thread_local! {
            static HASHER: RefCell<blake3::Hasher> =
                RefCell::new(blake3::Hasher::new_derive_key(CONTEXT));
        }
        HASHER.with_borrow_mut(|hasher| {
            hasher.reset();
            for part in parts {
                hasher.update(part);
            }
            Self(*hasher.finalize().as_bytes())
        })
    }

    /// Begins a checksum of bytes that come one after the other.
    pub fn running() -> Running {
        Running(blake3::Hasher::new_derive_key(CONTEXT))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", hex::encode(&self.0[..6]))
    }
}

impl FromStr for Checksum {
    type Err = NotAChecksum;
    fn from_str(text: &str) -> Result<Self, NotAChecksum> {
        let mut bytes = [0; Self::BYTES];
        if hex::decode_into(text, &mut bytes) { Ok(Self(bytes)) } else { Err(NotAChecksum) }
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a checksum is 64 hexadecimal digits")]
pub struct NotAChecksum;

/// A checksum that is not at its end.
pub struct Running(blake3::Hasher);

impl Running {
    /// Goes on with these bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn finish(&self) -> Checksum {
        Checksum(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_reads_back_and_does_not_depend_on_how_it_came() {
        let whole = Checksum::of(&[b"ab", b"c"]);
        assert_eq!(whole.0, blake3::derive_key(CONTEXT, b"abc"));
        let mut running = Checksum::running();
        running.update(b"a");
        running.update(b"bc");
        assert_eq!(running.finish(), whole);
        assert_eq!(whole.to_string().parse(), Ok(whole));
        assert!("zz".parse::<Checksum>().is_err());
    }
}
