//! What a member asks of its hub over the live connection: a certificate, and
//! that its next signing key is registered.

use std::time::Duration;

use anyhow::{Context as _, bail};
use protocol::{
    federation::succession_bytes,
    message::{NewKeyReply, NewKeyRequest, Open, RenewReply, RenewRequest},
    sign::SignaturePurpose,
};
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;

use crate::{app::node::Node, net::Connection};

/// The hub has this long for an answer: it may write to its disk before it.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A connection that takes over is there within this time, or none is.
const SUCCESSOR_MAX: Duration = Duration::from_secs(2);
/// How often is looked for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Asks for a certificate with a new key and shows it from then on.
pub async fn renew(node: &Node) -> anyhow::Result<()> {
    let _one_at_a_time = node.keeper.asking.lock().await;
    connection(node)?;
    let csr = node.keeper.request()?;
    let reply: RenewReply = ask(node, &Open::Renew(RenewRequest { csr })).await?;
    match reply {
        RenewReply::Issued { chain } => {
            node.keeper.install(chain.into_iter().map(CertificateDer::from).collect())
        }
        RenewReply::Refused(refused) => bail!("the hub refused: {refused}"),
    }
}

/// Lets the next signing key follow the present one. It signs once `_federation`
/// says so.
pub async fn new_signing_key(node: &Node) -> anyhow::Result<u64> {
    connection(node)?;
    let registry = node.membership.current()?;
    let me = node.membership.me();
    let present = node.own_keys.current();
    if registry.current_key(me).is_none_or(|known| known.public != present.public()) {
        bail!(
            "this node's signing key is not the one that the federation knows, so it cannot vouch for \
             another; join again with a new token: creditsync join"
        );
    }
    let next = node.own_keys.prepare_next()?;
    let federation = node.membership.federation();
    let bytes = succession_bytes(federation, me, &present.public().id(), &next.public());
    let request = NewKeyRequest {
        signing_key: next.public().as_bytes().to_vec(),
        possession: next.sign(SignaturePurpose::Possession, &bytes).as_bytes().to_vec(),
        countersignature: present.sign(SignaturePurpose::Succession, &bytes).as_bytes().to_vec(),
    };
    match ask(node, &Open::NewKey(request)).await? {
        NewKeyReply::Registered { federation_seq } => Ok(federation_seq),
        NewKeyReply::Refused(refused) => bail!("the hub refused: {refused}"),
    }
}

fn connection(node: &Node) -> anyhow::Result<Connection> {
    let hub = node.membership.hub();
    let connection = node.sync.peers.connection(hub);
    connection.with_context(|| format!("this node is not connected to its hub {hub}"))
}

/// Asks, and asks again where the connection was made anew before the answer
/// came: the hub answers the same request in the same way.
async fn ask<T: DeserializeOwned>(node: &Node, open: &Open) -> anyhow::Result<T> {
    let answer = async {
        let mut connection = connection(node)?;
        loop {
            let error = match ask_through(&connection, open).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match tokio::time::timeout(SUCCESSOR_MAX, successor(node, &connection)).await {
                Ok(next) => connection = next,
                Err(_) => return Err(error),
            }
        }
    };
    tokio::time::timeout(ANSWER_MAX, answer).await.context("the hub does not answer")?
}

/// Waits for a connection that is not this one.
async fn successor(node: &Node, before: &Connection) -> Connection {
    loop {
        match node.sync.peers.connection(node.membership.hub()) {
            Some(next) if next.id() != before.id() => return next,
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

async fn ask_through<T: DeserializeOwned>(
    connection: &Connection,
    open: &Open,
) -> anyhow::Result<T> {
    let (mut sender, mut receiver) = connection.open_stream().await?;
    sender.send(open).await?;
    sender.finish();
    let frame = receiver.receive().await?.context("the hub ended the stream early")?;
    Ok(protocol::codec::decode(&frame)?)
}
