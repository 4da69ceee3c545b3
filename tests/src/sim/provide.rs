//! The streams of a node that has something: change sets, and pages.

use std::{collections::VecDeque, rc::Rc};

use protocol::{
    change::{Position, SignedHeader},
    codec, difference,
    history::Proof,
    id::PartitionId,
    message::{CloseCode, FollowReply, FollowRequest, PAGE_PART_BYTES_MAX, TreeReply, TreeRequest},
    session::{
        PeerMisbehaved,
        provider::{Provider, ProviderAction, WINDOW_CHANGE_SETS},
    },
};

use super::{
    follow::Io,
    net::{StreamId, Wire},
    store::Store,
    tree::Tree,
};

/// One stream that this node answers.
#[derive(Debug)]
pub enum Providing {
    /// A followed partition.
    Changes {
        /// What is provided.
        partition: PartitionId,
        /// The machine.
        provider: Box<Provider>,
        /// What the store was asked for: from which number on, how many, how many
        /// bytes.
        reading: Option<(u64, usize, usize)>,
        /// Numbers on their way, counted apart from the machine.
        unacked: VecDeque<u64>,
    },
    /// A tree, as it was when the stream was opened.
    Pages {
        /// The snapshot.
        tree: Rc<Tree>,
    },
}

impl Providing {
    /// Answers a follower at `have`, or says why not.
    pub fn changes(
        store: &Store,
        partition: PartitionId,
        have: Option<Position>,
    ) -> Result<Self, CloseCode> {
        let state = store.partition(&partition).ok_or(CloseCode::UnknownPartition)?;
        let head = state.position().ok_or(CloseCode::UnknownPartition)?;
        let mine = have.and_then(|have| state.header(have.seq));
        let provider = Box::new(Provider::new(have, head, mine));
        Ok(Providing::Changes { partition, provider, reading: None, unacked: VecDeque::new() })
    }

    /// Answers somebody who wants pages; also says what to send first.
    pub fn pages(
        store: &Store,
        partition: &PartitionId,
        have: Option<Position>,
    ) -> Result<(Self, TreeReply), CloseCode> {
        let state = store.partition(partition).ok_or(CloseCode::UnknownPartition)?;
        let head = state.head.as_ref().ok_or(CloseCode::UnknownPartition)?;
        let proof = state.proof(have.map(|have| have.seq));
        let other = have.and_then(|have| {
            let other = state.header_hash(have.seq)?;
            (other != have.hash).then_some((have, other))
        });
        let first = match other {
            Some((have, other)) => {
                let (header, proof) = match state.header(have.seq) {
                    Some(mine) => (mine, Proof::default()),
                    None => (head, proof.ok_or(CloseCode::Unproved)?),
                };
                TreeReply::Fork { header: header.encode(), other, proof }
            }
            None => tree_head(head, &state.tree, proof.ok_or(CloseCode::Unproved)?),
        };
        Ok((Providing::Pages { tree: Rc::clone(&state.tree) }, first))
    }

    /// Whether it is the changes of `partition`.
    pub fn changes_of(&self, partition: &PartitionId) -> bool {
        matches!(self, Providing::Changes { partition: own, .. } if own == partition)
    }

    /// Whether it is a tree.
    pub fn is_pages(&self) -> bool {
        matches!(self, Providing::Pages { .. })
    }

    /// Whether the peer owes a message.
    pub fn is_owed(&self) -> bool {
        match self {
            Providing::Changes { provider, .. } => provider.awaits_ack(),
            Providing::Pages { .. } => true,
        }
    }

    /// The peer said something. Answers what the protocol forbids.
    pub fn handle_message(
        &mut self,
        bytes: &[u8],
        io: &mut Io<'_>,
        stream: StreamId,
    ) -> Result<(), PeerMisbehaved> {
        match self {
            Providing::Changes { provider, .. } => {
                let request: FollowRequest = codec::decode(bytes)?;
                provider.handle_message(request)
            }
            Providing::Pages { tree } => {
                for reply in serve(tree, &TreeRequest::decode(bytes)?)? {
                    io.send(stream, codec::encode(&reply));
                }
                Ok(())
            }
        }
    }

    /// A partition moved.
    pub fn handle_head(&mut self, moved: &PartitionId, seq: u64) {
        if let Providing::Changes { partition, provider, .. } = self
            && partition == moved
        {
            provider.handle_head(seq);
        }
    }

    /// What was asked of the store was read.
    pub fn handle_stored(&mut self, store: &Store) {
        if let Providing::Changes { partition, provider, reading, .. } = self
            && let Some((from, count_max, bytes_max)) = reading.take()
        {
            let state = store.partition(partition).expect("a provided partition exists");
            provider.handle_read(state.read(from, count_max, bytes_max));
        }
    }

    /// Goes on as far as it gets. Answers whether the stream is finished.
    pub fn step(&mut self, io: &mut Io<'_>, stream: StreamId) -> bool {
        let Providing::Changes { partition, provider, reading, unacked } = self else {
            return false;
        };
        while let Some(action) = provider.poll_action() {
            match action {
                ProviderAction::Read { from, count_max, bytes_max } => {
                    *reading = Some((from, count_max, bytes_max));
                    io.ask_store(stream);
                }
                ProviderAction::Send(reply) => {
                    io.send(stream, codec::encode(&reply));
                    if let FollowReply::ChangeSet { header, .. } = &reply {
                        let header = SignedHeader::decode(header).expect("it was just encoded");
                        unacked.push_back(header.position().seq);
                        assert!(
                            unacked.len() <= WINDOW_CHANGE_SETS,
                            "{partition}: {} change sets are on their way",
                            unacked.len()
                        );
                    }
                }
                ProviderAction::Acked(at) => {
                    let peer = io.peer();
                    if io.net.has_hostile(io.me, peer) {
                        io.oracle.tally.acked += 1;
                    } else {
                        io.oracle.acked(peer, partition, at);
                    }
                    io.store.note_peer(peer, partition, at);
                    while unacked.front().is_some_and(|seq| *seq <= at.seq) {
                        unacked.pop_front();
                    }
                }
                ProviderAction::Finish => {
                    io.net.send(io.conn, io.me, stream, Wire::Finished);
                    return true;
                }
            }
        }
        false
    }
}

/// The first message of a tree stream.
pub fn tree_head(head: &SignedHeader, tree: &Tree, proof: Proof) -> TreeReply {
    TreeReply::Head { header: head.encode(), levels: tree.levels(), root: Vec::new(), proof }
}

/// Answers a request for pages.
pub fn serve(tree: &Tree, request: &TreeRequest) -> Result<Vec<TreeReply>, PeerMisbehaved> {
    let page = |level: u8, key: &[u8]| {
        let found = tree.page(level, key);
        let found = found.filter(|made| key.is_empty() || made.page.first_key == key);
        let what = "a request for a page that is not in the tree";
        found.ok_or(PeerMisbehaved::Unexpected(what))
    };
    let bodies: Vec<Vec<u8>> = match request {
        TreeRequest::Pages { level, keys } => {
            let bodies = keys.iter().map(|key| Ok(page(*level, key)?.body.clone()));
            bodies.collect::<Result<_, PeerMisbehaved>>()?
        }
        TreeRequest::Differences { level, salt, pages } => {
            let told = pages.iter().map(|asked| {
                let page = page(*level, &asked.first_key)?;
                Ok(difference::make(
                    tree.summary.root.suite(),
                    *level,
                    &page.body,
                    salt,
                    &asked.known,
                )?)
            });
            told.collect::<Result<_, PeerMisbehaved>>()?
        }
    };
    let mut replies = Vec::new();
    for body in bodies {
        let parts = body.chunks(PAGE_PART_BYTES_MAX);
        let last = parts.len().saturating_sub(1);
        replies.extend(
            parts
                .enumerate()
                .map(|(index, part)| TreeReply::Part { bytes: part.to_vec(), more: index < last }),
        );
    }
    Ok(replies)
}
