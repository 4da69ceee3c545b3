//! What an all-knowing observer checks while a run goes on.
//!
//! It sees each change set when its origin signs it and each durable state when
//! it becomes durable, and so can tell at once when a session claims something
//! that is not so. Every check panics: the run's seed is printed then.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    change::{Position, SignedHeader},
    hash::Hash,
    id::{NodeId, PartitionId},
    suite::checksum::Checksum,
};

use super::{
    store::{Partition, Records, Store},
    tree::Tree,
};

/// One change set as its origin signed it.
#[derive(Debug, Clone, Copy)]
struct Signed {
    previous: Hash,
    seq: u64,
    root: Hash,
    content: Checksum,
}

/// The observer.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Everything that was ever signed, by header hash.
    signed: BTreeMap<Hash, Signed>,
    numbers: BTreeMap<(PartitionId, u64), BTreeSet<Hash>>,
    /// Newest durable positions of each node.
    heads: BTreeMap<(usize, PartitionId), Position>,
    /// Every position that was ever durable somewhere.
    durable: BTreeSet<(usize, PartitionId, u64, Hash)>,
    /// Partitions of which a number is signed twice.
    twice: BTreeSet<PartitionId>,
    /// Partitions that a node lets nothing move, until it returns from a backup.
    quarantined: BTreeSet<(usize, PartitionId)>,
    /// Who lies: nothing is known of what it holds, and of what it owns only what its
    /// signature says.
    hostile: Option<(usize, NodeId)>,
    /// What happened, to see that a run exercises something.
    pub tally: Tally,
}

/// How often things happened in a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Change sets signed.
    pub signed: u64,
    /// Change sets committed at a replica.
    pub committed: u64,
    /// Bootstraps finished.
    pub bootstraps: u64,
    /// Leaves that a bootstrap did not ask for.
    pub leaves_held: u64,
    /// Acknowledgements that reached an origin.
    pub acked: u64,
    /// Commits that failed and were tried again.
    pub retried: u64,
    /// An origin took its history back.
    pub taken_back: u64,
    /// Forks found.
    pub forks: u64,
    /// Those that an origin was shown when it looked at what a peer had announced.
    pub looked: u64,
    /// Claims about an origin's own history that were proven.
    pub proven: u64,
    /// Connections closed because a newer one took over.
    pub replaced: u64,
    /// Connections closed because nothing was heard.
    pub silent: u64,
    /// Nodes that went on from an earlier state.
    pub put_back: u64,
    /// Numbers that were signed twice.
    pub twice: u64,
    /// Own histories that were dropped because the peer has them and more.
    pub dropped: u64,
    /// Own histories of which the peer cannot prove that it has what is here.
    pub doubted: u64,
    /// Quarantines that ended by a proof.
    pub released: u64,
    /// Copies that were dropped and fetched again.
    pub refetched: u64,
    /// Forks that a person has ended.
    pub resolved: u64,
    /// Those of them in which two peers held two others.
    pub three: u64,
    /// Further histories that a person has given up with that.
    pub given_up: u64,
}

impl Tally {
    /// Whether something never happened: many runs together meet everything.
    pub fn lacks_something(&self) -> bool {
        let Self { signed, committed, bootstraps, leaves_held, acked, .. } = *self;
        let Self { retried, taken_back, forks, replaced, silent, .. } = *self;
        [signed, committed, bootstraps, leaves_held, acked]
            .into_iter()
            .chain([retried, taken_back, forks, replaced, silent])
            .any(|count| count == 0)
    }
}

impl Tally {
    /// The same of runs in which directories are put back.
    pub fn lacks_a_fork(&self) -> bool {
        let Self { put_back, twice, taken_back, forks, looked, released, .. } = *self;
        let Self { dropped, doubted, resolved, three, bootstraps, .. } = *self;
        [put_back, twice, taken_back, forks, released, dropped, doubted, resolved]
            .into_iter()
            .chain([looked, three, bootstraps])
            .any(|count| count == 0)
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.signed += other.signed;
        self.committed += other.committed;
        self.bootstraps += other.bootstraps;
        self.leaves_held += other.leaves_held;
        self.acked += other.acked;
        self.retried += other.retried;
        self.taken_back += other.taken_back;
        self.forks += other.forks;
        self.looked += other.looked;
        self.proven += other.proven;
        self.replaced += other.replaced;
        self.silent += other.silent;
        self.put_back += other.put_back;
        self.twice += other.twice;
        self.dropped += other.dropped;
        self.doubted += other.doubted;
        self.released += other.released;
        self.refetched += other.refetched;
        self.resolved += other.resolved;
        self.three += other.three;
        self.given_up += other.given_up;
    }
}

fn content(records: &Records) -> Checksum {
    let mut sum = Checksum::running();
    for (key, value) in records {
        sum.update(&(key.len() as u64).to_be_bytes());
        sum.update(key);
        sum.update(&(value.len() as u64).to_be_bytes());
        sum.update(value);
    }
    sum.finish()
}

impl Oracle {
    /// An observer of a run in which that node lies.
    pub fn of_hostile(node: usize, name: NodeId) -> Self {
        Self { hostile: Some((node, name)), ..Self::default() }
    }

    fn is_hostile(&self, node: usize) -> bool {
        self.hostile.as_ref().is_some_and(|(of, _)| *of == node)
    }

    fn is_of_hostile(&self, partition: &PartitionId) -> bool {
        self.hostile.as_ref().is_some_and(|(_, name)| *name == partition.origin)
    }

    /// An origin signed and committed a change set. Answers the other headers that it has
    /// signed with this number.
    pub fn signed(
        &mut self,
        node: usize,
        store: &Store,
        partition: &PartitionId,
    ) -> BTreeSet<Hash> {
        let state = store.partition(partition).expect("a partition that was written exists");
        let head = state.head.as_ref().expect("a partition that was written has a head");
        let header = head.header();
        self.tally.signed += 1;
        let signed = Signed {
            previous: header.previous,
            seq: header.seq,
            root: header.root,
            content: content(&state.records),
        };
        self.signed.insert(head.hash(), signed);
        let numbers = self.numbers.entry((header.partition.clone(), header.seq)).or_default();
        let others = numbers.clone();
        numbers.insert(head.hash());
        if !others.is_empty() {
            self.tally.twice += 1;
            self.twice.insert(partition.clone());
        }
        self.moved(node, store, partition);
        others
    }

    /// A partition of `node` moved to what its store holds now.
    pub fn moved(&mut self, node: usize, store: &Store, partition: &PartitionId) {
        if self.is_hostile(node) {
            return;
        }
        let state = store.partition(partition).expect("a partition that moved exists");
        let head = state.head.as_ref().expect("a partition that moved has a head");
        let (partition, at) = (head.header().partition.clone(), head.position());
        let is_stopped = self.quarantined.contains(&(node, partition.clone()));
        assert!(!is_stopped, "{partition} moved at node {node}, where it is quarantined");
        if self.is_of_hostile(&partition) {
            check_signed(store, &partition, state);
        } else {
            let signed = self.signed.get(&at.hash);
            let signed = signed.expect("only what the origin signed is committed");
            assert_eq!(signed.seq, at.seq, "{partition}: a number that was not signed");
            assert_eq!(signed.root, state.tree.summary.root, "{partition}: another root");
            assert_eq!(signed.content, content(&state.records), "{partition}: other records");
        }
        if let Some(known) = head.header().federation_head {
            let mut own = self.heads.iter().filter(|((of, _), _)| *of == node);
            let federation = own.find(|((_, of), _)| of.dataset.is_system());
            assert!(
                federation.is_some_and(|(_, at)| at.seq >= known.seq),
                "{partition} at node {node} is ahead of the keys and schemas that it rests on"
            );
        }
        if let Some(before) = self.heads.insert((node, partition.clone()), at) {
            assert!(before.seq < at.seq, "{partition} at node {node} went back to {}", at.seq);
            let continues = match self.is_of_hostile(&partition) {
                true => is_shown_to_continue(state, before),
                false => self.descends(at, before),
            };
            assert!(
                continues,
                "node {node} overwrote {partition} {} with another history",
                before.seq
            );
        }
        self.durable.insert((node, partition, at.seq, at.hash));
    }

    /// Whether the history of `newer` contains `older`.
    fn descends(&self, newer: Position, older: Position) -> bool {
        let mut at = newer;
        while at.seq > older.seq {
            let Some(signed) = self.signed.get(&at.hash) else {
                return false;
            };
            at = Position { seq: at.seq - 1, hash: signed.previous };
        }
        at == older
    }

    /// A peer said, or is believed to have said, that it holds `at`.
    ///
    /// A bootstrap skips positions: below what was durable is durable, too.
    pub fn claimed(&self, holder: usize, partition: &PartitionId, at: Position) {
        let durable = self
            .durable
            .range((holder, partition.clone(), at.seq, at.hash.suite().none())..)
            .take_while(|(node, of, ..)| (*node, of) == (holder, partition))
            .any(|&(_, _, seq, hash)| self.descends(Position { seq, hash }, at));
        assert!(durable, "node {holder} never held {partition} {}", at.seq);
    }

    /// An acknowledgement reached the provider.
    pub fn acked(&mut self, holder: usize, partition: &PartitionId, at: Position) {
        self.tally.acked += 1;
        assert!(
            self.durable.contains(&(holder, partition.clone(), at.seq, at.hash)),
            "node {holder} acknowledged {partition} {} before it was durable",
            at.seq
        );
    }

    /// A node starts from an earlier state of its own, in which these were quarantined.
    pub fn put_back(
        &mut self,
        node: usize,
        heads: impl Iterator<Item = (PartitionId, Position)>,
        quarantined: impl Iterator<Item = PartitionId>,
    ) {
        self.tally.put_back += 1;
        self.heads.retain(|(of, _), _| *of != node);
        self.quarantined.retain(|(of, _)| *of != node);
        self.heads.extend(heads.map(|(partition, at)| ((node, partition), at)));
        self.quarantined.extend(quarantined.map(|partition| (node, partition)));
    }

    /// An origin drops what it has in favour of `theirs`. By itself it does so only where
    /// nothing is lost.
    pub fn gave_up(&mut self, node: usize, store: &Store, theirs: &SignedHeader, by_person: bool) {
        if self.is_hostile(node) {
            return;
        }
        let partition = &theirs.header().partition;
        self.tally.dropped += u64::from(!by_person);
        let have = store.position(partition);
        let is_kept = have.is_none_or(|have| self.descends(theirs.position(), have));
        assert!(
            by_person || is_kept,
            "{partition}: node {node} drops {have:?}, which is not in what comes instead"
        );
        self.quarantined.remove(&(node, partition.clone()));
        self.heads.remove(&(node, partition.clone()));
    }

    /// A person has dropped a copy, which is fetched again.
    pub fn forgot(&mut self, node: usize, partition: &PartitionId) {
        self.tally.refetched += 1;
        self.quarantined.remove(&(node, partition.clone()));
        self.heads.remove(&(node, partition.clone()));
    }

    /// A node was shown that a peer's history, up to `theirs`, has what is quarantined here.
    pub fn released(&mut self, node: usize, store: &Store, theirs: &SignedHeader) {
        if self.is_hostile(node) {
            return;
        }
        let partition = &theirs.header().partition;
        self.tally.released += 1;
        self.quarantined.remove(&(node, partition.clone()));
        let have = store.position(partition);
        let is_in = have.is_none_or(|have| self.descends(theirs.position(), have));
        assert!(
            is_in || self.is_of_hostile(partition),
            "{partition}: node {node} takes another history for its own"
        );
    }

    /// A person has found that there is one history of an own partition.
    pub fn released_own(&mut self, node: usize, partition: &PartitionId) {
        self.quarantined.remove(&(node, partition.clone()));
    }

    /// A node saw a header of its own that it lacks; it is about to write no more.
    pub fn proven(&mut self, node: usize, header: &SignedHeader) {
        if self.is_hostile(node) {
            return;
        }
        self.tally.proven += 1;
        let partition = &header.header().partition;
        assert!(
            self.signed.contains_key(&header.hash()),
            "{partition}: node {node} signed no such"
        );
    }

    /// Whether the origin of `partition` has signed more than `have`.
    pub fn has_signed_more(&self, partition: &PartitionId, have: u64) -> bool {
        self.numbers.range((partition.clone(), have + 1)..=(partition.clone(), u64::MAX)).count()
            > 0
    }

    /// A node quarantines a partition because it saw `theirs` beside what it has.
    pub fn forked(&mut self, node: usize, store: &Store, theirs: &SignedHeader) {
        if self.is_hostile(node) {
            return;
        }
        let partition = &theirs.header().partition;
        self.tally.forks += 1;
        self.quarantined.insert((node, partition.clone()));
        let theirs_at = theirs.position();
        let ours = store.partition(partition).and_then(|own| own.header_hash(theirs_at.seq));
        let ours = ours.expect("a fork is seen at a number that the replica has");
        assert_ne!(ours, theirs_at.hash, "{partition}: a fork of one history");
        if self.is_of_hostile(partition) {
            assert_eq!(theirs.verify(&*store.registry), Ok(()), "{partition}: an unsigned fork");
            return;
        }
        let numbers = &self.numbers[&(partition.clone(), theirs_at.seq)];
        assert!(
            numbers.contains(&ours) && numbers.contains(&theirs_at.hash),
            "{partition}: a fork without two signed headers"
        );
    }

    /// A node quarantines a partition because a head that its origin signed is not
    /// shown to continue what it has.
    pub fn other_history(
        &mut self,
        node: usize,
        store: &Store,
        partition: &PartitionId,
        head: Position,
    ) {
        if self.is_hostile(node) {
            return;
        }
        self.tally.forks += 1;
        self.quarantined.insert((node, partition.clone()));
        if self.is_of_hostile(partition) {
            return;
        }
        assert!(self.signed.contains_key(&head.hash), "{partition}: a head that was not signed");
        assert!(self.twice.contains(partition), "{partition}: nothing gave reason to doubt");
        let ours = store.position(partition);
        let ours = ours.unwrap_or_else(|| panic!("{partition}: nothing is here to differ from"));
        assert!(
            !self.descends(head, ours),
            "{partition}: number {} continues {} and was taken for another history",
            head.seq,
            ours.seq
        );
    }

    /// Whether a partition's origin may have signed two histories that live on.
    pub fn may_be_forked(&self, partition: &PartitionId) -> bool {
        self.twice.contains(partition) || self.is_of_hostile(partition)
    }
}

/// What is held of a hostile origin is signed, and has the root that comes out of it.
fn check_signed(store: &Store, partition: &PartitionId, state: &Partition) {
    let head = state.head.as_ref().expect("a partition that moved has a head");
    assert_eq!(head.verify(&*store.registry), Ok(()), "{partition}: a head that nobody signed");
    let computed = Tree::build(store.suite(), &state.records).summary;
    assert_eq!(state.tree.summary, computed, "{partition}: other pages than of these records");
    let signed = (head.header().root, head.header().records);
    assert_eq!((computed.root, computed.records), signed, "{partition}: not what was signed");
}

/// Whether a replica can show of its head that it continues what it held before.
fn is_shown_to_continue(state: &Partition, before: Position) -> bool {
    let (Some(head), Some(proof)) = (&state.head, state.proof(Some(before.seq))) else {
        return false;
    };
    let header = head.header();
    let is_next = header.seq == before.seq + 1;
    (!is_next || header.previous == before.hash)
        && proof.check(header.seq - 1, &header.history, Some(before)).is_ok()
}
