//! A UDP relay between a member and a hub that delays, loses, cuts, lets only short packets
//! pass, or comes from another port.
//!
//! One thread that looks at all sockets each millisecond; enough for a county's
//! traffic. Which packets are lost follows from the seed and the order in which
//! packets arrive, so a run is similar, not equal, to another of its seed.

use std::{
    collections::{HashMap, VecDeque},
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{federation::free_address, sim::rng::Rng};

/// How often the sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Larger than any UDP packet of QUIC.
const PACKET_BYTES_MAX: usize = 65_536;

/// What the relay does to packets.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Packets of 100 that are lost, in both directions.
    pub loss_percent: u64,
    /// How long each packet takes.
    pub delay: Duration,
    /// What decides which packets are lost.
    pub seed: u64,
}

/// A relay that runs until it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    cut_to_hub: AtomicBool,
    cut_from_hub: AtomicBool,
    /// Longer packets are dropped; 0 for any length.
    longest: AtomicUsize,
    /// From now on the hub sees each client at another port.
    rebind: AtomicBool,
    stop: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
}

impl Relay {
    /// Relays to the hub at `to`.
    pub fn start(to: SocketAddr, weather: Weather) -> Self {
        println!("relay: {weather:?}");
        let address = free_address();
        let front = UdpSocket::bind(address).expect("the port was free");
        front.set_nonblocking(true).expect("sockets can be non-blocking");
        let shared = Arc::new(Shared::default());
        let work = Work {
            shared: shared.clone(),
            to,
            front,
            backs: HashMap::new(),
            weather,
            random: Rng::new(weather.seed),
            on_the_way: VecDeque::new(),
        };
        let thread = std::thread::spawn(move || work.run());
        Self { address, shared, thread: Some(thread) }
    }

    /// Where members reach the hub through it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes, or everything as before.
    pub fn cut(&self, cut: bool) {
        self.cut_one_way(true, cut);
        self.cut_one_way(false, cut);
    }

    /// The same for what goes to the hub alone, or for what comes from it.
    pub fn cut_one_way(&self, to_hub: bool, cut: bool) {
        self.shared.is_cut(to_hub).store(cut, Ordering::Relaxed);
    }

    /// From now on packets with more bytes are dropped, as by a path that cannot carry them
    /// and says nothing.
    pub fn drop_longer_than(&self, bytes: usize) {
        self.shared.longest.store(bytes, Ordering::Relaxed);
    }

    /// The hub sees everybody at another port from now on, as behind a router that was
    /// started anew.
    pub fn rebind(&self) {
        self.shared.rebind.store(true, Ordering::Relaxed);
    }

    /// Packets that passed and that were lost, cut ones not counted.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.passed.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn is_cut(&self, to_hub: bool) -> &AtomicBool {
        if to_hub { &self.cut_to_hub } else { &self.cut_from_hub }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is the test's.
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the relay panicked");
        }
    }
}

/// A packet under way: when it arrives, through which client's path, and
/// whether it goes to the hub.
struct Packet {
    due: Instant,
    client: SocketAddr,
    to_hub: bool,
    bytes: Vec<u8>,
}

struct Work {
    shared: Arc<Shared>,
    to: SocketAddr,
    front: UdpSocket,
    /// The socket that speaks to the hub for a client.
    backs: HashMap<SocketAddr, UdpSocket>,
    weather: Weather,
    random: Rng,
    /// All packets take equally long, so the first to come is the first to go.
    on_the_way: VecDeque<Packet>,
}

impl Work {
    fn run(mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.shared.rebind.swap(false, Ordering::Relaxed) {
                self.backs.values_mut().for_each(|back| *back = back_socket(self.to));
            }
            self.take_from_clients(&mut buffer);
            self.take_from_hub(&mut buffer);
            self.deliver();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn take_from_clients(&mut self, buffer: &mut [u8]) {
        loop {
            match self.front.recv_from(buffer) {
                Ok((length, client)) => {
                    self.backs.entry(client).or_insert_with(|| back_socket(self.to));
                    self.accept(client, true, &buffer[..length]);
                }
                Err(error) if is_nothing(error.kind()) => return,
                Err(error) => panic!("the relay's front: {error}"),
            }
        }
    }

    fn take_from_hub(&mut self, buffer: &mut [u8]) {
        let mut taken = Vec::new();
        for (client, back) in &self.backs {
            loop {
                match back.recv(buffer) {
                    Ok(length) => taken.push((*client, buffer[..length].to_vec())),
                    Err(error) if is_nothing(error.kind()) => break,
                    Err(error) => panic!("the relay's back: {error}"),
                }
            }
        }
        for (client, bytes) in taken {
            self.accept(client, false, &bytes);
        }
    }

    fn accept(&mut self, client: SocketAddr, to_hub: bool, bytes: &[u8]) {
        let longest = self.shared.longest.load(Ordering::Relaxed);
        if self.shared.is_cut(to_hub).load(Ordering::Relaxed)
            || longest > 0 && bytes.len() > longest
        {
            return;
        }
        if self.random.chance(self.weather.loss_percent) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.shared.passed.fetch_add(1, Ordering::Relaxed);
        let due = Instant::now() + self.weather.delay;
        self.on_the_way.push_back(Packet { due, client, to_hub, bytes: bytes.to_vec() });
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.on_the_way.front().is_some_and(|packet| packet.due <= now) {
            let Some(packet) = self.on_the_way.pop_front() else { return };
            if self.shared.is_cut(packet.to_hub).load(Ordering::Relaxed) {
                continue;
            }
            let sent = if packet.to_hub {
                self.backs[&packet.client].send(&packet.bytes)
            } else {
                self.front.send_to(&packet.bytes, packet.client)
            };
            // What a busy system does not take is lost, as on any path.
            if sent.is_err() {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Nothing to read, no room to send, or nobody at the other end: a network is
/// like that.
fn is_nothing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::ConnectionRefused | ErrorKind::Interrupted)
}

fn back_socket(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
    socket.set_nonblocking(true).expect("sockets can be non-blocking");
    socket.connect(to).expect("the hub's address is on this machine");
    socket
}
