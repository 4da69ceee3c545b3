//! QUIC with mutual TLS: endpoints, connections and framed streams.
//!
//! The only place that knows quinn. A [`Connection`] exists only after its
//! handshake is finished and its peer is verified, so nobody behind this folder
//! asks who is speaking. What is said on the streams is `sync`'s business.

mod endpoint;
mod errors;
mod places;
mod stream;
mod turn;
mod windows;

pub use self::{
    endpoint::{Accepted, Connection, Dialer, Listener},
    places::{Places, network_of},
    stream::{FrameReceiver, FrameSender, PROGRESS_MAX},
    turn::{in_turn, most_telling},
    windows::{Window, Windows},
};

use certs::explain::CertificateProblem;
use protocol::{frame::FrameError, message::CloseCode};

/// Why a connection or stream did not work.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A socket could not be made.
    #[error("cannot use {address}: {problem}")]
    Socket {
        /// The local address.
        address: String,
        /// What the system said.
        problem: String,
    },
    /// A name did not resolve.
    #[error("{address} does not resolve: {problem}. Check the address")]
    Resolve {
        /// HOST:PORT.
        address: String,
        /// What the resolver said.
        problem: String,
    },
    /// Nobody answered.
    #[error("no answer. Check that the peer runs, and that a firewall lets UDP through")]
    NoAnswer,
    /// The peer owes something and does not get on with it.
    #[error("the peer did not get on with what it owes")]
    Stalled,
    /// The handshake failed; the text is for people.
    #[error("the secure handshake failed: {0}")]
    Tls(CertificateProblem),
    /// The peer's certificate is not one to talk to.
    #[error(transparent)]
    Refused(#[from] certs::verify::PeerRefused),
    /// The peer closed, with a reason if it gave one.
    #[error("{}", .0.map_or("the connection was closed".to_owned(), |code| code.to_string()))]
    Closed(Option<CloseCode>),
    /// The peer sent a frame that no honest peer sends.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Anything else that QUIC reports.
    #[error("{0}")]
    Transport(String),
    /// A certificate or key of this node cannot be used.
    #[error(transparent)]
    Certificate(#[from] certs::CertError),
}

impl NetError {
    /// The same text for the same reason, however often it is met: what people
    /// are told may hold the time.
    pub fn kind(&self) -> String {
        match self {
            NetError::Tls(problem) => problem.kind.as_str().to_owned(),
            other => other.to_string(),
        }
    }

    /// Whether the peer did not say or take something in time.
    pub fn is_silence(&self) -> bool {
        matches!(self, NetError::NoAnswer | NetError::Stalled)
    }

    /// The code that the peer closed with.
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            NetError::Closed(code) => *code,
            _ => None,
        }
    }
}
