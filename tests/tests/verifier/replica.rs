//! A partition from number 1 on: the rules by which section 10 of
//! `protocol/SPEC.md` takes a change set.
//!
//! Invariant: what was refused has changed nothing. All headers are kept, so that
//! histories and heads can be compared with any of them.

use super::{
    Checked, Refused,
    change::{self, Change, SignedHeader},
    ensure,
    federation::Federation,
    hashes::Hash,
    history::{self, Proof},
    layout::{self, Header},
    pages::{self, Entry},
    record,
    tree::{self, State, Tree},
    work,
};

/// What a replica asks those who know `_federation`.
pub trait Keys {
    /// The public key that the header names, if it counts for its number.
    fn key_of(&self, header: &SignedHeader) -> Checked<[u8; 32]>;
    /// Whether a record is one that an importer makes, and stands under its key.
    fn fits(&self, dataset: &str, key: &[u8], record: &[u8]) -> Checked<()>;
    /// Whether the header of this number of `_federation` has this hash.
    fn holds_head(&self, seq: u64, hash: &Hash) -> Checked<()>;
}

/// A partition that was followed from its first change set.
#[derive(Clone)]
pub struct Replica {
    partition: String,
    headers: Vec<(Header, Hash)>,
    state: State,
    /// The tree over the state: what the next change set touches is counted in it.
    tree: Tree,
}

impl Replica {
    /// Nothing yet of the partition with this full name.
    pub fn new(partition: &str) -> Self {
        let tree = tree::of(&State::new()).expect("no entry has a level too many");
        Self { partition: partition.to_owned(), headers: vec![], state: State::new(), tree }
    }

    pub fn seq(&self) -> u64 {
        self.headers.len() as u64
    }

    /// The hash of the newest header, or of nothing.
    pub fn head(&self) -> Hash {
        self.headers.last().map_or([0; 32], |(_, hash)| *hash)
    }

    /// The header of a number, and its hash.
    pub fn header(&self, seq: u64) -> Option<&(Header, Hash)> {
        self.headers.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// The hashes of all headers in order.
    pub fn hashes(&self) -> Vec<Hash> {
        self.headers.iter().map(|(_, hash)| *hash).collect()
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Rules 1 to 7, in their order. What is held already is told apart from a
    /// second history; neither is taken.
    pub fn take(&mut self, keys: &impl Keys, signed_header: &[u8], body: &[u8]) -> Checked<()> {
        let signed = SignedHeader::decode(signed_header)?;
        ensure(signed.partition() == self.partition, "another partition")?;
        signed.verify(&keys.key_of(&signed)?)?;
        let changes = change::signed_changes(&signed.header, body)?;

        let header = &signed.header;
        if let Some((_, held)) = self.header(header.seq) {
            ensure(*held == signed.hash, "a fork: another header of this number")?;
            return Err(Refused("held already"));
        }
        ensure(header.seq == self.seq() + 1, "not the next number")?;
        ensure(header.previous == self.head(), "another predecessor")?;
        ensure(header.history == history::root(&self.hashes()), "another history")?;
        self.check_head(keys, header)?;

        let mut state = self.state.clone();
        change::apply(&mut state, &changes);
        let tree = tree::of(&state)?;
        work::of(&self.tree, &work::entry_bytes(&self.state), &tree, &changes).check()?;
        check_tree(header, &tree)?;
        for change in &changes {
            if let Change::Put { key, record } = change {
                keys.fits(&header.dataset, key, record)?;
            }
        }
        (self.state, self.tree) = (state, tree);
        self.headers.push((signed.header, signed.hash));
        Ok(())
    }

    fn check_head(&self, keys: &impl Keys, header: &Header) -> Checked<()> {
        let Some((seq, hash)) = header.federation_head else { return Ok(()) };
        keys.holds_head(seq, &hash)?;
        let before = self.headers.last().and_then(|(header, _)| header.federation_head);
        ensure(before.is_none_or(|(before, _)| before <= seq), "a head that goes back")
    }
}

/// A head that came alone, with a proof that its history holds what was held:
/// of section 10 all that does not need the change sets between.
pub fn check_later_head(
    keys: &impl Keys,
    partition: &str,
    held: Option<(u64, &Hash)>,
    signed_header: &[u8],
    proof: &Proof,
) -> Checked<SignedHeader> {
    let signed = SignedHeader::decode(signed_header)?;
    ensure(signed.partition() == partition, "another partition")?;
    signed.verify(&keys.key_of(&signed)?)?;
    let header = &signed.header;
    if let Some((seq, hash)) = header.federation_head {
        keys.holds_head(seq, &hash)?;
    }
    let own = held.map_or(0, |(seq, _)| seq);
    ensure(header.seq.saturating_sub(own) <= layout::PASSED_OVER_MAX, "a jump that is too far")?;
    match held {
        // Nothing is before it, or it is the one that is held.
        None => proof.check_alone(header.seq, &header.history)?,
        Some((seq, hash)) if seq == header.seq => {
            proof.check_alone(header.seq, &header.history)?;
            ensure(*hash == signed.hash, "two headers of one number")?;
        }
        Some(held) => proof.check(held, header.seq, &header.history)?,
    }
    Ok(signed)
}

/// Whether a signed header shows, by section 10, that its history has the header with
/// the hash `other` at the number where another one is held.
pub fn check_fork(
    keys: &impl Keys,
    partition: &str,
    held: (u64, &Hash),
    signed_header: &[u8],
    other: &Hash,
    proof: &Proof,
) -> Checked<()> {
    let signed = SignedHeader::decode(signed_header)?;
    ensure(signed.partition() == partition, "another partition")?;
    signed.verify(&keys.key_of(&signed)?)?;
    let (seq, hash) = held;
    ensure(other != hash, "the header that is held")?;
    let header = &signed.header;
    if header.seq == seq {
        ensure(signed.hash == *other, "another header than the one that it shows")?;
        return ensure(*proof == Proof::default(), "a proof of what is shown itself");
    }
    proof.check((seq, other), header.seq, &header.history)
}

/// Leaves that came alone give the state that a head signs.
pub fn check_leaves(
    header: &Header,
    leaves: impl IntoIterator<Item = Vec<Entry>>,
) -> Checked<State> {
    let state = pages::state(leaves)?;
    check_tree(header, &tree::of(&state)?)?;
    Ok(state)
}

fn check_tree(header: &Header, tree: &Tree) -> Checked<()> {
    tree.check_shape()?;
    ensure(tree.records == header.records, "another number of records")?;
    ensure(tree.root == header.root, "another root")
}

impl Keys for Federation {
    fn fits(&self, dataset: &str, key: &[u8], record: &[u8]) -> Checked<()> {
        // Those of `_federation` are ignored where they are malformed.
        if dataset == layout::FEDERATION_DATASET {
            return Ok(());
        }
        let (version, values) = record::decode(record)?;
        let schema =
            self.schema(dataset, version).ok_or(Refused("a schema that is not there yet"))?;
        schema.check(key, &values)
    }

    fn key_of(&self, header: &SignedHeader) -> Checked<[u8; 32]> {
        self.counting_key(&header.header, &header.hash)
    }

    fn holds_head(&self, seq: u64, hash: &Hash) -> Checked<()> {
        let held = self.replica().header(seq).ok_or(Refused("a head that is not there yet"))?;
        ensure(held.1 == *hash, "a head of another _federation")
    }
}
