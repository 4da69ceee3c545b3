//! One connection: hello, the control stream, and a task a stream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use certs::verify::VerifiedPeer;
use protocol::{
    frame::CONTROL_FRAME_BYTES_MAX,
    id::{NodeId, PartitionId},
    message::{Announced, CloseCode, Control, HEADS_MAX, Hello, Open, PROTOCOL_VERSION, Report},
    session::{
        PeerMisbehaved,
        entitle::Ends,
        link::{FOLLOWS_MAX, Link, LinkAction, Timing},
    },
    suite::Suite,
};
use store::{StoreError, now_ms};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Context, FIRST_FRAME_MAX, Line,
    asking::Looks,
    blame,
    follow::{self, FollowEvent},
    fork,
    peers::is_far,
    provide, random,
    trouble::Trouble,
    turns::Turns,
};
use crate::{
    membership::NotWelcome,
    net::{Connection, FrameReceiver, FrameSender, NetError, Window},
};

/// Ends of follow streams that may wait to be handled.
const ENDS_WAITING_MAX: usize = 64;
/// What a message counts at least.
const SAID_BYTES_LEAST: usize = 128;
/// And one about trust: a signature is looked at, and something may be written.
const ABOUT_TRUST_BYTES_LEAST: usize = 16 * 1024;
/// What a head of a dataset that nobody has published counts beside its bytes: it
/// is looked at, noted and tried again. Ten thousand of them are made good in 14 s.
const UNKNOWN_DATASET_BYTES: usize = 256;
/// How often a hub says what the newest `_federation` is.
const STATEMENT_EVERY: Duration = Duration::from_secs(60);
/// How often the other side is told this machine's clock, however much else is said: a
/// clock may be set while a connection lives.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// So many times as long as other streams the control stream waits for the peer to take
/// what is said on it.
const CONTROL_PATIENCE: u32 = 4;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionEnd {
    /// The network or the peer ended it.
    #[error(transparent)]
    Net(NetError),
    /// The peer broke the protocol.
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    /// Our own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing was heard for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// This node goes down.
    #[error("this node is shutting down")]
    Shutdown,
    /// The peer is not welcome, or no longer.
    #[error("{0} is refused: {1}")]
    NotWelcome(NodeId, NotWelcome),
    /// The certificate that opened the connection has ended.
    #[error("the peer's certificate has ended")]
    CertificateEnded,
    /// Too many connections, of this peer or of all, have not said hello.
    #[error("too many connections that have not said hello")]
    TooMany,
    /// What this node trusts has changed: the connection is made anew.
    #[error("the connection is made anew, because the hub's anchor has changed")]
    Anew,
}

impl From<NetError> for ConnectionEnd {
    fn from(error: NetError) -> Self {
        match blame(error) {
            Ok(error) if error.is_silence() => Self::Silent,
            Ok(error) => Self::Net(error),
            Err(problem) => Self::Misbehaved(problem),
        }
    }
}

impl ConnectionEnd {
    fn code(&self) -> CloseCode {
        match self {
            ConnectionEnd::Net(_) => CloseCode::Normal,
            ConnectionEnd::Misbehaved(problem) => problem.code(),
            ConnectionEnd::Store(_) | ConnectionEnd::TooMany => CloseCode::Unavailable,
            ConnectionEnd::Silent => CloseCode::Silent,
            ConnectionEnd::Shutdown => CloseCode::Shutdown,
            ConnectionEnd::NotWelcome(_, why) => why.code(),
            ConnectionEnd::CertificateEnded => CloseCode::CertificateEnded,
            ConnectionEnd::Anew => CloseCode::Normal,
        }
    }
}

/// Which side opened the connection, and with it the control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We dialled.
    Dialled,
    /// We were dialled.
    Accepted,
}

/// Serves a connection until it ends. `connected` is called when the peer's
/// hello has arrived.
///
/// Dropping this future ends all that belongs to the connection.
pub async fn serve(
    context: Arc<Context>,
    connection: Connection,
    side: Side,
    shutdown: CancellationToken,
    connected: impl FnOnce() + Send,
) -> ConnectionEnd {
    let Some(verified) = connection.peer().cloned() else {
        return ConnectionEnd::Net(NetError::Closed(None));
    };
    let connection = connection.with_patience(context.patience);
    let peer = verified.identity().node.clone();
    let tasks = CancellationToken::new();
    let _ends_with_us = tasks.clone().drop_guard();
    let end = tokio::select! {
        // First: who is not welcome gets no answer at all.
        biased;
        end = until_unwelcome(&context, &verified) => end,
        end = run(&context, &connection, &peer, side, &tasks, connected) => match end {
            Ok(never) => match never {},
            Err(end) => end,
        },
        () = shutdown.cancelled() => ConnectionEnd::Shutdown,
    };
    if let ConnectionEnd::Misbehaved(problem) = &end {
        if let Some(unsaid) = context.may_say(&peer, Line::Misbehaviour) {
            tracing::warn!(%peer, %problem, unsaid, "the peer broke the protocol; its connection is closed");
        }
        context.peers.update(&peer, |state| state.misbehaved += 1);
    }
    connection.close(end.code());
    context.peers.disconnected(&peer, &connection, end.to_string());
    if let (ConnectionEnd::Net(NetError::Closed(Some(CloseCode::Superseded))), Side::Dialled) =
        (&end, side)
    {
        // It only fails when the daemon is ending.
        let _ = blocking(move || context.trustee.as_ref().map(|judge| judge.superseded())).await;
    }
    end
}

/// Waits until the peer is not welcome any more: it was removed or revoked, or
/// its certificate has ended. Apart from everything else, so that a peer that
/// reads nothing cannot hold this up.
async fn until_unwelcome(context: &Context, peer: &VerifiedPeer) -> ConnectionEnd {
    let mut moves = None;
    loop {
        // There is none while `_federation` is fetched again.
        moves = moves.or_else(|| context.store.moves(context.membership.partition()));
        if let Err(why) = context.membership.admits(peer) {
            return ConnectionEnd::NotWelcome(peer.identity().node.clone(), why);
        }
        let left = peer.not_after() - time::OffsetDateTime::now_utc();
        let Ok(left) = Duration::try_from(left) else {
            return ConnectionEnd::CertificateEnded;
        };
        tokio::select! {
            // Now and then, because a clock may be set.
            () = tokio::time::sleep(left.min(Duration::from_secs(60))) => {}
            () = until_federation_moves(&mut moves) => {}
        }
    }
}

/// Nobody is connected to a node that has no `_federation`.
async fn until_federation_moves(moves: &mut Option<tokio::sync::watch::Receiver<()>>) {
    if let Some(moves) = moves
        && moves.changed().await.is_ok()
    {
        return;
    }
    // Or the store is closing, and the connection with it.
    std::future::pending().await
}

/// A value that does not exist: a connection only ends with a reason.
enum Never {}

async fn run(
    context: &Arc<Context>,
    connection: &Connection,
    peer: &NodeId,
    side: Side,
    tasks: &CancellationToken,
    connected: impl FnOnce(),
) -> Result<Never, ConnectionEnd> {
    let ends = Ends {
        federation: context.federation().clone(),
        suite: context.membership.suite(),
        hub: context.membership.hub().clone(),
        me: context.me().clone(),
        peer: peer.clone(),
    };
    // Heads that move from here on arrive as events.
    let mut events = context.store.subscribe();
    let greeted = greet(context, connection, &ends, side).await?;
    connected();
    let Greeted { link, mut sender, mut receiver, instance, window: _window } = greeted;
    // Before it is told: what changes meanwhile is told again.
    let mut tell = context.tell.subscribe();
    tell_about_trust(context, &mut sender, true).await?;
    let mut statements = tokio::time::interval(STATEMENT_EVERY);
    // The hello has just told it.
    let first = tokio::time::Instant::now() + CLOCK_EVERY;
    let mut clock = tokio::time::interval_at(first, CLOCK_EVERY);

    let turns = context.turns_of(peer);
    let streams = provide::Streams::new(context.clone(), connection.clone(), ends, turns.clone());
    let streams = Arc::new(streams);
    let (to_talk, mut follow_events) = mpsc::channel::<FollowEvent>(ENDS_WAITING_MAX);
    let mut talk = Talk {
        context,
        connection,
        peer,
        tasks,
        link,
        sender,
        instance,
        turns,
        looks: Looks::default(),
        follow_events: to_talk,
        follows: BTreeMap::new(),
    };
    loop {
        while let Some(action) = talk.link.poll_action() {
            talk.act(action).await?;
        }
        let now = context.now();
        let (hush, full) = (talk.turns.said.wait(now), talk.turns.opened.wait(now));
        let waits = [hush, full].into_iter().filter(|wait| !wait.is_zero());
        let sleep = waits.fold(talk.link.poll_timeout().saturating_sub(now), Duration::min);
        tokio::select! {
            // Whoever says too much is not heard for a while, and loses nothing.
            frame = receiver.receive(), if hush.is_zero() => {
                talk.hear(&frame?.ok_or(NetError::Closed(None))?)?;
            }
            _ = statements.tick(), if context.office.is_some() => {
                tell_about_trust(context, &mut talk.sender, false).await?;
            }
            _ = clock.tick() => {
                talk.sender.send(&Control::Heartbeat { now_ms: now_ms() }).await?;
            }
            Ok(()) = tell.changed() => tell_about_trust(context, &mut talk.sender, true).await?,
            event = events.recv() => match event {
                Ok(partition) => {
                    announce(context, &mut talk.link, &partition);
                    if partition == *context.membership.partition() {
                        statements.reset_immediately();
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    for partition in context.store.heads().into_keys() {
                        announce(context, &mut talk.link, &partition);
                    }
                }
                Err(RecvError::Closed) => return Err(StoreError::Closed.into()),
            },
            stream = connection.accept_stream(), if full.is_zero() => {
                let (sender, receiver) = stream?;
                talk.turns.opened.spend(1, context.now());
                let serving = streams.clone().serve(sender, receiver);
                tokio::spawn(tasks.clone().run_until_cancelled_owned(serving));
            }
            Some(report) = follow_events.recv() => talk.take(report),
            () = tokio::time::sleep(sleep) => {
                talk.link.handle_timeout(context.now());
                if talk.link.heartbeat_due(context.now()) {
                    talk.sender.send(&Control::Heartbeat { now_ms: now_ms() }).await?;
                }
            }
        }
    }
}

/// A connection whose hellos were exchanged, and at whose hub end the member has
/// reported.
struct Greeted {
    link: Link,
    sender: FrameSender,
    receiver: FrameReceiver,
    /// Of the daemon that has reported, at a hub.
    instance: Option<[u8; 8]>,
    window: Window,
}

/// Exchanges hellos, and shows the peer as connected.
async fn greet(
    context: &Arc<Context>,
    connection: &Connection,
    ends: &Ends,
    side: Side,
) -> Result<Greeted, ConnectionEnd> {
    let peer = &ends.peer;
    // Whoever was dialled chose to be.
    let _greeting = match side {
        Side::Accepted => {
            Some(context.greeting.take_for(peer.clone()).ok_or(ConnectionEnd::TooMany)?)
        }
        Side::Dialled => None,
    };
    let local = announced_heads(context, ends);
    let ours = hello(ends.suite, local.clone());
    let (mut sender, mut receiver, theirs) =
        tokio::time::timeout(FIRST_FRAME_MAX, exchange_hellos(connection, side, ours))
            .await
            .map_err(|_| NetError::NoAnswer)??;
    let timing = Timing { heartbeat: context.heartbeat, follows_max: FOLLOWS_MAX };
    let quarantined: Vec<PartitionId> = (local.iter().map(|head| &head.partition))
        .filter(|partition| context.store.quarantine_reason(partition).is_some())
        .cloned()
        .collect();
    let mut link = Link::new(ends.clone(), timing, local, theirs.clone(), context.now())?;
    for partition in &quarantined {
        link.handle_doubt(partition, context.now());
    }
    // Before it counts as connected, because a first own change set asks that.
    for head in theirs.heads.iter().filter(|head| head.partition.origin == *context.me()) {
        note_claim(context, peer, head);
    }
    context.claims.word_is_here();
    // Before anything is served: whoever has a stolen certificate could else
    // keep to itself that it is another daemon.
    let instance = match side {
        Side::Accepted => {
            let report = tokio::time::timeout(FIRST_FRAME_MAX, receive_report(&mut receiver));
            let report = report.await.map_err(|_| NetError::NoAnswer)??;
            let instance = report.instance;
            let (context, connection) = (context.clone(), connection.clone());
            blocking(move || reported(&context, &connection, report)).await?;
            Some(instance)
        }
        Side::Dialled => None,
    };
    let window = connection.open_window(&context.windows);
    // What it says may wait behind change sets that the peer has no memory for; whether it
    // is there, its own words tell.
    sender.wait_longer(CONTROL_PATIENCE);
    let clock_ahead_ms = theirs.now_ms.saturating_sub(now_ms());
    let differed = context.peers.connected(peer, connection, &theirs, clock_ahead_ms);
    if let Some(unsaid) = context.may_say(peer, Line::Connection) {
        tracing::info!(%peer, address = %connection.address(), unsaid, "connected");
        warn_of_clock(peer, clock_ahead_ms, differed);
    }
    if let Side::Dialled = side {
        let context = context.clone();
        blocking(move || context.trustee.as_ref().map(|judge| judge.welcomed())).await?;
    }
    Ok(Greeted { link, sender, receiver, instance, window })
}

/// What is said on the control stream, and what is done about it.
struct Talk<'a> {
    context: &'a Arc<Context>,
    connection: &'a Connection,
    peer: &'a NodeId,
    /// Ends all that belongs to the connection.
    tasks: &'a CancellationToken,
    link: Link,
    sender: FrameSender,
    instance: Option<[u8; 8]>,
    turns: Arc<Turns>,
    /// Looks at other histories that the peer announces.
    looks: Looks,
    /// Where follow tasks say how they are.
    follow_events: mpsc::Sender<FollowEvent>,
    /// Ends each of them alone.
    follows: BTreeMap<PartitionId, CancellationToken>,
}

impl Talk<'_> {
    fn hear(&mut self, frame: &[u8]) -> Result<(), ConnectionEnd> {
        let message = Control::decode(frame).map_err(PeerMisbehaved::from)?;
        let least = match &message {
            Control::Report(_) | Control::Freshness(_) | Control::Anchor(_) => {
                ABOUT_TRUST_BYTES_LEAST
            }
            _ => SAID_BYTES_LEAST,
        };
        let mut counts = frame.len().max(least);
        self.context.peers.heard(self.peer);
        if let Control::Heartbeat { now_ms } = &message {
            self.note_clock(*now_ms);
        }
        if let Control::Announce(heads) = &message {
            counts += UNKNOWN_DATASET_BYTES * note_heads(self.context, self.peer, heads);
        }
        self.turns.said.spend(counts as u64, self.context.now());
        Ok(self.link.handle_message(message, self.context.now())?)
    }

    /// The peer's clock says so now.
    fn note_clock(&self, theirs_ms: i64) {
        let (context, peer) = (self.context, self.peer);
        let ahead_ms = theirs_ms.saturating_sub(now_ms());
        let mut differed = true;
        context.peers.update_through(peer, self.connection, |state| {
            differed = state.clock_differs();
            state.clock_ahead_ms = Some(ahead_ms);
        });
        if is_far(ahead_ms) && !differed && context.may_say(peer, Line::Clock).is_some() {
            warn_of_clock(peer, ahead_ms, differed);
        }
    }

    async fn act(&mut self, action: LinkAction) -> Result<(), ConnectionEnd> {
        let context = self.context.clone();
        match action {
            LinkAction::Send(message) => self.sender.send(&message).await?,
            LinkAction::Follow(partition) => self.follow(partition),
            LinkAction::Release(partition) => {
                if let Some(follow) = self.follows.get(&partition) {
                    follow.cancel();
                }
            }
            LinkAction::PeerHolds(head) => {
                let partition = head.partition.clone();
                if peer_holds(&context, &self.turns, self.peer, head).await
                    && let Some(place) = self.looks.place()
                {
                    let (connection, peer) = (self.connection.clone(), self.peer.clone());
                    let look = fork::look(context, connection, peer, partition, place);
                    tokio::spawn(self.tasks.clone().run_until_cancelled_owned(look));
                }
            }
            LinkAction::Reported(report) => {
                if self.instance != Some(report.instance) {
                    return Err(PeerMisbehaved::Unexpected("another daemon's report").into());
                }
                let connection = self.connection.clone();
                blocking(move || reported(&context, &connection, report)).await?;
            }
            LinkAction::Stated(bytes) => {
                let judge = move || context.trustee.as_ref().map(|judge| judge.stated(&bytes));
                blocking(judge).await?;
            }
            LinkAction::Anchored(bytes) => {
                let judge = move || context.trustee.as_ref().map(|judge| judge.anchored(&bytes));
                if blocking(judge).await? == Some(true) {
                    return Err(ConnectionEnd::Anew);
                }
            }
            LinkAction::Silent => return Err(ConnectionEnd::Silent),
        }
        Ok(())
    }

    fn follow(&mut self, partition: PartitionId) {
        let offered = self.link.peer_head(&partition).map_or(0, |head| head.position.seq);
        let follow = follow::Follow {
            context: self.context.clone(),
            connection: self.connection.clone(),
            peer: self.peer.clone(),
            offered,
            progress: self.follow_events.clone(),
            turns: self.turns.clone(),
            released: self.follows.entry(partition.clone()).or_default().clone(),
            partition,
        };
        // In a box, because it is moved into what can end it and from there into a task, each
        // of which has room for all of it: ten thousand of them are there at once.
        let follow = Box::pin(follow.run());
        tokio::spawn(self.tasks.clone().run_until_cancelled_owned(follow));
    }

    fn take(&mut self, report: FollowEvent) {
        match report {
            FollowEvent::Progress(partition) => self.link.handle_follow_progress(&partition),
            FollowEvent::Ended(partition, end) => {
                self.follows.remove(&partition);
                self.link.handle_follow_end(&partition, end, random(), self.context.now());
            }
        }
    }
}

/// The first message behind a member's hello.
async fn receive_report(receiver: &mut FrameReceiver) -> Result<Report, ConnectionEnd> {
    let frame = receiver.receive().await?.ok_or(NetError::Closed(None))?;
    match Control::decode(&frame).map_err(PeerMisbehaved::from)? {
        Control::Report(report) => Ok(report),
        _ => Err(PeerMisbehaved::Unexpected("something else than a report").into()),
    }
}

/// Tells the peer what it has to know about trust: at a hub the newest statement
/// of freshness and, if `all`, the anchor; at a member the report.
async fn tell_about_trust(
    context: &Arc<Context>,
    sender: &mut FrameSender,
    all: bool,
) -> Result<(), ConnectionEnd> {
    let asked = context.clone();
    let messages = blocking(move || {
        let mut messages = Vec::new();
        if let Some(office) = &asked.office {
            messages.extend(office.anchor().filter(|_| all).map(Control::Anchor));
            messages.extend(office.statement().map(Control::Freshness));
        }
        messages.extend(asked.trustee.as_ref().map(|trustee| Control::Report(trustee.report())));
        messages
    });
    for message in messages.await? {
        sender.send(&message).await?;
    }
    Ok(())
}

/// Does what may read or write a file on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConnectionEnd> {
    // It only fails when the daemon is ending.
    tokio::task::spawn_blocking(work).await.map_err(|_| ConnectionEnd::Shutdown)
}

fn reported(context: &Context, connection: &Connection, report: Report) {
    let (Some(office), Some(peer)) = (&context.office, connection.peer()) else {
        return;
    };
    let alarm = office.reported(peer, report);
    context.peers.update(&peer.identity().node, |state| state.alarm = alarm);
}

/// Says once that two clocks are far apart.
fn warn_of_clock(peer: &NodeId, ahead_ms: i64, differed: bool) {
    if is_far(ahead_ms) && !differed {
        let (seconds, way) =
            (ahead_ms.unsigned_abs() / 1000, if ahead_ms > 0 { "ahead of" } else { "behind" });
        tracing::warn!(
            %peer,
            "the peer's clock is {seconds} s {way} this machine's; set the wrong one (NTP), or certificates will be \
             taken for expired or not yet valid / 两台机器的时钟相差 {seconds} 秒，请校准时间"
        );
    }
}

/// The member opens the control stream with its hello, the hub answers.
async fn exchange_hellos(
    connection: &Connection,
    side: Side,
    ours: Hello,
) -> Result<(FrameSender, FrameReceiver, Hello), ConnectionEnd> {
    let next = async |receiver: &mut FrameReceiver| {
        Ok::<_, ConnectionEnd>(receiver.receive().await?.ok_or(NetError::Closed(None))?)
    };
    match side {
        Side::Dialled => {
            let (mut sender, mut receiver) = connection.open_stream().await?;
            receiver.limit(CONTROL_FRAME_BYTES_MAX);
            sender.send(&Open::Control(ours)).await?;
            let frame = next(&mut receiver).await?;
            match Control::decode(&frame).map_err(PeerMisbehaved::from)? {
                Control::Hello(theirs) => Ok((sender, receiver, theirs)),
                _ => Err(PeerMisbehaved::Unexpected("something else than a hello").into()),
            }
        }
        Side::Accepted => {
            let (mut sender, mut receiver) = connection.accept_stream().await?;
            receiver.limit(CONTROL_FRAME_BYTES_MAX);
            let frame = next(&mut receiver).await?;
            match Open::decode(&frame).map_err(PeerMisbehaved::from)? {
                Open::Control(theirs) => {
                    sender.send(&Control::Hello(ours)).await?;
                    Ok((sender, receiver, theirs))
                }
                _ => Err(PeerMisbehaved::Unexpected("something else than a hello").into()),
            }
        }
    }
}

fn hello(suite: Suite, heads: Vec<Announced>) -> Hello {
    Hello {
        suite: suite.number(),
        versions: vec![PROTOCOL_VERSION],
        build: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: now_ms(),
        heads,
    }
}

/// Heads that concern both ends. A partition whose first load is under way is
/// told when the load is done: followers would take the same pages again and
/// again.
fn announced_heads(context: &Context, ends: &Ends) -> Vec<Announced> {
    let heads = context.store.heads();
    heads
        .iter()
        .filter(|(partition, _)| {
            ends.concerns_both(partition) && !context.store.is_loading(partition)
        })
        .map(|(_, head)| head.announced())
        .collect()
}

fn announce(context: &Context, link: &mut Link, partition: &PartitionId) {
    if let Some(head) = context.store.head(partition)
        && !context.store.is_loading(partition)
    {
        link.handle_local_head(head.announced(), context.now());
    }
}

/// Shows the peer's claims in the status; answers how many of them are of datasets that
/// nobody has published.
fn note_heads(context: &Context, peer: &NodeId, heads: &[Announced]) -> usize {
    context.peers.update(peer, |state| {
        for head in heads {
            if state.heads.len() < HEADS_MAX || state.heads.contains_key(&head.partition) {
                state.heads.insert(head.partition.clone(), head.clone());
            }
        }
    });
    context.membership.current().map_or(0, |registry| {
        heads.iter().filter(|head| registry.schema(&head.partition.dataset).is_none()).count()
    })
}

/// Whether the peer holds of an own partition what this node has given up. That is neither
/// a claim nor a fork: its copy has to be fetched again.
fn note_given_up(context: &Context, peer: &NodeId, head: &Announced) -> bool {
    if !context.given_up.contains(&context.store, &head.partition, head.position) {
        return false;
    }
    let partition = &head.partition;
    // Also if it had proven before that this node has signed it.
    context.claims.clear(partition, peer);
    if context.store.lost_head(partition).is_some() {
        // What comes instead may have it.
        return true;
    }
    let reason = Trouble::given_up(peer, partition, head.position.seq).to_string();
    if let Some(unsaid) = context.may_say(peer, Line::Claim) {
        tracing::warn!(%partition, %peer, %reason, unsaid, "the peer holds what was given up here");
    }
    context.peers.update(peer, |state| {
        state.troubles.insert(partition.clone(), reason);
        state.alarming.insert(partition.clone());
    });
    true
}

/// Whether the peer claims to hold more of an own partition than this node; a claim
/// is noted, and the follow stream that the link opens for it asks for the proof.
fn note_claim(context: &Context, peer: &NodeId, head: &Announced) -> bool {
    if note_given_up(context, peer, head) {
        return true;
    }
    let ours = context.store.seq(&head.partition);
    if head.position.seq <= ours {
        return false;
    }
    let known_dataset = context
        .membership
        .current()
        .is_ok_and(|registry| registry.schema(&head.partition.dataset).is_some());
    if !known_dataset {
        // It holds nothing to take back, or nothing yet.
        context.claims.note_unknown(&head.partition, peer, head.position.seq);
        if let Some(unsaid) = context.may_say(peer, Line::Claim) {
            tracing::error!(
                partition = %head.partition, %peer, theirs = head.position.seq, ours, unsaid,
                "the peer claims to hold more of our own history than we do; nothing is done about it"
            );
        }
        return true;
    }
    if context.claims.note(&head.partition, peer, head.position.seq, ours)
        && let Some(unsaid) = context.may_say(peer, Line::Claim)
    {
        tracing::warn!(
            partition = %head.partition, %peer, theirs = head.position.seq, ours, unsaid,
            "the peer says that it holds more of our own history than we do; it is asked for the proof"
        );
    }
    true
}

/// The peer holds our own partition up to `head`. It counts as acknowledged if
/// it is our own history; if it is more than we have, it has to prove that. Answers
/// whether it is another history, which it has to prove as well.
///
/// What cannot be read or noted of one partition is no reason to end the
/// connection of all.
async fn peer_holds(context: &Context, turns: &Turns, peer: &NodeId, head: Announced) -> bool {
    if note_claim(context, peer, &head) {
        return false;
    }
    if context.claims.clear(&head.partition, peer) {
        context.own_history_answered().await;
    }
    let is_same = || context.store.is_same(&head.partition, head.position);
    match turns.run(is_same).await {
        Ok(Some(true)) => {
            context.peers.update(peer, |state| {
                state.troubles.remove(&head.partition);
                state.alarming.remove(&head.partition);
            });
            let noted = context.store.record_ack(&head.partition, peer, head.position).await;
            if let Err(error) = noted
                && let Some(unsaid) = context.may_say(peer, Line::OurFailure)
            {
                tracing::warn!(partition = %head.partition, %peer, %error, unsaid, "an acknowledgement could not be noted");
            }
        }
        Ok(Some(false)) => {
            let reason = format!(
                "{peer} holds another history at number {}; was this node restored, or does a second one use its identity?",
                head.position.seq
            );
            if let Some(unsaid) = context.may_say(peer, Line::Claim) {
                tracing::error!(partition = %head.partition, %reason, unsaid, "our own partition is in doubt");
            }
            context.peers.update(peer, |state| {
                state.troubles.insert(head.partition.clone(), reason);
            });
            return true;
        }
        // Older than our log.
        Ok(None) => {}
        Err(error) => {
            if let Some(unsaid) = context.may_say(peer, Line::OurFailure) {
                tracing::error!(
                    partition = %head.partition, %peer, %error, unsaid,
                    "what the peer holds cannot be compared with our own log"
                );
            }
        }
    }
    false
}
