//! The canonical encoding: big-endian integers and length-prefixed bytes.
//!
//! Whatever is hashed or signed is written with [`Writer`] and read with
//! [`Reader`]. A reader never reads past its input, never allocates more than
//! its input holds, and [`Reader::finish`] refuses bytes that nobody consumed.

use crate::suite::{Suite, hash::Hash, sign::Signature};

/// Canonical bytes that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside a field.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes are left over at the end")]
    Trailing,
    /// A length is above its limit.
    #[error("{what} is longer than its limit of {limit}")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// The limit in its own unit.
        limit: usize,
    },
    /// The number of a suite that this program does not have.
    #[error("it is of suite {0}, which this program does not know")]
    UnknownSuite(u8),
    /// Something of another federation's suite.
    #[error("it is of suite {found}, and this federation has suite {own}")]
    OtherSuite {
        /// The suite that was read.
        found: u8,
        /// The federation's.
        own: u8,
    },
    /// A tag, a text or an order that the format does not allow.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Appends canonical fields to a buffer.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that goes on behind `bytes`.
    pub fn after(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The number of a hash's suite, and its bytes.
    pub fn hash(&mut self, hash: &Hash) {
        self.u8(hash.suite().number());
        self.raw(hash.as_bytes());
    }

    /// A 32-bit length and the bytes.
    ///
    /// # Panics
    /// If `bytes` is longer than 4 GiB; every caller has a far lower limit.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("every field has a limit far below 4 GiB"));
        self.raw(bytes);
    }
}

/// Reads canonical fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// Bytes not yet read, left in place.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// `count` bytes without a length.
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// `N` bytes without a length.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big-endian, two's complement.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// What [`Writer::hash`] wrote, of a known suite.
    pub fn hash(&mut self, suite: Suite) -> Result<Hash, DecodeError> {
        self.suite(suite)?;
        self.raw_hash(suite)
    }

    /// The number of a suite, which has to be `own`.
    pub fn suite(&mut self, own: Suite) -> Result<(), DecodeError> {
        let found = self.u8()?;
        if found == own.number() {
            return Ok(());
        }
        Err(DecodeError::OtherSuite { found, own: own.number() })
    }

    /// The bytes of a hash without its suite.
    pub fn raw_hash(&mut self, suite: Suite) -> Result<Hash, DecodeError> {
        let bytes = self.raw(suite.hash_bytes())?;
        Ok(Hash::from_bytes(suite, bytes).expect("as many bytes were read"))
    }

    /// The bytes of a signature.
    pub fn signature(&mut self, suite: Suite) -> Result<Signature, DecodeError> {
        let bytes = self.raw(suite.signature_bytes())?;
        Ok(Signature::from_bytes(suite, bytes).expect("as many bytes were read"))
    }

    /// A 32-bit length and as many bytes, at most `limit`.
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        if length > limit {
            return Err(DecodeError::TooLong { what, limit });
        }
        self.raw(length)
    }

    /// A 32-bit length and UTF-8 of at most `limit` bytes.
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(what, limit)?)
            .map_err(|_| DecodeError::Invalid("a text is not UTF-8"))
    }

    /// Ends reading; every byte must have been consumed.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        let mut writer = Writer::new();
        writer.u8(7);
        writer.u16(300);
        writer.u32(70_000);
        writer.u64(1 << 40);
        writer.i64(-5);
        writer.bytes("县".as_bytes());
        let bytes = writer.into_bytes();

        let read = |bytes: &[u8]| -> Result<(), DecodeError> {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.u8()?, 7);
            assert_eq!(reader.u16()?, 300);
            assert_eq!(reader.u32()?, 70_000);
            assert_eq!(reader.u64()?, 1 << 40);
            assert_eq!(reader.i64()?, -5);
            assert_eq!(reader.text("name", 3)?, "县");
            reader.finish()
        };
        assert_eq!(read(&bytes), Ok(()));
        assert_eq!(read(&bytes[..bytes.len() - 1]), Err(DecodeError::Truncated));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(read(&longer), Err(DecodeError::Trailing));
    }

    #[test]
    fn a_length_above_its_limit_is_refused_before_it_is_read() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff]);
        assert_eq!(
            reader.bytes("key", 1024),
            Err(DecodeError::TooLong { what: "key", limit: 1024 })
        );
    }
}
