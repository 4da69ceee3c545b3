//! A hostile QUIC client: whatever bytes, on whatever stream, under whatever
//! certificate.
//!
//! Invariant: every wait has a deadline, so a hub that does not answer fails the
//! test instead of stopping it.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use certs::{credentials::Credentials, identity::Identity, tls::TlsOptions};
use protocol::{
    frame::{self, FrameDecoder},
    message::{CloseCode, Control, Hello, Open, Report},
    suite::Suite,
};
use quinn::{
    ConnectionError, ReadError, RecvStream, SendStream, VarInt, crypto::rustls::QuicClientConfig,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde::{Serialize, de::DeserializeOwned};

/// Nothing that is expected takes longer, except on a machine that hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for what has to happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {DEADLINE:?}, but not: {what}"),
    }
}

/// How a connection or a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The hub gave this code.
    Code(CloseCode),
    /// A TLS alert (RFC 8446, 6) ended the handshake.
    Alert(u8),
    /// The hub finished the stream.
    Finished,
    /// Something else.
    Other,
}

impl End {
    fn application(code: VarInt) -> Self {
        CloseCode::from_u64(code.into_inner()).map_or(End::Other, End::Code)
    }

    pub fn of_connection(error: &ConnectionError) -> Self {
        let alert = |code: u64| match code.checked_sub(0x100).map(u8::try_from) {
            Some(Ok(alert)) => End::Alert(alert),
            _ => End::Other,
        };
        match error {
            ConnectionError::ApplicationClosed(close) => Self::application(close.error_code),
            ConnectionError::ConnectionClosed(close) => alert(close.error_code.into()),
            ConnectionError::TransportError(error) => alert(error.code.into()),
            _ => End::Other,
        }
    }
}

/// What a client shows and asks for.
#[derive(Clone)]
pub struct Dial {
    /// The hub's address.
    pub address: SocketAddr,
    /// Where it dials from.
    pub from: IpAddr,
    /// The name that the hub has to prove.
    pub hub: Identity,
    /// What is trusted, and by default shown.
    pub credentials: Arc<Credentials>,
    /// Shown instead; the hub's root stays trusted.
    pub shown: Option<Arc<Credentials>>,
    /// No certificate is shown.
    pub anonymous: bool,
    /// The protocol.
    pub alpn: &'static [u8],
}

/// A connection by a hostile client.
pub struct Peer {
    pub connection: quinn::Connection,
    // A connection ends with its endpoint.
    _endpoint: quinn::Endpoint,
}

impl Dial {
    /// A client configuration with these settings.
    pub fn config(&self) -> quinn::ClientConfig {
        client_config(self.tls())
    }

    /// Its TLS half.
    pub fn tls(&self) -> rustls::ClientConfig {
        let trust = &self.credentials;
        let mut tls = if self.anonymous {
            let root = certs::enrol::RootOfTrust::from_certificate(&trust.roots[0]).unwrap();
            certs::tls::join_client_config(&root, TlsOptions::of(Suite::One)).unwrap().0
        } else {
            certs::tls::client_config(trust, TlsOptions::of(Suite::One)).unwrap().0
        };
        if let Some(shown) = &self.shown {
            // Also a chain whose key one has not.
            let key = any_supported_type(&shown.key).unwrap();
            let shown = CertifiedKey::new(shown.chain.clone(), key);
            tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
        }
        tls.alpn_protocols = vec![self.alpn.to_vec()];
        tls
    }

    /// Connects; a client's handshake succeeds before the hub has judged its
    /// certificate.
    pub async fn connect(&self) -> Result<Peer, End> {
        self.connect_with(self.config()).await
    }

    /// The same with a configuration of choice.
    pub async fn connect_with(&self, config: quinn::ClientConfig) -> Result<Peer, End> {
        let endpoint = quinn::Endpoint::client(SocketAddr::new(self.from, 0)).unwrap();
        let connecting = endpoint.connect_with(config, self.address, &self.hub.dns_name()).unwrap();
        match soon("a handshake ends", connecting).await {
            Ok(connection) => Ok(Peer { connection, _endpoint: endpoint }),
            Err(error) => Err(End::of_connection(&error)),
        }
    }

    /// Connects and waits for how the hub ends it.
    pub async fn refused(&self) -> End {
        match self.connect().await {
            Ok(peer) => peer.closed().await,
            Err(end) => end,
        }
    }
}

pub fn client_config(tls: rustls::ClientConfig) -> quinn::ClientConfig {
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    config.transport_config(Arc::new(transport));
    config
}

impl Peer {
    /// One that a connection was accepted from.
    pub fn of(connection: quinn::Connection, endpoint: quinn::Endpoint) -> Self {
        Self { connection, _endpoint: endpoint }
    }

    /// How the hub closes the connection.
    pub async fn closed(&self) -> End {
        End::of_connection(&soon("the hub closes the connection", self.connection.closed()).await)
    }

    /// Opens a stream; nothing is sent yet.
    pub async fn open(&self) -> Stream {
        let opened = soon("a stream opens", self.connection.open_bi()).await;
        Stream::new(opened.expect("the connection lives"))
    }

    /// The next stream that the hub opens.
    pub async fn accept(&self) -> Stream {
        let accepted = soon("the hub opens a stream", self.connection.accept_bi()).await;
        Stream::new(accepted.expect("the connection lives"))
    }

    /// Opens the control stream with `hello`, and says which daemon this is;
    /// answers the stream and the hub's hello.
    pub async fn say_hello(&self, hello: Hello) -> (Stream, Hello) {
        self.say_hello_as([7; 8], hello).await
    }

    /// The same as a daemon of choice.
    pub async fn say_hello_as(&self, instance: [u8; 8], hello: Hello) -> (Stream, Hello) {
        let (mut control, theirs) = self.say_only_hello(hello).await;
        let report = Report { instance, roots: vec![], signing_key: Suite::One.none() };
        control.send(&Control::Report(report)).await;
        (control, theirs)
    }

    /// Without the report that has to follow.
    pub async fn say_only_hello(&self, hello: Hello) -> (Stream, Hello) {
        let mut control = self.open().await;
        control.send(&Open::Control(hello)).await;
        match control.receive().await {
            Ok(Control::Hello(theirs)) => (control, theirs),
            other => panic!("{other:?}"),
        }
    }
}

/// One stream, by bytes or by frames.
pub struct Stream {
    sender: SendStream,
    receiver: RecvStream,
    decoder: FrameDecoder,
    ended: Option<End>,
}

impl Stream {
    /// Speaks on the two halves of a stream.
    pub fn new((sender, receiver): (SendStream, RecvStream)) -> Self {
        Self { sender, receiver, decoder: FrameDecoder::new(), ended: None }
    }

    /// Sends bytes as they are. The hub may have stopped listening.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = soon("bytes are sent", self.sender.write_all(bytes)).await;
    }

    /// Sends a frame with this body.
    pub async fn send_body(&mut self, body: &[u8]) {
        self.send_raw(&frame::encode(body)).await;
    }

    /// Sends a message.
    pub async fn send<T: Serialize>(&mut self, message: &T) {
        self.send_body(&protocol::codec::encode(message)).await;
    }

    /// Begins a frame of 4 KiB and sends a byte of it each time; answers how the
    /// stream ends meanwhile.
    pub async fn drip(&mut self, every: Duration) -> End {
        self.send_raw(&4096u32.to_be_bytes()).await;
        let Self { sender, receiver, .. } = self;
        let sending = async {
            while sender.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(every).await;
            }
            // It was stopped; the receiving half says why.
            std::future::pending::<End>().await
        };
        let mut buffer = [0; 16];
        let ending = async {
            match soon("the hub gives the stream up", receiver.read(&mut buffer)).await {
                Ok(None) => End::Finished,
                Err(ReadError::Reset(code)) => End::application(code),
                Err(ReadError::ConnectionLost(error)) => End::of_connection(&error),
                other => panic!("{other:?}"),
            }
        };
        tokio::select! { end = sending => end, end = ending => end }
    }

    /// Ends it early, for this reason.
    pub fn reset(&mut self, code: CloseCode) {
        self.sender.reset(code.as_u32().into()).unwrap();
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        let _ = self.sender.finish();
    }

    /// Waits until the hub has begun to say something, and takes no more of it.
    pub async fn begun(&mut self) {
        let mut first = [0];
        let begun = soon("the hub says something", self.receiver.read(&mut first)).await;
        assert!(matches!(begun, Ok(Some(1))), "{begun:?}");
        self.decoder.push(&first);
    }

    /// The next frame's body, or how the stream ended.
    pub async fn receive_body(&mut self) -> Result<Vec<u8>, End> {
        if let Some(end) = self.ended {
            return Err(end);
        }
        let received = self.read_frame().await;
        self.ended = received.as_ref().err().copied();
        received
    }

    async fn read_frame(&mut self) -> Result<Vec<u8>, End> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(body) = self.decoder.pop().expect("the hub sends frames") {
                return Ok(body);
            }
            match soon("the hub says something", self.receiver.read(&mut buffer)).await {
                Ok(Some(count)) => self.decoder.push(&buffer[..count]),
                Ok(None) => return Err(End::Finished),
                Err(ReadError::Reset(code)) => return Err(End::application(code)),
                Err(ReadError::ConnectionLost(error)) => return Err(End::of_connection(&error)),
                Err(_) => return Err(End::Other),
            }
        }
    }

    /// The next message, or how the stream ended.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, End> {
        Ok(protocol::codec::decode(&self.receive_body().await?).expect("the hub sends messages"))
    }

    /// The code with which the hub stops listening; nothing is read meanwhile.
    pub async fn stopped(&mut self) -> CloseCode {
        let stopped = soon("the hub stops listening", self.sender.stopped()).await;
        let code = stopped.expect("the connection lives").expect("it is not finished");
        CloseCode::from_u64(code.into_inner()).expect("a code of ours")
    }

    /// How the stream ends; what the hub says before is dropped.
    pub async fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.receive_body().await {
                return end;
            }
        }
    }
}
