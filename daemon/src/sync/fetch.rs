//! Drives a fetch of a peer's tree over one stream into the store.
//!
//! Three things may come of it: the differences applied in place, a new
//! generation of pages, or damaged pages replaced under the head that is there.
//! [`super::follow`] wants one of the first two, [`super::repair`] the last.

use std::sync::Arc;

use protocol::{
    difference::Own,
    message::{CloseCode, PAGE_PART_BYTES_MAX, TreeReply},
    page::PageRef,
    session::{
        PeerMisbehaved,
        fetch::{ArrivedLeaf, FetchAction, FetchedLeaf, Piece, ShownHead, TreeFetch},
    },
};
use store::{
    Comparison, Head, Healed, Healing, ReadyLeaf, Staging, Store, StoreError, cores::on_all_cores,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    judge::{Judge, Unfit},
    trouble::{Trouble, tell_trouble},
    turns::{FETCHED_FOR_SURE, SMALL_BYTES, Turns, while_it_lasts},
};
use crate::{
    memory::{Account, Grant},
    net::{Connection, FrameReceiver, FrameSender, NetError},
};

/// Largest frame of a provider's: a part of a page; a head with a root page is
/// shorter.
const PART_FRAME_BYTES_MAX: usize = PAGE_PART_BYTES_MAX + 1024;

/// Bytes of own leaves that are unpacked and hashed in one turn: 10 ms.
const RESOLVED_BYTES: u64 = 16 * 1024 * 1024;

/// Memory by which a fetch grows: the pages of a usual stretch.
const GROWS_BY: usize = 4 * 1024 * 1024;

/// What a fetch has come to.
pub(super) struct Fetched {
    pub head: Arc<Head>,
    pub how: How,
}

/// How a replica has come to the peer's state.
#[derive(Debug)]
pub(super) enum How {
    /// What differed was applied in place.
    Applied,
    /// All leaves were put together anew.
    Rebuilt,
    /// It was there already but for damaged pages.
    Healed(Healed),
}

/// What a fetch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To come to a newer state.
    Follow,
    /// To heal pages under the head that is here, or to come to a newer state, which has
    /// that in its history.
    Repair,
}

/// Where leaves go.
enum Sink {
    None,
    Comparison(Comparison),
    Staging(Staging),
    Healing(Healing, Arc<Head>),
}

/// What drives a fetch.
pub(super) struct Drive<'a> {
    pub context: &'a Context,
    pub connection: &'a Connection,
    pub turns: &'a Turns,
    /// Called when something has arrived.
    pub progress: &'a (dyn Fn() + Sync),
}

/// What the actions of a fetch need.
struct Means<'a> {
    store: &'a Store,
    turns: &'a Turns,
    judge: Option<Judge>,
    memory: FetchMemory,
}

/// The memory that a fetch may use.
struct FetchMemory {
    granted: Grant,
    bytes: usize,
}

impl FetchMemory {
    async fn begin(of: &Account) -> Self {
        Self { granted: of.take(FETCHED_FOR_SURE).await, bytes: FETCHED_FOR_SURE }
    }

    /// Waits until it has so much.
    async fn need(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.bytes = bytes.next_multiple_of(GROWS_BY);
            self.granted.grow_to(self.bytes).await;
        }
    }

    /// The same, if it may have it now.
    fn try_need(&mut self, bytes: usize) -> bool {
        let more = bytes.max(self.bytes).next_multiple_of(GROWS_BY);
        let has = bytes <= self.bytes || self.granted.try_grow_to(more);
        if has && bytes > self.bytes {
            self.bytes = more;
        }
        has
    }
}

impl Drive<'_> {
    /// Runs `fetch` to its end on a stream of its own.
    pub async fn run(self, fetch: TreeFetch, purpose: Purpose) -> Result<Fetched, Trouble> {
        let (mut sender, mut receiver) = self.connection.open_stream().await?;
        let makes_room = CancellationToken::new();
        let account = self.turns.fetched(&makes_room);
        let outcome = tokio::select! {
            outcome = self.take(fetch, purpose, &account, &mut sender, &mut receiver) => outcome,
            () = makes_room.cancelled() => Err(Trouble::MadeRoom),
        };
        tell_trouble(outcome, sender, receiver)
    }

    async fn take(
        &self,
        mut fetch: TreeFetch,
        purpose: Purpose,
        account: &Account,
        sender: &mut FrameSender,
        receiver: &mut FrameReceiver,
    ) -> Result<Fetched, Trouble> {
        let Drive { context, turns, progress, .. } = *self;
        let mut means = Means {
            store: &context.store,
            turns,
            judge: Judge::new(context, fetch.partition())?,
            memory: while_it_lasts(FetchMemory::begin(account), progress).await,
        };
        let mut sink = Sink::None;
        receiver.limit(PART_FRAME_BYTES_MAX);
        sender.send(&fetch.open()).await?;
        loop {
            while let Some(action) = fetch.poll_action() {
                if let FetchAction::Send(request) = action {
                    sender.send(&request).await?;
                    continue;
                }
                // What is done here is not the peer's silence.
                let acts = sink.act(&mut means, &mut fetch, action, purpose);
                if let Some(fetched) = while_it_lasts(acts, progress).await? {
                    sender.finish();
                    return Ok(fetched);
                }
            }
            let frame = tokio::select! {
                biased;
                frame = receiver.receive_owed() => frame?,
                // What has arrived is not held back for what has not.
                () = tokio::task::yield_now(), if fetch.has_unchecked() => {
                    fetch.check_arrived();
                    continue;
                }
            };
            let Some(frame) = frame else {
                return Err(NetError::Closed(Some(CloseCode::Unavailable)).into());
            };
            let arrived = frame.len();
            let reply = TreeReply::decode(&frame).map_err(PeerMisbehaved::from)?;
            drop(frame);
            let unpacks = fetch.unpacks(&reply);
            let needs = means.memory.need(sink.held_bytes(&fetch) + arrived + unpacks);
            while_it_lasts(needs, progress).await;
            let registry = context.membership.current()?;
            match unpacks <= SMALL_BYTES {
                true => fetch.handle_message(reply, &*registry)?,
                false => turns.run(|| fetch.handle_message(reply, &*registry)).await?,
            }
            progress();
        }
    }
}

impl Sink {
    /// Bytes that it and the fetch hold of the tree.
    fn held_bytes(&self, fetch: &TreeFetch) -> usize {
        // What is staged has a bound of its own.
        let held = if let Sink::Comparison(compared) = self { compared.held_bytes() } else { 0 };
        held + fetch.held_bytes()
    }

    /// Does one action; answers what has come of it all at the end.
    async fn act(
        &mut self,
        means: &mut Means<'_>,
        fetch: &mut TreeFetch,
        action: FetchAction,
        purpose: Purpose,
    ) -> Result<Option<Fetched>, Trouble> {
        let Means { store, turns, judge, memory } = means;
        let held = self.held_bytes(fetch);
        match action {
            FetchAction::Send(_) => {}
            FetchAction::Compare(shown) => {
                *self = Sink::Comparison(turns.run(|| store.begin_comparison(*shown)).await?);
            }
            FetchAction::Begin(shown) => *self = Sink::begin(store, *shown, purpose).await?,
            FetchAction::Look { level, pages, bytes_max } => {
                loop {
                    let left = memory.bytes.saturating_sub(held);
                    // A walk asks for few, and the peer for those that are left out.
                    let bytes_max =
                        if bytes_max == usize::MAX { bytes_max } else { bytes_max.min(left) };
                    // What is found is hashed.
                    let look = || {
                        let own = self.look(level, &pages, bytes_max)?;
                        let needs = held + own.iter().map(Own::bytes).sum::<usize>();
                        if !memory.try_need(needs) {
                            return Ok(Some(needs));
                        }
                        fetch.handle_own(own)?;
                        Ok::<_, Trouble>(None)
                    };
                    match turns.run(look).await? {
                        // It is looked up again when there is room for it.
                        Some(needs) => memory.need(needs).await,
                        None => break,
                    }
                }
            }
            FetchAction::Piece(piece) => {
                if let Piece::Leaf(leaf) = &piece {
                    // It, and what it differs from.
                    memory.need(held + 2 * leaf.memory()).await;
                }
                if let Sink::Comparison(comparison) = self {
                    let take = || {
                        if let (Piece::Leaf(leaf), Some(judge)) = (&piece, &*judge) {
                            judge.leaf(leaf)?;
                        }
                        Ok::<_, Unfit>(comparison.take(piece))
                    };
                    match turns.run(take).await? {
                        Ok(true) => {}
                        Ok(false) => fetch.take_whole()?,
                        Err(error) => heal_instead(fetch, error)?,
                    }
                }
            }
            FetchAction::Apply => {
                if let Sink::Comparison(comparison) = std::mem::replace(self, Sink::None) {
                    match applied(comparison, turns, &memory.granted).await {
                        Ok(Some(head)) => return Ok(Some(Fetched { head, how: How::Applied })),
                        Ok(None) => fetch.take_whole()?,
                        Err(error) => heal_instead(fetch, error)?,
                    }
                }
            }
            FetchAction::Resolve(leaves) => {
                let mut held = Vec::with_capacity(leaves.len());
                while held.len() < leaves.len() {
                    held.extend(turns.run(|| self.resolve(&leaves[held.len()..])).await?);
                }
                fetch.handle_resolved(&held)?;
            }
            FetchAction::Check(leaves) => {
                // Few at a time: if all partitions unpacked leaves at once, 50 would
                // take 200 MiB.
                memory.need(held + leaves.iter().map(ArrivedLeaf::takes).sum::<usize>()).await;
                let check = |leaf: ArrivedLeaf| {
                    let checked = leaf.check();
                    let judged = match (&checked, &*judge) {
                        (Ok(FetchedLeaf::Arrived { leaf, .. }), Some(judge)) => judge.leaf(leaf),
                        _ => Ok(()),
                    };
                    (checked, judged)
                };
                let checked = turns.run(|| on_all_cores(leaves, check)).await.into_iter();
                let (checked, judged): (Vec<_>, Vec<Result<(), Unfit>>) = checked.unzip();
                judged.into_iter().collect::<Result<(), Unfit>>()?;
                fetch.handle_checked(checked)?;
            }
            FetchAction::Stage(leaf) => {
                let ready = match &leaf {
                    FetchedLeaf::Arrived { .. } => self.ready(leaf)?,
                    FetchedLeaf::Held(_) => turns.run(|| self.ready(leaf)).await?,
                };
                self.stage(ready).await?;
            }
            FetchAction::Finish => {
                let fetched = match std::mem::replace(self, Sink::None) {
                    Sink::Staging(staging) => {
                        Fetched { head: staging.finish().await?, how: How::Rebuilt }
                    }
                    Sink::Healing(healing, head) => {
                        Fetched { head, how: How::Healed(healing.finish().await?) }
                    }
                    _ => return Err(Trouble::OutOfStep("the end")),
                };
                return Ok(Some(fetched));
            }
        }
        Ok(None)
    }

    async fn begin(store: &Store, shown: ShownHead, purpose: Purpose) -> Result<Self, Trouble> {
        let header = &shown.signed;
        let partition = header.header().partition.clone();
        let head = store.head(&partition).filter(|_| purpose != Purpose::Follow);
        let Some(head) = head else {
            return Ok(Sink::Staging(store.begin_staging(shown).await?));
        };
        if head.position() == header.position() {
            return Ok(Sink::Healing(store.begin_healing(&partition, head.clone())?, head));
        }
        let (ours, theirs) = (head.seq(), header.position().seq);
        if theirs <= ours {
            return Err(Trouble::Elsewhere { ours, theirs });
        }
        Ok(Sink::Staging(store.begin_staging(shown).await?))
    }

    fn look(&self, level: u8, pages: &[PageRef], bytes_max: usize) -> Result<Vec<Own>, Trouble> {
        Ok(match self {
            Sink::None => return Err(Trouble::OutOfStep("own pages")),
            Sink::Comparison(comparison) => comparison.look(level, pages, bytes_max)?,
            Sink::Staging(staging) => staging.look(level, pages, bytes_max)?,
            Sink::Healing(healing, _) => healing.look(level, pages, bytes_max)?,
        })
    }

    fn resolve(&self, leaves: &[PageRef]) -> Result<Vec<bool>, Trouble> {
        Ok(match self {
            Sink::Staging(staging) => staging.resolve(leaves, RESOLVED_BYTES)?,
            Sink::Healing(healing, _) => healing.resolve(leaves, RESOLVED_BYTES)?,
            Sink::None | Sink::Comparison(_) => return Err(Trouble::OutOfStep("own leaves")),
        })
    }

    fn ready(&self, leaf: FetchedLeaf) -> Result<ReadyLeaf, Trouble> {
        Ok(match self {
            Sink::Staging(staging) => staging.ready(leaf)?,
            Sink::Healing(healing, _) => healing.ready(leaf)?,
            Sink::None | Sink::Comparison(_) => return Err(Trouble::OutOfStep("a leaf to keep")),
        })
    }

    async fn stage(&mut self, ready: ReadyLeaf) -> Result<(), Trouble> {
        match self {
            Sink::Staging(staging) => staging.stage(ready).await?,
            Sink::Healing(healing, _) => healing.stage(ready).await?,
            Sink::None | Sink::Comparison(_) => return Err(Trouble::OutOfStep("a leaf to keep")),
        }
        Ok(())
    }
}

/// The head that the differences have led to; none if they are too many for one batch.
async fn applied(
    mut comparison: Comparison,
    turns: &Turns,
    memory: &Grant,
) -> Result<Option<Arc<Head>>, StoreError> {
    if !turns.run(|| comparison.take_end()).await? {
        return Ok(None);
    }
    while turns.run(|| comparison.count_inner_pages()).await? {}
    let admitted = turns.admitted(true).await;
    memory.ends_soon();
    comparison.apply(Box::new(|took| admitted.done(took))).await.map(Some)
}

/// Differences that do not lead to the signed root mean that pages here are
/// damaged: going through all leaves heals that.
fn heal_instead(fetch: &mut TreeFetch, error: StoreError) -> Result<(), Trouble> {
    match error {
        // Several change sets together may touch more than one may.
        StoreError::Excess(_) => Ok(fetch.take_whole()?),
        StoreError::RootMismatch { .. } | StoreError::Damaged { .. } => {
            tracing::warn!(%error, "pages here do not fit the differences; going through all of them");
            Ok(fetch.take_whole()?)
        }
        error => Err(error.into()),
    }
}

#[cfg(test)]
#[path = "tests_fetch.rs"]
mod tests;
