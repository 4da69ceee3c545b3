//! Framed streams: one message a frame.
//!
//! Whoever owes something, the rest of a frame or room for one, and does not get
//! on with it is given up ([`NetError::Stalled`]).

use std::time::Duration;

use protocol::{
    frame,
    frame::{ANSWER_FRAME_BYTES_MAX, FrameDecoder, OPENING_FRAME_BYTES_MAX},
    message::CloseCode,
};
use quinn::{ReadError, VarInt, WriteError};
use serde::Serialize;
use tokio::time::Instant;

use super::{NetError, errors::net_error};
use crate::memory::{Account, Grant};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// A peer that owes something gets on with it in this time. As long as the
/// silence that ends a connection: a disk that is slower than that for a single
/// message is broken, and a line comes back or is dead.
pub const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// So many bytes are progress, or the end of a frame: 4 kbit/s, which a hundred
/// streams on the slowest line still have, and a byte now and then has not.
const PROGRESS_BYTES: usize = 16 * 1024;

/// How often whoever waits for memory says that it does.
const STILL_WAITING: Duration = Duration::from_secs(5);

/// Frames that are longer are counted where streams share memory; one of each of a thousand
/// streams is less than a peer may have on its way.
const LONG_FRAME_BYTES: usize = 16 * 1024;

/// How long a peer may go on owing something.
#[derive(Debug)]
struct Patience {
    longest: Duration,
    /// None while nothing is owed.
    until: Option<Instant>,
    /// Since that was set.
    bytes: usize,
}

impl Patience {
    fn new(longest: Duration) -> Self {
        Self { longest, until: None, bytes: 0 }
    }

    fn until(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + self.longest)
    }

    fn moved(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= PROGRESS_BYTES {
            self.settled();
        }
    }

    /// Nothing is owed any more.
    fn settled(&mut self) {
        (self.until, self.bytes) = (None, 0);
    }
}

/// The sending half of a stream.
pub struct FrameSender {
    stream: quinn::SendStream,
    patience: Patience,
}

impl FrameSender {
    pub(super) fn new(stream: quinn::SendStream, patience: Duration) -> Self {
        Self { stream, patience: Patience::new(patience) }
    }

    /// Sends one message. Waits while the peer's window is full, as long as it
    /// takes something.
    ///
    /// Dropping this future half-way leaves a torn frame: only do it to give
    /// the stream up.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), NetError> {
        self.send_frame(frame::encode(&protocol::codec::encode(message))).await
    }

    /// The same for a message that may be long: while the peer takes its frame, that
    /// is all that is in memory of it.
    pub async fn send_long<T: Serialize>(&mut self, message: T) -> Result<(), NetError> {
        let frame = frame::encode(&protocol::codec::encode(&message));
        drop(message);
        self.send_frame(frame).await
    }

    async fn send_frame(&mut self, frame: Vec<u8>) -> Result<(), NetError> {
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let written = tokio::time::timeout_at(self.patience.until(), self.stream.write(rest));
            let written = written.await.map_err(|_| NetError::Stalled)?;
            let written = written.map_err(|error| match error {
                WriteError::Stopped(code) => {
                    NetError::Closed(CloseCode::from_u64(code.into_inner()))
                }
                WriteError::ConnectionLost(error) => net_error(error),
                other => NetError::Transport(other.to_string()),
            })?;
            self.patience.moved(written);
            rest = &rest[written..];
        }
        self.patience.settled();
        Ok(())
    }

    /// Waits so many times as long for the peer to get on: where what it has to take waits
    /// behind something else.
    pub fn wait_longer(&mut self, times: u32) {
        self.patience.longest *= times;
    }

    /// Says that nothing more comes; what was sent still arrives.
    pub fn finish(&mut self) {
        // An error means that the stream is gone already.
        let _ = self.stream.finish();
    }

    /// Waits until the peer has taken everything, or is gone, or does not get on.
    pub async fn drained(&mut self) {
        let _ = tokio::time::timeout(self.patience.longest, self.stream.stopped()).await;
    }

    /// Gives the stream up with a code.
    pub fn reset(&mut self, code: CloseCode) {
        let _ = self.stream.reset(VarInt::from_u32(code.as_u32()));
    }
}

/// The receiving half of a stream.
pub struct FrameReceiver {
    stream: quinn::RecvStream,
    decoder: FrameDecoder,
    patience: Patience,
    /// Memory for long frames, and what this one has taken of it.
    memory: Option<Account>,
    /// Told while that is waited for.
    waits: Option<Box<dyn Fn() + Send + Sync>>,
    taken: Option<Grant>,
    /// Whether the frame that has taken it was given away.
    given: bool,
}

impl FrameReceiver {
    /// Of a stream that the peer has opened: what for is said in a short frame.
    pub(super) fn accepted(stream: quinn::RecvStream, patience: Duration) -> Self {
        Self::new(stream, patience, OPENING_FRAME_BYTES_MAX)
    }

    /// Of a stream that we have opened.
    pub(super) fn opened(stream: quinn::RecvStream, patience: Duration) -> Self {
        Self::new(stream, patience, ANSWER_FRAME_BYTES_MAX)
    }

    fn new(stream: quinn::RecvStream, patience: Duration, bytes_max: usize) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.limit(bytes_max);
        Self {
            stream,
            decoder,
            patience: Patience::new(patience),
            memory: None,
            waits: None,
            taken: None,
            given: false,
        }
    }

    /// Long frames take their memory from this, until the next one is asked for. One for
    /// which there is none is not read meanwhile, and `waits` is told so now and then.
    pub fn share_memory(&mut self, memory: Account, waits: Box<dyn Fn() + Send + Sync>) {
        (self.memory, self.waits) = (Some(memory), Some(waits));
    }

    /// What the last frame was about is nearly done, whoever needs its memory.
    pub fn ends_soon(&self) {
        self.taken.iter().for_each(Grant::ends_soon);
    }

    /// Frames above `bytes` are refused from now on.
    pub fn limit(&mut self, bytes: usize) {
        self.decoder.limit(bytes);
    }

    /// The next frame's body; `None` when the peer has finished. It may begin
    /// whenever the peer has something to say. May be dropped half-way: what has
    /// arrived is kept.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        self.receive_if(false).await
    }

    /// The same where the peer owes a frame.
    pub async fn receive_owed(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        self.receive_if(true).await
    }

    /// One or the other.
    pub async fn receive_if(&mut self, owed: bool) -> Result<Option<Vec<u8>>, NetError> {
        // The next frame may have begun already, and takes memory of its own.
        if std::mem::take(&mut self.given) {
            self.taken = None;
        }
        loop {
            if let Some(body) = self.decoder.pop()? {
                self.given = true;
                self.patience.settled();
                return Ok(Some(body));
            }
            self.take_memory().await;
            let read = self.stream.read_chunk(READ_BYTES, true);
            let read = if owed || self.decoder.is_inside() {
                let read = tokio::time::timeout_at(self.patience.until(), read).await;
                read.map_err(|_| NetError::Stalled)?
            } else {
                self.patience.settled();
                read.await
            };
            match read {
                Ok(Some(chunk)) => {
                    self.patience.moved(chunk.bytes.len());
                    self.decoder.push(&chunk.bytes);
                }
                Ok(None) => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                Err(ReadError::Reset(code)) => {
                    return Err(NetError::Closed(CloseCode::from_u64(code.into_inner())));
                }
                Err(ReadError::ConnectionLost(error)) => return Err(net_error(error)),
                Err(other) => return Err(NetError::Transport(other.to_string())),
            }
        }
    }

    /// Waits until there is memory for a long frame that has begun.
    async fn take_memory(&mut self) {
        let awaited = self.decoder.awaited();
        let Some(memory) = self.memory.as_ref().filter(|_| awaited > LONG_FRAME_BYTES) else {
            return;
        };
        if self.taken.is_none() {
            let mut taken = std::pin::pin!(memory.take(awaited));
            self.taken = loop {
                match tokio::time::timeout(STILL_WAITING, &mut taken).await {
                    Ok(taken) => break Some(taken),
                    Err(_) => self.waits.iter().for_each(|waits| waits()),
                }
            };
        }
    }

    /// Tells the peer to stop sending; nothing is received any more.
    pub fn stop(&mut self, code: CloseCode) {
        self.taken = None;
        let _ = self.stream.stop(VarInt::from_u32(code.as_u32()));
    }
}
