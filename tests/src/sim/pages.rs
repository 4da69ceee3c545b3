//! Taking pages, step by step, with the model as store.
//!
//! Used by [`super::follow`], and by [`super::pair`] without a network.

use protocol::{
    id::PartitionId,
    message::{TreeReply, TreeRequest},
    page::PageRef,
    session::{
        PeerMisbehaved,
        fetch::{ArrivedLeaf, FetchAction, FetchedLeaf, Piece, ShownHead, TreeFetch},
    },
};

use super::store::{CommitError, Store};

/// References to pages that a fetch of all leaves may hold: a tree of all levels takes
/// some thousand, however large it is said to be.
const REFERENCES_MAX: usize = 8_000;
/// And one that compares: 16 MiB of them, without keys.
const COMPARED_MAX: usize = 16 * 1024 * 1024 / size_of::<PageRef>();

/// Taking pages, apart from where requests go and replies come from.
#[derive(Debug)]
pub struct PageTaking {
    pub(super) fetch: TreeFetch,
    head: Option<Box<ShownHead>>,
    leaves: Vec<PageRef>,
    compares: bool,
    /// Leaves that were not asked for.
    pub held: u64,
}

/// What taking pages wants next.
#[derive(Debug)]
pub enum PageStep {
    /// A message is awaited.
    Waiting,
    /// Send this.
    Send(TreeRequest),
    /// It is over.
    Finished(Result<(), CommitError>),
    /// The provider's pages are no tree.
    Misbehaved(PeerMisbehaved),
}

impl PageTaking {
    /// Pages for what `store` lacks of `partition`.
    pub fn new(store: &Store, partition: &PartitionId) -> Self {
        let fetch = match store.position(partition) {
            Some(have) => {
                let salt = std::array::from_fn(|index| have.hash.as_bytes()[index]);
                TreeFetch::comparing(partition.clone(), have, salt)
            }
            None => TreeFetch::new(partition.clone(), None),
        };
        Self { fetch, head: None, leaves: Vec::new(), compares: false, held: 0 }
    }

    /// The provider said something.
    pub fn handle_message(&mut self, bytes: &[u8], store: &Store) -> Result<(), PeerMisbehaved> {
        self.fetch.handle_message(TreeReply::decode(bytes)?, &*store.registry)?;
        self.fetch.check_arrived();
        self.count();
        Ok(())
    }

    fn count(&self) {
        let held = self.fetch.references();
        let limit = if self.compares { COMPARED_MAX } else { REFERENCES_MAX };
        assert!(held <= limit, "a fetch holds {held} references to pages");
    }

    /// Goes on until something is to be sent or awaited.
    pub fn step(&mut self, store: &mut Store) -> PageStep {
        while let Some(action) = self.fetch.poll_action() {
            let partition = self.head.as_ref().map(|head| head.signed.header().partition.clone());
            match (action, partition) {
                (FetchAction::Send(request), _) => return PageStep::Send(request),
                (FetchAction::Compare(head), _) => {
                    self.compares = true;
                    self.head = Some(head);
                }
                (FetchAction::Begin(head), _) => {
                    self.compares = false;
                    self.head = Some(head);
                    self.leaves.clear();
                }
                (FetchAction::Look { level, pages, .. }, Some(partition)) => {
                    let own = pages.iter().map(|page| store.own(&partition, level, page));
                    if let Err(problem) = self.fetch.handle_own(own.collect()) {
                        return PageStep::Misbehaved(problem);
                    }
                }
                (FetchAction::Piece(Piece::Held { level, page }), Some(partition)) => {
                    let leaves = store.leaves_below(&partition, level, &page.first_key);
                    self.held += leaves.len() as u64;
                    self.leaves.extend(leaves);
                }
                (FetchAction::Piece(Piece::Leaf(leaf)), Some(partition)) => {
                    let described = leaf.describe_with_index(store.suite());
                    let body = leaf.encode();
                    self.leaves.push(described.0.clone());
                    store.stage(&partition, &FetchedLeaf::Arrived { described, leaf, body });
                }
                (FetchAction::Resolve(pages), Some(partition)) => {
                    let held = store.held(&partition, &pages);
                    if let Err(problem) = self.fetch.handle_resolved(&held) {
                        return PageStep::Misbehaved(problem);
                    }
                }
                (FetchAction::Check(leaves), Some(_)) => {
                    let checked = leaves.into_iter().map(ArrivedLeaf::check).collect();
                    if let Err(problem) = self.fetch.handle_checked(checked) {
                        return PageStep::Misbehaved(problem);
                    }
                }
                (FetchAction::Stage(leaf), Some(partition)) => {
                    store.stage(&partition, &leaf);
                    self.leaves.push(match leaf {
                        FetchedLeaf::Held(page) => {
                            self.held += 1;
                            page
                        }
                        FetchedLeaf::Arrived { described: (page, ..), .. } => page,
                    });
                }
                (FetchAction::Finish | FetchAction::Apply, _) => {
                    let head = self.head.as_ref().expect("a tree begins before it is finished");
                    return PageStep::Finished(store.finish_pages(head, &self.leaves).map(drop));
                }
                (action, None) => panic!("{action:?} came before the tree began"),
            }
            self.count();
        }
        PageStep::Waiting
    }
}
