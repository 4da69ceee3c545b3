//! bincode and zstd, with the limits that both need.
//!
//! The only place that knows either. Nothing that is hashed or signed is ever
//! encoded with bincode; see [`crate::encoding`].

use std::{cell::RefCell, io::Read as _};

use serde::{Serialize, de::DeserializeOwned};

use crate::encoding::DecodeError;

/// Longest message body: a frame holds nothing larger.
pub const MESSAGE_BYTES_MAX: usize = crate::frame::FRAME_BYTES_MAX;

/// bincode's limit counts the memory of what it decodes, which for a list of
/// small items is several times its bytes.
const DECODE_MEMORY_MAX: usize = 4 * MESSAGE_BYTES_MAX;
const KIB: usize = 1024;

/// zstd's window may have 8 MiB at most, as RFC 8878 recommends: a frame of a
/// few bytes could else make us reserve 128 MiB. [`compress`] uses 512 KiB.
const WINDOW_LOG_MAX: u32 = 23;

fn configuration<const MEMORY_MAX: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_big_endian().with_limit::<MEMORY_MAX>()
}

/// Encodes a message or a stored envelope.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, configuration::<DECODE_MEMORY_MAX>())
        .expect("messages are plain data within the limit, and memory does not refuse writes")
}

/// Decodes exactly one value; bytes left over are an error.
///
/// bincode reserves what a length claims before it looks for the bytes, so a
/// short input has a low limit: 16 times its length or more, and never above 256
/// times it or 64 KiB.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.len().div_ceil(KIB) {
        0..=4 => decode_within::<T, { 64 * KIB }>(bytes),
        5..=64 => decode_within::<T, { 1024 * KIB }>(bytes),
        65..=1024 => decode_within::<T, { 16 * 1024 * KIB }>(bytes),
        _ => decode_within::<T, DECODE_MEMORY_MAX>(bytes),
    }
}

fn decode_within<T: DeserializeOwned, const MEMORY_MAX: usize>(
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let configuration = configuration::<MEMORY_MAX>();
    let (value, consumed) = bincode::serde::decode_from_slice(bytes, configuration)
        .map_err(|_| DecodeError::Invalid("a message does not decode"))?;
    if consumed != bytes.len() {
        return Err(DecodeError::Trailing);
    }
    Ok(value)
}

/// Compresses with zstd at level 1, behind the uncompressed length.
pub fn compress(raw: &[u8]) -> Vec<u8> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor =
            slot.get_or_insert_with(|| zstd::bulk::Compressor::new(1).expect("zstd has a level 1"));
        let mut out = Vec::with_capacity(4 + zstd::zstd_safe::compress_bound(raw.len()));
        out.extend_from_slice(
            &u32::try_from(raw.len()).expect("limits are far below 4 GiB").to_be_bytes(),
        );
        let mut packed = std::io::Cursor::new(out);
        packed.set_position(4);
        compressor
            .compress_to_buffer(raw, &mut packed)
            .expect("the buffer has the bound that zstd asks for");
        packed.into_inner()
    })
}

/// Bytes in front that say how many there are unpacked.
pub const CLAIM_BYTES: usize = 4;

/// How many bytes these say that they decompress to: [`decompress`] makes no more
/// of them.
pub fn claimed_bytes(packed: &[u8]) -> usize {
    packed.first_chunk::<CLAIM_BYTES>().map_or(0, |length| u32::from_be_bytes(*length) as usize)
}

/// Decompresses what [`compress`] made, to at most `limit` bytes, and no more
/// than the length in front says.
pub fn decompress(packed: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let (length, packed) = packed.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > limit {
        return Err(DecodeError::TooLong { what: "decompressed data", limit });
    }
    let wrong = |_| DecodeError::Invalid("compressed data does not decompress to its length");
    // A small claim is taken at its word, in one go. A large one grows with
    // what really comes out, so that a few bytes cannot reserve 16 MiB.
    if length <= 1024 * 1024 {
        thread_local! {
            static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
        }
        let raw = DECOMPRESSOR.with_borrow_mut(|slot| {
            let decompressor = slot.get_or_insert_with(|| {
                zstd::bulk::Decompressor::new().expect("a zstd context needs only memory")
            });
            decompressor.decompress(packed, length)
        });
        let raw = raw.map_err(wrong)?;
        return exactly(raw, length);
    }
    let mut raw = Vec::new();
    let mut stream = zstd::stream::read::Decoder::with_buffer(packed).map_err(wrong)?;
    stream.window_log_max(WINDOW_LOG_MAX).map_err(wrong)?;
    stream.take(length as u64 + 1).read_to_end(&mut raw).map_err(wrong)?;
    exactly(raw, length)
}

fn exactly(raw: Vec<u8>, length: usize) -> Result<Vec<u8>, DecodeError> {
    if raw.len() == length {
        Ok(raw)
    } else {
        Err(DecodeError::Invalid("compressed data does not decompress to its length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_bytes_come_back_and_lies_about_length_do_not_pay() {
        for size in [0, 10, 100_000, 3_000_000] {
            let raw: Vec<u8> = (0..size).map(|i: u32| (i / 7) as u8).collect();
            let packed = compress(&raw);
            assert_eq!(decompress(&packed, 4_000_000), Ok(raw));
            assert!(decompress(&packed[..packed.len() - 1], 4_000_000).is_err());
            let mut longer = packed.clone();
            longer[3] = longer[3].wrapping_add(1);
            assert!(decompress(&longer, 4_000_000).is_err(), "{size}");
        }
        assert!(matches!(decompress(&compress(&[0; 100]), 99), Err(DecodeError::TooLong { .. })));
        assert!(decompress(&[0, 0], 10).is_err());
    }

    #[test]
    fn a_window_above_the_limit_is_refused() {
        // 16 blocks of 128 KiB of one repeated byte, and a window of 2^log.
        let bomb = |log: u8| {
            let mut packed = 0x20_0000u32.to_be_bytes().to_vec();
            packed.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3]);
            for block in 0..16 {
                let head = (0x2_0000 << 3) | (1 << 1) | u32::from(block == 15);
                packed.extend_from_slice(&head.to_le_bytes()[..3]);
                packed.push(7);
            }
            packed
        };
        assert_eq!(decompress(&bomb(23), 1 << 24), Ok(vec![7; 0x20_0000]));
        for log in [24, 27] {
            assert!(decompress(&bomb(log), 1 << 24).is_err(), "{log}");
        }
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut bytes = encode(&("text", 5u32));
        assert_eq!(decode::<(String, u32)>(&bytes), Ok(("text".to_owned(), 5)));
        bytes.push(0);
        assert_eq!(decode::<(String, u32)>(&bytes), Err(DecodeError::Trailing));
    }
}
