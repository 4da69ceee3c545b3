//! The reference model of a node's durable state.
//!
//! It keeps whole maps where the real store keeps pages, and has one rule:
//! [`Store::commit`] and [`Store::finish_pages`] are the only ways in which a
//! partition moves, and both check everything that the real ones check.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use protocol::{
    change::{
        Change, ChangeSet, Header, Position, SignedHeader, VerifiedChangeSet, changes_hash,
        encode_changes,
    },
    difference::Own,
    federation::{Anchored, Registry},
    hash::Hash,
    history::{self, Node, Peaks, Proof, nodes_of},
    id::{NodeId, PartitionId},
    message::{Announced, CloseCode},
    page::{Leaf, PageRef, decode_inner},
    session::fetch::{FetchedLeaf, ShownHead},
    sign::SigningKey,
    suite::Suite,
};

use super::{cast::Cast, claims::Claims, resolve::Resolving, tree::Tree};

/// Why a partition did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitError {
    /// Its number does not follow the head's.
    NotNext,
    /// Its predecessor is another one.
    OtherPast,
    /// The origin knew a newer `_federation` than this node.
    FederationBehind,
    /// The tree is not the one that was signed.
    Root,
    /// The changes touch more of the tree than one change set may.
    Excess,
}

impl CommitError {
    /// What the peer is told.
    pub fn code(self) -> CloseCode {
        match self {
            CommitError::NotNext | CommitError::FederationBehind => CloseCode::Unavailable,
            CommitError::OtherPast => CloseCode::Fork,
            CommitError::Root | CommitError::Excess => CloseCode::RootMismatch,
        }
    }
}

/// A change set in the log; the body may not be kept.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) header: SignedHeader,
    pub(super) body: Option<Vec<u8>>,
}

/// The records of a partition.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// One partition.
#[derive(Debug, Clone)]
pub struct Partition {
    /// The newest change set.
    pub head: Option<SignedHeader>,
    /// What it holds.
    pub records: Records,
    /// The same as pages.
    pub tree: Rc<Tree>,
    /// What is before the head.
    before: Peaks,
    /// What is known of the history.
    nodes: BTreeMap<Node, Hash>,
    /// A person has to decide; nothing moves.
    pub quarantined: bool,
    /// The heads that show why.
    pub evidence: Vec<Position>,
    pub(super) log: BTreeMap<u64, Logged>,
    /// Leaves of an unfinished bootstrap, by first key.
    staged: BTreeMap<Vec<u8>, (Hash, Vec<u8>)>,
}

impl Partition {
    /// A partition in which nothing was ever committed.
    pub(super) fn empty(suite: Suite) -> Self {
        Self {
            head: None,
            records: Records::new(),
            tree: Rc::new(Tree::empty(suite)),
            before: Peaks::new(),
            nodes: BTreeMap::new(),
            quarantined: false,
            evidence: Vec::new(),
            log: BTreeMap::new(),
            staged: BTreeMap::new(),
        }
    }

    /// Where the head stands.
    pub fn position(&self) -> Option<Position> {
        self.head.as_ref().map(SignedHeader::position)
    }

    fn seq(&self) -> u64 {
        self.position().map_or(0, |position| position.seq)
    }

    /// The headers up to the head: the history of the next.
    fn history(&self) -> Peaks {
        let mut history = self.before.clone();
        if let Some(head) = &self.head {
            history.push(head.hash());
        }
        history
    }

    /// Proves that the header with number `earlier` is before the head, if all that
    /// this takes was here.
    pub fn proof(&self, earlier: Option<u64>) -> Option<Proof> {
        let peaks = self.before.hashes().to_vec();
        let Some(earlier) = earlier.filter(|earlier| *earlier < self.seq()) else {
            return Some(Proof { peaks, path: Vec::new() });
        };
        let path = nodes_of(earlier, self.before.count())?;
        let path = path.iter().map(|node| self.nodes.get(node).copied());
        Some(Proof { peaks, path: path.collect::<Option<_>>()? })
    }

    /// The header at `seq`, if it is kept.
    pub fn header(&self, seq: u64) -> Option<&SignedHeader> {
        self.log.get(&seq).map(|logged| &logged.header)
    }

    /// The hash of the header at `seq`, if that was ever here.
    pub fn header_hash(&self, seq: u64) -> Option<Hash> {
        let node = Node { height: 0, index: seq.checked_sub(1)? };
        self.header(seq).map(SignedHeader::hash).or_else(|| self.nodes.get(&node).copied())
    }

    /// Change sets from `from` on, as many as fit, or `None` if the first is not
    /// kept.
    pub fn read(&self, from: u64, count_max: usize, bytes_max: usize) -> Option<Vec<ChangeSet>> {
        let kept = (from..).map_while(|seq| {
            let logged = self.log.get(&seq)?;
            Some(ChangeSet { header: logged.header.clone(), body: logged.body.clone()? })
        });
        let sets = as_many_as_fit(kept, count_max, bytes_max);
        (!sets.is_empty()).then_some(sets)
    }

    /// The body of a leaf that is held, in the tree or from an unfinished
    /// bootstrap. A root's first key is not known: it is found by its hash.
    fn held_leaf(&self, page: &PageRef) -> Option<&[u8]> {
        let staged =
            self.staged.iter().map(|(key, (hash, body))| (key.as_slice(), hash, body.as_slice()));
        let own = self
            .tree
            .level(0)
            .map(|made| (made.page.first_key.as_slice(), &made.page.hash, made.body.as_slice()));
        staged
            .chain(own)
            .find(|(key, hash, _)| {
                **hash == page.hash && (page.first_key.is_empty() || *key == page.first_key)
            })
            .map(|(_, _, body)| body)
    }
}

/// Everything that survives a crash.
#[derive(Debug, Clone)]
pub struct Store {
    /// Whose it is.
    pub name: NodeId,
    anchored: Anchored,
    system: PartitionId,
    pub(super) partitions: BTreeMap<PartitionId, Partition>,
    /// What peers are known to hold of this node's partitions.
    pub(super) known: BTreeMap<(usize, PartitionId), Position>,
    /// Heads that are here no more, and the partitions that take nothing of this node's own
    /// before they are back.
    pub(super) lost: BTreeMap<PartitionId, Position>,
    /// Own headers that a person has given up.
    pub(super) given_up: BTreeSet<Hash>,
    /// Whether old bodies and headers go.
    prunes: bool,
    /// Resolutions that are begun and not done.
    pub resolving: BTreeMap<PartitionId, Resolving>,
    /// Who may sign, as `_federation` says.
    pub registry: Rc<Registry>,
    /// An old backup of this node: nothing of its own is written before a peer
    /// has said what it holds.
    pub restored: bool,
    /// What peers say of this node's own history; it begins anew with each life.
    pub claims: Claims,
}

impl Store {
    /// A store of `node` that knows the anchor alone.
    pub fn new(cast: &Cast, node: usize) -> Self {
        Self {
            name: cast.nodes[node].clone(),
            registry: Rc::new(Registry::new(cast.anchored())),
            anchored: cast.anchored(),
            system: cast.system(),
            partitions: BTreeMap::new(),
            known: BTreeMap::new(),
            lost: BTreeMap::new(),
            given_up: BTreeSet::new(),
            resolving: BTreeMap::new(),
            prunes: false,
            restored: false,
            claims: Claims::default(),
        }
    }

    /// The same of which old bodies and headers go.
    pub fn pruning(cast: &Cast, node: usize) -> Self {
        Self { prunes: true, ..Self::new(cast, node) }
    }

    /// A new store of `node` with a copy of `_federation`, as a joining node gets it.
    pub fn only(&self, cast: &Cast, node: usize, system: &PartitionId) -> Self {
        let mut copy = Self { prunes: self.prunes, ..Self::new(cast, node) };
        let state =
            self.partition(system).cloned().unwrap_or_else(|| Partition::empty(self.suite()));
        copy.partitions.insert(system.clone(), state);
        copy.load_registry(system);
        copy
    }

    /// The federation's suite.
    pub fn suite(&self) -> Suite {
        self.anchored.suite()
    }

    pub(super) fn entry(&mut self, partition: &PartitionId) -> &mut Partition {
        let suite = self.suite();
        let entry = self.partitions.entry(partition.clone());
        entry.or_insert_with(|| Partition::empty(suite))
    }

    /// A partition, if anything was ever committed or staged in it.
    pub fn partition(&self, partition: &PartitionId) -> Option<&Partition> {
        self.partitions.get(partition)
    }

    /// Where a partition's head stands.
    pub fn position(&self, partition: &PartitionId) -> Option<Position> {
        self.partition(partition)?.position()
    }

    /// A partition's head as it is announced.
    pub fn announced(&self, partition: &PartitionId) -> Option<Announced> {
        let head = self.partition(partition)?.head.as_ref()?;
        Some(Announced {
            partition: partition.clone(),
            position: head.position(),
            root: head.header().root,
            records: head.header().records,
        })
    }

    /// All heads.
    pub fn heads(&self) -> impl Iterator<Item = Announced> {
        self.partitions.keys().filter_map(|partition| self.announced(partition))
    }

    /// Whether `at` is in the history of a partition, as far as that is known here.
    pub fn holds(&self, partition: &PartitionId, at: Position) -> bool {
        let known = self.partition(partition).and_then(|mine| mine.header_hash(at.seq));
        known == Some(at.hash)
    }

    /// Notes what `peer` holds of one of this node's partitions, if it is of
    /// this history.
    pub fn note_peer(&mut self, peer: usize, partition: &PartitionId, at: Position) {
        if self.holds(partition, at) {
            let known = self.known.entry((peer, partition.clone())).or_insert(at);
            if known.seq < at.seq {
                *known = at;
            }
        }
    }

    /// What `peer` is known to hold.
    pub fn known(&self, peer: usize, partition: &PartitionId) -> Option<Position> {
        self.known.get(&(peer, partition.clone())).copied()
    }

    /// Signs `changes` as the next change set of an own partition. Its root is
    /// made from all records anew, not from the pages that the commit updates.
    pub fn sign(
        &self,
        partition: &PartitionId,
        changes: &[Change],
        key: &SigningKey,
        now_ms: i64,
    ) -> ChangeSet {
        let suite = self.suite();
        let empty = Partition::empty(suite);
        let before = self.partition(partition).unwrap_or(&empty);
        let mut records = before.records.clone();
        apply(&mut records, changes);
        let summary = Tree::build(suite, &records).summary;
        let body = encode_changes(changes);
        let header = Header {
            partition: partition.clone(),
            seq: before.seq() + 1,
            previous: before.position().map_or(suite.none(), |position| position.hash),
            history: before.history().root(suite),
            federation_head: if partition.dataset.is_system() {
                None
            } else {
                self.position(&self.system)
            },
            origin_time_ms: now_ms,
            schema_version: 1,
            change_count: changes.len() as u32,
            changes_hash: changes_hash(suite, &body),
            root: summary.root,
            records: summary.records,
            key_id: key.public().id(),
        };
        let body = protocol::codec::compress(&body);
        ChangeSet { header: SignedHeader::sign(header, key), body }
    }

    /// Appends a change set: all of it, or nothing.
    pub fn commit(&mut self, set: &VerifiedChangeSet) -> Result<Position, CommitError> {
        let header = set.header().header();
        self.check_federation(set.header())?;
        let suite = self.suite();
        let partition = self.entry(&header.partition);
        if partition.quarantined || header.seq != partition.seq() + 1 {
            return Err(CommitError::NotNext);
        }
        if header.previous != partition.position().map_or(suite.none(), |head| head.hash) {
            return Err(CommitError::OtherPast);
        }
        let history = partition.history();
        if header.history != history.root(suite) {
            return Err(CommitError::OtherPast);
        }
        let tree = partition.tree.updated(set.changes()).map_err(|_| CommitError::Excess)?;
        if (tree.summary.root, tree.summary.records) != (header.root, header.records) {
            return Err(CommitError::Root);
        }
        partition.tree = Rc::new(tree);
        apply(&mut partition.records, set.changes());
        let logged = Logged { header: set.header().clone(), body: Some(set.body().to_vec()) };
        partition.log.insert(header.seq, logged);
        if let Some(before) = &partition.head {
            partition.before.push_noting(before.hash(), |node, hash| {
                partition.nodes.insert(node, hash);
            });
        }
        let index = header.seq - 1;
        partition.nodes.insert(Node { height: 0, index }, set.header().hash());
        partition.head = Some(set.header().clone());
        self.moved(&header.partition);
        Ok(set.header().position())
    }

    fn check_federation(&self, head: &SignedHeader) -> Result<(), CommitError> {
        let Some(named) = head.header().federation_head else {
            return Ok(());
        };
        let mine = self.position(&self.system).map_or(0, |position| position.seq);
        let before = self.partition(&head.header().partition).and_then(|own| own.head.as_ref());
        let earlier = before.and_then(|before| before.header().federation_head);
        let known = self.partition(&self.system).and_then(|own| own.header(named.seq));
        if named.seq > mine
            || earlier.is_some_and(|earlier| earlier.seq > named.seq)
            || known.is_some_and(|known| known.hash() != named.hash)
        {
            return Err(CommitError::FederationBehind);
        }
        Ok(())
    }

    fn moved(&mut self, moved: &PartitionId) {
        self.load_registry(moved);
        self.is_back(moved);
        if self.prunes && *moved != self.system {
            self.prune(moved);
        }
    }

    pub(super) fn load_registry(&mut self, moved: &PartitionId) {
        if *moved != self.system {
            return;
        }
        let mut registry = Registry::new(self.anchored.clone());
        for (key, value) in self.partitions.get(moved).iter().flat_map(|state| &state.records) {
            // What is wrong counts for nothing.
            let _ = registry.insert(key, value);
        }
        self.registry = Rc::new(registry);
    }

    /// Keeps only the headers of a partition's log, as a first load does.
    pub fn drop_bodies(&mut self, partition: &PartitionId) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.log.values_mut().for_each(|logged| logged.body = None);
        }
    }

    /// Which of these leaves are held.
    pub fn held(&self, partition: &PartitionId, pages: &[PageRef]) -> Vec<bool> {
        let own = self.partition(partition);
        pages.iter().map(|page| own.is_some_and(|own| own.held_leaf(page).is_some())).collect()
    }

    /// The page of the tree where `page` is or would be.
    pub fn own(&self, partition: &PartitionId, level: u8, page: &PageRef) -> Own {
        let own = self.partition(partition);
        match own.and_then(|own| own.tree.page(level, &page.first_key)) {
            None => Own::Nothing,
            Some(made) if level == 0 => {
                Own::Leaf(Leaf::decode(&made.body).expect("a page of the model decodes"))
            }
            Some(made) => Own::Inner(
                decode_inner(self.suite(), &made.body).expect("a page of the model decodes"),
            ),
        }
    }

    /// The leaves below a page of the tree; of the root if the key is empty.
    pub fn leaves_below(
        &self,
        partition: &PartitionId,
        level: u8,
        first_key: &[u8],
    ) -> Vec<PageRef> {
        let Some(own) = self.partition(partition) else {
            return Vec::new();
        };
        let mut of_level = own.tree.level(level).map(|made| &made.page.first_key);
        let next = of_level.find(|key| key.as_slice() > first_key);
        let next = next.filter(|_| !first_key.is_empty());
        let leaves = own.tree.level(0).map(|made| &made.page);
        let inside = |page: &&PageRef| {
            page.first_key.as_slice() >= first_key && next.is_none_or(|next| page.first_key < *next)
        };
        leaves.filter(inside).cloned().collect()
    }

    /// Keeps a fetched leaf until the bootstrap is finished.
    pub fn stage(&mut self, partition: &PartitionId, leaf: &FetchedLeaf) {
        if let FetchedLeaf::Arrived { described: (page, ..), body, .. } = leaf {
            let staged = &mut self.entry(partition).staged;
            staged.insert(page.first_key.clone(), (page.hash, body.clone()));
        }
    }

    /// Makes the tree of `head`, whose leaves are all held, the partition's.
    pub fn finish_pages(
        &mut self,
        shown: &ShownHead,
        leaves: &[PageRef],
    ) -> Result<Position, CommitError> {
        let head = &shown.signed;
        let header = head.header();
        self.check_federation(head)?;
        let suite = self.suite();
        let partition = self.entry(&header.partition);
        let moved = partition.position() != shown.have;
        if partition.quarantined || moved || header.seq <= partition.seq() {
            return Err(CommitError::NotNext);
        }
        let mut records = Records::new();
        for page in leaves {
            // A second connection may have finished its bootstrap meanwhile,
            // and with it have cleared what was staged.
            let body = partition.held_leaf(page).ok_or(CommitError::NotNext)?;
            let leaf = Leaf::decode(body).expect("only leaves that decode are staged");
            records.extend(leaf.entries().map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
        let tree = Tree::build(suite, &records);
        if (tree.summary.root, tree.summary.records) != (header.root, header.records) {
            return Err(CommitError::Root);
        }
        let log = [(header.seq, Logged { header: head.clone(), body: None })].into();
        let mut nodes = std::mem::take(&mut partition.nodes);
        nodes.extend(history::shown(&shown.before, shown.have, &shown.path));
        nodes.insert(Node { height: 0, index: header.seq - 1 }, head.hash());
        *partition = Partition {
            head: Some(head.clone()),
            before: shown.before.clone(),
            nodes,
            records,
            tree: Rc::new(tree),
            log,
            ..Partition::empty(suite)
        };
        self.moved(&header.partition);
        Ok(head.position())
    }
}

/// The first of `sets`, at most `count_max` with at most `bytes_max` of bodies, but at
/// least one, however long.
pub fn as_many_as_fit(
    sets: impl IntoIterator<Item = ChangeSet>,
    count_max: usize,
    bytes_max: usize,
) -> Vec<ChangeSet> {
    let mut bytes = 0;
    let fits = |(index, set): &(usize, ChangeSet)| {
        bytes += set.body.len();
        *index == 0 || bytes <= bytes_max
    };
    let fitting = sets.into_iter().take(count_max).enumerate().take_while(fits);
    fitting.map(|(_, set)| set).collect()
}

fn apply(records: &mut Records, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put { key, value } => records.insert(key.clone(), value.clone()),
            Change::Delete { key } => records.remove(key),
        };
    }
}
