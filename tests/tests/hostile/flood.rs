//! Much of what costs a hub little each: datagrams, handshakes, connections and
//! streams that never get anywhere. Everything is bounded, and an honest county
//! goes on working, also one that connects in the middle of it.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use certs::tls::ALPN_JOIN;
use harness::{federation::HUB, node::wait_until, sim::rng::Rng};
use protocol::message::{CloseCode, Open};

use crate::{
    peer::{Dial, End, Peer, Stream},
    world::{HOSTILE, World, hello},
};

/// More than the 256 handshakes that the hub has at once.
const HALF_OPEN: usize = 300;
/// More than the nodes that the hub lets join at once from one address.
const JOINING: usize = 20;
/// Addresses of which each holds its share: more than all that may join at once.
const ADDRESSES: u8 = 5;
/// The hub's memory may grow by so much under all of this: its connections'
/// windows are what an attacker can fill.
const GROWTH_MAX_MB: u64 = 400;

fn socket() -> UdpSocket {
    UdpSocket::bind(("127.0.0.1", 0)).unwrap()
}

/// First datagrams of handshakes, sent from an address each that never answers:
/// a client dials a socket that passes them on.
fn half_open(world: &World) {
    let sink = socket();
    sink.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (target, name) = (sink.local_addr().unwrap(), world.dial().hub.dns_name());
    let config = world.dial().config();
    let _inside = world.runtime.enter();
    let client = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let (mut dialling, mut senders) = (Vec::new(), BTreeMap::new());
    let mut datagram = [0; 2048];
    while senders.len() < HALF_OPEN {
        // Few at once, so that no socket's buffer overflows.
        for _ in 0..10 {
            dialling.push(client.connect_with(config.clone(), target, &name).unwrap());
        }
        while let Ok(length) = sink.recv(&mut datagram) {
            // A long header: flags, version, length of the destination's id.
            let id = datagram[6..6 + usize::from(datagram[5])].to_vec();
            let sender = senders.entry(id).or_insert_with(socket);
            sender.send_to(&datagram[..length], world.federation.address()).unwrap();
        }
        assert!(dialling.len() < 10 * HALF_OPEN, "{} began", senders.len());
    }
}

/// A handshake from this address that goes on until the hub has begun with it, and
/// then never answers. It shows that the address is real, if it is asked to.
async fn held(world: &World, client: &quinn::Endpoint, from: u8) {
    let target = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let way = tokio::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, from], 0))).await.unwrap();
    way.connect(world.federation.address()).await.unwrap();
    let dial = Dial { anonymous: true, ..world.dial() };
    let address = target.local_addr().unwrap();
    let connecting = client.connect_with(dial.config(), address, &dial.hub.dns_name()).unwrap();
    let relay = async {
        let (mut out, mut back) = ([0; 2048], [0; 2048]);
        let mut dialler = None;
        loop {
            tokio::select! {
                sent = target.recv_from(&mut out) => {
                    let (length, from) = sent.unwrap();
                    dialler = Some(from);
                    let _ = way.send(&out[..length]).await;
                }
                Ok(length) = way.recv(&mut back) => {
                    // A Retry packet's type (RFC 9000, 17.2.5).
                    if back[0] & 0xf0 != 0xf0 {
                        return;
                    }
                    target.send_to(&back[..length], dialler.unwrap()).await.unwrap();
                }
            }
        }
    };
    let begun = tokio::time::timeout(Duration::from_secs(2), async {
        tokio::select! {
            () = relay => {}
            _ = connecting => panic!("it had no answer to go on with"),
        }
    });
    begun.await.expect("the hub begins with it, or refuses it");
}

#[test]
fn handshakes_that_real_addresses_hold_open_keep_no_county_out_that_has_come_before() {
    let mut world = World::new();
    let failures = |world: &World| {
        world.federation.counties[0].log().matches("not connected to the hub").count()
    };
    let failed = failures(&world);
    let client = {
        let _inside = world.runtime.enter();
        quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    };
    world.federation.counties[0].stop();
    world.block_on(async {
        // More than there are places, from addresses of which each has its share.
        for number in 0..HALF_OPEN {
            held(&world, &client, 2 + (number % 6) as u8).await;
        }
    });
    world.federation.counties[0].start();
    wait_until("the county is back", || {
        let status = world.federation.counties[0].status();
        status["peers"][0]["connected"] == true
    });
    assert_eq!(failures(&world), failed, "held handshakes kept a county out");
    world.finish();
}

/// Resident memory of the hub in MiB.
pub fn resident_mb(world: &World) -> u64 {
    let lock = world.federation.hub.dir().join("run/lock");
    let id = std::fs::read_to_string(lock).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", id.trim())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn datagrams_and_half_open_handshakes_do_not_keep_honest_nodes_out() {
    let mut world = World::new();
    let mut rng = Rng::new(7);
    let (hub, noise) = (world.federation.address(), socket());
    for length in (0..2000).map(|n| n % 1400) {
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.u64() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            // Half of them look like a long header of QUIC version 1.
            *first |= if length % 2 == 0 { 0xc0 } else { 0 };
        }
        if length % 4 == 0 && bytes.len() > 5 {
            bytes[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        let _ = noise.send_to(&bytes, hub);
    }
    world.check_service();
    let before = resident_mb(&world);
    half_open(&world);
    world.check_service();
    // One that has to shake hands anew, while all those are open, gets in at its
    // first attempt: failed ones are logged.
    let failures = |world: &World| {
        world.federation.counties[0].log().matches("not connected to the hub").count()
    };
    let failed = failures(&world);
    world.federation.counties[0].restart();
    wait_until("the county is back", || {
        let status = world.federation.counties[0].status();
        status["peers"][0]["connected"] == true
    });
    assert_eq!(failures(&world), failed, "half-open handshakes kept a county out");
    world.check_service();
    let after = resident_mb(&world);
    assert!(after < before + GROWTH_MAX_MB, "{before} MiB before, {after} MiB after");
    world.finish();
}

#[test]
fn joins_and_streams_that_stall_are_bounded() {
    let mut world = World::new();
    let before = resident_mb(&world);
    // Unknown clients that begin a request of 16 MiB, or send none at all.
    let join_from = async |address: u8| {
        let from = [127, 0, 0, address].into();
        let dial = Dial { from, anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
        let mut joins: Vec<(Peer, Stream)> = Vec::new();
        for _ in 0..JOINING {
            let peer = dial.connect().await.unwrap();
            let mut stream = peer.open().await;
            stream.send_raw(&[0]).await;
            joins.push((peer, stream));
        }
        joins
    };
    let open = |joins: &[(Peer, Stream)]| {
        joins.iter().filter(|(peer, _)| peer.connection.close_reason().is_none()).count()
    };
    let mut joins = world.block_on(join_from(2));
    wait_until("of one address few may join at once", || open(&joins) <= 8);
    // Nobody else notices.
    world.join("410187");
    for address in 3..2 + ADDRESSES {
        joins.extend(world.block_on(join_from(address)));
    }
    wait_until("and of all not many", || open(&joins) <= 32);
    world.check_service();

    // A member with as many streams as it may have, each with half a frame.
    let streams = world.block_on(async {
        let peer = world.connect().await;
        let (control, _) = peer.say_hello(hello(vec![])).await;
        let mut streams = Vec::new();
        for _ in 0..1000 {
            let mut stream = peer.open().await;
            stream.send_raw(&8_000u32.to_be_bytes()).await;
            stream.send_raw(&[0; 7_000]).await;
            streams.push(stream);
        }
        (peer, control, streams)
    });
    world.check_service();
    let after = resident_mb(&world);
    assert!(after < before + GROWTH_MAX_MB, "{before} MiB before, {after} MiB after");

    // What does not go on is given up, and its place is free again.
    let (peer, _control, mut streams) = streams;
    world.block_on(async {
        for stream in &mut streams {
            assert_eq!(stream.end().await, End::Code(CloseCode::Silent));
        }
        let mut stream = peer.open().await;
        let partition = crate::world::partition(&format!("_federation/{HUB}"));
        stream.send(&Open::Follow { partition, have: None }).await;
        assert!(stream.receive_body().await.is_ok());
    });
    drop(joins);
    assert_eq!(world.misbehaved(), 0, "{HOSTILE} was slow, which is no crime");
    world.finish();
}

#[test]
fn a_connection_without_a_word_is_closed() {
    let world = World::new();
    let (silent, first_word) = world.block_on(async {
        let silent = world.connect().await;
        let (_control, theirs) = world.connect().await.say_hello(hello(vec![])).await;
        (silent.closed().await, theirs.heads.len())
    });
    assert_eq!((silent, first_word), (End::Code(CloseCode::Silent), 1));
    world.finish();
}
