//! Admission to the writer, for which peers stand in line and not their change sets; and
//! in the same way to the cores, for work beside the runtime's threads.
//!
//! The writer does one thing after the other, and a change set of a few hundred bytes may
//! keep it busy for most of a second. So of all that wait, the next one let through is one
//! of the peer that will then have used the least of the writer's time; who was away saves
//! nothing up.
//! Few are let through at once: as many as are expected to be done soon, so that whoever
//! comes next waits for no more than those, or a single one that takes long. What a peer's
//! next one takes is expected from its last ones.
//!
//! A place is held until what it was for is durable, or done at a core, whatever becomes of
//! who asked for it. Not here: what this node writes itself and staged pages, which do not
//! stand in line.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use protocol::id::NodeId;
use tokio::sync::oneshot;

/// Those that are let through at once are expected to take no longer, if they are more than
/// one, beside their flushes, which they share.
const AT_ONCE: Duration = Duration::from_millis(20);
/// What one counts for at least, and what the first one of a peer is expected to take: so
/// that those which are let through at once share two or three flushes.
const LEAST: Duration = Duration::from_millis(1);
/// An expectation falls by this part with each one that takes less.
const FORGOTTEN_PART: u32 = 8;
/// Peers that are remembered without need before they are looked through.
const PEERS_KEPT: usize = 1024;

/// Who waits, and who was let through.
#[derive(Default)]
pub(super) struct Admission {
    room: Room,
    state: Mutex<State>,
}

/// How many are let through at once.
#[derive(Clone, Copy, Default)]
enum Room {
    /// What the writer does soon.
    #[default]
    Soon,
    /// So many, whatever they take.
    Places(usize),
}

#[derive(Default)]
struct State {
    peers: HashMap<NodeId, Peer>,
    /// Of those that were let through: how many, and what they are expected to take.
    through: usize,
    expected: Duration,
    /// What the peer had used that was let through last: a newcomer begins here.
    level: Duration,
    /// Of who came last.
    number: u64,
}

struct Peer {
    used: Duration,
    /// What its next one is expected to take.
    expected: Duration,
    /// Whether that is from what its last ones took.
    is_known: bool,
    through: u32,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// In which order they came.
    number: u64,
    is_long: bool,
    go: oneshot::Sender<Admitted>,
}

/// A place at the writer, or at a core, until it is dropped.
pub(super) struct Admitted {
    of: Arc<Admission>,
    peer: NodeId,
    expected: Duration,
    took: Option<Duration>,
    /// Somebody had it, so the next one is let through when it goes.
    is_taken: bool,
}

impl Admission {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// To places for so many, as at cores.
    pub fn to_places(count: usize) -> Self {
        Self { room: Room::Places(count), state: Mutex::default() }
    }

    /// Waits until it is the turn of one of `peer`'s change sets, or pieces of work; at the
    /// writer one that is long whatever its last ones took goes alone.
    pub async fn enter(self: &Arc<Self>, peer: &NodeId, is_long: bool) -> Admitted {
        let (go, allowed) = oneshot::channel();
        self.lock().wait(peer, is_long, go);
        self.let_through();
        allowed.await.expect("only those that do not wait any more are taken out of the line")
    }

    /// Lets through whoever is next, as long as there is room.
    fn let_through(self: &Arc<Self>) {
        loop {
            let next = self.lock().next(self.room);
            let Some((peer, expected, go)) = next else { return };
            let place = Admitted { of: self.clone(), peer, expected, took: None, is_taken: true };
            // Who has gone meanwhile gives the place back, and the next one has it from here:
            // thousands may go at once.
            if let Err(mut place) = go.send(place) {
                place.is_taken = false;
            }
        }
    }
}

impl State {
    fn wait(&mut self, peer: &NodeId, is_long: bool, go: oneshot::Sender<Admitted>) {
        if self.peers.len() >= PEERS_KEPT {
            let level = self.level;
            self.peers.retain(|_, peer| peer.is_busy() || peer.used > level);
        }
        let level = self.level;
        let peer = self.peers.entry(peer.clone()).or_insert_with(|| Peer {
            used: level,
            expected: LEAST,
            is_known: false,
            through: 0,
            waiting: VecDeque::new(),
        });
        if !peer.is_busy() {
            peer.used = peer.used.max(level);
        }
        // Those that do not wait any more, as after the end of a connection.
        peer.waiting.retain(|waiting| !waiting.go.is_closed());
        self.number += 1;
        peer.waiting.push_back(Waiting { number: self.number, is_long, go });
    }

    /// The next one, if it may go now.
    fn next(&mut self, room: Room) -> Option<(NodeId, Duration, oneshot::Sender<Admitted>)> {
        let waiting = self.peers.iter_mut().filter(|(_, peer)| !peer.waiting.is_empty());
        // Who would have used the least after the next one; what is under way counts, or a
        // peer of many partitions would go first until the first of them is done.
        let turn = |peer: &Peer| {
            let came = peer.waiting.front().map_or(0, |waiting| waiting.number);
            // What its last ones took is known: that one goes alone is no reason to go last.
            let next = if peer.is_known { peer.expected } else { peer.expected_next() };
            (peer.used + peer.expected * peer.through + next, came)
        };
        let (name, peer) = waiting.min_by_key(|(_, peer)| turn(peer))?;
        let expected = peer.expected_next();
        let has_room = match room {
            Room::Soon => self.through == 0 || self.expected + expected <= AT_ONCE,
            Room::Places(count) => self.through < count,
        };
        if !has_room {
            return None;
        }
        let go = peer.waiting.pop_front()?.go;
        peer.through += 1;
        self.level = self.level.max(peer.used);
        self.through += 1;
        self.expected += expected;
        Some((name.clone(), expected, go))
    }

    fn leave(&mut self, peer: &NodeId, expected: Duration, took: Option<Duration>) {
        self.through = self.through.saturating_sub(1);
        self.expected = self.expected.saturating_sub(expected);
        let Some(peer) = self.peers.get_mut(peer) else { return };
        peer.through = peer.through.saturating_sub(1);
        if let Some(took) = took {
            let took = took.max(LEAST);
            peer.used += took;
            peer.is_known = true;
            peer.expected = took.max(peer.expected - peer.expected / FORGOTTEN_PART);
        }
    }
}

impl Peer {
    fn is_busy(&self) -> bool {
        self.through > 0 || !self.waiting.is_empty()
    }

    fn expected_next(&self) -> Duration {
        let is_long = self.waiting.front().is_some_and(|waiting| waiting.is_long);
        if is_long { self.expected.max(AT_ONCE) } else { self.expected }
    }
}

impl Admitted {
    /// It is done, and took so long.
    pub fn done(mut self, took: Duration) {
        self.took = Some(took);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.of.lock().leave(&self.peer, self.expected, self.took);
        if self.is_taken {
            self.of.let_through();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin, task};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn peer(number: u32) -> NodeId {
        NodeId::new(&format!("county-{number}")).unwrap()
    }

    /// Somebody who waits, or was let through.
    struct Asked<'a>(Pin<Box<dyn Future<Output = Admitted> + 'a>>);

    fn ask(admission: &Arc<Admission>, number: u32, is_long: bool) -> Asked<'_> {
        let mut asked =
            Asked(Box::pin(async move { admission.enter(&peer(number), is_long).await }));
        // It stands in line from its first look on.
        if let Some(admitted) = asked.look() {
            asked.0 = Box::pin(std::future::ready(admitted));
        }
        asked
    }

    impl Asked<'_> {
        fn look(&mut self) -> Option<Admitted> {
            let mut context = task::Context::from_waker(task::Waker::noop());
            match self.0.as_mut().poll(&mut context) {
                task::Poll::Ready(admitted) => Some(admitted),
                task::Poll::Pending => None,
            }
        }
    }

    #[test]
    fn small_ones_go_together_and_a_long_one_alone() {
        let admission = Arc::default();
        let mut small: Vec<_> = (0..21).map(|number| ask(&admission, number, false)).collect();
        let mut through: Vec<_> = small.iter_mut().filter_map(Asked::look).collect();
        assert_eq!(through.len(), 20, "of a millisecond each");
        let mut long = ask(&admission, 30, true);
        through.pop().unwrap().done(MS);
        through.push(small[20].look().expect("one is done, so the next one goes"));
        through.drain(..).for_each(|admitted| {
            assert!(long.look().is_none());
            admitted.done(MS);
        });
        let alone = long.look().expect("nothing else is at the writer");
        let mut next = ask(&admission, 31, false);
        assert!(next.look().is_none());
        alone.done(500 * MS);
        assert!(next.look().is_some());
    }

    #[test]
    fn whoever_has_used_the_least_is_next_however_many_others_wait() {
        let admission = Arc::default();
        let mut at_writer = ask(&admission, 1, true).look();
        let mut waiting: Vec<_> =
            (0..100).map(|n| (1 + n / 50, ask(&admission, 1 + n / 50, true))).collect();
        let mut turns = [0u32; 3];
        while turns[1] + turns[2] < 20 {
            // It comes while a long one is at the writer, and is the next.
            let mut honest = ask(&admission, 3, false);
            assert!(honest.look().is_none());
            at_writer.take().expect("somebody is always at the writer").done(200 * MS);
            let admitted = honest.look().expect("two others have used more");
            assert!(waiting.iter_mut().all(|(_, one)| one.look().is_none()));
            admitted.done(MS);
            at_writer = waiting
                .iter_mut()
                .position(|(number, one)| {
                    at_writer = one.look();
                    turns[*number as usize] += u32::from(at_writer.is_some());
                    at_writer.is_some()
                })
                .and_then(|at| {
                    waiting.remove(at);
                    at_writer.take()
                });
        }
        assert!(turns[1].abs_diff(turns[2]) <= 2, "{turns:?}");
    }

    #[test]
    fn those_that_take_next_to_nothing_are_few_at_once_all_the_same() {
        let admission = Arc::default();
        for _ in 0..50 {
            ask(&admission, 1, false).look().unwrap().done(Duration::from_micros(10));
        }
        let mut asked: Vec<_> = (0..200).map(|_| ask(&admission, 1, false)).collect();
        let through: Vec<_> = asked.iter_mut().filter_map(Asked::look).collect();
        assert_eq!(through.len(), 20);
    }

    #[test]
    fn any_number_may_go_at_once() {
        let admission: Arc<Admission> = Arc::default();
        let held = ask(&admission, 1, true).look().unwrap();
        let waits: Vec<_> = (0..20_000).map(|number| ask(&admission, number % 100, true)).collect();
        drop(waits);
        drop(held);
        assert_eq!(admission.lock().through, 0);
    }

    #[test]
    fn what_took_long_is_expected_to_take_long_again() {
        let admission = Arc::default();
        for took in [MS, 17 * MS, MS] {
            ask(&admission, 1, false).look().unwrap().done(took);
        }
        let _first = ask(&admission, 1, false).look().unwrap();
        assert!(ask(&admission, 1, false).look().is_none(), "two of them are more than 20 ms");
        assert!(ask(&admission, 2, false).look().is_some(), "and a small one is not");
    }

    #[test]
    fn places_of_those_that_are_gone_are_free_again() {
        let admission = Arc::default();
        let held = ask(&admission, 1, true).look().unwrap();
        let waits: Vec<_> = (0..1000).map(|_| ask(&admission, 1, true)).collect();
        let mut last = ask(&admission, 1, true);
        drop(waits);
        assert!(last.look().is_none(), "the writer has one of the peer's still");
        // As where the connection has ended, but not the writer's work.
        drop(held);
        assert!(last.look().is_some());
        let state = admission.lock();
        assert_eq!((state.through, state.peers[&peer(1)].waiting.len()), (0, 0));
    }

    #[test]
    fn a_long_one_that_takes_little_waits_for_no_crowd_of_small_ones() {
        let admission = Arc::default();
        // What an ordinary delivery's change set takes: 3 ms, of 200 changes.
        let honest = || ask(&admission, 99, true);
        honest().look().unwrap().done(3 * MS);
        let small = |number| ask(&admission, number, false);
        let mut waiting: Vec<_> = (0..400).map(|n| (n % 10, small(n % 10))).collect();
        let (mut through, mut honest, mut before) = (VecDeque::new(), honest(), 0);
        let came = loop {
            for (number, one) in &mut waiting {
                if let Some(place) = one.look() {
                    through.push_back(place);
                    // Its peer sends another.
                    *one = small(*number);
                }
            }
            if let Some(place) = honest.look() {
                break Some(place);
            }
            let Some(place) = through.pop_front() else { break None };
            place.done(MS / 10);
            before += 1;
        };
        assert!(came.is_some());
        // Each of the ten may use as much of the writer as the honest one has and will have.
        assert!(before < 700, "{before} small ones came before it");
    }
}
