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

/// Asks for a certificate with a new key and shows it from then on.
pub async fn renew(node: &Node) -> anyhow::Result<()> {
    let connection = connection(node)?;
    let csr = node.keeper.request()?;
    let reply: RenewReply = ask(&connection, &Open::Renew(RenewRequest { csr })).await?;
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
    let connection = connection(node)?;
    let registry = node.membership.current()?;
    let me = node.membership.me();
    let present = node.own_keys.current();
    if registry.current_key(me).is_none_or(|known| known.public != present.public()) {
        bail!(
            "this node's signing key is not the one that the federation knows, so it cannot vouch for \
             another; join again with a new token: creditsync join TOKEN"
        );
    }
    let next = node.own_keys.prepare_next()?;
    let federation = node.membership.federation();
    let bytes = succession_bytes(federation, me, &present.public().id(), &next.public());
    let request = NewKeyRequest {
        signing_key: *next.public().as_bytes(),
        possession: next.sign(SignaturePurpose::Possession, &bytes).to_vec(),
        countersignature: present.sign(SignaturePurpose::Succession, &bytes).to_vec(),
    };
    match ask(&connection, &Open::NewKey(request)).await? {
        NewKeyReply::Registered { federation_seq } => Ok(federation_seq),
        NewKeyReply::Refused(refused) => bail!("the hub refused: {refused}"),
    }
}

fn connection(node: &Node) -> anyhow::Result<Connection> {
    let hub = node.membership.hub();
    let connection = node.sync.peers.connection(hub);
    connection.with_context(|| format!("this node is not connected to its hub {hub}"))
}

async fn ask<T: DeserializeOwned>(connection: &Connection, open: &Open) -> anyhow::Result<T> {
    let answer = async {
        let (mut sender, mut receiver) = connection.open_stream().await?;
        sender.send(open).await?;
        sender.finish();
        let frame = receiver.receive().await?.context("the hub ended the stream early")?;
        Ok(protocol::codec::decode(&frame)?)
    };
    tokio::time::timeout(ANSWER_MAX, answer).await.context("the hub does not answer")?
}
