//! Memory that peers have this node hold, of one kind: so much for all of them, of which
//! each has a part.
//!
//! Used for what a peer's frames, change sets and pages take until they are stored, or
//! taken by it. A little is each peer's for sure, and the rest is shared: who needs more
//! waits for it, and the next one is of the peer that has used the least of it, in bytes and
//! time, of which who was away saves nothing up. Where there is none left, others make room
//! that have used more: who holds twice what the one that waits would, and who has held it
//! for as long as that takes on a slow line. So a peer that is slow, or means harm, keeps
//! nobody out, however many like it there are.
//!
//! Invariants: all of them together hold no more than is shared, but for one that could
//! else not go on, and what each has for sure; of those that hold some and need more there
//! is always one that goes on, so that two never wait for each other. What is held of one
//! kind while another is waited for is asked for in one order everywhere. Not here: work
//! ([`crate::sync`]).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use protocol::id::NodeId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What was taken so lately is left to whoever holds it: a usual change set, of 1 MiB, comes
/// in that time on a line of 2 Mbit/s.
const JUST_TAKEN: Duration = Duration::from_secs(5);
/// What is held is left alone for so long where nobody has much, and for longer if it is
/// long: so it comes on a line of 1 Mbit/s.
const UNDISTURBED: Duration = Duration::from_secs(10);
const BYTES_PER_S: u64 = 100 * 1024;
/// How often those that wait see whether somebody has held something for too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Peers that are remembered without need before they are looked through.
const PEERS_KEPT: usize = 1024;

/// Memory of one kind.
pub struct Memory(Mutex<State>);

/// What one stream takes of it, for a peer.
#[derive(Clone)]
pub struct Account {
    memory: Arc<Memory>,
    peer: NodeId,
    makes_room: CancellationToken,
}

/// Memory that was granted, until this is dropped.
pub struct Grant {
    of: Account,
    number: u64,
    /// Somebody had it, so the next one is let through when it goes.
    is_taken: bool,
}

struct State {
    started: Instant,
    in_all: u64,
    of_one: u64,
    for_sure: u64,
    peers: HashMap<NodeId, Peer>,
    /// By the order in which they were taken.
    holds: BTreeMap<u64, Hold>,
    held: u64,
    /// Of that, what was asked back.
    leaving: u64,
    /// The one for which there is more than there is.
    beyond: Option<u64>,
    /// Those that stand in the lines of all peers.
    waiting: usize,
    number: u64,
    looked: Duration,
    /// With how many peers they are looked through.
    peers_kept: usize,
}

struct Peer {
    /// Bytes and milliseconds, up to `at`.
    used: u64,
    at: Duration,
    /// Of what it has for sure.
    sure: u64,
    /// Of what is shared, and what of that was asked back.
    held: u64,
    leaving: u64,
    /// Those that hold some already, and those that do not.
    growing: VecDeque<Waiting>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// In which order they came.
    number: u64,
    bytes: u64,
    /// What is held already and becomes more.
    more_of: Option<u64>,
    of: Account,
    go: oneshot::Sender<Option<Grant>>,
}

/// Who is next in one line.
struct First {
    /// What its peer has used.
    used: u64,
    /// When it came.
    number: u64,
    name: NodeId,
    /// Its place in its peer's line.
    at: usize,
    more: u64,
    more_of: Option<u64>,
}

struct Hold {
    peer: NodeId,
    /// Of what the peer has for sure, and of what is shared.
    sure: u64,
    bytes: u64,
    since: Duration,
    /// None where it is asked back, or goes soon by itself.
    makes_room: Option<CancellationToken>,
    is_leaving: bool,
}

impl Memory {
    /// So many bytes, of which one peer may hold `of_one`, and `for_sure` for each peer.
    pub fn new(in_all: usize, of_one: usize, for_sure: usize) -> Arc<Self> {
        let (in_all, of_one) = (in_all as u64, of_one.min(in_all) as u64);
        let state = State {
            started: Instant::now(),
            in_all,
            of_one,
            for_sure: for_sure as u64,
            peers: HashMap::new(),
            holds: BTreeMap::new(),
            held: 0,
            leaving: 0,
            beyond: None,
            waiting: 0,
            number: 0,
            looked: Duration::ZERO,
            peers_kept: PEERS_KEPT,
        };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Where a stream of `peer`'s takes some. Whoever holds any gives up what it does as
    /// soon as `makes_room` is cancelled.
    pub fn account(self: &Arc<Self>, peer: &NodeId, makes_room: &CancellationToken) -> Account {
        Account { memory: self.clone(), peer: peer.clone(), makes_room: makes_room.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Gives what there is to those that are next.
    fn give(&self) {
        loop {
            let next = self.lock().next();
            let Some((number, waiting)) = next else { return };
            let held = match waiting.more_of {
                Some(_) => None,
                None => Some(Grant { of: waiting.of, number, is_taken: true }),
            };
            // Who has gone meanwhile gives it back, and the next one has it from here:
            // thousands may go at once.
            if let Err(Some(mut held)) = waiting.go.send(held) {
                held.is_taken = false;
            }
        }
    }
}

impl Account {
    /// Waits until so many bytes may be held; more than one peer may have counts as that.
    /// Whoever drops this future has left the line.
    pub async fn take(&self, bytes: usize) -> Grant {
        if let Some(held) = self.try_take(bytes) {
            return held;
        }
        loop {
            if let Some(held) = self.wait(bytes, None).await {
                return held;
            }
        }
    }

    /// The same, if it may be now.
    pub fn try_take(&self, bytes: usize) -> Option<Grant> {
        let number = self.memory.lock().take_now(bytes, self)?;
        Some(Grant { of: self.clone(), number, is_taken: true })
    }

    async fn wait(&self, bytes: usize, more_of: Option<u64>) -> Option<Grant> {
        let (go, mut allowed) = oneshot::channel();
        let of = self.clone();
        self.memory.lock().wait(bytes, more_of, of, go);
        self.memory.give();
        loop {
            match tokio::time::timeout(LOOK_EVERY, &mut allowed).await {
                // Only those that do not wait any more are taken out of the line.
                Ok(held) => return held.expect("whoever waits stays in the line"),
                Err(_) if self.memory.lock().may_look() => self.memory.give(),
                Err(_) => {}
            }
        }
    }
}

impl Grant {
    /// Waits until so many bytes may be held in all, if that is more. It may have them already
    /// where this future is dropped.
    pub async fn grow_to(&mut self, bytes: usize) {
        self.of.wait(bytes, Some(self.number)).await;
    }

    /// The same, if it may be now.
    pub fn try_grow_to(&mut self, bytes: usize) -> bool {
        self.of.memory.lock().grow_now(self.number, bytes as u64)
    }

    /// From here on it is given up soon whatever others need.
    pub fn ends_soon(&self) {
        if let Some(hold) = self.of.memory.lock().holds.get_mut(&self.number) {
            hold.makes_room = None;
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let memory = &self.of.memory;
        memory.lock().leave(self.number);
        if self.is_taken {
            memory.give();
        }
    }
}

impl State {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Stands in the line.
    fn wait(
        &mut self,
        bytes: usize,
        more_of: Option<u64>,
        of: Account,
        go: oneshot::Sender<Option<Grant>>,
    ) {
        let bytes = (bytes as u64).min(self.of_one);
        self.number += 1;
        let number = self.number;
        self.competes(&of.peer);
        let peer = self.peer(&of.peer);
        let line = if more_of.is_some() { &mut peer.growing } else { &mut peer.waiting };
        let before = line.len();
        // Those that do not wait any more, as after the end of a connection.
        line.retain(|waiting| !waiting.go.is_closed());
        line.push_back(Waiting { number, bytes, more_of, of, go });
        let after = line.len();
        self.waiting = self.waiting + after - before;
    }

    /// A peer takes of what is shared, or waits for it: of what others have used meanwhile
    /// it has saved nothing up.
    fn competes(&mut self, name: &NodeId) {
        let now = self.now();
        if self.peer(name).shares() {
            return;
        }
        let others = self.peers.values().filter(|peer| peer.shares());
        let Some(least) = others.map(|peer| peer.used(now)).min() else {
            // Nobody does: what was used in other times is no matter any more.
            self.peers.values_mut().for_each(|peer| peer.used = 0);
            return;
        };
        let peer = self.peer(name);
        peer.used = peer.used.max(least);
    }

    /// What is known of a peer that takes part.
    fn peer(&mut self, name: &NodeId) -> &mut Peer {
        let now = self.now();
        if self.peers.len() >= self.peers_kept {
            self.peers.retain(|_, peer| peer.sure > 0 || peer.shares());
            self.peers_kept = PEERS_KEPT.max(2 * self.peers.len());
        }
        let new = || Peer {
            used: 0,
            at: now,
            sure: 0,
            held: 0,
            leaving: 0,
            growing: VecDeque::new(),
            waiting: VecDeque::new(),
        };
        self.peers.entry(name.clone()).or_insert_with(new)
    }

    /// The next one that may have what it waits for.
    fn next(&mut self) -> Option<(u64, Waiting)> {
        if self.waiting == 0 {
            return None;
        }
        for peer in self.peers.values_mut() {
            for line in [&mut peer.growing, &mut peer.waiting] {
                while line.front().is_some_and(|waiting| waiting.go.is_closed()) {
                    line.pop_front();
                    self.waiting -= 1;
                }
            }
        }
        if let Some(next) = self.next_for_sure() {
            return Some(next);
        }
        let lines = [true, false].map(|grows| self.first(grows));
        let mut first: Vec<First> = lines.into_iter().flatten().collect();
        first.sort_by_key(|first| (first.used, first.number));
        for (place, first) in first.into_iter().enumerate() {
            let First { name, at, more, more_of, .. } = first;
            let fits = self.held + more <= self.in_all;
            // There is always one that goes on, and ends.
            let goes_on = more_of.is_some() && self.beyond.is_none_or(|one| Some(one) == more_of);
            if fits && place == 0 || goes_on || more == 0 {
                let peer = self.peers.get_mut(&name)?;
                let waiting = match more_of {
                    Some(_) => peer.growing.remove(at)?,
                    None => peer.waiting.pop_front()?,
                };
                self.waiting -= 1;
                let number = self.add(more, more_of, &waiting.of);
                return Some((number, waiting));
            }
            if place == 0 {
                self.ask_for_room(&name, more);
            }
        }
        None
    }

    /// One that fits into what its peer has for sure by now.
    fn next_for_sure(&mut self) -> Option<(u64, Waiting)> {
        let for_sure = self.for_sure;
        let fits = |peer: &Peer| {
            peer.waiting.front().is_some_and(|first| peer.sure + first.bytes <= for_sure)
        };
        let waiting = self.peers.values_mut().find(|peer| fits(peer))?.waiting.pop_front()?;
        self.waiting -= 1;
        let number = self.add_for_sure(waiting.bytes, &waiting.of)?;
        Some((number, waiting))
    }

    /// Who is next of those that hold some already, or of those that do not.
    fn first(&self, grows: bool) -> Option<First> {
        let now = self.now();
        let all = self.peers.iter().filter_map(|(name, peer)| {
            let line = if grows { &peer.growing } else { &peer.waiting };
            let is_beyond = |one: &Waiting| one.more_of.is_some() && one.more_of == self.beyond;
            let beyond = line.iter().take(if grows { line.len() } else { 0 }).position(is_beyond);
            let at = beyond.unwrap_or(0);
            let first = line.get(at)?;
            let more = self.more(first.more_of, first.bytes);
            // Who grows needs that to end.
            let may = grows || peer.held + more <= self.of_one;
            may.then_some((beyond.is_none(), peer.used(now), first, name, at, more))
        });
        let (_, used, first, name, at, more) =
            all.min_by_key(|(is_within, used, first, ..)| (*is_within, *used, first.number))?;
        let (number, more_of, name) = (first.number, first.more_of, name.clone());
        Some(First { used, number, name, at, more, more_of })
    }

    /// By how much that is more.
    fn more(&self, more_of: Option<u64>, bytes: u64) -> u64 {
        let held = more_of
            .and_then(|number| self.holds.get(&number))
            .map_or(0, |hold| hold.sure + hold.bytes);
        bytes.saturating_sub(held)
    }

    /// Whether there is room that nobody waits for.
    fn has_room(&self, more: u64) -> bool {
        self.held + more <= self.in_all && self.waiting == 0
    }

    fn take_now(&mut self, bytes: usize, of: &Account) -> Option<u64> {
        let bytes = (bytes as u64).min(self.of_one);
        let (for_sure, of_one) = (self.for_sure, self.of_one);
        let peer = self.peer(&of.peer);
        if peer.sure + bytes <= for_sure {
            return self.add_for_sure(bytes, of);
        }
        if peer.held + bytes > of_one || !self.has_room(bytes) {
            return None;
        }
        self.competes(&of.peer);
        Some(self.add(bytes, None, of))
    }

    fn add_for_sure(&mut self, bytes: u64, of: &Account) -> Option<u64> {
        self.peer(&of.peer).sure += bytes;
        let number = self.add(0, None, of);
        self.holds.get_mut(&number)?.sure = bytes;
        Some(number)
    }

    fn grow_now(&mut self, number: u64, bytes: u64) -> bool {
        let more = self.more(Some(number), bytes);
        let may = more == 0 || self.has_room(more);
        if may && more > 0 {
            if let Some(name) = self.holds.get(&number).map(|hold| hold.peer.clone()) {
                self.competes(&name);
            }
            self.grow(number, more);
        }
        may
    }

    /// Adds what has room; answers its number.
    fn add(&mut self, more: u64, more_of: Option<u64>, of: &Account) -> u64 {
        let since = self.now();
        let number = more_of.unwrap_or_else(|| {
            self.number += 1;
            let (peer, makes_room) = (of.peer.clone(), Some(of.makes_room.clone()));
            let hold = Hold { peer, sure: 0, bytes: 0, since, makes_room, is_leaving: false };
            self.holds.insert(self.number, hold);
            self.number
        });
        self.grow(number, more);
        number
    }

    fn grow(&mut self, number: u64, more: u64) {
        let now = self.now();
        // Its stream may have ended while it waited.
        let Some(hold) = self.holds.get_mut(&number) else { return };
        hold.bytes += more;
        self.held += more;
        let leaving = if hold.is_leaving { more } else { 0 };
        self.leaving += leaving;
        if self.held > self.in_all {
            self.beyond = Some(number);
        }
        if let Some(peer) = self.peers.get_mut(&hold.peer) {
            peer.reckon(now);
            peer.held += more;
            peer.leaving += leaving;
        }
    }

    fn leave(&mut self, number: u64) {
        let now = self.now();
        let Some(hold) = self.holds.remove(&number) else { return };
        let leaving = if hold.is_leaving { hold.bytes } else { 0 };
        self.held -= hold.bytes;
        self.leaving -= leaving;
        if self.held <= self.in_all || self.beyond == Some(number) {
            self.beyond = None;
        }
        if let Some(peer) = self.peers.get_mut(&hold.peer) {
            peer.reckon(now);
            peer.sure -= hold.sure;
            peer.held -= hold.bytes;
            peer.leaving -= leaving;
        }
    }

    /// Asks for room for so many bytes of `name`'s.
    fn ask_for_room(&mut self, name: &NodeId, bytes: u64) {
        let now = self.now();
        let Some(waits) = self.peers.get(name) else { return };
        let (its_own, its_used) = (waits.held + bytes, waits.used(now));
        while self.held - self.leaving + bytes > self.in_all {
            let may_go = self.holds.iter().filter_map(|(number, hold)| {
                let makes_room = hold.makes_room.as_ref().filter(|_| hold.bytes > 0)?;
                let peer = self.peers.get(&hold.peer).filter(|_| hold.peer != *name)?;
                let age = now.saturating_sub(hold.since);
                let has_more = peer.held - peer.leaving >= 2 * its_own && age >= JUST_TAKEN;
                let had_long = age >= undisturbed(hold.bytes);
                let makes = (has_more || had_long) && peer.used(now) >= its_used;
                let first = std::cmp::Reverse(*number);
                makes.then_some(((peer.used(now), first), *number, makes_room.clone()))
            });
            let Some((_, number, makes_room)) = may_go.max_by(|a, b| a.0.cmp(&b.0)) else { return };
            makes_room.cancel();
            let Some(hold) = self.holds.get_mut(&number) else { return };
            (hold.makes_room, hold.is_leaving) = (None, true);
            self.leaving += hold.bytes;
            if let Some(peer) = self.peers.get_mut(&hold.peer) {
                peer.leaving += hold.bytes;
            }
        }
    }

    /// Of all that wait, one looks now and then.
    fn may_look(&mut self) -> bool {
        let now = self.now();
        let may = now.saturating_sub(self.looked) >= LOOK_EVERY;
        if may {
            self.looked = now;
        }
        may
    }
}

impl Peer {
    /// Whether it has some of what is shared, or waits for it.
    fn shares(&self) -> bool {
        self.held > 0 || !(self.growing.is_empty() && self.waiting.is_empty())
    }

    /// What it holds changes from here on.
    fn reckon(&mut self, now: Duration) {
        (self.used, self.at) = (self.used(now), now);
    }

    fn used(&self, now: Duration) -> u64 {
        self.used.saturating_add(bytes_and_time(self.held, now.saturating_sub(self.at)))
    }
}

fn undisturbed(bytes: u64) -> Duration {
    UNDISTURBED.max(Duration::from_secs(bytes / BYTES_PER_S))
}

fn bytes_and_time(bytes: u64, time: Duration) -> u64 {
    bytes.saturating_mul(time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin, task};

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn peer(number: usize) -> NodeId {
        NodeId::new(&format!("county-{number}")).unwrap()
    }

    fn memory(in_all: usize, of_one: usize) -> Arc<Memory> {
        Memory::new(in_all * MIB, of_one * MIB, 0)
    }

    /// A stream of a peer's, and whether it is to make room.
    fn stream(memory: &Arc<Memory>, number: usize) -> (Account, CancellationToken) {
        let makes_room = CancellationToken::new();
        (memory.account(&peer(number), &makes_room), makes_room)
    }

    /// Lets time pass.
    fn pass(memory: &Memory, seconds: u64) {
        memory.lock().started -= Duration::from_secs(seconds);
        memory.give();
    }

    fn held(memory: &Memory) -> usize {
        memory.lock().held as usize / MIB
    }

    /// What waits, or has what it wanted.
    struct Asked<'a, T>(Pin<Box<dyn Future<Output = T> + 'a>>);

    fn ask<'a, T: 'a>(wanted: impl Future<Output = T> + 'a) -> Asked<'a, T> {
        let mut asked = Asked(Box::pin(wanted) as Pin<Box<dyn Future<Output = T>>>);
        // It stands in the line from its first look on.
        if let Some(has) = asked.look() {
            asked.0 = Box::pin(std::future::ready(has));
        }
        asked
    }

    impl<T> Asked<'_, T> {
        fn look(&mut self) -> Option<T> {
            let mut context = task::Context::from_waker(task::Waker::noop());
            match self.0.as_mut().poll(&mut context) {
                task::Poll::Ready(has) => Some(has),
                task::Poll::Pending => None,
            }
        }
    }

    #[tokio::test]
    async fn a_peer_holds_no_more_than_its_part_and_all_no_more_than_there_is() {
        let memory = memory(24, 16);
        let (slow, other) = (stream(&memory, 1).0, stream(&memory, 2).0);
        let first = ask(slow.take(8 * MIB)).look().expect("nothing else is held");
        let _second = ask(slow.take(8 * MIB)).look().expect("it fits beside another");
        let mut third = ask(slow.take(MIB));
        assert!(third.look().is_none(), "both are held");
        assert!(slow.try_take(MIB).is_none());
        // More than its part counts as that.
        let mut all = ask(other.take(usize::MAX));
        assert!(all.look().is_none(), "there are but eight left");
        pass(&memory, 1);
        drop(first);
        let all = all.look().expect("it came before the third, and its peer has used nothing");
        assert_eq!(held(&memory), 24);
        assert!(third.look().is_none());
        drop(all);
        assert!(third.look().is_some());
    }

    #[tokio::test]
    async fn whoever_has_used_the_least_is_next_however_many_others_wait() {
        let memory = memory(8, 8);
        let greedy = stream(&memory, 1).0;
        let mut held = ask(greedy.take(8 * MIB)).look();
        let mut waiting: Vec<_> = (0..50).map(|_| ask(greedy.take(8 * MIB))).collect();
        for _ in 0..20 {
            let honest = stream(&memory, 2).0;
            let mut asked = ask(honest.take(8 * MIB));
            assert!(asked.look().is_none());
            pass(&memory, 1);
            held.take().expect("it was given");
            drop(asked.look().expect("the other one has used more"));
            held = waiting.remove(0).look();
        }
    }

    #[tokio::test]
    async fn those_that_hold_much_and_do_not_get_on_make_room() {
        let memory = memory(64, 32);
        let slow: Vec<_> = (0..8).map(|number| stream(&memory, number % 2)).collect();
        let _held: Vec<_> =
            slow.iter().map(|(of, _)| ask(of.take(8 * MIB)).look().unwrap()).collect();
        let asked_back = || slow.iter().filter(|(_, makes_room)| makes_room.is_cancelled()).count();
        let honest = stream(&memory, 9).0;
        let mut first = ask(honest.take(8 * MIB));
        pass(&memory, 4);
        assert_eq!(asked_back(), 0, "they may be about to end");
        pass(&memory, 1);
        assert_eq!((asked_back(), first.look().is_none()), (1, true));
        pass(&memory, 1);
        assert_eq!(asked_back(), 1, "that one is enough");
    }

    #[tokio::test]
    async fn where_all_hold_as_much_who_has_had_it_for_long_makes_room() {
        let memory = memory(64, 32);
        let mut slow = VecDeque::new();
        for number in 0..8 {
            let (of, makes_room) = stream(&memory, number);
            slow.push_back((ask(of.take(8 * MIB)).look().unwrap(), makes_room));
        }
        let honest = stream(&memory, 9).0;
        let mut asked = ask(honest.take(8 * MIB));
        pass(&memory, 80);
        assert!(slow.iter().all(|(_, makes_room)| !makes_room.is_cancelled()));
        pass(&memory, 1);
        let back = slow.iter().position(|(_, makes_room)| makes_room.is_cancelled()).unwrap();
        let (lost, _) = slow.remove(back).unwrap();
        // Whoever lost it wants it again at once.
        let again = lost.of.clone();
        drop(lost);
        let mut again = ask(again.take(8 * MIB));
        let honest_held = asked.look().expect("the other one has used more");
        pass(&memory, 81);
        assert!(again.look().is_none());
        let back = slow.iter().filter(|(_, makes_room)| makes_room.is_cancelled()).count();
        assert_eq!((back, honest.makes_room.is_cancelled()), (1, false), "who has used the most");
        drop(honest_held);
    }

    #[tokio::test]
    async fn a_little_is_each_ones_for_sure() {
        let memory = Memory::new(8 * MIB, 8 * MIB, 2 * MIB);
        let greedy = stream(&memory, 1).0;
        let mut all: Vec<_> = (0..10).map(|_| ask(greedy.take(MIB))).collect();
        let all: Vec<_> = all.iter_mut().filter_map(Asked::look).collect();
        assert_eq!((all.len(), held(&memory)), (10, 8));
        let honest = stream(&memory, 2).0;
        let mut little = ask(honest.take(2 * MIB)).look().expect("that much is its own");
        let mut more = ask(honest.take(MIB));
        assert!(more.look().is_none());
        assert!(!little.try_grow_to(3 * MIB));
        drop(all);
        let more = more.look().expect("there is room");
        assert!(little.try_grow_to(3 * MIB));
        assert_eq!(held(&memory), 2, "what it holds in addition");
        drop((little, more));
        let state = memory.lock();
        let sure: u64 = state.peers.values().map(|peer| peer.sure).sum();
        assert_eq!((state.held, sure), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_has_what_is_its_own_as_soon_as_that_is_free() {
        let memory = Memory::new(8 * MIB, 8 * MIB, MIB);
        let greedy = stream(&memory, 1).0;
        let _all = ask(greedy.take(8 * MIB)).look().unwrap();
        let other = stream(&memory, 3).0;
        let _first = ask(other.take(8 * MIB));
        let honest = stream(&memory, 2).0;
        let own = ask(honest.take(MIB)).look().unwrap();
        let mut next = ask(honest.take(MIB));
        assert!(next.look().is_none());
        drop(own);
        assert!(next.look().is_some());
    }

    #[tokio::test]
    async fn what_was_used_when_nobody_waited_does_not_count() {
        let memory = Memory::new(8 * MIB, 8 * MIB, MIB);
        // It holds a little all the time, of what is its own.
        let patient = stream(&memory, 1).0;
        let _own = patient.try_take(MIB).unwrap();
        let busy = stream(&memory, 2).0;
        let used = busy.try_take(8 * MIB).unwrap();
        pass(&memory, 10_000);
        drop(used);
        let (all, makes_room) = stream(&memory, 1);
        let _all = all.try_take(8 * MIB).unwrap();
        let newcomer = stream(&memory, 3).0;
        let mut asked = ask(newcomer.take(4 * MIB));
        assert!(asked.look().is_none());
        pass(&memory, 5);
        assert!(makes_room.is_cancelled(), "nobody has used less");
    }

    #[tokio::test]
    async fn what_ends_soon_is_left_alone() {
        let memory = memory(16, 16);
        let (of, makes_room) = stream(&memory, 1);
        let held = [of.try_take(8 * MIB).unwrap(), of.try_take(8 * MIB).unwrap()];
        held.iter().for_each(Grant::ends_soon);
        let other = stream(&memory, 2).0;
        let mut asked = ask(other.take(8 * MIB));
        pass(&memory, 100);
        assert!(asked.look().is_none() && !makes_room.is_cancelled());
        drop(held);
        assert!(asked.look().is_some());
    }

    #[tokio::test]
    async fn of_those_that_need_more_one_always_goes_on() {
        let memory = memory(16, 16);
        let streams: Vec<_> = (0..8).map(|number| stream(&memory, number).0).collect();
        let mut begun: Vec<_> = streams.iter().map(|of| of.try_take(2 * MIB).unwrap()).collect();
        let late = stream(&memory, 9).0;
        let mut late = ask(late.take(2 * MIB));
        let mut growing: Vec<_> = begun
            .iter_mut()
            .map(|one| {
                ask(async move {
                    one.grow_to(6 * MIB).await;
                    one.grow_to(10 * MIB).await;
                    one
                })
            })
            .collect();
        let mut most = 0;
        while !growing.is_empty() {
            let ready = growing.iter_mut().position(|one| {
                let grown = one.look();
                most = most.max(held(&memory));
                if let Some(one) = &grown {
                    memory.lock().leave(one.number);
                    memory.give();
                }
                grown.is_some()
            });
            drop(growing.remove(ready.expect("one of them goes on")));
        }
        assert!(most <= 16 + 8, "{most} MiB were held");
        assert!(late.look().is_some());
    }

    #[tokio::test]
    async fn any_number_may_go_at_once() {
        let memory = memory(8, 8);
        let of = stream(&memory, 1).0;
        let held_one = of.try_take(8 * MIB);
        let streams: Vec<_> = (0..100).map(|number| stream(&memory, number).0).collect();
        let waits: Vec<_> = (0..20_000).map(|n| ask(streams[n % 100].take(8 * MIB))).collect();
        drop(waits);
        drop(held_one);
        let state = memory.lock();
        assert_eq!((state.held, state.leaving, state.holds.len()), (0, 0, 0));
    }
}
