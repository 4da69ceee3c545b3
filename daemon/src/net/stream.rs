//! Framed streams: one message a frame.

use protocol::{frame, frame::FrameDecoder, message::CloseCode};
use quinn::{ReadError, VarInt, WriteError};
use serde::Serialize;

use super::{NetError, errors::net_error};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// The sending half of a stream.
pub struct FrameSender {
    stream: quinn::SendStream,
}

impl FrameSender {
    pub(super) fn new(stream: quinn::SendStream) -> Self {
        Self { stream }
    }

    /// Sends one message. Waits while the peer's window is full.
    ///
    /// Dropping this future half-way leaves a torn frame: only do it to give
    /// the stream up.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), NetError> {
        let frame = frame::encode(&protocol::codec::encode(message));
        self.stream.write_all(&frame).await.map_err(|error| match error {
            WriteError::Stopped(code) => NetError::Closed(CloseCode::from_u64(code.into_inner())),
            WriteError::ConnectionLost(error) => net_error(error),
            other => NetError::Transport(other.to_string()),
        })
    }

    /// Says that nothing more comes; what was sent still arrives.
    pub fn finish(&mut self) {
        // An error means that the stream is gone already.
        let _ = self.stream.finish();
    }

    /// Waits until the peer has taken everything, or is gone.
    pub async fn drained(&mut self) {
        let _ = self.stream.stopped().await;
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
    buffer: Vec<u8>,
}

impl FrameReceiver {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, decoder: FrameDecoder::new(), buffer: vec![0; READ_BYTES] }
    }

    /// Frames above `bytes` are refused from now on.
    pub fn limit(&mut self, bytes: usize) {
        self.decoder.limit(bytes);
    }

    /// The next frame's body; `None` when the peer has finished. May be
    /// dropped half-way: what has arrived is kept.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        loop {
            if let Some(body) = self.decoder.pop()? {
                return Ok(Some(body));
            }
            match self.stream.read(&mut self.buffer).await {
                Ok(Some(count)) => self.decoder.push(&self.buffer[..count]),
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

    /// Tells the peer to stop sending.
    pub fn stop(&mut self, code: CloseCode) {
        let _ = self.stream.stop(VarInt::from_u32(code.as_u32()));
    }
}
