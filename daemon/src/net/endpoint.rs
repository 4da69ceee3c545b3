//! Listening and dialling.

use std::{
    any::Any,
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use certs::{
    credentials::Credentials,
    identity::Identity,
    observe::{Failure, RefusalObserver},
    tls::{ALPN_JOIN, TlsOptions},
    verify::{VerifiedPeer, verified_peer},
};
use protocol::{
    id::{FederationId, NodeId},
    message::CloseCode,
    suite::Suite,
};
use quinn::{
    VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

use super::{
    FrameReceiver, FrameSender, NetError, PROGRESS_MAX, Places, Windows,
    errors::{explained, net_error, other_problem},
    network_of,
    windows::{self, Window},
};
use crate::limit::{Budget, Limiter};

/// A connection without a packet for so long is dead; the status promises that
/// a silent peer shows within 30 seconds.
const IDLE_MAX: Duration = Duration::from_secs(25);
/// The dialling side keeps the path open: shorter than the 30 seconds after
/// which common firewalls forget a UDP flow.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Streams that a peer may have open: one a partition, and some to spare.
const STREAMS_MAX: u32 = 1024;
/// What may be on its way from somebody who dialled us and has not said hello: room for a
/// hello with all its heads to come in pieces, or for a request to join.
const UNKNOWN_WINDOW: u32 = 256 * 1024;
/// Handshakes that run at once. More are refused until one ends, so a flood
/// costs bounded memory.
const HANDSHAKES_MAX: usize = 256;
/// Of those, so many without showing that an address is one's own: more than begin
/// in one round trip on any day, so that only a flood pays for it with another.
const HANDSHAKES_UNSHOWN_MAX: usize = 32;
/// Places beside those for addresses from which a node has come before, and how
/// many of them one may have: whoever fills all others keeps none of those out.
const HANDSHAKES_KNOWN_MAX: u32 = 64;
const HANDSHAKES_OF_KNOWN_MAX: u32 = 4;
/// Addresses that are remembered for that: as many as there may be peers.
const KNOWN_MAX: usize = 10_000;
/// Handshakes of one address at once, and then one each time: a firewall's whole
/// county comes back within a second, and a flood gets a tenth of a core.
const HANDSHAKE_RATE: Budget = Budget { capacity: 512, refill: Duration::from_millis(20) };
/// Addresses for which that is kept. A forged one is not asked to wait.
const RATED_MAX: usize = 10_000;
/// The next address of a host is tried too when this has passed without an answer
/// (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 16;
/// Of those, so many from one address: more than the counties behind one
/// firewall, and with those whose address was not shown yet still not all.
const HANDSHAKES_OF_ONE_MAX: u32 = 64;
/// RFC 9000.
const QUIC_VERSION: u32 = 1;
/// As long as quinn's own ids.
const CONNECTION_ID_BYTES: usize = 8;

fn transport(receive_window: u32, keep_alive: Option<Duration>) -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE_MAX.try_into().expect("25 seconds fit QUIC's number")))
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(windows::STREAM.into())
        .receive_window(receive_window.into())
        .send_window(windows::MOST.into())
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(keep_alive);
    Arc::new(transport)
}

/// A listening socket.
pub struct Listener {
    endpoint: quinn::Endpoint,
    suite: Suite,
    federation: FederationId,
    handshakes: Arc<tokio::sync::Semaphore>,
    /// Those whose address is their own.
    by_address: Arc<Places>,
    /// The same of those that are known.
    of_known: Arc<Places>,
    known: Arc<Mutex<BTreeSet<IpAddr>>>,
    /// By whether the address was shown to be real.
    rate: Limiter<(bool, IpAddr)>,
    observer: Arc<dyn RefusalObserver>,
}

/// A finished incoming handshake.
pub enum Accepted {
    /// A verified node.
    Peer(Connection),
    /// Somebody without a certificate who wants to join: only good for one
    /// enrolment stream.
    Joining(Connection),
}

impl Listener {
    /// Binds `address` and is ready to accept. Replication is shown the first
    /// credentials, enrolment the second. `reset_seed` is secret and the same at
    /// every start.
    pub fn bind(
        address: SocketAddr,
        suite: Suite,
        replication: &Credentials,
        enrolment: &Credentials,
        reset_seed: &[u8],
        observer: Arc<dyn RefusalObserver>,
    ) -> Result<Self, NetError> {
        let config = server_config(suite, replication, enrolment, observer.clone())?;
        let cannot_bind = |problem: std::io::Error| NetError::Socket {
            address: address.to_string(),
            problem: problem.to_string(),
        };
        let socket = std::net::UdpSocket::bind(address).map_err(cannot_bind)?;
        let mut endpoint_config = quinn::EndpointConfig::new(Arc::new(reset_key(reset_seed)));
        endpoint_config.cid_generator(|| Box::new(RandomIds));
        // quinn would also speak drafts, which nobody of ours does.
        endpoint_config.supported_versions(vec![QUIC_VERSION]);
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint_config, Some(config), socket, runtime)
            .map_err(cannot_bind)?;
        Ok(Self {
            endpoint,
            suite,
            federation: replication.identity.federation.clone(),
            handshakes: Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX)),
            by_address: Places::new(HANDSHAKES_MAX as u32, HANDSHAKES_OF_ONE_MAX),
            of_known: Places::new(HANDSHAKES_KNOWN_MAX, HANDSHAKES_OF_KNOWN_MAX),
            known: Arc::default(),
            rate: Limiter::new(HANDSHAKE_RATE, RATED_MAX),
            observer,
        })
    }

    /// Shows these to whoever connects from now on. Connections that live are
    /// not touched.
    pub fn show(&self, replication: &Credentials, enrolment: &Credentials) -> Result<(), NetError> {
        let config = server_config(self.suite, replication, enrolment, self.observer.clone())?;
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// The address that it is bound to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Waits for a handshake to begin, and hands it out as a future to be run
    /// on its own; `None` when the listener is closed.
    pub async fn accept(
        &self,
    ) -> Option<(SocketAddr, impl Future<Output = Result<Accepted, NetError>> + Send + 'static)>
    {
        loop {
            let incoming = self.endpoint.accept().await?;
            let address = incoming.remote_address();
            let network = network_of(address.ip());
            let shown = incoming.remote_address_validated();
            let too_often = self.rate.allow(&(shown, network), Instant::now()).is_none();
            // Under load a dialler first has to show that its address is its own
            // (RFC 9000, 8.1.2), so that forged ones cannot take all places.
            let begun = HANDSHAKES_MAX - self.handshakes.available_permits();
            if (begun >= HANDSHAKES_UNSHOWN_MAX || too_often) && incoming.may_retry() {
                // An error means that it was retried before, which was asked.
                let _ = incoming.retry();
                continue;
            }
            let place = shown.then(|| self.by_address.take(address.ip()));
            let permit = self.handshakes.clone().try_acquire_owned();
            let place = match (permit, place) {
                _ if too_often => None,
                (Ok(permit), None) => Some((Some(permit), None)),
                (Ok(permit), Some(Some(place))) => Some((Some(permit), Some(place))),
                // Full, or its share is.
                _ if shown && self.is_known(network) => {
                    self.of_known.take(address.ip()).map(|place| (None, Some(place)))
                }
                _ => None,
            };
            let Some(place) = place else {
                incoming.refuse();
                continue;
            };
            let (federation, known) = (self.federation.clone(), self.known.clone());
            return Some((address, async move {
                let _until_it_ends = place;
                let connecting = incoming.accept().map_err(net_error)?;
                let connection = tokio::time::timeout(HANDSHAKE_MAX, connecting)
                    .await
                    .map_err(|_| NetError::NoAnswer)?
                    .map_err(net_error)?;
                let alpn = alpn_of(&connection);
                if alpn.as_deref() == Some(ALPN_JOIN) {
                    return Ok(Accepted::Joining(Connection::new(connection, None)));
                }
                let connection = verify(connection, alpn, &federation)?;
                let mut known = known.lock().unwrap_or_else(|error| error.into_inner());
                if known.len() < KNOWN_MAX {
                    known.insert(network);
                }
                Ok(Accepted::Peer(connection))
            }));
        }
    }

    /// Whether a node has come from there.
    fn is_known(&self, network: IpAddr) -> bool {
        self.known.lock().unwrap_or_else(|error| error.into_inner()).contains(&network)
    }

    /// Closes every connection and waits until the peers were told.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(CloseCode::Shutdown.as_u32()), b"");
        // Bounded: a peer that is gone does not answer.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }
}

fn server_config(
    suite: Suite,
    replication: &Credentials,
    enrolment: &Credentials,
    observer: Arc<dyn RefusalObserver>,
) -> Result<quinn::ServerConfig, NetError> {
    let tls = certs::tls::server_config(suite, replication, Some(enrolment), observer)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(no_initial_suite)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(UNKNOWN_WINDOW, None));
    Ok(config)
}

/// QUIC's first packets need a cipher suite that our provider has.
fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> NetError {
    NetError::Transport(error.to_string())
}

/// A socket to dial from. Clones are the same socket.
#[derive(Clone)]
pub struct Dialer {
    endpoint: quinn::Endpoint,
}

impl Dialer {
    /// Binds a free port.
    pub fn bind() -> Result<Self, NetError> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let v4 = SocketAddr::from(([0, 0, 0, 0], 0));
        // Machines without IPv6 refuse the first.
        let endpoint = quinn::Endpoint::client(any).or_else(|_| quinn::Endpoint::client(v4));
        let endpoint = endpoint.map_err(|problem| NetError::Socket {
            address: v4.to_string(),
            problem: problem.to_string(),
        })?;
        Ok(Self { endpoint })
    }

    /// Connects to `hub` at `address` (HOST:PORT) with this node's credentials.
    pub async fn dial(
        &self,
        address: &str,
        hub: &Identity,
        credentials: &Credentials,
        options: TlsOptions,
    ) -> Result<Connection, NetError> {
        let tls = certs::tls::client_config(credentials, options)?;
        let connection = self.connect(address, hub, tls).await?;
        let alpn = alpn_of(&connection);
        let connection = verify(connection, alpn, &hub.federation)?;
        match &connection.peer {
            Some(peer) if peer.identity() == hub => Ok(connection),
            _ => Err(other_problem(format!("the peer is not {hub}"))),
        }
    }

    /// Connects to a hub to join it: it is verified against the token's root,
    /// and we have no certificate yet.
    pub async fn dial_to_join(
        &self,
        address: &str,
        hub: &Identity,
        root: &certs::enrol::RootOfTrust,
        options: TlsOptions,
    ) -> Result<Connection, NetError> {
        let tls = certs::tls::join_client_config(root, options)?;
        let quic = self.connect(address, hub, tls).await?;
        Ok(Connection::new(quic, None))
    }

    async fn connect(
        &self,
        address: &str,
        hub: &Identity,
        (tls, failure): (rustls::ClientConfig, Failure),
    ) -> Result<quinn::Connection, NetError> {
        let crypto = QuicClientConfig::try_from(tls).map_err(no_initial_suite)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(windows::MOST, Some(KEEP_ALIVE)));
        let unresolved =
            |problem: String| NetError::Resolve { address: address.to_owned(), problem };
        let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address)
            .await
            .map_err(|error| unresolved(error.to_string()))?
            .collect();
        let from_v6 = self.endpoint.local_addr().is_ok_and(|local| local.is_ipv6());
        let mut addresses = reachable(&resolved, from_v6).into_iter();
        let mut last = unresolved(match resolved.is_empty() {
            true => "it has no address".into(),
            false => "it has IPv6 addresses only, and this machine has no IPv6".into(),
        });
        // One after the other, and side by side where the earlier ones are slow. All
        // end with this set.
        let mut attempts = JoinSet::new();
        loop {
            let next = addresses.next();
            if let Some(address) = next {
                match self.endpoint.connect_with(config.clone(), address, &hub.dns_name()) {
                    Ok(connecting) => {
                        attempts.spawn(tokio::time::timeout(HANDSHAKE_MAX, connecting));
                    }
                    Err(error) => {
                        last = NetError::Transport(error.to_string());
                        continue;
                    }
                }
            }
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = tokio::time::sleep(ATTEMPT_DELAY), if next.is_some() => continue,
            };
            let error = match ended {
                None => return Err(last),
                Some(Ok(Ok(Ok(connection)))) => return Ok(connection),
                Some(Ok(Ok(Err(error)))) => explained(error, &failure),
                // It was given up, or the daemon ends.
                Some(Ok(Err(_)) | Err(_)) => NetError::NoAnswer,
            };
            // What was said is worth more than that another address is silent.
            if !matches!(last, NetError::Tls(_)) {
                last = error;
            }
        }
    }

    /// Tells all peers, and waits until they were told.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(CloseCode::Shutdown.as_u32()), b"");
        let _ = tokio::time::timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
    }
}

/// The addresses that a socket can reach, in their order: an IPv6 one reaches IPv4
/// addresses in their mapped form, an IPv4 one nothing else.
fn reachable(addresses: &[SocketAddr], from_v6: bool) -> Vec<SocketAddr> {
    let form = |address: &SocketAddr| match address {
        SocketAddr::V4(v4) if from_v6 => Some((v4.ip().to_ipv6_mapped(), v4.port()).into()),
        SocketAddr::V6(_) if !from_v6 => None,
        other => Some(*other),
    };
    addresses.iter().filter_map(form).take(ADDRESSES_MAX).collect()
}

/// With the same key after a crash as before it, a hub can tell its members at
/// once that their connections are gone (RFC 9000, 10.3): they would wait for
/// [`IDLE_MAX`]. So it is no key that is ever renewed.
fn reset_key(seed: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &[b"creditsync stateless reset ", seed].concat())
}

/// Connection ids without a mark of the process that made them: quinn's own
/// ones are ignored by the next process, which then resets nothing.
struct RandomIds;

impl quinn::ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        // A repeated id is noticed and made again.
        let _ = getrandom::fill(&mut id);
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn alpn_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.protocol
}

fn verify(
    connection: quinn::Connection,
    alpn: Option<Vec<u8>>,
    federation: &FederationId,
) -> Result<Connection, NetError> {
    let chain: Option<Box<Vec<CertificateDer<'static>>>> =
        connection.peer_identity().and_then(|identity: Box<dyn Any>| identity.downcast().ok());
    let chain = chain.as_ref().map(|chain| chain.as_slice());
    match verified_peer(alpn.as_deref(), chain, federation) {
        Ok(peer) => Ok(Connection::new(connection, Some(Arc::new(peer)))),
        Err(refused) => {
            connection.close(VarInt::from_u32(CloseCode::NotAMember.as_u32()), b"");
            Err(refused.into())
        }
    }
}

/// A live connection. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    quic: quinn::Connection,
    peer: Option<Arc<VerifiedPeer>>,
    patience: Duration,
}

impl Connection {
    fn new(quic: quinn::Connection, peer: Option<Arc<VerifiedPeer>>) -> Self {
        Self { quic, peer, patience: PROGRESS_MAX }
    }

    /// The same, with this time for a peer to get on with what it owes on the
    /// streams that are opened from here on.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The verified peer; `None` only while somebody joins.
    pub fn peer(&self) -> Option<&VerifiedPeer> {
        self.peer.as_deref()
    }

    /// The verified peer's name.
    pub fn peer_node(&self) -> Option<&NodeId> {
        self.peer.as_ref().map(|peer| &peer.identity().node)
    }

    /// The peer's address.
    pub fn address(&self) -> SocketAddr {
        let address = self.quic.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// The smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// UDP payload bytes sent and received so far.
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.quic.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Tells apart connections of the same peer.
    pub fn id(&self) -> usize {
        self.quic.stable_id()
    }

    /// Opens a stream. The peer hears of it with its first frame.
    pub async fn open_stream(&self) -> Result<(FrameSender, FrameReceiver), NetError> {
        // A peer that gives no room for streams has to get on, too.
        let opened = tokio::time::timeout(self.patience, self.quic.open_bi()).await;
        let (send, receive) = opened.map_err(|_| NetError::Stalled)?.map_err(net_error)?;
        let receiver = FrameReceiver::opened(receive, self.patience);
        Ok((FrameSender::new(send, self.patience), receiver))
    }

    /// Waits for a stream that the peer opens.
    pub async fn accept_stream(&self) -> Result<(FrameSender, FrameReceiver), NetError> {
        let (send, receive) = self.quic.accept_bi().await.map_err(net_error)?;
        let receiver = FrameReceiver::accepted(receive, self.patience);
        Ok((FrameSender::new(send, self.patience), receiver))
    }

    /// Lets the peer have as much on its way as a known one may, until the answer is
    /// dropped.
    pub fn open_window(&self, of_all: &Arc<Windows>) -> Window {
        of_all.open(&self.quic)
    }

    /// Closes the connection with a code that the peer sees.
    pub fn close(&self, code: CloseCode) {
        self.quic.close(VarInt::from_u32(code.as_u32()), b"");
    }

    /// Waits until the connection is closed, by whomever, and says why.
    pub async fn closed(&self) -> NetError {
        net_error(self.quic.closed().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_dials_what_it_can_reach_in_the_given_order() {
        let parsed = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let all = parsed(&["[2001:db8::1]:7443", "192.0.2.1:7443", "[2001:db8::2]:7443"]);
        assert_eq!(reachable(&all, false), parsed(&["192.0.2.1:7443"]));
        let mapped =
            parsed(&["[2001:db8::1]:7443", "[::ffff:192.0.2.1]:7443", "[2001:db8::2]:7443"]);
        assert_eq!(reachable(&all, true), mapped);
        assert!(reachable(&all[..1], false).is_empty());
    }
}
