//! Never "in sync" while different: the one assertion over all runs.
//!
//! [`InSync::check`] is called after every step of every run. A replica shows `in_sync`
//! as `status` does (`app/status.rs`): its peer is connected and not silent, the head that
//! the peer said last is the replica's own, and nothing is quarantined. What a connection
//! that is dead tells counts no longer than the silence that ends it; within that time an
//! origin may have gone back, or given a history up, and nobody can know.

use std::{collections::BTreeMap, time::Duration};

use protocol::{id::PartitionId, message::Announced, session::link::SILENCE_MAX};

use super::{
    cast::HUB,
    node::{Node, Shared},
};

/// The longest way of a message on a path that is open.
const ON_THE_WAY_MAX: Duration = Duration::from_secs(3);

/// Since when a replica shows what its origin does not have.
#[derive(Debug, Default)]
pub struct InSync {
    differs_since: BTreeMap<(usize, PartitionId), Duration>,
    /// How often a replica was seen in sync, and how often with what its origin had just
    /// lost.
    pub shown: (u64, u64),
}

impl InSync {
    /// The head of its peer with which `node` shows its copy of `partition` as in sync.
    fn shown<'a>(
        node: &'a Node,
        shared: &Shared,
        partition: &PartitionId,
        origin: usize,
    ) -> Option<&'a Announced> {
        let state = node.store.partition(partition).filter(|state| !state.quarantined);
        let have = state.and_then(|state| state.position());
        let link = node.newest_link_with(&shared.net, origin);
        let theirs = link.and_then(|link| link.peer_head(partition));
        theirs.filter(|head| node.up && Some(head.position) == have)
    }

    /// Panics if a replica shows `in_sync` for what is not its origin's.
    pub fn check(&mut self, nodes: &[Node], shared: &Shared) {
        let members = 1..nodes.len();
        for (origin, replica) in members.flat_map(|member| [(HUB, member), (member, HUB)]) {
            if shared.net.has_hostile(replica, replica) {
                continue;
            }
            for partition in shared.cast.own_partitions(origin) {
                self.check_one(nodes, shared, &partition, origin, replica);
            }
        }
    }

    fn check_one(
        &mut self,
        nodes: &[Node],
        shared: &Shared,
        partition: &PartitionId,
        origin: usize,
        replica: usize,
    ) {
        let by = (replica, partition.clone());
        let Some(told) = Self::shown(&nodes[replica], shared, partition, origin) else {
            self.differs_since.remove(&by);
            return;
        };
        self.shown.0 += 1;
        let copy = nodes[replica].store.partition(partition).expect("what is shown is here");
        let head = copy.head.as_ref().expect("what is shown has a head");
        assert_eq!(
            (copy.tree.summary.root, copy.tree.summary.records),
            (head.header().root, head.header().records),
            "{partition} at node {replica}: another root than was signed"
        );
        if shared.net.has_hostile(origin, origin) {
            return;
        }
        assert_eq!(
            (told.position.seq, told.root),
            (head.position().seq, copy.tree.summary.root),
            "{partition} at node {replica}: in sync with another root than its origin has told of"
        );
        let own = nodes[origin].store.partition(partition);
        let is_same = own.is_some_and(|own| match own.position() == copy.position() {
            true => own.tree.summary.root == copy.tree.summary.root,
            false => own.header_hash(head.position().seq) == Some(head.hash()),
        });
        if is_same {
            self.differs_since.remove(&by);
            return;
        }
        self.shown.1 += 1;
        let now = shared.net.now;
        let since = *self.differs_since.entry(by).or_insert(now);
        assert!(
            now - since <= SILENCE_MAX + ON_THE_WAY_MAX,
            "{partition}: node {replica} shows it in sync at number {}, and since {since:?} its \
             origin has no such history",
            head.position().seq
        );
    }
}
