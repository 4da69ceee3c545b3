//! A member keeps its connection to the hub, and makes it anew before a
//! certificate ends.
//!
//! A connection is only judged when it is made, so it is replaced when this
//! node's certificate was renewed, and in any case when half of the time is over
//! that the certificate ending first had left. The new one is connected before
//! the old one is let go.

use std::{sync::Arc, time::Duration};

use certs::{
    credentials::Credentials, explain::ProblemKind, identity::Identity, rotate, tls::TlsOptions,
};
use protocol::{message::CloseCode, session::backoff::Backoff};
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Context,
    addresses::{Round, in_order},
    connection::{ConnectionEnd, Side, serve},
    random,
};
use crate::net::{Connection, Dialer, NetError, in_turn, most_telling};

/// First wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// A replaced connection has this long to end by itself.
const REPLACED_MAX: Duration = Duration::from_secs(5);
/// The clock is looked at this often while a connection lives: it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How the hub is dialled.
pub struct Dialling {
    /// The socket.
    pub dialer: Dialer,
    /// HOST:PORT as configured: tried behind those that `_federation` names.
    pub configured: watch::Receiver<Vec<String>>,
    /// What is offered.
    pub options: TlsOptions,
    /// What is shown, now and when it was renewed.
    pub credentials: watch::Receiver<Arc<Credentials>>,
}

/// Dials the hub at its addresses in turn, serves the connection, and dials
/// again with growing waits, until `shutdown`.
///
/// Addresses may change meanwhile. A connection that works stays; the next one is
/// made by the new ones. Within a round through all addresses the waits are short,
/// between two rounds they grow.
pub async fn keep_connected(
    context: Arc<Context>,
    mut dialling: Dialling,
    shutdown: CancellationToken,
) {
    let hub = Identity::new(context.federation(), context.membership.hub());
    let mut backoff = Backoff::new(RETRY_FIRST, context.retry_longest);
    let mut round = Round::default();
    let mut reported = String::new();
    loop {
        round.follow(dialling.addresses(&context));
        let news = dialling.news();
        let dialled = tokio::select! {
            dialled = dialling.dial(&context, round.left(), &hub, &shutdown) => dialled,
            // What is dialled for may be of no use any more, and silence takes its time.
            () = news => {
                backoff.succeeded();
                continue;
            }
            () = shutdown.cancelled() => break,
        };
        let attempt = async {
            match dialled {
                Ok((place, served)) => {
                    let address = round.left().get(place).cloned().unwrap_or_default();
                    let (end, connected) =
                        served.serve(&context, &mut dialling, &hub, &shutdown).await;
                    Attempt { end, connected, address, place: Some(place) }
                }
                Err((address, error)) => {
                    let end = ConnectionEnd::Net(error);
                    Attempt { end, connected: false, address, place: None }
                }
            }
        };
        let Attempt { end, connected, address, place } = tokio::select! {
            ended = attempt => ended,
            () = shutdown.cancelled() => break,
        };
        if let ConnectionEnd::Shutdown = end {
            break;
        }
        context.claims.word_is_here();
        let worked = connected && is_passing(&end);
        let others = if worked {
            backoff.succeeded();
            reported.clear();
            round.succeeded();
            false
        } else {
            round.failed(place)
        };
        let (kind, reason) = explain(&end, &dialling);
        let reason = with_all(reason, round.all());
        context.peers.update(&hub.node, |state| {
            state.address = Some(address.clone());
            state.dialled = Some(address.clone());
            state.reason = Some(reason.clone());
            // What comes between is no answer: an address where nobody is, a hub that is down.
            state.shut_out = shut_out(&end).or(state.shut_out);
        });
        // The same reason is not worth a line every minute.
        let is_news = reported != kind && !matches!(end, ConnectionEnd::Anew);
        if is_news {
            tracing::warn!(hub = %hub.node, %address, %reason, "not connected to the hub; trying again by itself");
            reported = kind;
        }
        let mut wait = if others { RETRY_FIRST } else { backoff.failed(random()) };
        if let ConnectionEnd::Net(NetError::Closed(Some(CloseCode::Replaced))) = end {
            // Two daemons of one identity would take turns at full speed.
            wait = wait.max(context.retry_longest / 2);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // A renewed certificate may be what was missing, or another address.
            Ok(()) = dialling.credentials.changed() => backoff.succeeded(),
            Ok(()) = dialling.configured.changed() => backoff.succeeded(),
            () = shutdown.cancelled() => break,
        }
    }
    dialling.dialer.close().await;
}

/// How an attempt to be connected ended.
struct Attempt {
    end: ConnectionEnd,
    /// Whether the hub's hello had arrived.
    connected: bool,
    /// Where that was.
    address: String,
    /// Which one of those that were left in the round answered, if one did.
    place: Option<usize>,
}

/// A reason, with what else is tried.
fn with_all(reason: String, addresses: &[String]) -> String {
    match addresses {
        [] | [_] => reason,
        all => format!("{reason} (dialled in turn / 依次尝试: {})", all.join(", ")),
    }
}

/// Why there is no connection: stable, and in words.
fn explain(end: &ConnectionEnd, dialling: &Dialling) -> (String, String) {
    let shown = dialling.credentials.borrow().clone();
    let now = OffsetDateTime::now_utc();
    if let Ok(not_after) = shown.not_after()
        && not_after <= now
    {
        let node = &shown.identity.node;
        let reason = format!(
            "this node's certificate ended on {0}, and by this machine's clock it is {1} now. If the clock is \
             right, ask the hub for a new token (there: creditsync invite {node}) and use it here: creditsync \
             join. Nothing is lost meanwhile / 本节点证书已于 {0} 到期，本机时间现为 {1}：请先核对本机时间；时间无误，则向市级中心索取新令牌\
             （中心执行 creditsync invite {node}），再在本机执行 creditsync join。数据不会丢失",
            certs::date(not_after),
            certs::date(now),
        );
        return ("our certificate has ended".to_owned(), reason);
    }
    match end {
        ConnectionEnd::Net(NetError::Tls(problem)) if is_about_roots(problem.kind) => {
            let reason = format!(
                "{end}. If the municipal centre changed its root while this node was away, ask it for a new \
                 token (there: creditsync invite {}) and use it here: creditsync join. Nothing is lost meanwhile \
                 / 若市级中心在本节点离线期间更换了根证书，请索取新令牌后执行 creditsync join，数据不会丢失",
                shown.identity.node
            );
            (problem.kind.as_str().to_owned(), reason)
        }
        ConnectionEnd::Net(error @ NetError::NoAnswer) => {
            let reason = format!(
                "{error}. If the hub has moved while this node was away, write its new address into [upstream] addresses \
                 of creditsync.toml and restart, or use a new token: creditsync join / 没有应答：请检查中心是否运行、防火墙是否放行 UDP；\
                 若中心已更换地址，请修改 creditsync.toml 中的 [upstream] addresses 并重启，或索取令牌后执行 creditsync join"
            );
            (error.kind(), reason)
        }
        ConnectionEnd::Net(error) => (error.kind(), end.to_string()),
        end => (end.to_string(), end.to_string()),
    }
}

/// The hub's word that this node is to stay away.
fn shut_out(end: &ConnectionEnd) -> Option<CloseCode> {
    use CloseCode::{CertificateEnded, NotAMember, Revoked, Superseded};
    match end {
        ConnectionEnd::Net(NetError::Closed(Some(code))) => Some(*code)
            .filter(|code| matches!(code, Revoked | NotAMember | Superseded | CertificateEnded)),
        _ => None,
    }
}

/// Whether one side trusts no root of the other.
fn is_about_roots(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::UnknownIssuer | ProblemKind::OursUnknownIssuer)
}

impl Dialling {
    /// Where the hub is dialled now.
    fn addresses(&mut self, context: &Context) -> Vec<String> {
        let configured = self.configured.borrow_and_update();
        in_order(&context.hub_addresses(), &configured)
    }

    /// Ends when there are other addresses, or other credentials, than now.
    fn news(&mut self) -> impl Future<Output = ()> + use<> {
        self.credentials.mark_unchanged();
        let (mut credentials, mut configured) = (self.credentials.clone(), self.configured.clone());
        async move {
            tokio::select! {
                Ok(()) = credentials.changed() => {}
                Ok(()) = configured.changed() => {}
                // Nobody changes them any more.
                else => std::future::pending().await,
            }
        }
    }

    /// Makes a connection by one of these addresses and begins to serve it; answers
    /// which one that is, or what is most worth telling of why there is none.
    async fn dial(
        &mut self,
        context: &Arc<Context>,
        addresses: &[String],
        hub: &Identity,
        shutdown: &CancellationToken,
    ) -> Result<(usize, Served), (String, NetError)> {
        let credentials = self.credentials.borrow_and_update().clone();
        let made = in_turn(addresses, |address| {
            let (dialer, options) = (self.dialer.clone(), self.options);
            let (hub, credentials) = (hub.clone(), credentials.clone());
            async move {
                let connection = dialer.dial(&address, &hub, &credentials, options).await?;
                Ok((connection, credentials.not_after()?))
            }
        });
        match made.await {
            Ok((place, (connection, own))) => {
                let peer = connection.peer().map_or(own, |peer| peer.not_after());
                let replace_at = rotate::reconnect_at(OffsetDateTime::now_utc(), own, peer);
                let address = addresses.get(place).cloned().unwrap_or_default();
                let (context, shutdown) = (context.clone(), shutdown.clone());
                Ok((place, Served::begin(context, connection, address, replace_at, shutdown)))
            }
            Err(failures) => {
                let (place, error) = most_telling(failures).unwrap_or((0, NetError::Closed(None)));
                Err((addresses.get(place).cloned().unwrap_or_default(), error))
            }
        }
    }
}

/// A connection that is being served.
struct Served {
    task: AbortOnDropHandle<ConnectionEnd>,
    /// Answers when the hub's hello has arrived.
    connected: Option<oneshot::Receiver<()>>,
    replace_at: OffsetDateTime,
}

impl Served {
    fn begin(
        context: Arc<Context>,
        connection: Connection,
        address: String,
        replace_at: OffsetDateTime,
        shutdown: CancellationToken,
    ) -> Self {
        let (sender, receiver) = oneshot::channel();
        let peers = context.clone();
        let connected = move || {
            let hub = peers.membership.hub();
            peers.peers.update(hub, |state| state.dialled = Some(address));
            // Nobody may be waiting for it.
            let _ = sender.send(());
        };
        let serving = serve(context, connection, Side::Dialled, shutdown, connected);
        let task = AbortOnDropHandle::new(tokio::spawn(serving));
        Self { task, connected: Some(receiver), replace_at }
    }

    /// Waits until the hub's hello has arrived; else answers how it ended.
    async fn wait_connected(&mut self) -> Result<(), ConnectionEnd> {
        let Some(connected) = self.connected.take() else {
            return Ok(());
        };
        match connected.await {
            Ok(()) => Ok(()),
            Err(_) => Err(ended(&mut self.task).await),
        }
    }

    /// Serves until the connection ends for good, replacing it in time. Answers
    /// how it ended and whether the hub's hello had arrived.
    async fn serve(
        mut self,
        context: &Arc<Context>,
        dialling: &mut Dialling,
        hub: &Identity,
        shutdown: &CancellationToken,
    ) -> (ConnectionEnd, bool) {
        if let Err(end) = self.wait_connected().await {
            return (end, false);
        }
        let mut failures = 0;
        loop {
            let left = self.replace_at - OffsetDateTime::now_utc();
            let left = Duration::try_from(left).unwrap_or_default();
            tokio::select! {
                end = ended(&mut self.task) => return (end, true),
                Ok(()) = dialling.credentials.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_EVERY)) => {
                    if left > LOOK_EVERY {
                        continue;
                    }
                }
            }
            let replacement = async {
                let addresses = dialling.addresses(context);
                let (_, mut next) = dialling
                    .dial(context, &addresses, hub, shutdown)
                    .await
                    .map_err(|(_, error)| ConnectionEnd::Net(error))?;
                next.wait_connected().await?;
                Ok::<_, ConnectionEnd>(next)
            };
            // The old one goes on meanwhile. It may end, not least because the hub
            // has heard the new one's hello.
            let (replaced, old_end) = {
                tokio::pin!(replacement);
                tokio::select! {
                    replaced = &mut replacement => (replaced, None),
                    end = ended(&mut self.task) => (replacement.await, Some(end)),
                }
            };
            match replaced {
                Err(_) if old_end.is_some() => {
                    return (old_end.unwrap_or(ConnectionEnd::Shutdown), true);
                }
                Ok(next) => {
                    let mut old = std::mem::replace(&mut self, next);
                    if old_end.is_none() {
                        // Dropping it ends it, should the hub not have done so.
                        let _ = tokio::time::timeout(REPLACED_MAX, ended(&mut old.task)).await;
                    }
                    failures = 0;
                    tracing::debug!(hub = %hub.node, "the connection was made anew");
                }
                Err(end) => {
                    failures += 1;
                    tracing::debug!(hub = %hub.node, reason = %end, "the connection could not be made anew yet");
                    let now = OffsetDateTime::now_utc();
                    let own = dialling.credentials.borrow().not_after().unwrap_or(now);
                    self.replace_at = now + rotate::retry_after(failures, own - now);
                }
            }
        }
    }
}

async fn ended(task: &mut AbortOnDropHandle<ConnectionEnd>) -> ConnectionEnd {
    match task.await {
        Ok(end) => end,
        // A half-dead daemon is worse than a dead one.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => ConnectionEnd::Shutdown,
    }
}

/// Whether a connection that was made ended for a reason that dialling again at
/// once may mend: the network, or a peer that went down. What either side holds
/// against the other comes again with the next hello.
fn is_passing(end: &ConnectionEnd) -> bool {
    use CloseCode::{Normal, Replaced, Shutdown, Silent};
    match end {
        ConnectionEnd::Net(NetError::Closed(Some(code))) => {
            matches!(code, Normal | Replaced | Shutdown | Silent)
        }
        ConnectionEnd::Net(_) | ConnectionEnd::Silent | ConnectionEnd::Anew => true,
        _ => false,
    }
}
