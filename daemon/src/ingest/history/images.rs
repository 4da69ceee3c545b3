//! What was stored before a delivery changed it.
//!
//! A delivery's images are frames, each a compressed list of the changes that
//! take it back, in key order, and with each the digest of what the delivery put
//! there. Written by `record`, read by `undo`. Few of them stand in the log's
//! line, more in a file of their own. Invariants: a frame that is not whole is
//! not read, nor anything behind it; a frame has at most [`FRAME_BYTES_MAX`].

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{
    change::{BODY_BYTES_MAX, CHANGES_MAX, Change, changes_hash, decode_changes, encode_changes},
    codec::{compress, decompress},
    hash::Hash,
    record::{RECORD_BYTES_MAX, entry_digest, entry_digests},
    suite::Suite,
};

/// What these files hold stays on this node and is compared with nothing of the
/// federation, so its digests are of one suite whatever the federation's is.
const SUITE: Suite = Suite::One;
/// The ending of a file of images.
pub(super) const ENDING: &str = "images";
/// Bytes of records in a frame, uncompressed: half of what a list of changes may
/// have, so that the last record always fits.
const FRAME_RECORDS_BYTES: usize = BODY_BYTES_MAX / 2;
/// A frame, uncompressed: its changes and their digests.
const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + CHANGES_MAX * DIGEST_BYTES;
/// A frame as it is written; what does not compress grows a little.
const PACKED_BYTES_MAX: usize = FRAME_BYTES_MAX + FRAME_BYTES_MAX / 16;
/// Of a digest: two records of one key with the same 16 bytes do not occur by
/// chance, and who writes the partition has nothing to gain from one.
const DIGEST_BYTES: usize = 16;
/// In front of a frame: its length, and the first bytes of its hash.
const HEAD_BYTES: usize = 4 + 8;

/// The first bytes of the digest of what a delivery left under a key; none if it
/// left nothing.
pub(in crate::ingest) type After = Option<[u8; DIGEST_BYTES]>;

/// What takes one change back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ingest) struct Image {
    /// What was there before, as a change.
    pub before: Change,
    /// What the delivery left.
    pub after: After,
}

/// The digest by which it is known whether a record is as a delivery left it.
pub(in crate::ingest) fn digest(key: &[u8], value: &[u8]) -> [u8; DIGEST_BYTES] {
    short(&entry_digest(SUITE, key, value))
}

fn short(hash: &Hash) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hash.as_bytes()[..DIGEST_BYTES]);
    digest
}

/// The frames of some changes, and of what was stored under their keys before.
pub(super) fn frames(changes: &[Change], befores: Vec<Option<Vec<u8>>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut digests = entry_digests(SUITE, changes.iter().filter_map(Change::entry)).into_iter();
    let (mut undo, mut afters, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (change, before) in changes.iter().zip(befores) {
        let after = change.entry().and_then(|_| digests.next());
        afters.extend_from_slice(&after.map_or([0; DIGEST_BYTES], |hash| short(&hash)));
        let key = change.key().to_vec();
        let back = match before {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        };
        bytes += back.encoded_bytes();
        undo.push(back);
        if bytes >= FRAME_RECORDS_BYTES || undo.len() == CHANGES_MAX {
            push_frame(&mut out, &undo, &afters);
            (undo, afters, bytes) = (Vec::new(), Vec::new(), 0);
        }
    }
    if !undo.is_empty() {
        push_frame(&mut out, &undo, &afters);
    }
    out
}

fn push_frame(out: &mut Vec<u8>, undo: &[Change], afters: &[u8]) {
    debug_assert!(undo.iter().map(Change::encoded_bytes).sum::<usize>() <= BODY_BYTES_MAX);
    const { assert!(FRAME_RECORDS_BYTES + RECORD_BYTES_MAX + 2048 <= BODY_BYTES_MAX) };
    let mut raw = afters.to_vec();
    raw.extend_from_slice(&encode_changes(undo));
    let mut framed = (undo.len() as u32).to_be_bytes().to_vec();
    framed.extend_from_slice(&compress(&raw));
    out.extend_from_slice(&(framed.len() as u32).to_be_bytes());
    out.extend_from_slice(&changes_hash(SUITE, &framed).as_bytes()[..8]);
    out.extend_from_slice(&framed);
}

/// As a line of the log has frames.
pub(super) fn to_text(frames: &[u8]) -> String {
    STANDARD.encode(frames)
}

/// The images of a delivery, in the order in which they were written: of its
/// keys.
pub(in crate::ingest) struct ImageFile {
    inputs: Vec<Box<dyn Read + Send>>,
}

impl ImageFile {
    /// Those of a line of the log, and behind them those of a file, if there is
    /// one.
    pub(super) fn open(text: Option<&str>, path: &Path) -> io::Result<Self> {
        let mut inputs: Vec<Box<dyn Read + Send>> = Vec::new();
        match File::open(path) {
            Ok(file) => inputs.push(Box::new(BufReader::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(text) = text {
            let frames = STANDARD.decode(text).map_err(|_| damaged())?;
            inputs.push(Box::new(io::Cursor::new(frames)));
        }
        Ok(Self { inputs })
    }

    /// The next frame's images; none at the end, and where a frame is not whole.
    pub fn next_frame(&mut self) -> io::Result<Option<Vec<Image>>> {
        while let Some(input) = self.inputs.last_mut() {
            if let Some(framed) = read_frame(input)? {
                return decode(&framed).map(Some);
            }
            self.inputs.pop();
        }
        Ok(None)
    }
}

/// A frame's bytes; none where there is no whole one.
fn read_frame(input: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    input.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    let Some((length, hash)) = head.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > PACKED_BYTES_MAX {
        return Ok(None);
    }
    let mut framed = Vec::new();
    input.take(length as u64).read_to_end(&mut framed)?;
    let whole = framed.len() == length && changes_hash(SUITE, &framed).as_bytes()[..8] == *hash;
    Ok(whole.then_some(framed))
}

fn decode(framed: &[u8]) -> io::Result<Vec<Image>> {
    let (count, packed) = framed.split_first_chunk::<4>().ok_or_else(damaged)?;
    let count = u32::from_be_bytes(*count) as usize;
    let raw = decompress(packed, FRAME_BYTES_MAX).map_err(|_| damaged())?;
    let digests_bytes = count.checked_mul(DIGEST_BYTES).filter(|bytes| *bytes <= raw.len());
    let (digests, body) = raw.split_at(digests_bytes.ok_or_else(damaged)?);
    let changes = decode_changes(body).map_err(|_| damaged())?;
    if changes.len() != count {
        return Err(damaged());
    }
    let (digests, _) = digests.as_chunks::<DIGEST_BYTES>();
    let after = |digest: &[u8; DIGEST_BYTES]| (*digest != [0; DIGEST_BYTES]).then_some(*digest);
    let pairs = changes.into_iter().zip(digests);
    Ok(pairs.map(|(before, digest)| Image { before, after: after(digest) }).collect())
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "撤销数据已损坏 / what was kept for taking it back is damaged",
    )
}
