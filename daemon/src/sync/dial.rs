//! A member keeps its connection to the hub.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use certs::{credentials::Credentials, identity::Identity};
use protocol::{message::CloseCode, session::backoff::Backoff};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    connection::{ConnectionEnd, Side, serve},
    random,
};
use crate::net::{Dialer, NetError};

/// First wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(250);

/// Dials the hub at its addresses in turn, serves the connection, and dials
/// again with growing waits, until `shutdown`.
pub async fn keep_connected(
    context: Arc<Context>,
    dialer: Dialer,
    addresses: Vec<String>,
    credentials: Arc<Credentials>,
    shutdown: CancellationToken,
) {
    let hub = Identity::new(context.federation(), context.membership.hub());
    let mut backoff = Backoff::new(RETRY_FIRST, context.retry_longest);
    let mut reported = String::new();
    for address in addresses.iter().cycle() {
        let was_connected = AtomicBool::new(false);
        let attempt = async {
            match dialer.dial(address, &hub, &credentials).await {
                Ok(connection) => {
                    let connected = || was_connected.store(true, Ordering::Relaxed);
                    serve(context.clone(), connection, Side::Dialled, shutdown.clone(), connected)
                        .await
                }
                Err(error) => ConnectionEnd::Net(error),
            }
        };
        let end = tokio::select! {
            end = attempt => end,
            () = shutdown.cancelled() => break,
        };
        if let ConnectionEnd::Shutdown = end {
            break;
        }
        if was_connected.load(Ordering::Relaxed) && is_passing(&end) {
            backoff.succeeded();
            reported.clear();
        }
        let reason = end.to_string();
        context.peers.update(&hub.node, |state| {
            state.address = Some(address.clone());
            state.reason = Some(reason.clone());
        });
        // The same reason is not worth a line every minute.
        if reported != reason {
            tracing::warn!(hub = %hub.node, %address, %reason, "not connected to the hub; trying again by itself");
            reported = reason;
        }
        let mut wait = backoff.failed(random());
        if let ConnectionEnd::Net(NetError::Closed(Some(CloseCode::Replaced))) = end {
            // Two daemons of one identity would take turns at full speed.
            wait = wait.max(context.retry_longest / 2);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => break,
        }
    }
    dialer.close().await;
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
        ConnectionEnd::Net(_) | ConnectionEnd::Silent => true,
        _ => false,
    }
}
