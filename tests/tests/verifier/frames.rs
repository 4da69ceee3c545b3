//! Frames and the encoding of messages: the first half of section 13 of
//! `protocol/SPEC.md`. What the messages are is in [`super::messages`].

use super::{Checked, Refused, ensure, hashes::Hash, layout};

/// A frame with this body.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("frames are short");
    [&length.to_be_bytes(), body].concat()
}

/// The body of the one frame that these bytes are.
pub fn body(frame: &[u8], max: usize) -> Checked<&[u8]> {
    let (length, body) = frame.split_first_chunk::<4>().ok_or(Refused("cut short"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Refused("too long"))?;
    ensure(length <= max, "a frame over its limit")?;
    ensure(body.len() >= length, "cut short")?;
    ensure(body.len() == length, "bytes are left over")?;
    Ok(body)
}

/// A message's bytes, and how far they were read.
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Refused("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// `u8`.
    pub fn u8(&mut self) -> Checked<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A fixed array.
    pub fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A hash, with its suite.
    pub fn hash(&mut self) -> Checked<Hash> {
        ensure(self.u8()? == layout::SUITE, "another suite")?;
        self.array()
    }

    pub fn bool(&mut self) -> Checked<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Refused("no bool")),
        }
    }

    /// A varint, of which writers use the shortest form.
    pub fn varint(&mut self) -> Checked<u64> {
        let (value, least) = match self.u8()? {
            small @ 0..=250 => (u64::from(small), 0),
            0xfb => (u64::from(u16::from_be_bytes(self.array()?)), 251),
            0xfc => (u64::from(u32::from_be_bytes(self.array()?)), 1 << 16),
            0xfd => (u64::from_be_bytes(self.array()?), 1 << 32),
            _ => return Err(Refused("no varint")),
        };
        ensure(value >= least, "a varint that is not the shortest")?;
        Ok(value)
    }

    pub fn u16(&mut self) -> Checked<u16> {
        u16::try_from(self.varint()?).map_err(|_| Refused("a number that does not fit"))
    }

    /// Zigzag.
    pub fn i64(&mut self) -> Checked<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// The number of items of a list.
    pub fn count(&mut self, max: usize) -> Checked<usize> {
        let count = usize::try_from(self.varint()?).map_err(|_| Refused("too many items"))?;
        ensure(count <= max, "too many items")?;
        Ok(count)
    }

    /// A list of items, none of which is without a byte.
    pub fn list<T>(
        &mut self,
        max: usize,
        mut item: impl FnMut(&mut Self) -> Checked<T>,
    ) -> Checked<Vec<T>> {
        let count = self.count(max.min(self.rest.len()))?;
        (0..count).map(|_| item(self)).collect()
    }

    /// A list of bytes.
    pub fn bytes(&mut self, max: usize) -> Checked<Vec<u8>> {
        let count = self.count(max)?;
        Ok(self.take(count)?.to_vec())
    }

    pub fn text(&mut self, max: usize) -> Checked<String> {
        String::from_utf8(self.bytes(max)?).map_err(|_| Refused("text that is not UTF-8"))
    }

    pub fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Checked<T>) -> Checked<Option<T>> {
        Ok(if self.bool()? { Some(some(self)?) } else { None })
    }

    /// Nothing may be left over.
    pub fn end<T>(self, message: T) -> Checked<T> {
        ensure(self.rest.is_empty(), "bytes are left over")?;
        Ok(message)
    }
}

/// A message that is being written.
#[derive(Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    pub fn array(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn varint(mut self, value: u64) -> Self {
        let wide = value.to_be_bytes();
        match value {
            0..=250 => self.0.push(wide[7]),
            251..=0xffff => self.0.extend([&[0xfb], &wide[6..]].concat()),
            0x1_0000..=0xffff_ffff => self.0.extend([&[0xfc], &wide[4..]].concat()),
            _ => self.0.extend([&[0xfd], &wide[..]].concat()),
        }
        self
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.varint(bytes.len() as u64).array(bytes)
    }

    pub fn hash(self, hash: &Hash) -> Self {
        self.array(&[layout::SUITE]).array(hash)
    }

    pub fn position(self, (seq, hash): (u64, &Hash)) -> Self {
        self.varint(seq).hash(hash)
    }

    pub fn option_position(self, position: Option<(u64, &Hash)>) -> Self {
        match position {
            None => self.varint(0),
            Some(position) => self.varint(1).position(position),
        }
    }

    pub fn body(self) -> Vec<u8> {
        self.0
    }
}
