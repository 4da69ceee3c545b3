//! Intrusions below the protocol: other versions of QUIC and TLS, sessions taken
//! up again, and conversations that never get anywhere.
//!
//! Floods of them are `flood.rs`'s.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use certs::tls::ALPN_JOIN;
use harness::node::wait_until;
use protocol::message::CloseCode;
use rustls::{
    ClientConfig, RootCertStore,
    client::{ClientSessionMemoryCache, ClientSessionStore as _, Resumption},
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, aws_lc_rs::kx_group},
    version::TLS13,
};

use crate::{
    peer::{Dial, End, client_config},
    world::{World, hello},
};

/// RFC 8446, 6.2.
const HANDSHAKE_FAILURE: Option<End> = Some(End::Alert(40));
const GETS_IN: Option<End> = None;
/// The hub says nothing, or at most that there is no such connection.
const SILENCE: Option<&[u32]> = None;
/// The hub says which versions it speaks (RFC 9000, 6.1).
const VERSION_1: Option<&[u32]> = Some(&[1]);

type Datagram = (&'static str, fn(u8) -> Vec<u8>, Option<&'static [u32]>);

/// Datagrams of somebody who does not speak QUIC version 1, by the id that they
/// bear, and what the hub answers.
const DATAGRAMS: &[Datagram] = &[
    ("an unknown version of QUIC", |id| initial(0x1234_5678, id), VERSION_1),
    ("a draft of QUIC", |id| initial(0xff00_001d, id), VERSION_1),
    ("QUIC version 2", |id| initial(0x6b33_43cf, id), VERSION_1),
    ("a hello of TLS 1.2", |_| padded(tls_1_2_hello()), SILENCE),
    (
        "a hello of TLS 1.2 behind QUIC's header",
        |id| {
            let mut datagram = initial(1, id);
            let hello = tls_1_2_hello();
            datagram[23..23 + hello.len()].copy_from_slice(&hello);
            datagram
        },
        SILENCE,
    ),
    ("a request of HTTP", |_| padded(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n".to_vec()), SILENCE),
    ("an empty datagram", |_| Vec::new(), SILENCE),
];

type Exchange = (&'static str, &'static [&'static dyn SupportedKxGroup], Option<End>);

/// Key exchanges that a dialler offers.
const EXCHANGES: &[Exchange] = &[
    ("a classical exchange only", &[kx_group::X25519], GETS_IN),
    ("the hybrid exchange only", &[kx_group::X25519MLKEM768], GETS_IN),
    ("a post-quantum exchange without a classical one", &[kx_group::MLKEM768], HANDSHAKE_FAILURE),
    ("a hybrid that the hub does not know", &[kx_group::SECP256R1MLKEM768], HANDSHAKE_FAILURE),
];

const OTHERS: &[&str] = &[
    "TCP",
    "a session taken up again",
    "data in the first flight of a session",
    "a session taken up again after a revocation",
];

/// As often as one likes, and what the log says each time.
const ENDLESS: &[(&str, &str)] = &[
    ("connections without a certificate, without end", "a connection was refused"),
    ("joins that say nothing, without end", "a join failed"),
    ("broken streams of a member, without end", "broke the protocol"),
];

const SLOW: &[&str] = &[
    "a hello of TLS that never ends",
    "a hello, byte by byte",
    "a request, byte by byte",
    "a request to join, byte by byte",
];

pub const ROWS: usize =
    DATAGRAMS.len() + EXCHANGES.len() + OTHERS.len() + ENDLESS.len() + SLOW.len();

/// Slow ones send a byte this often.
const BYTE_EVERY: Duration = Duration::from_millis(200);

#[test]
fn only_version_1_of_quic_is_spoken_with_the_exchanges_that_are_known() {
    let mut world = World::new();
    let hub = world.federation.address();
    for (what, datagram, expected) in DATAGRAMS {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.send_to(&datagram(1), hub).unwrap();
        // What comes first is the answer to the first one, if there is any.
        socket.send_to(&initial(0x1234_5678, 2), hub).unwrap();
        let (id, versions) = version_negotiation(&socket);
        let answered = (id == 1).then_some(versions);
        assert_eq!(answered.as_deref(), *expected, "{what}");
        println!("{what}: {answered:?}");
    }
    let tcp = TcpStream::connect(hub).unwrap_err();
    assert_eq!(tcp.kind(), ErrorKind::ConnectionRefused);
    world.check_service();

    for (what, groups, expected) in EXCHANGES {
        let config = client_config(offering(&world, groups));
        let end = world.block_on(async {
            match world.dial().connect_with(config).await {
                Ok(peer) => {
                    let (_control, theirs) = peer.say_hello(hello(vec![])).await;
                    assert_eq!(theirs.heads.len(), 1);
                    None
                }
                Err(end) => Some(end),
            }
        });
        assert_eq!(end, *expected, "{what}");
        println!("{what}: {end:?}");
    }
    world.finish();
}

#[test]
fn no_session_is_ever_taken_up_again() {
    let mut world = World::new();
    let kept = Arc::new(ClientSessionMemoryCache::new(100));
    let dial = world.dial();
    let config = || {
        let mut tls = dial.tls();
        tls.resumption = Resumption::store(kept.clone());
        tls.enable_early_data = true;
        client_config(tls)
    };
    let name = dial.hub.dns_name();
    world.block_on(async {
        for _ in 0..2 {
            let peer = dial.connect_with(config()).await.unwrap();
            let (_control, _) = peer.say_hello(hello(vec![])).await;
            let server = rustls::pki_types::ServerName::try_from(name.clone()).unwrap();
            assert!(kept.take_tls13_ticket(&server).is_none(), "the hub gave a ticket");
        }
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = quinn::Endpoint::client(any).unwrap();
        let connecting = endpoint.connect_with(config(), world.federation.address(), &name);
        assert!(connecting.unwrap().into_0rtt().is_err(), "data before the handshake");
    });
    world.check_service();
    let serial = world.credentials.facts().unwrap().serial_hex;
    world
        .federation
        .hub
        .cli(&["revoke", crate::world::HOSTILE, "--serial", &serial])
        .expect_code(0);
    world.attack(OTHERS[3], End::Code(CloseCode::Revoked), 0, async |_| {
        match dial.connect_with(config()).await {
            Ok(peer) => peer.closed().await,
            Err(end) => end,
        }
    });
    world.finish();
}

/// All of them at once: each has the hub's patience for itself.
#[test]
fn whoever_is_too_slow_is_given_up() {
    let mut world = World::new();
    half_a_hello(&world);
    let ends = world.block_on(async {
        let hello_slowly = async {
            let peer = world.connect().await;
            peer.open().await.drip(BYTE_EVERY).await
        };
        let request_slowly = async {
            let peer = world.connect().await;
            let (_control, _) = peer.say_hello(hello(vec![])).await;
            peer.open().await.drip(BYTE_EVERY).await
        };
        let join_slowly = async {
            let dial = Dial { anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
            let peer = dial.connect().await.unwrap();
            peer.open().await.drip(BYTE_EVERY).await
        };
        let (hello, request, join) = tokio::join!(hello_slowly, request_slowly, join_slowly);
        ([hello, request], join)
    });
    let (ends, join_end) = ends;
    for (what, end) in SLOW[1..].iter().zip(ends) {
        assert_eq!(end, End::Code(CloseCode::Silent), "{what}");
    }
    assert_eq!(join_end, End::Code(CloseCode::Normal), "{}", SLOW[3]);
    wait_until(SLOW[0], || {
        let log = world.federation.hub.log();
        let mut lines = log.lines().filter(|line| line.contains("a connection was refused"));
        lines.any(|line| line.contains("no answer"))
    });
    assert_eq!(world.misbehaved(), 0, "to be slow is no crime");
    world.check_service();
    world.finish();
}

#[test]
fn whoever_is_refused_without_end_does_not_fill_the_log() {
    /// More than the hub speaks of in a minute.
    const TIMES: u64 = 100;
    let mut world = World::new();
    let strange = Dial { anonymous: true, ..world.dial() };
    let joining = Dial { anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
    world.block_on(async {
        for _ in 0..TIMES {
            assert_eq!(strange.refused().await, End::Code(CloseCode::NotAMember));
        }
        for _ in 0..TIMES {
            let peer = joining.connect().await.unwrap();
            peer.open().await.send_body(&[]).await;
            assert_eq!(peer.closed().await, End::Code(CloseCode::Normal));
        }
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        for _ in 0..TIMES {
            let mut stream = peer.open().await;
            stream.send_body(&[0x77]).await;
            assert_eq!(stream.end().await, End::Code(CloseCode::Malformed));
        }
    });
    wait_until("all are counted", || world.misbehaved() >= TIMES);
    let log = world.federation.hub.log();
    for (what, said) in ENDLESS {
        let lines = log.lines().filter(|line| line.contains(said)).count() as u64;
        println!("{what}: {lines} lines");
        assert!(lines < TIMES / 2, "{what}: {lines} lines");
    }
    let lines = |said: &str| log.lines().filter(|line| line.contains(said)).count();
    assert!(lines(ENDLESS[0].1) > 0 && lines(ENDLESS[2].1) > 0, "not a word: {log}");
    world.check_service();
    world.finish();
}

/// The first of the two datagrams that a client's hello takes; nothing follows.
fn half_a_hello(world: &World) {
    let sink = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _inside = world.runtime.enter();
    let client = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let (target, name) = (sink.local_addr().unwrap(), world.dial().hub.dns_name());
    let _dialling = client.connect_with(world.dial().config(), target, &name).unwrap();
    let mut datagram = [0; 2048];
    let length = sink.recv(&mut datagram).unwrap();
    sink.send_to(&datagram[..length], world.federation.address()).unwrap();
}

/// The first packet of a connection, by its header; `id` is whose it is.
fn initial(version: u32, id: u8) -> Vec<u8> {
    let ids = [&[8][..], &[id; 8], &[8], &[id; 8]].concat();
    padded([&[0xc0][..], &version.to_be_bytes(), &ids].concat())
}

/// A first packet is as long (RFC 9000, 14.1).
const FIRST_BYTES: usize = 1200;

fn padded(mut datagram: Vec<u8>) -> Vec<u8> {
    datagram.resize(FIRST_BYTES, 0);
    datagram
}

/// A record of TLS 1.2 with a hello that offers ECDHE-ECDSA-AES128-GCM and no
/// extension (RFC 5246, 7.4.1.2).
fn tls_1_2_hello() -> Vec<u8> {
    let hello = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
    let handshake = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    [&[22, 3, 1, 0, handshake.len() as u8][..], &handshake].concat()
}

/// The next datagram, which says what versions the hub speaks: to whom, and
/// which, without those that RFC 9000, 15, keeps free.
fn version_negotiation(socket: &UdpSocket) -> (u8, Vec<u32>) {
    let mut datagram = [0; 2048];
    let mut length = socket.recv(&mut datagram).unwrap();
    // A reset of a connection that there is not: shorter than what it answers.
    while datagram[0] & 0x80 == 0 {
        assert!(length < FIRST_BYTES, "{length} bytes");
        length = socket.recv(&mut datagram).unwrap();
    }
    let datagram = &datagram[..length];
    assert_eq!((datagram[0] & 0x80, &datagram[1..5], datagram[5]), (0x80, &[0; 4][..], 8));
    let versions = datagram[23..].chunks(4).map(|v| u32::from_be_bytes(v.try_into().unwrap()));
    (datagram[6], versions.filter(|version| version & 0x0f0f_0f0f != 0x0a0a_0a0a).collect())
}

/// The hostile member, offering these exchanges.
fn offering(world: &World, groups: &[&'static dyn SupportedKxGroup]) -> ClientConfig {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let mut roots = RootCertStore::empty();
    roots.add(world.credentials.roots[0].clone()).unwrap();
    let mut tls = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(world.credentials.chain.clone(), world.credentials.key.clone_key())
        .unwrap();
    tls.alpn_protocols = vec![certs::tls::ALPN.to_vec()];
    tls
}
