//! Providing partitions: answers the streams that a peer opens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use certs::verify::VerifiedPeer;
use protocol::{
    change::{ChangeSet, Position, SignedHeader},
    codec::claimed_bytes,
    difference,
    frame::ACK_FRAME_BYTES_MAX,
    id::PartitionId,
    message::{
        ASKING_FRAME_BYTES_MAX, CloseCode, FollowRequest, KnownPage, NewKeyReply, Open,
        PAGE_PART_BYTES_MAX, ROOT_BYTES_MAX, RenewReply, RequestRefused, TreeReply, TreeRequest,
    },
    session::{
        PeerMisbehaved,
        entitle::Ends,
        provider::{Provider, ProviderAction},
    },
    tree::Pages as _,
};
use store::{Snapshot, Store, StoreError, now_ms};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Context, FIRST_FRAME_MAX, Line, Office, blame,
    prove::{Proved, prove},
    turns::Turns,
};
use crate::{
    memory::{Account, Grant},
    net::{Connection, FrameReceiver, FrameSender, NetError},
};

/// Trees that one peer may read at once: each holds a snapshot, for which the
/// writer saves pages.
const TREES_MAX: usize = 4;
/// What was committed so lately is read where it is asked for: it still lies in
/// memory, and whoever follows waits for it.
const IN_MEMORY_MS: i64 = 1000;
/// Pages that are made at once, before they are sent.
const SHOWN_BYTES: usize = 256 * 1024;
/// Bytes of pages that are unpacked for that: 5 ms. Some pages are but little of what
/// they say, and of equal ones little is sent.
const UNPACKED_BYTES: usize = 4 * 1024 * 1024;
/// Streams by which one peer may follow the same partition: the old one may not
/// have ended when the next begins. What is read for each and waits to be taken has a
/// bound of all of them together ([`Turns::to_send`]).
const FOLLOWERS_MAX: u32 = 3;

/// Answers the streams of one connection.
pub(super) struct Streams {
    context: Arc<Context>,
    connection: Connection,
    ends: Ends,
    trees: Semaphore,
    turns: Arc<Turns>,
    /// One request to the office at a time.
    requests: Semaphore,
    /// Live streams for each partition that the peer follows.
    following: Mutex<BTreeMap<PartitionId, u32>>,
}

/// One of [`Streams::following`].
struct Counted<'a> {
    streams: &'a Streams,
    partition: PartitionId,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut following =
            self.streams.following.lock().unwrap_or_else(|error| error.into_inner());
        match following.get_mut(&self.partition) {
            Some(count) if *count > 1 => *count -= 1,
            // Nothing is kept of what nobody follows.
            _ => {
                following.remove(&self.partition);
            }
        }
    }
}

/// What is read once there is memory for it.
#[derive(Clone, Copy)]
enum Reading {
    /// Change sets that together are short.
    Short { from: u64, count_max: usize, bytes_max: usize },
    /// One that is not.
    Long { from: u64 },
}

/// What a look for change sets has found.
enum Looked {
    /// These, or that they are not kept.
    Read(Option<Vec<ChangeSet>>),
    /// The first one has up to so many bytes, which need memory.
    Long(usize),
}

/// Why a stream was given up.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error(transparent)]
    Net(NetError),
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("partition {0} is unknown here")]
    UnknownPartition(PartitionId),
    #[error("others, for whom less is held, have the place")]
    MadeRoom,
    #[error("what lies between the follower's head and that of {0} was jumped over here")]
    Unproved(PartitionId),
}

impl From<NetError> for NotServed {
    fn from(error: NetError) -> Self {
        blame(error).map_or_else(Self::Misbehaved, Self::Net)
    }
}

impl NotServed {
    fn code(&self) -> CloseCode {
        match self {
            NotServed::Net(error) if error.is_silence() => CloseCode::Silent,
            NotServed::Net(_) => CloseCode::Normal,
            NotServed::Misbehaved(problem) => problem.code(),
            NotServed::Store(_) | NotServed::MadeRoom => CloseCode::Unavailable,
            NotServed::Unproved(_) => CloseCode::Unproved,
            NotServed::UnknownPartition(_) => CloseCode::UnknownPartition,
        }
    }
}

impl Streams {
    pub fn new(
        context: Arc<Context>,
        connection: Connection,
        ends: Ends,
        turns: Arc<Turns>,
    ) -> Self {
        Self {
            turns,
            context,
            connection,
            ends,
            trees: Semaphore::new(TREES_MAX),
            requests: Semaphore::new(1),
            following: Mutex::default(),
        }
    }

    /// Serves one stream to its end.
    pub async fn serve(self: Arc<Self>, mut sender: FrameSender, mut receiver: FrameReceiver) {
        let peer = &self.ends.peer;
        match self.answer(&mut sender, &mut receiver).await {
            Ok(()) => sender.finish(),
            Err(trouble) => {
                sender.reset(trouble.code());
                receiver.stop(trouble.code());
                match trouble {
                    NotServed::Misbehaved(problem) => {
                        self.context.peers.update(peer, |state| state.misbehaved += 1);
                        if let Some(unsaid) = self.context.may_say(peer, Line::Misbehaviour) {
                            tracing::warn!(%peer, %problem, unsaid, "the peer broke the protocol; its stream is closed");
                        }
                    }
                    NotServed::Store(error) => {
                        if let Some(unsaid) = self.context.may_say(peer, Line::OurFailure) {
                            tracing::warn!(%peer, %error, unsaid, "a partition could not be read");
                        }
                    }
                    trouble => tracing::debug!(%peer, %trouble, "a stream ended"),
                }
            }
        }
    }

    async fn answer(
        &self,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
    ) -> Result<(), NotServed> {
        let first = tokio::time::timeout(FIRST_FRAME_MAX, receiver.receive())
            .await
            .map_err(|_| NetError::NoAnswer)??;
        let Some(first) = first else {
            return Ok(());
        };
        match Open::decode(&first).map_err(PeerMisbehaved::from)? {
            Open::Renew(request) => {
                let answer = self.ask_office(move |office, peer| office.renew(peer, &request));
                let reply = match answer.await? {
                    Ok(chain) => RenewReply::Issued { chain },
                    Err(refused) => RenewReply::Refused(refused),
                };
                Ok(sender.send(&reply).await?)
            }
            Open::NewKey(request) => {
                let answer = self.ask_office(move |office, peer| office.new_key(peer, &request));
                let reply = match answer.await? {
                    Ok(federation_seq) => NewKeyReply::Registered { federation_seq },
                    Err(refused) => NewKeyReply::Refused(refused),
                };
                Ok(sender.send(&reply).await?)
            }
            Open::Control(_) => Err(PeerMisbehaved::Unexpected("a second control stream").into()),
            Open::Follow { partition, have } => {
                self.check_entitled(&partition)?;
                receiver.limit(ACK_FRAME_BYTES_MAX);
                let makes_room = CancellationToken::new();
                let provided = tokio::select! {
                    provided =
                        self.provide(partition.clone(), have, &makes_room, sender, receiver) => provided,
                    () = makes_room.cancelled() => Err(NotServed::MadeRoom),
                };
                self.heed_no_room(&partition, provided)
            }
            Open::Tree { partition, have } => {
                // The hub may heal what it owns by a member's copy of it.
                if !self.ends.concerns_both(&partition) {
                    return Err(PeerMisbehaved::NotEntitled(partition.to_string()).into());
                }
                receiver.limit(ASKING_FRAME_BYTES_MAX);
                let shown = self.show_tree(partition.clone(), have, sender, receiver).await;
                self.heed_no_room(&partition, shown)
            }
        }
    }

    /// Notes it if the peer has given up a stream for lack of room.
    fn heed_no_room(
        &self,
        partition: &PartitionId,
        outcome: Result<(), NotServed>,
    ) -> Result<(), NotServed> {
        if let Err(NotServed::Net(NetError::Closed(Some(CloseCode::NoRoom)))) = &outcome {
            self.note_room(partition, false);
        }
        outcome
    }

    /// Whether the peer has room for a partition of this node's.
    fn note_room(&self, partition: &PartitionId, has_room: bool) {
        if partition.origin != *self.context.me() {
            return;
        }
        let peer = &self.ends.peer;
        let mut is_news = false;
        self.context.peers.update_through(peer, &self.connection, |state| {
            is_news = match has_room {
                true => state.no_room.remove(partition),
                false => state.no_room.insert(partition.clone()),
            };
        });
        if is_news && let Some(unsaid) = self.context.may_say(peer, Line::Room) {
            match has_room {
                true => tracing::info!(%partition, %peer, unsaid, "the peer has room again"),
                false => {
                    tracing::warn!(%partition, %peer, unsaid, "{}", CloseCode::NoRoom);
                }
            }
        }
    }

    /// Asks the hub's office, one request of a connection at a time.
    async fn ask_office<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Office, &VerifiedPeer) -> Result<T, RequestRefused> + Send + 'static,
    ) -> Result<Result<T, RequestRefused>, NotServed> {
        let (Some(office), Some(peer)) = (self.context.office.clone(), self.connection.peer())
        else {
            return Err(PeerMisbehaved::Unexpected("a request that only a hub serves").into());
        };
        let Ok(_permit) = self.requests.try_acquire() else {
            return Ok(Err(RequestRefused::TooOften));
        };
        let peer = peer.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&*office, &peer)).await;
        // It only fails when the daemon is ending.
        Ok(answer.unwrap_or(Err(RequestRefused::Failed)))
    }

    fn check_entitled(&self, partition: &PartitionId) -> Result<(), NotServed> {
        if self.ends.may_follow(&self.ends.peer, partition) {
            Ok(())
        } else {
            Err(PeerMisbehaved::NotEntitled(partition.to_string()).into())
        }
    }

    async fn provide(
        &self,
        partition: PartitionId,
        have: Option<Position>,
        makes_room: &CancellationToken,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
    ) -> Result<(), NotServed> {
        let _counted = self.count_follow(&partition)?;
        let store = &self.context.store;
        let unknown = || NotServed::UnknownPartition(partition.clone());
        // What is committed behind the head that is seen here comes as a move.
        let mut moves = store.moves(&partition).ok_or_else(unknown)?;
        let head = store.head(&partition).ok_or_else(unknown)?;
        if have == Some(head.position()) {
            // It has taken it by pages.
            self.note_room(&partition, true);
        }
        let mine = match have {
            Some(have) => self.turns.run(|| mine_at(store, &partition, have)).await?,
            None => None,
        };
        let mut provider = Provider::new(have, head.position(), mine.as_ref());
        let memory = self.turns.to_send(makes_room);
        // Of what was read last.
        let mut held: Option<Grant> = None;
        // Acknowledgements are heard while change sets wait for memory, of which they keep
        // some until they have gone out.
        let mut awaited = None;
        loop {
            while let Some(action) = provider.poll_action() {
                match action {
                    ProviderAction::Read { from, count_max, bytes_max } => {
                        let read = Reading::Short { from, count_max, bytes_max };
                        awaited = Some((read, Box::pin(memory.take(bytes_max))));
                    }
                    ProviderAction::Send(reply) => sender.send_long(reply).await?,
                    ProviderAction::Acked(position) => {
                        self.note_room(&partition, true);
                        store.record_ack(&partition, &self.ends.peer, position).await?;
                    }
                    ProviderAction::Finish => {
                        sender.finish();
                        sender.drained().await;
                        return Ok(());
                    }
                }
            }
            drop(held.take());
            let there_is_memory = async {
                match &mut awaited {
                    Some((read, memory)) => (*read, memory.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (read, taken) = there_is_memory => {
                    (awaited, held) = (None, Some(taken));
                    match self.read(&partition, read).await? {
                        Looked::Read(sets) => provider.handle_read(sets),
                        Looked::Long(bytes) => {
                            held = None;
                            let Reading::Short { from, .. } = read else { continue };
                            awaited = Some((Reading::Long { from }, Box::pin(memory.take(bytes))));
                        }
                    }
                }
                frame = receiver.receive_if(provider.awaits_ack()) => {
                    let Some(frame) = frame? else {
                        return Ok(());
                    };
                    let request: FollowRequest =
                        protocol::codec::decode(&frame).map_err(PeerMisbehaved::from)?;
                    provider.handle_message(request)?;
                }
                moved = moves.changed() => {
                    moved.map_err(|_| StoreError::Closed)?;
                    // A large first load is told of when it is done.
                    if !store.is_loading(&partition) {
                        provider.handle_head(store.seq(&partition));
                    }
                }
            }
        }
    }

    /// Reads change sets, beside the runtime's threads unless the first one was just
    /// committed.
    async fn read(&self, partition: &PartitionId, read: Reading) -> Result<Looked, StoreError> {
        let (Reading::Short { from, .. } | Reading::Long { from }) = read;
        let store = &self.context.store;
        let look = || match read {
            Reading::Long { from } => store.change_sets(partition, from, 1, 0).map(Looked::Read),
            Reading::Short { from, count_max, bytes_max } => {
                match store.body_bytes_max(partition, from)? {
                    Some(bytes) if bytes > bytes_max => Ok(Looked::Long(bytes)),
                    _ => store.change_sets(partition, from, count_max, bytes_max).map(Looked::Read),
                }
            }
        };
        let head = self.context.store.head(partition).filter(|head| head.seq() == from);
        let looked = |looked: Result<Looked, StoreError>| match looked {
            // What is damaged is as good as not kept: the follower takes pages, and does not
            // come back to it again and again.
            Err(StoreError::Damaged { .. }) if !partition.dataset.is_system() => {
                Ok(Looked::Read(None))
            }
            looked => looked,
        };
        let in_memory = head.is_some_and(|head| {
            // A clock may have been set back.
            (0..IN_MEMORY_MS).contains(&now_ms().saturating_sub(head.updated_ms))
        });
        looked(if in_memory { look() } else { self.turns.run(look).await })
    }

    /// Counts a stream that follows `partition` until the answer is dropped.
    fn count_follow(&self, partition: &PartitionId) -> Result<Counted<'_>, PeerMisbehaved> {
        let mut following = self.following.lock().unwrap_or_else(|error| error.into_inner());
        let count = following.entry(partition.clone()).or_default();
        if *count >= FOLLOWERS_MAX {
            return Err(PeerMisbehaved::Unexpected("one more stream for the same partition"));
        }
        *count += 1;
        Ok(Counted { streams: self, partition: partition.clone() })
    }

    async fn show_tree(
        &self,
        partition: PartitionId,
        have: Option<Position>,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
    ) -> Result<(), NotServed> {
        let Ok(_permit) = self.trees.try_acquire() else {
            return Err(PeerMisbehaved::Unexpected("one more tree stream").into());
        };
        let now = self.context.now();
        self.turns.trees.spend(1, now);
        tokio::time::sleep(self.turns.trees.wait(now)).await;
        let place = self.context.shown.enter(&self.ends.peer, &partition, self.context.now());
        let place = place.ok_or(NotServed::MadeRoom)?;
        let makes_room = place.makes_room.child_token();
        tokio::select! {
            shown =
                self.show_whole_tree(partition, have, &makes_room, sender, receiver) => shown,
            () = makes_room.cancelled() => Err(NotServed::MadeRoom),
        }
    }

    async fn show_whole_tree(
        &self,
        partition: PartitionId,
        have: Option<Position>,
        makes_room: &CancellationToken,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
    ) -> Result<(), NotServed> {
        let memory = self.turns.to_send(makes_room);
        let snapshot = self.context.store.snapshot_for_peer(&partition).await?;
        let mut snapshot =
            snapshot.ok_or_else(|| NotServed::UnknownPartition(partition.clone()))?;
        let head = snapshot.head();
        let store = &self.context.store;
        let proof = match self.turns.run(|| prove(store, &partition, head, have)).await? {
            Some(Proved::InHistory(proof)) => proof,
            Some(Proved::Other(fork)) => {
                sender.send(&fork).await?;
                return Ok(());
            }
            None => return Err(NotServed::Unproved(partition)),
        };
        let levels = head.summary.pages.len() as u8;
        let header = head.signed.encode();
        let root = match levels {
            0 | 1 => None,
            _ => {
                let root = self.turns.run(|| snapshot.seek(levels - 1, &[])).await?;
                root.map(|(_, body)| body)
            }
        };
        let root = root.filter(|body| body.len() <= ROOT_BYTES_MAX).unwrap_or_default();
        sender.send(&TreeReply::Head { header, levels, root, proof }).await?;
        tracing::debug!(%partition, peer = %self.ends.peer, address = %self.connection.address(), "showing the tree");
        while let Some(frame) = receiver.receive_owed().await? {
            let request = TreeRequest::decode(&frame).map_err(PeerMisbehaved::from)?;
            // Above the tree lie a store's own tables.
            if request.level() >= levels {
                return Err(
                    PeerMisbehaved::Unexpected("a request for a level above the tree").into()
                );
            }
            match request {
                TreeRequest::Pages { level, keys } => {
                    let make = |snapshot: &mut Snapshot, key: &Vec<u8>| {
                        let body = page(snapshot, level, key)?;
                        // A leaf that has a patch is unpacked and packed again.
                        let unpacked = if level == 0 { claimed_bytes(&body) } else { 0 };
                        Ok((body, unpacked))
                    };
                    self.show(sender, &mut snapshot, &keys, &memory, make).await?;
                }
                TreeRequest::Differences { level, salt, pages } => {
                    let suite = self.ends.suite;
                    let make = |snapshot: &mut Snapshot, asked: &KnownPage| {
                        let (key, known) = (&asked.first_key, &asked.known);
                        if level == 0 {
                            let leaf = in_tree(key, snapshot.leaf(key)?)?;
                            let told = difference::make_leaf(suite, &leaf, &salt, known);
                            return Ok((told, leaf.bytes() as usize));
                        }
                        let body = page(snapshot, level, key)?;
                        let told = difference::make(suite, level, &body, &salt, known);
                        Ok((told.map_err(StoreError::from)?, claimed_bytes(&body)))
                    };
                    self.show(sender, &mut snapshot, &pages, &memory, make).await?;
                }
            }
        }
        Ok(())
    }
}

impl Streams {
    /// Sends what `make` gives for each of these, in their order, with the bytes that it
    /// unpacked for that. It reads and hashes: some at a time, so that no more than
    /// [`SHOWN_BYTES`] and one page are held, and others have their turn. A longer page takes
    /// of the memory.
    async fn show<T>(
        &self,
        sender: &mut FrameSender,
        snapshot: &mut Snapshot,
        asked: &[T],
        memory: &Account,
        make: impl Fn(&mut Snapshot, &T) -> Result<(Vec<u8>, usize), NotServed>,
    ) -> Result<(), NotServed> {
        let mut asked = asked.iter().peekable();
        let mut held = None;
        while asked.peek().is_some() {
            let made = self.turns.run(|| {
                let (mut made, mut bytes, mut unpacked) = (Vec::new(), 0, 0);
                while bytes < SHOWN_BYTES
                    && unpacked < UNPACKED_BYTES
                    && let Some(one) = asked.peek()
                {
                    let (page, more) = make(snapshot, one)?;
                    if page.len() > SHOWN_BYTES && held.is_none() {
                        held = memory.try_take(page.len());
                        if held.is_none() {
                            // It is made again when there is some.
                            return Ok((made, page.len()));
                        }
                    }
                    asked.next();
                    bytes += page.len();
                    unpacked += more;
                    made.push(page);
                }
                Ok::<_, NotServed>((made, 0))
            });
            let (made, too_long) = made.await?;
            for page in made {
                send_page(sender, &page).await?;
            }
            held = match too_long {
                0 => None,
                bytes => Some(memory.take(bytes).await),
            };
        }
        Ok(())
    }
}

/// This node's own header at the number where a follower is. One that is damaged is as
/// good as one that is not kept any more: the follower takes pages, and hears nothing of
/// two histories. Of `_federation` nobody takes pages for that, since whoever joins is
/// sent all change sets.
fn mine_at(
    store: &Store,
    partition: &PartitionId,
    have: Position,
) -> Result<Option<SignedHeader>, StoreError> {
    let mine = store
        .is_same(partition, have)
        .and_then(|same| same.map_or(Ok(None), |_| store.header_at(partition, have.seq)));
    match mine {
        Err(StoreError::Damaged { .. }) if !partition.dataset.is_system() => Ok(None),
        mine => mine,
    }
}

/// The page of the tree that begins with `key`; the first one of its level if
/// that is empty.
fn page(snapshot: &mut Snapshot, level: u8, key: &[u8]) -> Result<Vec<u8>, NotServed> {
    in_tree(key, snapshot.seek(level, key)?)
}

/// What was found, if it begins with the key that was asked for.
fn in_tree<T>(key: &[u8], found: Option<(Vec<u8>, T)>) -> Result<T, NotServed> {
    match found.filter(|(first, _)| key.is_empty() || *first == key) {
        Some((_, page)) => Ok(page),
        None => {
            let what = "a request for a page that is not in the tree";
            Err(PeerMisbehaved::Unexpected(what).into())
        }
    }
}

async fn send_page(sender: &mut FrameSender, body: &[u8]) -> Result<(), NetError> {
    let mut parts = body.chunks(PAGE_PART_BYTES_MAX).peekable();
    while let Some(part) = parts.next() {
        let (bytes, more) = (part.to_vec(), parts.peek().is_some());
        sender.send(&TreeReply::Part { bytes, more }).await?;
    }
    Ok(())
}
