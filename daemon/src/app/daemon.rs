//! The node running: sockets bound before work starts, everything ended by one
//! token, in order, with a deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use certs::{credentials::Credentials, keyfile::KeyDir};
use protocol::message::CloseCode;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{dir::NodeDir, invite, node::Node};
use crate::{
    admin,
    ingest::inbox::Inbox,
    net::{Accepted, Dialer, Listener},
    sync,
};

/// Tasks get this long to end by themselves.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
/// How often the daemon asks whether the store still works.
const STORE_CHECK: Duration = Duration::from_secs(1);

/// Runs the node in `dir` until it is told to stop. `ready` is called once it
/// listens.
pub async fn run(dir: &NodeDir, ready: impl FnOnce()) -> anyhow::Result<()> {
    let mut node = Node::open(dir)?;
    node.started = Some(Instant::now());
    let node = Arc::new(node);
    let credentials =
        Credentials::load(&dir.certs(), &KeyDir::new(dir.keys(), None), &node.identity)
            .context("load this node's certificate")?;
    let credentials = Arc::new(credentials);
    let shutdown = node.shutdown.clone();
    let socket = dir.socket();
    let server = admin::Server::bind(&socket)
        .with_context(|| format!("make the local socket {}", socket.display()))?;
    let mut tasks = JoinSet::new();

    if let Some(address) = node.config.listen {
        let listener = Listener::bind(address, &credentials)?;
        if let Some(bound) = listener.address() {
            tracing::info!(node = %node.identity.node, address = %bound, "listening");
        }
        tasks.spawn(accept(node.clone(), listener));
    }
    if let Some(upstream) = &node.config.upstream {
        tasks.spawn(sync::keep_connected(
            node.sync.clone(),
            Dialer::bind()?,
            upstream.addresses.clone(),
            credentials,
            shutdown.clone(),
        ));
    }
    if node.config.inbox.enabled {
        let inbox = Inbox {
            dir: dir.inbox(),
            importer: node.importer.clone(),
            deliveries: node.deliveries.clone(),
            membership: node.membership.clone(),
            stable: Duration::from_secs(node.config.inbox.stable_s),
        };
        tasks.spawn(crate::ingest::inbox::watch(inbox, shutdown.clone()));
    }
    tasks.spawn(server.run(node.clone(), shutdown.clone()));
    ready();

    let outcome = wait(&node, &mut tasks).await;
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

/// Waits for a signal, or for a reason to give up.
async fn wait(node: &Node, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A terminal that is closed does not end a node that was started from it.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut look = tokio::time::interval(STORE_CHECK);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => tracing::debug!("hung up; the node goes on"),
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

/// Accepts connections; each runs on a task of its own.
async fn accept(node: Arc<Node>, listener: Listener) {
    let shutdown: CancellationToken = node.shutdown.clone();
    let mut connections = JoinSet::new();
    let joining = Arc::new(Semaphore::new(invite::JOINING_MAX));
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
        connections.spawn(async move {
            match handshake.await {
                Ok(Accepted::Peer(connection)) => {
                    let (context, stop) = (node.sync.clone(), node.shutdown.clone());
                    let peer = connection.peer_node().cloned();
                    let end =
                        sync::serve(context, connection, sync::Side::Accepted, stop, || {}).await;
                    if let Some(peer) = peer {
                        tracing::info!(%peer, %address, reason = %end, "disconnected");
                    }
                }
                Ok(Accepted::Joining(connection)) => match joining.try_acquire() {
                    Ok(_permit) => invite::serve_join(node, connection).await,
                    Err(_) => connection.close(CloseCode::Unavailable),
                },
                Err(error) => tracing::warn!(%address, %error, "a connection was refused"),
            }
        });
    }
    // Each connection tells its peer; then the socket is closed.
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SHUTDOWN_MAX / 2, ended).await;
    listener.close().await;
}
