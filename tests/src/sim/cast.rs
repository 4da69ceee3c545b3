//! Who takes part: one hub and up to three members with fixed names and keys,
//! their partitions, and the keys of records that are written.

use std::sync::OnceLock;

use protocol::{
    change::Change,
    federation::{self, Anchored, Entry, Introduction, KeyRecord, Member, Role},
    id::{DatasetId, FederationId, NodeId, PartitionId},
    schema::Schema,
    session::entitle::Ends,
    sign::SigningKey,
    suite::Suite,
};

use super::rng::Rng;

/// The hub's index among the nodes; all others are members.
pub const HUB: usize = 0;
/// Datasets in which nodes keep partitions of their own.
pub const DATASETS: [&str; 2] = ["enterprise", "penalty"];

/// Names and signing keys of all nodes, also of those that join later.
#[derive(Debug)]
pub struct Cast {
    /// The one federation.
    pub federation: FederationId,
    /// Its suite.
    pub suite: Suite,
    /// The hub, then the members.
    pub nodes: Vec<NodeId>,
    keys: Vec<SigningKey>,
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the names of the simulation are well formed")
}

impl Cast {
    /// A hub and so many members of a federation with this suite.
    pub fn new(members: usize, suite: Suite) -> Self {
        let key = |n| suite.signing_key(&vec![n as u8 + 1; suite.secret_key_bytes()]);
        let key = |n| key(n).expect("any bytes of this length are a key");
        let names = std::iter::once("hub".to_owned()).chain((1..=members).map(|n| format!("m{n}")));
        Self {
            federation: name("zhengzhou"),
            suite,
            nodes: names.map(|text| name(&text)).collect(),
            keys: (0..=members).map(key).collect(),
        }
    }

    /// A node's signing key.
    pub fn key(&self, node: usize) -> &SigningKey {
        &self.keys[node]
    }

    /// The node of that name.
    pub fn index(&self, node: &NodeId) -> usize {
        self.nodes.iter().position(|known| known == node).expect("only nodes of the cast speak")
    }

    /// The partition of `dataset` whose origin is `node`.
    pub fn partition(&self, node: usize, dataset: &str) -> PartitionId {
        PartitionId::own(&self.federation, &name::<DatasetId>(dataset), &self.nodes[node])
    }

    /// The federation's own partition.
    pub fn system(&self) -> PartitionId {
        self.partition(HUB, protocol::id::FEDERATION_DATASET)
    }

    /// Every partition that `node` may write.
    pub fn own_partitions(&self, node: usize) -> Vec<PartitionId> {
        let system = (node == HUB).then(|| self.system());
        let data = DATASETS.iter().map(|dataset| self.partition(node, dataset));
        system.into_iter().chain(data).collect()
    }

    /// The two ends of a connection as `me` sees them.
    pub fn ends(&self, me: usize, peer: usize) -> Ends {
        Ends {
            federation: self.federation.clone(),
            suite: self.suite,
            hub: self.nodes[HUB].clone(),
            me: self.nodes[me].clone(),
            peer: self.nodes[peer].clone(),
        }
    }

    /// The changes that make `node` a member with its signing key, in order.
    pub fn member_entries(&self, node: usize) -> Vec<Change> {
        let (by, role) = match node {
            HUB => (Introduction::Anchor, Role::Hub),
            _ => (Introduction::Enrolment, Role::Member),
        };
        let record = KeyRecord::new(&self.keys[node].public(), by, 0);
        let member =
            Member { name: format!("node {node}"), role, removed: false, certificates_from: None };
        let name = &self.nodes[node];
        vec![put(Entry::Key(name.clone(), 1, record)), put(Entry::Member(name.clone(), member))]
    }

    /// What the root of trust says.
    pub fn anchored(&self) -> Anchored {
        Anchored {
            federation: self.federation.clone(),
            hub: self.nodes[HUB].clone(),
            hub_key: self.keys[HUB].public(),
            base: None,
            earlier: Vec::new(),
        }
    }
}

/// The change that registers a version of a dataset's schema.
pub fn schema_entry(version: u32) -> Change {
    let mut raw = federation::schema().raw().clone();
    raw.dataset = DATASETS[0].into();
    raw.version = version;
    put(Entry::Schema(Schema::check(raw).expect("a renamed built-in schema is well formed")))
}

fn put(entry: Entry) -> Change {
    entry.put().expect("a small entry is below every limit")
}

/// The keys of all records. Half of them lie in groups that hold one record more
/// each than the next inner one, which makes pages of few records: so some hundred
/// records make a tree of three levels, which would otherwise take tens of
/// thousands.
fn universe() -> &'static [Vec<u8>] {
    static KEYS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let nested = (0..320usize).map(|bit| {
            let mut key = vec![0; 41];
            key[bit / 8] = 0x80 >> (bit % 8);
            key
        });
        let innermost = (0..160u8).map(|number| [&[0; 40][..], &[number]].concat());
        let mut keys: Vec<Vec<u8>> = nested.chain(innermost).collect();
        keys.sort();
        keys
    })
}

/// All records, so that the tree has three levels.
pub fn all_records() -> Vec<Change> {
    let put = |key: &Vec<u8>| Change::Put { key: key.clone(), value: b"first".to_vec() };
    universe().iter().map(put).collect()
}

/// Up to `count` changes of different records, sorted by key, or one where
/// `count` is 0.
pub fn random_changes(rng: &mut Rng, count: usize) -> Vec<Change> {
    let keys = universe();
    // Now and then nearly all of them, or the tree would stay small.
    let mut picked: Vec<&Vec<u8>> = if count > 1 && rng.chance(2) {
        keys.iter().filter(|_| rng.chance(95)).collect()
    } else {
        (0..count.max(1)).map(|_| &keys[rng.index(keys.len())]).collect()
    };
    picked.sort();
    picked.dedup();
    let change = |key: &Vec<u8>| {
        if rng.chance(25) {
            Change::Delete { key: key.clone() }
        } else {
            Change::Put { key: key.clone(), value: rng.u64().to_be_bytes().to_vec() }
        }
    };
    picked.into_iter().map(change).collect()
}
