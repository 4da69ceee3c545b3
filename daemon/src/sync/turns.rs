//! Turns: so that one peer neither keeps the threads that answer everybody, nor
//! asks for more than its share.
//!
//! What reads much of the store, or unpacks and hashes much, is done beside the
//! runtime's threads, few at once, of one peer fewer than of all, and next for the peer
//! that has used the least ([`Turns::run`]); what is small and in memory is done where it is
//! asked for. Change sets are admitted to the writer ([`super::admission`]). [`Allowance`] says
//! how fast a peer may speak; who uses it does not listen for a while, so nothing honest is
//! lost. What is held for peers has a bound for each, and one for all ([`Budgets`]).
//!
//! Invariants: a peer's turns and allowances are its own and not its connection's, so that
//! it gets no new ones with another connection. Memory is waited for in the order of
//! [`Budgets`]. Not here: limits of log lines.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use protocol::{
    frame::{CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX},
    id::NodeId,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Admitted};
use crate::memory::{Account, Memory};

/// Pieces of work of one peer that are done at once: two, so that one may wait for
/// the disk.
const OF_ONE_MAX: usize = 2;
/// What says that it has no more bytes than these is unpacked and hashed where it
/// arrives: a row's change set takes 50 µs.
pub(super) const SMALL_BYTES: usize = 64 * 1024;
/// Trees that are taken from one peer at once: it shows four, and one of those may
/// have ended here and not there.
const FETCHES_MAX: usize = 3;
/// What a peer may say on its control stream at once, and in each second: twice the
/// longest message, and an announcement of 1000 heads or 2000 of one. The debt of
/// one that is as long as it may be is made good long before its silence counts.
const SAID_BYTES_AT_ONCE: u64 = 2 * CONTROL_FRAME_BYTES_MAX as u64;
const SAID_BYTES_PER_S: u64 = 256 * 1024;
/// Streams that a peer may open at once, and in each second: all that it may have,
/// twice. A stream costs its opener nothing if it is reset at once.
const STREAMS_AT_ONCE: u64 = 2048;
const STREAMS_PER_S: u64 = 200;
/// Trees that one peer may begin to read at once, and in each second: a snapshot is
/// quickly made, but not for nothing. More than anybody needs who reads them.
const TREES_AT_ONCE: u64 = 100;
const TREES_PER_S: u64 = 20;
/// A debt is at most what is made good in this time: whoever comes back with the debts of
/// its last connections is heard before its silence counts.
const DEBT_MAX: Duration = Duration::from_secs(15);

/// How often whoever waits for a turn says that it does.
const STILL_WAITING: Duration = Duration::from_secs(5);

/// Bytes of all peers' change sets that are held at once, as they arrive and unpacked, and
/// of those that are read for them, with pages, and are not taken yet: eight of the longest,
/// where a usual one has 1 MiB. Whatever a peer sends on other streams waits, there and here.
const CHANGES_OF_ALL: usize = 8 * FRAME_BYTES_MAX;
/// Those of one: two of the longest, so that one fits beside another that does not get on.
const CHANGES_OF_ONE: usize = 2 * FRAME_BYTES_MAX;
/// What each peer has for sure: a delivery of some thousand rows.
const CHANGES_FOR_SURE: usize = 512 * 1024;
/// Bytes that the trees hold that are taken from all peers, and those of one: a usual one
/// holds some 8 MiB, and the worst 50.
const FETCHED_OF_ALL: usize = 192 * 1024 * 1024;
const FETCHED_OF_ONE: usize = 144 * 1024 * 1024;
/// What each peer has for sure, and a tree begins with: the pages of most changes.
pub(super) const FETCHED_FOR_SURE: usize = 2 * 1024 * 1024;

/// What all peers' turns are taken from, by how much each has used.
pub(super) struct Work {
    /// One a core, as each piece of work keeps one busy.
    cores: Arc<Admission>,
    admission: Arc<Admission>,
    memory: Budgets,
}

/// Memory that is held for peers. Who holds some of one waits only for one that stands
/// below it.
struct Budgets {
    /// For trees that are taken from them.
    fetched: Arc<Memory>,
    /// For their long frames.
    frames: Arc<Memory>,
    /// For change sets that came in these.
    unpacked: Arc<Memory>,
    /// For what is read for them.
    to_send: Arc<Memory>,
}

impl Work {
    pub fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self::of(cores.max(2))
    }

    fn of(cores: usize) -> Arc<Self> {
        let changes = || Memory::new(CHANGES_OF_ALL, CHANGES_OF_ONE, CHANGES_FOR_SURE);
        let memory = Budgets {
            fetched: Memory::new(FETCHED_OF_ALL, FETCHED_OF_ONE, FETCHED_FOR_SURE),
            frames: changes(),
            unpacked: changes(),
            to_send: changes(),
        };
        let cores = Arc::new(Admission::to_places(cores));
        Arc::new(Self { cores, admission: Arc::default(), memory })
    }
}

/// The turns of one peer.
pub(super) struct Turns {
    peer: NodeId,
    of_one: Semaphore,
    of_all: Arc<Work>,
    /// Held while a tree is taken from the peer.
    pub fetches: Semaphore,
    /// How much it may say on control streams, in bytes.
    pub said: Shared,
    /// How many streams it may open.
    pub opened: Shared,
    /// How many trees it may have shown.
    pub trees: Shared,
}

impl Turns {
    /// Those of `peer`, from `now` on.
    pub fn new(of_all: Arc<Work>, peer: NodeId, now: Duration) -> Self {
        let allow = |most, rate| Shared(Mutex::new(Allowance::new(most, rate, now)));
        Self {
            peer,
            of_one: Semaphore::new(OF_ONE_MAX),
            of_all,
            fetches: Semaphore::new(FETCHES_MAX),
            said: allow(SAID_BYTES_AT_ONCE, SAID_BYTES_PER_S),
            opened: allow(STREAMS_AT_ONCE, STREAMS_PER_S),
            trees: allow(TREES_AT_ONCE, TREES_PER_S),
        }
    }

    /// Memory for a tree that is taken from the peer.
    pub fn fetched(&self, makes_room: &CancellationToken) -> Account {
        self.of_all.memory.fetched.account(&self.peer, makes_room)
    }

    /// Memory for long frames of a stream of the peer's.
    pub fn frames(&self, makes_room: &CancellationToken) -> Account {
        self.of_all.memory.frames.account(&self.peer, makes_room)
    }

    /// Memory for change sets of the peer's that are unpacked.
    pub fn unpacked(&self, makes_room: &CancellationToken) -> Account {
        self.of_all.memory.unpacked.account(&self.peer, makes_room)
    }

    /// Memory for what is read for the peer, to be held until it has taken it. Whoever
    /// holds some must not ask for more: two could wait for each other.
    pub fn to_send(&self, makes_room: &CancellationToken) -> Account {
        self.of_all.memory.to_send.account(&self.peer, makes_room)
    }

    /// Does work that takes its time, when it is its turn. It must not wait for
    /// another turn, nor take long: give it in pieces.
    pub async fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        // The semaphore is never closed.
        let _of_one = self.of_one.acquire().await;
        let place = self.of_all.cores.enter(&self.peer, false).await;
        let began = Instant::now();
        let done = tokio::task::block_in_place(work);
        place.done(began.elapsed());
        done
    }

    /// Waits until one of the peer's change sets may be given to the writer; one that takes
    /// long goes alone.
    pub async fn admitted(&self, is_long: bool) -> Admitted {
        self.of_all.admission.enter(&self.peer, is_long).await
    }
}

/// Waits for a turn, or does work that has to wait for some, and says now and then that it
/// goes on.
pub(super) async fn while_it_lasts<T>(turn: impl Future<Output = T>, say: &(dyn Fn() + Sync)) -> T {
    let mut turn = std::pin::pin!(turn);
    loop {
        match tokio::time::timeout(STILL_WAITING, &mut turn).await {
            Ok(turn) => return turn,
            Err(_) => say(),
        }
    }
}

/// An [`Allowance`] of all connections of a peer.
pub(super) struct Shared(Mutex<Allowance>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Allowance> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// As [`Allowance::spend`].
    pub fn spend(&self, count: u64, now: Duration) {
        self.lock().spend(count, now);
    }

    /// As [`Allowance::wait`].
    pub fn wait(&self, now: Duration) -> Duration {
        self.lock().wait(now)
    }
}

/// How much somebody may still do now, and how fast that grows again.
#[derive(Debug)]
pub(super) struct Allowance {
    /// In a second.
    rate: u64,
    most: u64,
    /// Below zero: a debt.
    left: i64,
    at: Duration,
}

impl Allowance {
    /// So much at once, and `rate` each second; neither is zero.
    pub fn new(most: u64, rate: u64, now: Duration) -> Self {
        Self { rate, most, left: most as i64, at: now }
    }

    /// It was done, also where there was not enough left.
    pub fn spend(&mut self, count: u64, now: Duration) {
        self.fill(now);
        let debt_max = self.rate.saturating_mul(DEBT_MAX.as_secs()) as i64;
        self.left = self.left.saturating_sub_unsigned(count).max(-debt_max);
    }

    /// How long to wait until more may be done; zero if it may be now.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.fill(now);
        let debt = u64::try_from(-self.left).unwrap_or(0);
        Duration::from_micros((debt * 1_000_000).div_ceil(self.rate))
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_micros();
        let more = passed * u128::from(self.rate) / 1_000_000;
        // What is too little for one counts later.
        if more > 0 {
            self.left = self.left.saturating_add_unsigned(more as u64).min(self.most as i64);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> NodeId {
        NodeId::new(&format!("county-{number}")).unwrap()
    }

    #[test]
    fn who_does_much_at_once_waits_until_it_is_made_good() {
        let at = Duration::from_millis;
        let mut allowance = Allowance::new(100, 10, at(0));
        allowance.spend(100, at(0));
        assert_eq!(allowance.wait(at(0)), at(0), "that much may be done at once");
        allowance.spend(50, at(0));
        assert_eq!(allowance.wait(at(0)), at(5000));
        assert_eq!(allowance.wait(at(2000)), at(3000));
        // Looking again and again gives nothing away, and takes nothing.
        let waits = (2001..2100).map(|now| allowance.wait(at(now))).count();
        assert_eq!((waits, allowance.wait(at(3000))), (99, at(2000)));
        assert_eq!(allowance.wait(at(1_000_000)), at(0));
        allowance.spend(101, at(1_000_000));
        assert_eq!(allowance.wait(at(1_000_000)), at(100), "nobody saves up more");
        allowance.spend(u64::MAX, at(1_000_000));
        assert_eq!(allowance.wait(at(1_000_000)), DEBT_MAX, "nobody is never heard again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_peer_does_not_take_all_turns() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let of_all = Work::of(3);
        let greedy = Arc::new(Turns::new(of_all.clone(), peer(1), Duration::ZERO));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (greedy, held) = (greedy.clone(), held.clone());
                let (running, most) = (running.clone(), most.clone());
                tokio::spawn(async move {
                    greedy
                        .run(|| {
                            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            let _ = held.lock().unwrap().recv();
                            running.fetch_sub(1, Ordering::SeqCst);
                        })
                        .await;
                })
            })
            .collect();
        while running.load(Ordering::SeqCst) < OF_ONE_MAX {
            tokio::task::yield_now().await;
        }
        // Another one's is done while all of those wait.
        assert_eq!(Turns::new(of_all, peer(2), Duration::ZERO).run(|| 7).await, 7);
        drop(hold);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), OF_ONE_MAX);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_has_used_the_least_is_next_however_many_peers_ask() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        const PIECE: Duration = Duration::from_millis(2);
        let of_all = Work::of(1);
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..10 {
            let greedy = Arc::new(Turns::new(of_all.clone(), peer(number), Duration::ZERO));
            for _ in 0..4 {
                let (greedy, done) = (greedy.clone(), done.clone());
                tokio::spawn(async move {
                    loop {
                        // Work keeps its thread busy.
                        greedy.run(|| std::thread::sleep(PIECE)).await;
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        }
        while done.load(Ordering::SeqCst) < 20 {
            tokio::task::yield_now().await;
        }
        let before = done.load(Ordering::SeqCst);
        Turns::new(of_all, peer(99), Duration::ZERO).run(|| ()).await;
        let waited_for = done.load(Ordering::SeqCst) - before;
        assert!(waited_for <= 3, "{waited_for} pieces of others came before its first");
    }
}
