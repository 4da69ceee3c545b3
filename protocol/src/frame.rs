//! Frames: a 32-bit big-endian length and as many bytes, on every stream.

use crate::{
    encoding::DecodeError,
    message::{BUILD_BYTES_MAX, CSR_BYTES_MAX, HEADS_MAX},
    suite::HASH_BYTES_MAX,
};

/// Largest frame body, where change sets come: one of 8 MiB that does not compress, and its
/// header, fit with room to spare.
pub const FRAME_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Largest head in a hello or announcement: a partition of four names of 63
/// bytes, two hashes of any suite with its number, and two numbers of nine bytes.
pub const ANNOUNCED_BYTES_MAX: usize = 3 + 4 * 64 + 2 * (1 + HASH_BYTES_MAX) + 2 * 9;
/// Largest frame of a control stream: as many of the largest heads as there may
/// be, and what lies around them.
pub const CONTROL_FRAME_BYTES_MAX: usize = HEADS_MAX * ANNOUNCED_BYTES_MAX + BUILD_BYTES_MAX + 1024;
/// Largest first frame of any other stream: a certificate request is the longest,
/// and twice that leaves room. A peer may have a thousand streams that have not
/// said yet what they are for.
pub const OPENING_FRAME_BYTES_MAX: usize = 2 * CSR_BYTES_MAX;
/// Largest answer where neither pages nor change sets come: a chain of
/// certificates, of which a long one has ten of 2 KB.
pub const ANSWER_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Largest acknowledgement: a position and a hash.
pub const ACK_FRAME_BYTES_MAX: usize = 1024;
/// What a decoder keeps of its buffer between two frames.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;

/// A frame that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length in front is above the stream's limit.
    #[error("a frame of {bytes} bytes is above the limit of {limit}")]
    TooLong {
        /// The length in front.
        bytes: usize,
        /// The stream's limit.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
}

impl FrameError {
    /// The same as a fault of decoding, which is what it is to a session.
    pub fn as_decode_error(self) -> DecodeError {
        match self {
            FrameError::TooLong { limit, .. } => DecodeError::TooLong { what: "a frame", limit },
            FrameError::Truncated => DecodeError::Truncated,
        }
    }
}

/// Puts the length in front of `body`.
///
/// # Panics
/// If `body` is above [`FRAME_BYTES_MAX`]: messages are limited far below.
pub fn encode(body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= FRAME_BYTES_MAX, "a message of {} bytes was built", body.len());
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// Cuts a stream of bytes into frames. It holds at most one frame and what was
/// pushed behind it.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    start: usize,
    limit: usize,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self { buffer: Vec::new(), start: 0, limit: FRAME_BYTES_MAX }
    }
}

impl FrameDecoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Frames above `bytes` are refused from now on: a stream on which only
    /// short messages come must not make us hold long ones.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes.min(FRAME_BYTES_MAX);
    }

    /// Takes bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 64 * 1024 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame's body, or `None` until more bytes are pushed.
    pub fn pop(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.limit {
            return Err(FrameError::TooLong { bytes: length, limit: self.limit });
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        if length <= BUFFER_KEPT_BYTES {
            let body = body.to_vec();
            self.start += 4 + length;
            return Ok(Some(body));
        }
        // A long one is not copied, and its room is not kept.
        let behind = self.buffer.split_off(self.start + 4 + length);
        let mut body = std::mem::replace(&mut self.buffer, behind);
        body.drain(..self.start + 4);
        self.start = 0;
        Ok(Some(body))
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.start != self.buffer.len()
    }

    /// How long the frame is that has begun, once its beginning says so.
    pub fn awaited(&self) -> usize {
        let length = self.buffer[self.start..].first_chunk::<4>();
        length.map_or(0, |length| u32::from_be_bytes(*length) as usize)
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Ends the stream: it must not end inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.is_inside() { Err(FrameError::Truncated) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::Position,
        id::PartitionId,
        message::{Announced, Control, Hello, Open},
        suite::Suite,
    };

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let bodies: [&[u8]; 5] = [b"", b"one", &[7; 5000], &[8; 70_000], b"last"];
        let stream: Vec<u8> = bodies.iter().flat_map(|body| encode(body)).collect();
        for step in [1, 3, 4, 1000, stream.len()] {
            let mut decoder = FrameDecoder::new();
            let mut seen = Vec::new();
            for chunk in stream.chunks(step) {
                decoder.push(chunk);
                while let Some(body) = decoder.pop().unwrap() {
                    seen.push(body);
                }
            }
            assert_eq!(seen, bodies);
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn a_long_frame_leaves_no_room_behind() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&encode(&vec![7; 4 * 1024 * 1024]));
        assert!(decoder.pop().unwrap().is_some());
        assert!(decoder.held_bytes() <= BUFFER_KEPT_BYTES, "{} bytes", decoder.held_bytes());
    }

    #[test]
    fn as_many_heads_of_the_longest_names_as_there_may_be_fit() {
        let name = "n".repeat(63);
        let partition = PartitionId::parse_full(&[&name[..]; 4].join("/")).unwrap();
        let position = Position { seq: u64::MAX, hash: Suite::One.repeated(7) };
        let root = Suite::One.repeated(8);
        let head = Announced { partition, position, root, records: u64::MAX };
        assert!(crate::codec::encode(&head).len() <= ANNOUNCED_BYTES_MAX);
        let hello = Hello {
            suite: u8::MAX,
            versions: vec![u16::MAX; 16],
            build: "b".repeat(BUILD_BYTES_MAX),
            now_ms: i64::MIN,
            heads: vec![head.clone(); HEADS_MAX],
        };
        let longest = [
            crate::codec::encode(&Open::Control(hello)).len(),
            crate::codec::encode(&Control::Announce(vec![head; HEADS_MAX])).len(),
        ];
        assert!(longest.iter().all(|bytes| *bytes <= CONTROL_FRAME_BYTES_MAX), "{longest:?}");
    }

    #[test]
    fn a_length_above_the_limit_and_a_cut_stream_are_refused() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        let too_long = |bytes, limit| Err(FrameError::TooLong { bytes, limit });
        assert_eq!(decoder.pop(), too_long(u32::MAX as usize, FRAME_BYTES_MAX));
        let mut decoder = FrameDecoder::new();
        decoder.limit(3);
        decoder.push(&[encode(b"one"), encode(b"four")].concat());
        assert_eq!(decoder.pop(), Ok(Some(b"one".to_vec())));
        assert_eq!(decoder.pop(), too_long(4, 3));
        let mut decoder = FrameDecoder::new();
        decoder.push(&encode(b"body")[..6]);
        assert_eq!(decoder.pop(), Ok(None));
        assert_eq!(decoder.finish(), Err(FrameError::Truncated));
    }
}
