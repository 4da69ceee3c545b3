//! The canonical encoding, read strictly: section 1 of `protocol/SPEC.md`.
//!
//! A reader never reserves memory for a length that it has not compared with a
//! limit, and [`Reader::end`] refuses what is left over.

use super::{Checked, Refused, ensure, layout};

/// Bytes, and how far they were read.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes were not read.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// So many bytes as they are.
    pub fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Refused("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// `raw[n]`.
    pub fn raw<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let mut raw = [0; N];
        raw.copy_from_slice(self.take(N)?);
        Ok(raw)
    }

    pub fn u8(&mut self) -> Checked<u8> {
        Ok(self.raw::<1>()?[0])
    }

    pub fn u16(&mut self) -> Checked<u16> {
        Ok(u16::from_be_bytes(self.raw()?))
    }

    pub fn u32(&mut self) -> Checked<u32> {
        Ok(u32::from_be_bytes(self.raw()?))
    }

    pub fn u64(&mut self) -> Checked<u64> {
        Ok(u64::from_be_bytes(self.raw()?))
    }

    pub fn i64(&mut self) -> Checked<i64> {
        Ok(i64::from_be_bytes(self.raw()?))
    }

    /// The number of a suite, of which this verifier knows one.
    pub fn suite(&mut self) -> Checked<()> {
        ensure(self.u8()? == layout::SUITE, "another suite")
    }

    /// `hash`, with its suite.
    pub fn hash(&mut self) -> Checked<[u8; 32]> {
        self.suite()?;
        self.raw()
    }

    /// `bytes`, at most `max`.
    pub fn bytes(&mut self, max: usize) -> Checked<&'a [u8]> {
        let length = self.u32()?;
        let length = usize::try_from(length).map_err(|_| Refused("longer than its limit"))?;
        ensure(length <= max, "longer than its limit")?;
        self.take(length)
    }

    /// `text`, at most `max` bytes.
    pub fn text(&mut self, max: usize) -> Checked<&'a str> {
        std::str::from_utf8(self.bytes(max)?).map_err(|_| Refused("text that is not UTF-8"))
    }

    /// A name of section 2.
    pub fn name(&mut self, fits: impl FnOnce(&str) -> bool) -> Checked<String> {
        let name = self.text(layout::NAME_BYTES_MAX)?;
        ensure(fits(name), "a name outside of its alphabet")?;
        Ok(name.to_owned())
    }

    /// Nothing may be left over.
    pub fn end(self) -> Checked<()> {
        ensure(self.rest.is_empty(), "bytes are left over")
    }
}

/// The name of a federation or a node.
pub fn is_label(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=layout::NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// The name of a dataset.
pub fn is_dataset(name: &str) -> bool {
    name == layout::FEDERATION_DATASET || is_label(name)
}

/// The full name of a partition.
pub fn is_partition(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let [federation, dataset, origin, audience] = parts[..] else { return false };
    is_label(federation) && is_dataset(dataset) && is_label(origin) && is_audience(audience)
}

/// For whom a partition is made.
pub fn is_audience(name: &str) -> bool {
    name == "*" || is_label(name)
}

/// `bytes` of the canonical encoding.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("what is written here is short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}
