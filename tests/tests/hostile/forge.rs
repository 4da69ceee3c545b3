//! Change sets and trees as their origin would make them, and hooks to make
//! them wrong before they are signed.

use protocol::{
    change::{Change, Header, Position, SignedHeader, changes_hash, encode_changes},
    hash::Hash,
    id::PartitionId,
    message::{FollowReply, Hello, TreeReply},
    page::{Leaf, LeafBuilder, MadePage},
    sign::SigningKey,
    tree::{Summary, TreeBuilder},
};

/// Entries of a partition, in key order.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// `count` entries with short keys and values.
pub fn entries(count: u32) -> Entries {
    (0..count).map(|n| (n.to_be_bytes().to_vec(), format!("value {n}").into_bytes())).collect()
}

/// All pages of a tree.
pub struct Tree {
    pub pages: Vec<MadePage>,
    pub summary: Summary,
}

impl Tree {
    pub fn of(entries: &Entries) -> Self {
        let (mut builder, mut leaf) = (TreeBuilder::new(), LeafBuilder::new());
        let (mut pages, mut leaves) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            if leaf.push(key, value) {
                leaves.push(leaf.make());
            }
        }
        if !leaf.is_empty() {
            leaves.push(leaf.make());
        }
        for made in leaves {
            let decoded = Leaf::decode(&made.body).unwrap();
            let (page, shape) = decoded.describe();
            builder.push(&decoded, page, shape, &mut pages).unwrap();
            pages.push(made);
        }
        let summary = builder.finish(&mut pages).unwrap();
        Self { pages, summary }
    }

    /// The page of `level` with this first key; an empty key means the first.
    pub fn page(&self, level: u8, key: &[u8]) -> &MadePage {
        let found = self
            .pages
            .iter()
            .find(|made| made.level == level && (key.is_empty() || made.page.first_key == key));
        found.expect("the hub asks for pages that its parents hold")
    }
}

/// The `_federation` head that the hub's hello names.
pub fn federation_head(hello: &Hello) -> Position {
    let found = hello.heads.iter().find(|head| head.partition.dataset.is_system());
    found.expect("the hub announces _federation").position
}

/// A partition's origin with its key.
pub struct Origin<'a> {
    pub partition: PartitionId,
    pub key: &'a SigningKey,
    pub federation_head: Position,
}

impl Origin<'_> {
    /// A first header that everybody would accept, and its body.
    pub fn first(&self, entries: &Entries) -> (Header, Vec<u8>) {
        let put = |(key, value): &(Vec<u8>, Vec<u8>)| Change::Put {
            key: key.clone(),
            value: value.clone(),
        };
        let changes: Vec<Change> = entries.iter().map(put).collect();
        let body = encode_changes(&changes);
        let summary = Tree::of(entries).summary;
        let header = Header {
            partition: self.partition.clone(),
            seq: 1,
            previous: Hash::ZERO,
            federation_head: Some(self.federation_head),
            origin_time_ms: 0,
            schema_version: 1,
            change_count: changes.len() as u32,
            changes_hash: changes_hash(&body),
            root: summary.root,
            records: summary.records,
            key_id: self.key.public().id(),
        };
        (header, body)
    }

    /// A first change set whose header is altered before it is signed.
    pub fn altered(&self, alter: impl FnOnce(&mut Header)) -> FollowReply {
        let (mut header, body) = self.first(&entries(3));
        alter(&mut header);
        reply(header, &body, self.key)
    }

    /// A first change set with this body, rightly hashed and signed; its root
    /// is that of no records.
    pub fn with_body(&self, body: &[u8], change_count: u32) -> FollowReply {
        let (mut header, _) = self.first(&vec![]);
        header.changes_hash = changes_hash(body);
        header.change_count = change_count;
        reply(header, body, self.key)
    }

    /// The signed head of a tree, as a tree stream shows it.
    pub fn tree_head(&self, tree: &Tree, alter: impl FnOnce(&mut Header)) -> TreeReply {
        let (mut header, _) = self.first(&vec![]);
        header.root = tree.summary.root;
        header.records = tree.summary.records;
        alter(&mut header);
        let levels = tree.summary.pages.len() as u8;
        TreeReply::Head { header: SignedHeader::sign(header, self.key).encode(), levels }
    }
}

/// Signs a header and puts it before its body.
pub fn reply(header: Header, body: &[u8], key: &SigningKey) -> FollowReply {
    let header = SignedHeader::sign(header, key).encode();
    FollowReply::ChangeSet { header, body: protocol::codec::compress(body) }
}
