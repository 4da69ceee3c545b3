//! Following a partition: change sets as they come, or the pages of a tree when
//! too much is missing.

use std::{future::Future, sync::Arc, time::Duration};

use protocol::{
    change::{BODY_BYTES_MAX, Change, Position},
    codec::claimed_bytes,
    frame::FRAME_BYTES_MAX,
    hash::Hash,
    id::{NodeId, PartitionId},
    message::{CloseCode, FollowReply},
    session::{
        PeerMisbehaved,
        fetch::TreeFetch,
        follower::{Follower, FollowerAction},
        link::FollowEnd,
    },
};
use store::{Head, Store, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Context, FIRST_FRAME_MAX, Line,
    fetch::{Drive, How, Purpose},
    fork::{self, Compared},
    judge::Judge,
    trouble::{Meaning, Trouble, tell_trouble},
    turns::{SMALL_BYTES, Turns, while_it_lasts},
};
use crate::{
    memory::Grant,
    net::{Connection, FrameReceiver, FrameSender, NetError},
};

/// One partition followed over one connection.
pub(super) struct Follow {
    pub context: Arc<Context>,
    pub connection: Connection,
    pub peer: NodeId,
    pub partition: PartitionId,
    /// The number that the peer had announced.
    pub offered: u64,
    pub progress: mpsc::Sender<FollowEvent>,
    pub turns: Arc<Turns>,
    /// Somebody else waits for the place.
    pub released: CancellationToken,
}

/// A change set of no more than these is judged where it arrives: 10 µs.
const FEW_CHANGES: usize = 64;
/// Bytes of the leaves to which changes belong that cost the writer little: 10 ms. So much
/// is what a few changes touch where records are usual ones.
const LITTLE_WORK_BYTES: u64 = 4 * 1024 * 1024;
/// Own history is taken back from one peer for at most so long if another waits, then it is
/// that one's turn: a peer that shows a proof and nothing else would keep the others out.
const TAKING_BACK_MAX: Duration = Duration::from_secs(120);

/// What a follow task tells its connection.
pub(super) enum FollowEvent {
    /// Something was committed.
    Progress(PartitionId),
    /// The stream ended.
    Ended(PartitionId, FollowEnd),
}

impl Follow {
    /// Follows until the stream ends or is let go of, and reports how.
    pub async fn run(mut self) {
        let released = self.released.clone();
        // What is given to the writer is written; what is taken of a tree is found
        // again.
        let followed = tokio::select! {
            followed = self.follow() => Some(followed),
            () = released.cancelled() => None,
        };
        let end = match followed {
            Some(Ok(end)) => {
                self.no_trouble();
                end
            }
            Some(Err(trouble)) => self.handle_trouble(trouble).await,
            None => {
                self.context.peers.update_through(&self.peer, &self.connection, |state| {
                    state.fetching.remove(&self.partition);
                });
                FollowEnd::Released
            }
        };
        let report = FollowEvent::Ended(self.partition.clone(), end);
        // The connection may be gone.
        let _ = self.progress.send(report).await;
    }

    fn no_trouble(&self) {
        self.context.peers.update_through(&self.peer, &self.connection, |state| {
            state.troubles.remove(&self.partition);
            state.alarming.remove(&self.partition);
        });
    }

    async fn handle_trouble(&self, trouble: Trouble) -> FollowEnd {
        let (partition, peer) = (&self.partition, &self.peer);
        self.context.peers.update_through(peer, &self.connection, |state| {
            state.fetching.remove(partition);
            state.troubles.insert(partition.clone(), trouble.to_string());
            match trouble.needs_a_person() {
                true => state.alarming.insert(partition.clone()),
                false => state.alarming.remove(partition),
            };
        });
        let say = |line| self.context.may_say(peer, line);
        match trouble.meaning() {
            Meaning::TwoHistories if self.is_dropped() => {
                tracing::debug!(%partition, %peer, "what is held here does not count any more");
            }
            Meaning::TwoHistories => {
                tracing::error!(%partition, %peer, reason = %trouble, "the partition is quarantined: it has two signed histories, and nothing is overwritten");
                let (reason, theirs) = (trouble.to_string(), trouble.other_history());
                if let Err(error) = fork::quarantine(&self.context, partition, reason, theirs).await
                {
                    tracing::error!(%partition, %error, "the quarantine could not be noted");
                }
                return FollowEnd::Quarantined;
            }
            Meaning::Quarantined => return FollowEnd::Quarantined,
            Meaning::Misbehaved => {
                self.context.peers.update(peer, |state| state.misbehaved += 1);
                if let Some(unsaid) = say(Line::Misbehaviour) {
                    tracing::warn!(%partition, %peer, problem = %trouble, unsaid, "the peer sent something wrong; nothing of it was kept");
                }
            }
            Meaning::Wrong(what) => {
                self.context.peers.update(peer, |state| state.misbehaved += 1);
                if let Some(unsaid) = say(Line::Misbehaviour) {
                    tracing::error!(%partition, %peer, reason = %trouble, unsaid, "{what}");
                }
            }
            Meaning::InDoubt => {
                if let Some(unsaid) = say(Line::Claim) {
                    tracing::error!(%partition, %peer, reason = %trouble, unsaid, "nothing is written to the partition until this is cleared up");
                }
            }
            Meaning::NotNow(what) => {
                if let Some(unsaid) = say(Line::NotFollowed) {
                    tracing::warn!(%partition, %peer, reason = %trouble, unsaid, "{what}");
                }
            }
            Meaning::Passing(what) => {
                tracing::debug!(%partition, %peer, reason = %trouble, "{what}");
            }
            Meaning::Told => {}
        }
        match trouble.is_refusal() {
            true => FollowEnd::Refused,
            false => FollowEnd::Retry,
        }
    }

    /// Whether `_federation` as it is held here does not count by the hub's newest
    /// anchor, and is about to be fetched again, or was just dropped: then it is
    /// no second history.
    fn is_dropped(&self) -> bool {
        let head = self.context.store.head(&self.partition);
        let registry = self.context.membership.current();
        self.partition.dataset.is_system()
            && match (head, registry) {
                (Some(head), Ok(registry)) => head.signed.verify(&*registry).is_err(),
                _ => true,
            }
    }

    async fn follow(&mut self) -> Result<FollowEnd, Trouble> {
        let store = &self.context.store;
        if let Some(reason) = store.quarantine_reason(&self.partition) {
            // In a box, as all that is seldom: a stream that only waits needs no room for it.
            Box::pin(self.release_if_one_history(reason)).await?;
        }
        // A name that nobody has published takes no room here.
        let registry = self.context.membership.current()?;
        if registry.schema(&self.partition.dataset).is_none() {
            return Err(Trouble::UnknownDataset(self.partition.dataset.clone()));
        }
        if self.context.membership.is_rebuilding() && !self.partition.dataset.is_system() {
            // Who belongs, and whose keys count, is not known.
            return Err(Trouble::Rebuilding);
        }
        if self.partition.origin == *self.context.me() {
            if self.own_history_is_back() {
                return Ok(FollowEnd::Done);
            }
            self.refuse_given_up()?;
            // Where nothing is here, nothing could be written over, and which keys count
            // comes with it.
            let is_empty = self.context.store.head(&self.partition).is_none();
            if !(self.partition.dataset.is_system() && is_empty) {
                // In a box, as all that is seldom: a stream that only waits needs no room
                // for it.
                self.offered = Box::pin(self.prove_own_history()).await?;
            }
        }
        // Several peers may hold what was lost here; each that comes later finds it back.
        let is_own = self.partition.origin == *self.context.me();
        let _turn = match is_own {
            true => {
                let turn = self.context.claims.taking_back.acquire();
                Some(self.while_it_lasts(turn).await)
            }
            false => None,
        };
        if is_own && self.own_history_is_back() {
            return Ok(FollowEnd::Done);
        }
        Box::pin(self.compare_with_what_was_lost()).await?;
        Box::pin(self.look_for_another_history()).await?;
        let store = &self.context.store;
        let have = store.head(&self.partition).map(|head| head.position());
        let follower = Follower::new(self.partition.clone(), have);
        let (mut sender, mut receiver) = self.connection.open_stream().await?;
        let makes_room = CancellationToken::new();
        let others_turn = async {
            match is_own {
                true => {
                    tokio::time::sleep(TAKING_BACK_MAX).await;
                    self.context.claims.taking_back.somebody_waits().await;
                }
                false => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = self.follow_on(follower, &makes_room, &mut sender, &mut receiver) => outcome,
            () = makes_room.cancelled() => Err(Trouble::MadeRoom),
            () = others_turn => Err(Trouble::MadeRoom),
        };
        tell_trouble(outcome, sender, receiver)
    }

    /// What this node has given up is not taken back.
    fn refuse_given_up(&self) -> Result<(), Trouble> {
        let (context, partition) = (&self.context, &self.partition);
        let announced = context
            .peers
            .with(&self.peer, |peer| peer.heads.get(partition).map(|theirs| theirs.position));
        match announced {
            Some(theirs) if context.given_up.contains(&context.store, partition, theirs) => {
                Err(Trouble::given_up(&self.peer, partition, theirs.seq))
            }
            _ => Ok(()),
        }
    }

    /// What was lost of a partition comes back from a history that has the head which was
    /// lost, or ends before it: of another one, the signed header is gone that would show it.
    /// Where a person has chosen among several histories, that has to be the one.
    async fn compare_with_what_was_lost(&self) -> Result<(), Trouble> {
        let (context, partition) = (&self.context, &self.partition);
        let Some(lost) = context.store.lost_head(partition) else { return Ok(()) };
        // The semaphore is never closed.
        let turn = context.claims.turn.acquire().await;
        let compared = fork::compare_with(context, &self.connection, partition, lost);
        let compared = fork::answered(compared).await;
        drop(turn);
        let is_chosen = context.store.held_own_writes().contains_key(partition);
        match compared {
            Ok(Compared::One) => Ok(()),
            Ok(Compared::Behind) if is_chosen => Err(Trouble::Unproven(format!(
                "its history ends before number {}, at which another one was chosen",
                lost.seq
            ))),
            Ok(Compared::Behind) => Ok(()),
            // It has jumped over those headers, so it cannot know.
            Err(Trouble::Net(NetError::Closed(Some(CloseCode::Unproved)))) => Ok(()),
            // What is here of this node's own is not what is wrong.
            Err(trouble)
                if partition.origin == *context.me() && trouble.other_history().is_some() =>
            {
                Err(Trouble::NotWhatWasLost { peer: self.peer.clone(), lost: lost.seq })
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// A peer that is behind sends nothing, so its history is compared with what it has
    /// announced.
    async fn look_for_another_history(&self) -> Result<(), Trouble> {
        let (context, partition) = (&self.context, &self.partition);
        let announced = context
            .peers
            .with(&self.peer, |peer| peer.heads.get(partition).map(|theirs| theirs.position));
        let have = context.store.seq(partition);
        let is_known = |seq: u64, hash: Hash| {
            let same = context.store.is_same(partition, Position { seq, hash })?;
            Ok::<_, StoreError>(same != Some(false))
        };
        let Some(theirs) = announced.filter(|theirs| theirs.seq < have) else {
            return Ok(());
        };
        if is_known(theirs.seq, theirs.hash)? {
            return Ok(());
        }
        // What is announced is signed by nobody.
        let head = fork::answered(fork::head_at(context, &self.connection, partition)).await?;
        match is_known(head.header().seq, head.hash())? {
            true => Ok(()),
            false => Err(Trouble::Fork(Box::new(head))),
        }
    }

    /// A partition that is quarantined is followed again if the peer proves that its
    /// history has what is here by now.
    async fn release_if_one_history(&self, reason: String) -> Result<(), Trouble> {
        let (context, partition, peer) = (&self.context, &self.partition, &self.peer);
        let quarantined =
            || StoreError::Quarantined { partition: partition.clone(), reason: reason.clone() };
        // The semaphore is never closed. A peer serves few trees at once.
        let _turn = context.claims.turn.acquire().await;
        match fork::answered(fork::compare(context, &self.connection, partition)).await {
            Ok(Compared::One) => {
                context.store.release(partition).await?;
                tracing::warn!(%partition, %peer, "the quarantine is over: the peer's history has what is here");
                Ok(())
            }
            // It may be about to take back what is here.
            Ok(Compared::Behind) => Err(Trouble::Unproven(reason)),
            // It may have had no place for the question, or not know.
            Err(trouble @ Trouble::Net(_)) => Err(trouble),
            Err(_) => Err(quarantined().into()),
        }
    }

    /// Asks the peer for its head of this node's own partition. If this node has
    /// signed it, nothing is written to the partition until its history is back;
    /// before that a claim is only a claim. Answers the number that is proven.
    async fn prove_own_history(&self) -> Result<u64, Trouble> {
        let (partition, peer) = (&self.partition, &self.peer);
        let context = &self.context;
        // The semaphore is never closed. Waiting for one's own turn is not the peer's silence.
        let turn = context.claims.turn.acquire().await;
        let proof = tokio::time::timeout(FIRST_FRAME_MAX, self.own_head_at_the_peer()).await;
        drop(turn);
        let problem = match proof {
            Ok(Ok(seq)) => {
                // In this order: who waits for the answer must not write in between.
                context.store.await_own_history(partition, seq);
                if context.claims.proven(partition, peer, seq) {
                    tracing::warn!(
                        %partition, %peer, theirs = seq,
                        "the peer holds more of our own history than we do, with our own signature; it is taken back before anything is written"
                    );
                }
                return Ok(seq);
            }
            // It may come with the next connection.
            Ok(Err(Trouble::Net(error))) => return Err(error.into()),
            // It may be by a key of which the list of members on its way tells.
            Ok(Err(trouble @ Trouble::Misbehaved(_))) if self.members_are_on_their_way() => {
                return Err(Trouble::Unproven(trouble.to_string()));
            }
            Ok(Err(trouble)) => Some(trouble.to_string()),
            Err(_) => None,
        };
        let is_news = match &problem {
            Some(problem) => context.claims.unproven(partition, peer, problem.clone()),
            None => context.claims.unanswered(partition, peer),
        };
        let answered = problem.is_some();
        let problem = problem.unwrap_or_else(|| "it does not answer".to_owned());
        if is_news && let Some(unsaid) = context.may_say(peer, Line::Claim) {
            tracing::error!(
                %partition, %peer, claimed = self.offered, %problem, unsaid,
                "the peer says that it holds more of our own history than we do, and does not prove it; we go on writing"
            );
        }
        if answered {
            context.own_history_answered().await;
        }
        Err(Trouble::Unproven(problem))
    }

    /// Whether the peer says that it has a newer `_federation`.
    fn members_are_on_their_way(&self) -> bool {
        let system = self.context.membership.partition();
        let held = self.context.store.seq(system);
        self.context.peers.with(&self.peer, |state| {
            state.heads.get(system).is_some_and(|theirs| theirs.position.seq > held)
        })
    }

    /// The number of the peer's head of this node's own partition, which this node
    /// has signed and which is above its own.
    async fn own_head_at_the_peer(&self) -> Result<u64, Trouble> {
        // Also a head of another history says that this node must not write.
        let head = fork::head_at(&self.context, &self.connection, &self.partition).await?;
        let ours = self.context.store.seq(&self.partition);
        let theirs = head.header().seq;
        match theirs > ours {
            true => Ok(theirs),
            false => Err(Trouble::Unproven(format!("its head is number {theirs}"))),
        }
    }

    async fn follow_on(
        &self,
        mut follower: Follower,
        makes_room: &CancellationToken,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
    ) -> Result<FollowEnd, Trouble> {
        let store = &self.context.store;
        receiver.limit(FRAME_BYTES_MAX);
        let (told, partition) = (self.progress.clone(), self.partition.clone());
        let waits = move || drop(told.try_send(FollowEvent::Progress(partition.clone())));
        receiver.share_memory(self.turns.frames(makes_room), Box::new(waits));
        let unpacked_memory = self.turns.unpacked(makes_room);
        sender.send(&follower.open()).await?;
        // Of what has arrived and is not committed.
        let mut held: Option<Grant> = None;
        loop {
            while let Some(action) = follower.poll_action() {
                match action {
                    FollowerAction::Commit(set) => {
                        let (position, root) =
                            (set.header().position(), set.header().header().root);
                        if let Some(judge) = Judge::new(&self.context, &self.partition)? {
                            let all = set.changes();
                            match all.len() {
                                0..=FEW_CHANGES => judge.changes(all)?,
                                _ => self.turns.run(|| judge.changes(all)).await?,
                            }
                        }
                        let is_long = match is_much_at_sight(store, &self.partition, set.changes())
                        {
                            Some(is_long) => is_long,
                            None => {
                                self.turns
                                    .run(|| touches_much(store, &self.partition, set.changes()))
                                    .await?
                            }
                        };
                        let admitted = self.while_it_lasts(self.turns.admitted(is_long)).await;
                        let memory = held.take();
                        memory.iter().for_each(Grant::ends_soon);
                        receiver.ends_soon();
                        let done = |took| {
                            drop(memory);
                            admitted.done(took);
                        };
                        let committed = store.commit_replica_of_peer(*set, Box::new(done)).await;
                        if committed.as_ref().is_err_and(StoreError::is_over_quota)
                            && self.peer_is_ahead_of(position.seq)
                        {
                            // What came later may have made it small enough, and what it
                            // has become can be taken without what it was.
                            sender.finish();
                            // What it has sent ahead must not keep the pages' way.
                            receiver.stop(CloseCode::Normal);
                            Box::pin(self.take_pages()).await?;
                            return Ok(FollowEnd::Again);
                        }
                        committed?;
                        follower.handle_committed(position, root);
                        // What was wrong before is not any more.
                        self.no_trouble();
                        let _ =
                            self.progress.try_send(FollowEvent::Progress(self.partition.clone()));
                    }
                    FollowerAction::Send(message) => sender.send(&message).await?,
                    FollowerAction::TakePages => {
                        sender.finish();
                        let have = store.head(&self.partition).map(|head| head.position());
                        // Another connection's stream may have caught up meanwhile.
                        if have == follower.have() {
                            self.drop_what_the_peer_has(have).await?;
                            Box::pin(self.take_pages())
                                .await
                                .map_err(|trouble| self.doubt(trouble))?;
                        }
                        return Ok(FollowEnd::Again);
                    }
                    FollowerAction::Fork(header) => return Err(Trouble::Fork(header)),
                }
            }
            if self.own_history_is_back() {
                sender.finish();
                sender.drained().await;
                return Ok(FollowEnd::Done);
            }
            drop(held.take());
            let Some(frame) = receiver.receive().await? else {
                return Ok(FollowEnd::Retry);
            };
            let reply: FollowReply =
                protocol::codec::decode(&frame).map_err(PeerMisbehaved::from)?;
            drop(frame);
            let unpacked = match &reply {
                FollowReply::ChangeSet { body, .. } => unpacks(body),
                _ => 0,
            };
            if unpacked > SMALL_BYTES {
                held = Some(self.while_it_lasts(unpacked_memory.take(unpacked)).await);
            }
            let registry = self.context.membership.current()?;
            let take = || follower.handle_message(reply, &*registry);
            match unpacked <= SMALL_BYTES {
                true => take()?,
                false => self.turns.run(take).await?,
            }
        }
    }

    /// [`while_it_lasts`], said to the connection.
    async fn while_it_lasts<T>(&self, turn: impl Future<Output = T>) -> T {
        while_it_lasts(turn, &|| {
            let progress = FollowEvent::Progress(self.partition.clone());
            let _ = self.progress.try_send(progress);
        })
        .await
    }

    /// Whether the peer has told of more than this change set.
    fn peer_is_ahead_of(&self, seq: u64) -> bool {
        let theirs = self
            .context
            .peers
            .with(&self.peer, |peer| peer.heads.get(&self.partition).map(|head| head.position.seq));
        theirs.unwrap_or(0).max(self.offered) > seq
    }

    /// Of an own partition that the peer holds all of, its own acknowledgement says so, the
    /// peer's state is taken without a proof of what lies between: it may have jumped over
    /// that itself.
    async fn drop_what_the_peer_has(&self, have: Option<Position>) -> Result<(), Trouble> {
        let (store, partition) = (&self.context.store, &self.partition);
        let acked = store.acks(partition).get(&self.peer).map_or(0, |ack| ack.seq);
        let is_there = have.is_some_and(|have| have.seq <= acked);
        if partition.origin == *self.context.me() && !partition.dataset.is_system() && is_there {
            tracing::warn!(%partition, peer = %self.peer, acked, "our own history is fetched again: the peer has acknowledged all that is here, and holds more");
            let head = fork::head_at(&self.context, &self.connection, partition);
            store.give_up(fork::answered(head).await?, have).await?;
        }
        Ok(())
    }

    /// A peer that cannot show that its history has what is here leaves it in doubt: it has
    /// jumped over that itself.
    fn doubt(&self, trouble: Trouble) -> Trouble {
        let (partition, peer) = (&self.partition, self.peer.clone());
        let have = self.context.store.head(partition).map(|head| head.seq());
        match (trouble, have) {
            (Trouble::Net(NetError::Closed(Some(CloseCode::Unproved))), Some(have)) => {
                match partition.origin == *self.context.me() {
                    true => Trouble::InDoubt { peer, have },
                    false => Trouble::Unproved { peer, partition: partition.to_string(), have },
                }
            }
            (trouble, _) => trouble,
        }
    }

    /// Our own partition is followed only to get back what the peer had.
    fn own_history_is_back(&self) -> bool {
        self.partition.origin == *self.context.me()
            && self
                .context
                .store
                .head(&self.partition)
                .is_some_and(|head| head.seq() >= self.offered)
    }

    async fn take_pages(&self) -> Result<(), Trouble> {
        let (partition, peer) = (&self.partition, &self.peer);
        self.context.peers.update_through(peer, &self.connection, |state| {
            state.fetching.insert(partition.clone());
            state.troubles.remove(partition);
        });
        let fetch = match self.context.store.head(partition) {
            Some(head) => {
                if let Some(unsaid) = self.context.may_say(peer, Line::Pages) {
                    tracing::info!(%partition, %peer, unsaid, "comparing with the peer's state");
                }
                TreeFetch::comparing(partition.clone(), head.position(), super::salt())
            }
            None => {
                if let Some(unsaid) = self.context.may_say(peer, Line::Pages) {
                    tracing::info!(%partition, %peer, unsaid, "fetching the whole state");
                }
                TreeFetch::new(partition.clone(), None)
            }
        };
        let progress = || {
            let _ = self.progress.try_send(FollowEvent::Progress(partition.clone()));
        };
        let _turn = self.while_it_lasts(self.turns.fetches.acquire()).await;
        let drive = Drive {
            context: &self.context,
            connection: &self.connection,
            turns: &self.turns,
            progress: &progress,
        };
        let fetched = drive.run(fetch, Purpose::Follow).await?;
        self.context.peers.update_through(peer, &self.connection, |state| {
            state.fetching.remove(partition);
        });
        let (seq, records) = (fetched.head.seq(), fetched.head.summary.records);
        let what = match fetched.how {
            How::Applied => "what differed is applied",
            How::Rebuilt | How::Healed(_) => "the whole state is here",
        };
        if let Some(unsaid) = self.context.may_say(peer, Line::Pages) {
            tracing::info!(%partition, %peer, seq, records, unsaid, "{what}");
        }
        Ok(())
    }
}

/// Bytes that a change set's body has, or says that it has, when it is unpacked.
fn unpacks(body: &[u8]) -> usize {
    match claimed_bytes(body) {
        claimed @ ..=BODY_BYTES_MAX => claimed.max(body.len()),
        // It is refused before that.
        _ => body.len(),
    }
}

/// Whether the writer takes so long for these changes that they go alone, where that is
/// known without a look at the tree.
fn is_much_at_sight(store: &Store, partition: &PartitionId, changes: &[Change]) -> Option<bool> {
    let has_little = |head: Arc<Head>| head.summary.bytes <= LITTLE_WORK_BYTES;
    let is_much = changes.len() > FEW_CHANGES;
    (is_much || store.head(partition).is_none_or(has_little)).then_some(is_much)
}

/// Whether few changes take the writer long because they belong to large leaves. Reads
/// much of the store.
fn touches_much(
    store: &Store,
    partition: &PartitionId,
    changes: &[Change],
) -> Result<bool, StoreError> {
    let pages = store.live_pages(partition);
    let touched = pages.map(|pages| pages.touched_bytes(changes, LITTLE_WORK_BYTES));
    Ok(touched.transpose()?.is_some_and(|bytes| bytes > LITTLE_WORK_BYTES))
}

#[cfg(test)]
mod tests {
    use protocol::suite::Suite;
    use store::{Options, OwnChanges};

    use super::*;

    fn put(key: &str, value: usize) -> Change {
        Change::Put { key: key.as_bytes().to_vec(), value: vec![b'a'; value] }
    }

    #[test]
    fn much_work_is_many_changes_or_few_that_touch_large_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { suite: Suite::One, cache_mb: 16, disk_reserve_mb: Some(1) };
        let store = Store::open(directory.path(), &options).unwrap();
        store.set_signer(Arc::new(Suite::One.signing_key(&[7; 32]).unwrap()));
        let partition = PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap();
        let is_much = |keys: &[&str]| {
            let changes: Vec<_> = keys.iter().map(|key| put(key, 9)).collect();
            let at_sight = is_much_at_sight(&store, &partition, &changes);
            at_sight.unwrap_or_else(|| touches_much(&store, &partition, &changes).unwrap())
        };
        let federation = PartitionId::parse_full("zhengzhou/_federation/410100/*").unwrap();
        let commit = |partition: &PartitionId, changes| {
            let partition = partition.clone();
            let own = OwnChanges { partition, changes, schema_version: 1, keep_body: true };
            store.commit_own_later(own).unwrap().wait().unwrap();
        };
        commit(&federation, vec![put("hub", 1)]);
        assert!(!is_much(&["a"]) && is_much(&["a"; FEW_CHANGES + 1]), "without a tree");
        // Leaves of 160 records: those of `a` have 3 MiB each, those of `b` 16 KiB.
        for (leaf, value) in [("a0", 20_000), ("a1", 20_000), ("b0", 100), ("b1", 100)] {
            commit(&partition, (0..160).map(|n| put(&format!("{leaf}{n:03}"), value)).collect());
        }
        assert!(!is_much(&["a0001"]) && !is_much(&["a1001", "b0001", "b1001"]));
        assert!(is_much(&["a0001", "a1001"]));
        let many: Vec<_> = (0..FEW_CHANGES).map(|n| format!("b0{n:03}")).collect();
        let mut many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(!is_much(&many));
        many.push("b0999");
        assert!(is_much(&many));
    }
}
