//! Invitations: the hub makes a token, and lets in who shows it.
//!
//! What the hub keeps of a token (`keys/invites.json`) is its id, the hash of
//! its secret, for whom and until when. A token is marked as used, durably,
//! before anything is granted: a crash in between costs a token, never lets two
//! nodes in. A node that has not delivered anything can be invited again, so a
//! join whose answer was lost costs no name.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use certs::{
    authority::{Authority, CaDirs, IssuerChoice},
    enrol::{RootOfTrust, Token, generate_secret, secret_hash},
    identity::Identity,
    keyfile::{self, KeyDir},
};
use protocol::{
    federation::{Entry, Member, Role},
    hash::Hash,
    id::NodeId,
    message::{
        CloseCode, JOIN_REQUEST_BYTES_MAX, JoinRefused, JoinReply, JoinRequest, possession_bytes,
    },
    sign::{PublicKey, SignaturePurpose},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{node::Node, now_unix};
use crate::net::{Connection, FrameReceiver, FrameSender};

/// Invitations that may be open at once: more than a city has counties.
const INVITES_OPEN_MAX: usize = 1000;
/// Used and expired invitations are kept for so long, so that a late use is
/// told apart from a forged token.
const INVITES_KEPT_S: i64 = 90 * 24 * 3600;
/// Nodes that may be joining at once. Who joins is not known yet, and may fill
/// its connection's window: 512 MiB in all, for 30 seconds.
pub(super) const JOINING_MAX: usize = 32;
/// A joining node has this long for everything.
const JOIN_MAX: Duration = Duration::from_secs(30);

/// An invitation as the hub keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Invite {
    /// The token's public id, hexadecimal.
    id: String,
    secret_hash: String,
    node: NodeId,
    name: String,
    expires_unix: i64,
    used_unix: Option<i64>,
}

fn id_text(id: &[u8; 8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Node {
    fn read_invites(&self) -> anyhow::Result<Vec<Invite>> {
        let path = self.dir.keys().join("invites.json");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let bytes = keyfile::read_private(&path)?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }

    fn write_invites(&self, invites: &[Invite]) -> anyhow::Result<()> {
        let path = self.dir.keys().join("invites.json");
        let text = serde_json::to_vec_pretty(invites)?;
        Ok(keyfile::replace_private(&path, &text)?)
    }

    /// Whether a token for `node` would replace the keys of a member.
    pub(super) fn would_replace(&self, node: &NodeId) -> anyhow::Result<bool> {
        Ok(self.membership.current()?.active_member(node).is_some())
    }

    /// Makes a one-time token for `node`.
    pub(super) fn invite(
        &self,
        node: &str,
        name: Option<String>,
        ttl_s: u64,
        address: Option<String>,
    ) -> anyhow::Result<Token> {
        if !self.is_hub() {
            bail!("only the hub invites; do this at {}", self.membership.hub());
        }
        let node = NodeId::new(node)?;
        Identity::new(&self.identity.federation, &node).check()?;
        if node == *self.membership.hub() {
            bail!("{node} is this hub itself; a member needs a name of its own");
        }
        if self.is_taken(&node)? {
            bail!(
                "{node} is a member already and has delivered data; this version cannot enrol it again. \
                 Invite it under another name, or restore its directory"
            );
        }
        if let Some(name) = &name {
            config::check_display_name(name)
                .map_err(|problem| anyhow::anyhow!("--name: {problem}"))?;
        }
        let ttl = i64::try_from(ttl_s).ok().filter(|ttl| (1..=366 * 24 * 3600).contains(ttl));
        let ttl = ttl.context("--ttl is between 1 second and a year")?;
        let addresses = self.addresses_for_token(address)?;
        let head = self.store.head(self.membership.partition());
        let head = head.context("this hub has no _federation; was it initialised?")?;
        let authority = self.authority()?;
        let (id, secret) = generate_secret()?;
        let token = Token {
            federation: self.identity.federation.clone(),
            node: node.clone(),
            hub: self.identity.node.clone(),
            addresses,
            root: RootOfTrust::from_certificate(authority.root())?,
            anchor: self.membership.anchor().clone(),
            federation_seq: head.seq(),
            federation_head: head.signed.hash(),
            id,
            secret,
            expires_unix: now_unix() + ttl,
            name: name.unwrap_or_else(|| node.to_string()),
        };

        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        let now = now_unix();
        invites.retain(|invite| invite.expires_unix > now - INVITES_KEPT_S);
        // Of two open tokens for one name the second to be used would speak for
        // the first: only the newest counts.
        invites.retain(|invite| invite.node != node || invite.used_unix.is_some());
        let open =
            invites.iter().filter(|invite| invite.used_unix.is_none() && invite.expires_unix > now);
        if open.count() >= INVITES_OPEN_MAX {
            bail!("{INVITES_OPEN_MAX} invitations are open; wait until some are used or expire");
        }
        invites.push(Invite {
            id: id_text(&token.id),
            secret_hash: token.secret_hash().to_string(),
            node,
            name: token.name.clone(),
            expires_unix: token.expires_unix,
            used_unix: None,
        });
        self.write_invites(&invites)?;
        Ok(token)
    }

    fn authority(&self) -> Result<Authority, certs::CertError> {
        let keys = KeyDir::new(self.dir.keys(), None);
        let dirs = CaDirs { certs: self.dir.certs(), root_keys: keys.clone(), keys };
        Authority::open(&dirs, &IssuerChoice::default())
    }

    /// Whether a node belongs to the federation and has delivered something. One
    /// that has not may have lost the answer to its join, and is let in anew.
    fn is_taken(&self, node: &NodeId) -> anyhow::Result<bool> {
        let is_member = self.membership.current()?.active_member(node).is_some();
        let delivered = self.store.heads().keys().any(|partition| partition.origin == *node);
        Ok(is_member && delivered)
    }

    fn addresses_for_token(&self, address: Option<String>) -> anyhow::Result<Vec<String>> {
        if let Some(address) = address {
            if let Err(problem) = config::check_address(&address) {
                bail!("--address {address}: {problem}");
            }
            return Ok(vec![address]);
        }
        if !self.config.advertise.is_empty() {
            return Ok(self.config.advertise.clone());
        }
        match self.config.listen {
            Some(listen) if !listen.ip().is_unspecified() && listen.port() != 0 => {
                Ok(vec![listen.to_string()])
            }
            _ => bail!(
                "this hub listens on all addresses, so say which one its members reach: \
                 --address HOST:PORT, or listen.advertise in creditsync.toml"
            ),
        }
    }

    /// Marks the token as used if it is good. Blocks.
    fn redeem(&self, request: &JoinRequest) -> Result<Invite, JoinRefused> {
        let failed = |error: anyhow::Error| {
            tracing::error!(error = format!("{error:#}"), "invitations cannot be read or written");
            JoinRefused::Failed
        };
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites().map_err(failed)?;
        let id = id_text(&request.token_id);
        let hash = secret_hash(&request.token_id, &request.secret);
        let invite = invites
            .iter_mut()
            // Hashes are compared, so timing tells nothing about the secret.
            .find(|invite| invite.id == id && invite.secret_hash.parse::<Hash>() == Ok(hash))
            .ok_or(JoinRefused::UnknownToken)?;
        if invite.used_unix.is_some() {
            return Err(JoinRefused::Used);
        }
        if invite.expires_unix <= now_unix() {
            return Err(JoinRefused::Expired);
        }
        let taken = self.is_taken(&request.node).map_err(failed)?;
        if invite.node != request.node || taken {
            return Err(JoinRefused::Mismatch);
        }
        invite.used_unix = Some(now_unix());
        let invite = invite.clone();
        self.write_invites(&invites).map_err(failed)?;
        Ok(invite)
    }

    /// Checks a request and grants it: certificate, membership. Blocks.
    fn enrol(&self, request: &JoinRequest) -> Result<JoinReply, JoinRefused> {
        let failed = |error: anyhow::Error| {
            tracing::error!(node = %request.node, error = format!("{error:#}"), "the node could not be enrolled");
            JoinRefused::Failed
        };
        // Everything that the request can be wrong in comes before the token is
        // used up.
        let key = PublicKey::from_bytes(&request.signing_key).map_err(|_| JoinRefused::Mismatch)?;
        let proof = request.possession.as_slice().try_into().map_err(|_| JoinRefused::Mismatch)?;
        key.verify(
            SignaturePurpose::Possession,
            &possession_bytes(&request.token_id, &request.node),
            proof,
        )
        .map_err(|_| JoinRefused::Mismatch)?;
        let identity = Identity::new(&self.identity.federation, &request.node);
        let authority = self.authority().map_err(|error| failed(error.into()))?;
        let lifetime = time::Duration::hours(self.config.certificates.lifetime_hours as i64);
        let chain = authority
            .issue(&identity, &request.csr, OffsetDateTime::now_utc(), lifetime)
            .map_err(|error| {
            tracing::warn!(node = %request.node, %error, "a certificate request was refused");
            JoinRefused::Mismatch
        })?;
        let invite = self.redeem(request)?;
        let member = Member {
            name: invite.name,
            role: Role::Member,
            signing_keys: vec![Hash(request.signing_key).to_string()],
            removed: false,
        };
        let put = Entry::Member(request.node.clone(), member).put();
        put.map_err(anyhow::Error::from)
            .and_then(|put| self.commit_federation(vec![put]))
            .map_err(failed)?;
        tracing::info!(node = %request.node, "a node joined");
        Ok(JoinReply::Accepted {
            chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
            root: authority.root().to_vec(),
        })
    }
}

/// Serves the one stream of a node that wants to join.
pub(super) async fn serve_join(node: Arc<Node>, connection: Connection) {
    let address = connection.address();
    match tokio::time::timeout(JOIN_MAX, answer_join(node, &connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%address, error = format!("{error:#}"), "a join failed"),
        Err(_) => tracing::warn!(%address, "a join took too long"),
    }
    connection.close(CloseCode::Normal);
}

async fn answer_join(node: Arc<Node>, connection: &Connection) -> anyhow::Result<()> {
    let (mut sender, mut receiver): (FrameSender, FrameReceiver) =
        connection.accept_stream().await?;
    receiver.limit(JOIN_REQUEST_BYTES_MAX);
    let frame = receiver.receive().await?.context("the stream ended before the request")?;
    let request: JoinRequest = protocol::codec::decode(&frame)?;
    let enrolling = node.clone();
    let reply = tokio::task::spawn_blocking(move || enrolling.enrol(&request)).await?;
    let refused = match reply {
        Ok(accepted) => {
            sender.send(&accepted).await?;
            send_federation(&node, &mut sender).await?;
            sender.send(&JoinReply::Done).await?;
            None
        }
        Err(refused) => {
            sender.send(&JoinReply::Refused(refused)).await?;
            Some(refused)
        }
    };
    sender.finish();
    sender.drained().await;
    match refused {
        Some(refused) => bail!(refused),
        None => Ok(()),
    }
}

async fn send_federation(node: &Node, sender: &mut FrameSender) -> anyhow::Result<()> {
    let partition = node.membership.partition();
    let head = node.store.head(partition).map_or(0, |head| head.seq());
    for seq in 1..=head {
        let sets = node.store.change_sets(partition, seq, 1, 1)?;
        let set = sets.and_then(|sets| sets.into_iter().next());
        let set = set.with_context(|| format!("number {seq} of _federation is missing"))?;
        sender.send(&JoinReply::ChangeSet { header: set.header.encode(), body: set.body }).await?;
    }
    Ok(())
}
