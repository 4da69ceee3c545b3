//! The node running: sockets bound before work starts, everything ended by one
//! token, in order, with a deadline.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use certs::{
    credentials::Credentials, explain::CertificateProblem, identity::Identity, keyfile,
    observe::RefusalObserver, tls::TlsOptions,
};
use protocol::{id::PartitionId, message::CloseCode};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{
        Notify,
        broadcast::{self, error::RecvError},
        watch,
    },
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{dir::NodeDir, hub, inbox, lock::Occupant, node::Node, opening, renewal, room};
use crate::{
    admin,
    limit::{Budget, LINES, Limiter},
    net::{Accepted, Dialer, Listener, network_of},
    sync,
};

/// Tasks get this long to end by themselves.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
/// The same refusal from the same address is not worth a line for each attempt.
const REFUSAL_LINES: Budget = Budget { capacity: 1, refill: Duration::from_secs(3600) };
/// Refusals that are logged within that time: a flood is not worth a full disk.
const REFUSALS_MAX: usize = 1000;
/// How often the daemon asks whether the store still works.
const STORE_CHECK: Duration = Duration::from_secs(1);

/// Runs the node in `dir` until it is told to stop. `ready` is called once it
/// listens.
pub async fn run(dir: &NodeDir, ready: impl FnOnce()) -> anyhow::Result<()> {
    // What an interrupted change of keys has left is finished by it, which waits
    // for the store.
    let opening = dir.clone();
    let mut node =
        tokio::task::spawn_blocking(move || Node::open(&opening, Occupant::Daemon)).await??;
    node.started = Some(Instant::now());
    opening::note_panics(dir);
    let node = Arc::new(node);
    let shutdown = node.shutdown.clone();
    // Before anybody can ask for anything: a request that was begun with is
    // answered, also where the end follows the start at once.
    let mut signals = Signals::new()?;
    let socket = dir.socket();
    let server = admin::Server::bind(&socket)
        .with_context(|| format!("make the local socket {}", socket.display()))?;
    let mut tasks = JoinSet::new();

    // Before anything can move it.
    let events = node.store.subscribe();
    tasks.spawn(heed_federation(node.clone(), events, shutdown.clone()));
    if let Some(address) = node.config.listen {
        // Where nobody has joined yet, nobody knows better.
        let registry = node.membership.current()?;
        let mut members = registry.members().iter().filter(|(_, member)| !member.removed);
        if members.any(|(name, _)| name != node.membership.me()) {
            node.sync.claims.expect_word(true);
        }
        let observer = Arc::new(Observer(node.clone()));
        let shown = node.keeper.shown();
        let seed = reset_seed(dir)?;
        let listener = Listener::bind(
            address,
            node.membership.suite(),
            &shown.replication,
            &shown.federation,
            &seed,
            observer,
        )?;
        let listener = Arc::new(listener);
        if let Some(bound) = listener.address() {
            tracing::info!(node = %node.identity.node, address = %bound, "listening");
        }
        tasks.spawn(accept(node.clone(), listener.clone()));
        tasks.spawn(show_renewed(node.clone(), listener, shutdown.clone()));
    }
    if node.config.upstream.is_some() {
        node.sync.claims.expect_word(false);
        let credentials = replication_credentials(&node, &mut tasks, &shutdown);
        tasks.spawn(sync::keep_connected(
            node.sync.clone(),
            sync::Dialling {
                dialer: Dialer::bind()?,
                configured: node.upstream.subscribe(),
                options: TlsOptions {
                    post_quantum: node.config.tls.post_quantum,
                    suite: node.membership.suite(),
                },
                credentials,
            },
            shutdown.clone(),
        ));
    }
    if node.config.inbox.enabled {
        let inbox = inbox::of(&node, dir)?;
        tasks.spawn(crate::sources::inbox::watch(inbox, shutdown.clone()));
    }
    tasks.spawn(node.upkeep.clone().run(shutdown.clone()));
    tasks.spawn(server.run(node.clone(), shutdown.clone()));
    let hangup = Arc::new(Notify::new());
    tasks.spawn(renewal::keep_renewed(node.clone(), hangup.clone(), shutdown.clone()));
    ready();

    let outcome = wait(&node, &mut signals, &hangup, &mut tasks).await;
    shutdown.cancel();
    let drained =
        tokio::time::timeout(SHUTDOWN_MAX, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("some tasks did not end in time");
        tasks.shutdown().await;
    }
    tracing::info!(node = %node.identity.node, "stopped");
    outcome
}

/// The secret behind resets of connections; made once.
fn reset_seed(dir: &NodeDir) -> anyhow::Result<Vec<u8>> {
    let path = dir.reset_seed();
    if path.exists() {
        return Ok(keyfile::read_private(&path)?.to_vec());
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("draw random bytes")?;
    keyfile::write_private(&path, &seed)?;
    Ok(seed.to_vec())
}

/// The signals that a daemon heeds, from now on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for a signal, or for a reason to give up.
async fn wait(
    node: &Node,
    signals: &mut Signals,
    reload: &Notify,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(STORE_CHECK);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            // As daemons do; and a terminal that is closed does not end a node.
            _ = signals.hangup.recv() => reload.notify_one(),
            Some(ended) = tasks.join_next() => {
                // No task ends before the shutdown; a panic is one that did.
                ended.context("a part of the daemon failed")?;
                anyhow::bail!("a part of the daemon ended early");
            }
            _ = look.tick() => {
                if node.store.has_failed() {
                    anyhow::bail!("the store cannot write any more; start the node again once the disk is well");
                }
            }
        }
    }
}

/// Shows new connections what the keeper publishes.
async fn show_renewed(node: Arc<Node>, listener: Arc<Listener>, shutdown: CancellationToken) {
    let mut shown = node.keeper.subscribe();
    loop {
        tokio::select! {
            changed = shown.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
        let shown = shown.borrow_and_update().clone();
        if let Err(error) = listener.show(&shown.replication, &shown.federation) {
            tracing::error!(%error, "the renewed certificate cannot be shown; the one before stays in use");
        }
    }
}

/// What the keeper publishes for replication, as the dialling side takes it.
fn replication_credentials(
    node: &Arc<Node>,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> watch::Receiver<Arc<Credentials>> {
    let mut shown = node.keeper.subscribe();
    let first = shown.borrow_and_update().replication.clone();
    let (sender, receiver) = watch::channel(first);
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                changed = shown.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
            sender.send_replace(shown.borrow_and_update().replication.clone());
        }
    });
    receiver
}

/// Looks at `_federation` whenever it has moved: who shares the disk, and at a member
/// what the hub says about trust.
async fn heed_federation(
    node: Arc<Node>,
    mut events: broadcast::Receiver<PartitionId>,
    shutdown: CancellationToken,
) {
    loop {
        let moved = tokio::select! {
            event = events.recv() => match event {
                Ok(partition) => partition == *node.membership.partition(),
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            },
            () = shutdown.cancelled() => return,
        };
        if !moved {
            continue;
        }
        let judging = node.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let quota_mb = judging.config.store.origin_quota_mb;
            room::share_out(&judging.store, &judging.membership, quota_mb)?;
            judging.trustee.as_ref().map_or(Ok(()), |trustee| trustee.look())
        });
        if let Ok(Err(error)) = looked.await {
            tracing::error!(
                error = format!("{error:#}"),
                "what _federation says now could not be taken over"
            );
        }
    }
}

/// Tells, once for each reason, which member shows a certificate that has ended.
struct Observer(Arc<Node>);

impl RefusalObserver for Observer {
    fn refused(&self, identity: &Identity, problem: &CertificateProblem) {
        let peers = &self.0.sync.peers;
        let reason = format!(
            "{problem}. If its certificate has ended, it needs a new token (here: creditsync invite {}, there: \
             creditsync join) / 若其证书已过期，请签发新令牌",
            identity.node
        );
        if peers.refused(&identity.node, problem.kind.as_str(), &reason)
            && let Some(unsaid) = self.0.sync.may_say(&identity.node, sync::Line::Refused)
        {
            tracing::warn!(peer = %identity.node, %reason, unsaid, "a member cannot connect");
        }
    }
}

/// Accepts connections; each runs on a task of its own.
async fn accept(node: Arc<Node>, listener: Arc<Listener>) {
    let shutdown: CancellationToken = node.shutdown.clone();
    let mut connections = JoinSet::new();
    let joining = Arc::new(hub::Joining::default());
    let refusals = Arc::new(Limiter::new(REFUSAL_LINES, REFUSALS_MAX));
    let quiet = Arc::new(Limiter::of_all(LINES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => None,
            // Ended connections are reaped as they end.
            Some(_) = connections.join_next() => continue,
        };
        let Some((address, handshake)) = accepted else {
            break;
        };
        let (node, joining) = (node.clone(), joining.clone());
        let (refusals, quiet) = (refusals.clone(), quiet.clone());
        connections.spawn(async move {
            let may_say = |address: SocketAddr, why: String| {
                refusals.allow(&(network_of(address.ip()), why), Instant::now())
            };
            match handshake.await {
                Ok(Accepted::Peer(connection)) => {
                    let (context, stop) = (node.sync.clone(), node.shutdown.clone());
                    let peer = connection.peer_node().cloned();
                    let end =
                        sync::serve(context, connection, sync::Side::Accepted, stop, || {}).await;
                    // One that is not welcome may try as often as it likes.
                    let refused = match end {
                        sync::ConnectionEnd::NotWelcome(..) => may_say(address, end.to_string()),
                        _ => Some(0),
                    };
                    if let (Some(peer), Some(refused)) = (peer, refused)
                        && let Some(unsaid) = node.sync.may_say(&peer, sync::Line::Connection)
                    {
                        let unsaid = refused + unsaid;
                        tracing::info!(%peer, %address, reason = %end, unsaid, "disconnected");
                    }
                }
                Ok(Accepted::Joining(connection)) => {
                    let place = joining.enter(address.ip());
                    match &node.registrar {
                        Some(registrar) => {
                            hub::serve_join(registrar.clone(), connection, &place, &quiet).await;
                        }
                        None => connection.close(CloseCode::Unavailable),
                    }
                }
                Err(error) => match may_say(address, error.kind()) {
                    Some(unsaid) => {
                        tracing::warn!(%address, %error, unsaid, "a connection was refused");
                    }
                    None => tracing::debug!(%address, %error, "a connection was refused again"),
                },
            }
        });
    }
    // Each connection tells its peer; then the socket is closed.
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_MAX / 2, ended).await;
    listener.close().await;
}
