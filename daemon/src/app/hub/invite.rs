//! Invitations: the hub makes a token, and lets in who shows it.
//!
//! What the hub keeps of a token (`keys/invites.json`) is its id, the hash of
//! its secret, for whom and until when. A token is marked as used, durably,
//! before anything is granted, together with the two keys that it was used for: who
//! comes again with the same two has lost the answer and gets another one, and nobody
//! else is let in. A node that belongs already is invited in the same way: that lets
//! in one whose certificate has ended, one that was revoked, and one that lost
//! its directory, whose new signing key is then marked as such.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use certs::{
    enrol::{RootOfTrust, Token, generate_secret, secret_hash},
    fault,
    identity::Identity,
    keyfile,
};
use protocol::{
    federation::{CaKind, CaState, Entry, Introduction, Member, Registry, Revocation, Role},
    hex,
    id::NodeId,
    message::{
        CloseCode, JOIN_REQUEST_BYTES_MAX, JoinRefused, JoinReply, JoinRequest, possession_bytes,
    },
    sign::{PublicKey, SignaturePurpose},
    suite::checksum::Checksum,
};
use serde::{Deserialize, Serialize};

use super::{Ending, Registrar, joining::Place, puts};
use crate::{
    app::now_unix,
    limit::{Budget, Limiter},
    net::{Connection, FrameReceiver, FrameSender, network_of},
};

/// Invitations that may be open at once: more than a city has counties.
const INVITES_OPEN_MAX: usize = 1000;
/// Used and expired invitations are kept for so long, so that a late use is
/// told apart from a forged token.
const INVITES_KEPT_S: i64 = 90 * 24 * 3600;
/// At most so many of them: with those that are open, and after all of these are used, they
/// stay below the length of a private file.
const INVITES_SETTLED_MAX: usize = 300;
/// The request has to arrive within this time after the handshake: it is one frame,
/// which a node that joins sends at once.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// A node that is let in has to take each piece of the answer within this time.
const PIECE_MAX: Duration = Duration::from_secs(10);
/// A node that has lost the answer may ask for it again for so long.
const ANSWERED_AGAIN_S: i64 = 24 * 3600;

/// Unknown tokens from one address, and in all, after which others are refused for
/// a while. A secret has 256 bits, so this is about noise in the log and work for
/// the disk, not about guessing.
const UNKNOWN_FROM_ONE: Budget = Budget { capacity: 10, refill: Duration::from_secs(6) };
const UNKNOWN_IN_ALL: Budget = Budget { capacity: 200, refill: Duration::from_millis(300) };
/// Addresses that are remembered for that: all that `UNKNOWN_IN_ALL` lets through
/// until the first one has its budget again, and some more.
const UNKNOWN_ADDRESSES_MAX: usize = 1000;
/// That there are too many is worth a line a minute.
const TOO_MANY_LINES: Budget = Budget { capacity: 1, refill: Duration::from_secs(60) };

/// Who showed tokens that are not known.
pub(super) struct UnknownTokens {
    from_one: Limiter<IpAddr>,
    in_all: Limiter<()>,
    lines: Limiter<()>,
}

impl Default for UnknownTokens {
    fn default() -> Self {
        Self {
            from_one: Limiter::new(UNKNOWN_FROM_ONE, UNKNOWN_ADDRESSES_MAX),
            in_all: Limiter::of_all(UNKNOWN_IN_ALL),
            lines: Limiter::of_all(TOO_MANY_LINES),
        }
    }
}

impl UnknownTokens {
    /// Notes an unknown token; whether it is still told that it is unknown.
    fn note(&self, address: IpAddr, now: Instant) -> bool {
        // In this order, so that one address does not use up what all have.
        let few = self.from_one.allow(&network_of(address), now).is_some()
            && self.in_all.allow(&(), now).is_some();
        if !few && let Some(unsaid) = self.lines.allow(&(), now) {
            tracing::warn!(%address, unsaid, "too many unknown join tokens; they are refused for a while");
        }
        few
    }
}

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
    /// For which keys it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
    /// What it grants stands in `_federation`.
    #[serde(default)]
    granted: bool,
    /// The number of the root that the token names.
    root: u32,
}

/// Who has used an invitation: a node that proves that it has both keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// The public signing key, hexadecimal.
    signing_key: String,
    /// The checksum of the certificate's public key.
    certificate_key: Checksum,
}

/// Whether a request is the first one that an invitation is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    First,
    /// It was used with the same keys: the answer was lost, or this hub died over it.
    Again,
}

impl Use {
    /// Why a request is refused: of an invitation that was used nothing else is said than
    /// that.
    fn or(self, why: JoinRefused) -> JoinRefused {
        match self {
            Self::First => why,
            Self::Again => JoinRefused::Used,
        }
    }
}

impl Invite {
    fn is_open(&self, now: i64) -> bool {
        self.used_unix.is_none() && self.expires_unix > now
    }
}

/// Drops used and expired invitations that are old, and of too many the first ones.
fn forget_settled(invites: &mut Vec<Invite>, now: i64) {
    invites.retain(|invite| invite.expires_unix > now - INVITES_KEPT_S);
    let settled = invites.iter().filter(|invite| !invite.is_open(now)).count();
    let mut superfluous = settled.saturating_sub(INVITES_SETTLED_MAX);
    invites.retain(|invite| {
        let goes = superfluous > 0 && !invite.is_open(now);
        superfluous -= usize::from(goes);
        !goes
    });
}

/// Drops the invitations of a node that were not used, and forgets who has used the
/// others. Whether there was anything to do.
fn take_back_of(invites: &mut Vec<Invite>, node: &NodeId) -> bool {
    let before = invites.len();
    invites.retain(|invite| invite.node != *node || invite.used_unix.is_some());
    let mut changed = invites.len() != before;
    for invite in invites.iter_mut().filter(|invite| invite.node == *node) {
        changed |= invite.holder.take().is_some();
    }
    changed
}

impl Registrar {
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
        let text = serde_json::to_vec(invites)?;
        Ok(keyfile::replace_private(&path, &text)?)
    }

    /// Whether a token for `node` lets in again who belongs already.
    pub(in crate::app) fn is_known(&self, node: &NodeId) -> anyhow::Result<bool> {
        Ok(self.membership.current()?.members().contains_key(node))
    }

    /// Makes a one-time token for `node`.
    pub(in crate::app) fn invite(
        &self,
        node: &str,
        name: Option<String>,
        ttl_s: u64,
        address: Option<String>,
    ) -> anyhow::Result<Token> {
        let node = NodeId::new(node)?;
        Identity::new(&self.identity.federation, &node).check()?;
        if node == *self.membership.hub() {
            bail!("{node} is this hub itself; a member needs a name of its own");
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
        let registry = self.membership.current()?;
        let known_as = registry.members().get(&node);
        let known_as = known_as.and_then(|member| config::shown_display_name(&member.name));
        let authority = self.authority()?;
        let (id, secret) = generate_secret()?;
        let token = Token {
            federation: self.identity.federation.clone(),
            node: node.clone(),
            hub: self.identity.node.clone(),
            addresses,
            root: RootOfTrust::from_certificate(authority.root())?,
            anchor: self.membership.anchor(),
            federation_seq: head.seq(),
            federation_head: head.signed.hash(),
            id,
            secret,
            expires_unix: now_unix() + ttl,
            name: name.or(known_as).unwrap_or_else(|| node.to_string()),
        };

        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        let now = now_unix();
        forget_settled(&mut invites, now);
        // Of two open tokens for one name the second to be used would speak for
        // the first: only the newest counts.
        take_back_of(&mut invites, &node);
        let open = invites.iter().filter(|invite| invite.is_open(now));
        if open.count() >= INVITES_OPEN_MAX {
            bail!("{INVITES_OPEN_MAX} invitations are open; wait until some are used or expire");
        }
        invites.push(Invite {
            id: hex::encode(&token.id),
            secret_hash: token.secret_hash().to_string(),
            node,
            name: token.name.clone(),
            expires_unix: token.expires_unix,
            used_unix: None,
            holder: None,
            granted: false,
            root: authority.choice().root,
        });
        self.write_invites(&invites)?;
        Ok(token)
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

    /// Takes back invitations that were not used: what they say of the hub is not
    /// true any more.
    pub(super) fn drop_open_invites(&self) -> anyhow::Result<()> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        invites.retain(|invite| invite.used_unix.is_some());
        self.write_invites(&invites)
    }

    /// Takes back the invitations of a node, because it is shut out: only one that is made
    /// later lets it in again, and who has used one gets no more answers to that.
    pub(super) fn take_back_invites_of(&self, node: &NodeId) -> anyhow::Result<()> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        if take_back_of(&mut invites, node) { self.write_invites(&invites) } else { Ok(()) }
    }

    /// Finds the invitation that a request is for: one that is open, or one that was
    /// used with the same signing key. With `used_by` marks one that is open as used, and
    /// one that was used is good only for the same two keys. Blocks.
    fn redeem(
        &self,
        request: &JoinRequest,
        used_by: Option<&Holder>,
    ) -> Result<(Use, Invite), JoinRefused> {
        let failed = |error: anyhow::Error| {
            tracing::error!(error = format!("{error:#}"), "invitations cannot be read or written");
            JoinRefused::Failed
        };
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites().map_err(failed)?;
        let id = hex::encode(&request.token_id);
        let suite = self.membership.suite();
        let hash = secret_hash(suite, &request.token_id, &request.secret).to_string();
        let invite = invites
            .iter_mut()
            // Hashes are compared, so timing tells nothing about the secret.
            .find(|invite| invite.id == id && invite.secret_hash == hash)
            .ok_or(JoinRefused::UnknownToken)?;
        if let Some(used) = invite.used_unix {
            let again = invite.holder.as_ref().is_some_and(|holder| {
                holder.signing_key == hex::encode(&request.signing_key)
                    && invite.node == request.node
                    && used_by.is_none_or(|used_by| used_by == holder)
                    && now_unix().saturating_sub(used) < ANSWERED_AGAIN_S
            });
            return if again { Ok((Use::Again, invite.clone())) } else { Err(JoinRefused::Used) };
        }
        if invite.expires_unix <= now_unix() {
            return Err(JoinRefused::Expired);
        }
        if invite.node != request.node {
            return Err(JoinRefused::Mismatch);
        }
        let Some(used_by) = used_by else {
            return Ok((Use::First, invite.clone()));
        };
        invite.used_unix = Some(now_unix());
        invite.holder = Some(used_by.clone());
        let used = invite.clone();
        self.write_invites(&invites).map_err(failed)?;
        fault::point("invite.used");
        Ok((Use::First, used))
    }

    /// What an invitation grants is done.
    fn note_granted(&self, id: &str) -> anyhow::Result<()> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        if let Some(invite) = invites.iter_mut().find(|invite| invite.id == id) {
            invite.granted = true;
        }
        self.write_invites(&invites)
    }

    /// As [`Registrar::enrol`], unless too many unknown tokens came in.
    fn enrol_from(&self, request: &JoinRequest, from: IpAddr) -> Result<JoinReply, JoinRefused> {
        let reply = self.enrol(request);
        if !matches!(reply, Err(JoinRefused::UnknownToken)) {
            return reply;
        }
        // Who has a token is served, whoever else is at the same address.
        if self.unknown_tokens.note(from, Instant::now()) {
            reply
        } else {
            Err(JoinRefused::TooMany)
        }
    }

    /// Writes what an invitation grants: membership, a signing key that is new here, and
    /// that certificates of the node from before `ending_before` are over.
    fn grant(
        &self,
        registry: &Registry,
        invite: &Invite,
        key: Option<&PublicKey>,
        ending_before: Option<i64>,
    ) -> anyhow::Result<()> {
        let node = &invite.node;
        let member = Member {
            name: invite.name.clone(),
            role: Role::Member,
            removed: false,
            // It never goes down: what is issued begins behind it (`Registrar::issue`).
            certificates_from: ending_before,
        };
        let mut entries = vec![Entry::Member(node.clone(), member)];
        if let Some(key) = key {
            let by = match registry.keys(node) {
                [] => Introduction::Enrolment,
                _ => Introduction::Reenrolment,
            };
            entries.extend(self.succession(
                registry,
                node,
                Some((key, by, None)),
                Ending::Routine,
            )?);
        }
        let mut changes = puts(&entries)?;
        if registry.revocation(node, None).is_some() {
            let nothing = Revocation { at_ms: 0, reason: String::new() };
            changes.push(Entry::Revocation(node.clone(), None, nothing).delete()?);
        }
        self.commit(changes)?;
        Ok(())
    }

    /// Checks a request and grants it: certificate, membership. Blocks.
    fn enrol(&self, request: &JoinRequest) -> Result<JoinReply, JoinRefused> {
        let failed = |error: anyhow::Error| {
            tracing::error!(node = %request.node, error = format!("{error:#}"), "the node could not be enrolled");
            JoinRefused::Failed
        };
        // Who has no token gets no further, and everything that the request can be
        // wrong in comes before the token is used up.
        let (used, _) = self.redeem(request, None)?;
        let mismatch = || used.or(JoinRefused::Mismatch);
        let key = self.membership.suite().public_key(&request.signing_key);
        let key = key.map_err(|_| mismatch())?;
        key.verify(
            SignaturePurpose::Possession,
            &possession_bytes(&request.token_id, &request.node),
            &request.possession,
        )
        .map_err(|_| mismatch())?;
        let identity = Identity::new(&self.identity.federation, &request.node);
        // Nothing is renewed between this certificate's date and the record that
        // ends those before it.
        let _changing = self.change();
        // Another request may have used it while this one waited.
        let (used, invite) = self.redeem(request, None)?;
        let registry = self.membership.current().map_err(|error| failed(error.into()))?;
        let authority = self.authority().map_err(failed)?;
        // Whoever holds a certificate from before stays outside: it may be why the node
        // joins again. Who is answered again has ended those already.
        let ends_others = registry.members().contains_key(&request.node) && !invite.granted;
        let chain = self
            .issue((&authority, &registry), &identity, &request.csr, ends_others)
            .map_err(|error| {
                error.answer(&request.node, used.or(JoinRefused::Mismatch), JoinRefused::Failed)
            })?;
        let known = registry.keys(&request.node).iter().find(|known| known.public == key);
        if known.is_some_and(|known| known.record.last.is_some()) {
            return Err(used.or(JoinRefused::KeyRetired));
        }
        // What is issued leads to the token's root, as long as that is trusted.
        let named = registry.ca(CaKind::Root, invite.root);
        if named.is_none_or(|root| root.state == CaState::Retired) {
            return Err(used.or(JoinRefused::Expired));
        }
        let root = self.cas.root(invite.root).map_err(|error| failed(error.into()))?;
        let certificate_key =
            certs::identity::public_key_of(&chain[0]).map_err(|error| failed(error.into()))?;
        let certificate_key = Checksum::of(&[&certificate_key]);
        let holder = Holder { signing_key: hex::encode(&request.signing_key), certificate_key };
        let (_, invite) = self.redeem(request, Some(&holder))?;
        let accepted = JoinReply::Accepted {
            chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
            root: root.to_vec(),
        };
        let is_new_key = known.is_none();
        if invite.granted {
            // Another key may have followed since. A revocation or a removal has taken the
            // invitation back.
            let current = registry.current_key(&request.node);
            if current.is_none_or(|known| known.public != key) {
                return Err(JoinRefused::Used);
            }
            self.seen.joined(&request.node, &chain, &root, now_unix());
            tracing::info!(node = %request.node, "a node that joined is answered again");
            return Ok(accepted);
        }
        let facts = certs::identity::facts(&chain[0]).map_err(|error| failed(error.into()))?;
        let ending_before = ends_others.then(|| facts.not_before.unix_timestamp());
        let granted = if is_new_key {
            self.with_key_suspended(&registry, &request.node, || {
                self.grant(&registry, &invite, Some(&key), ending_before)
            })
        } else {
            self.grant(&registry, &invite, None, ending_before)
        };
        granted.map_err(failed)?;
        fault::point("invite.granted");
        self.note_granted(&invite.id).map_err(failed)?;
        // It counts as seen: a rotation must not leave it behind before its daemon
        // has ever run.
        self.seen.joined(&request.node, &chain, &root, now_unix());
        tracing::info!(node = %request.node, new_signing_key = is_new_key, "a node joined");
        Ok(accepted)
    }
}

/// Serves the one stream of a node that wants to join.
pub(in crate::app) async fn serve_join(
    registrar: Arc<Registrar>,
    connection: Connection,
    place: &Place,
    refusals: &Limiter<()>,
) {
    let address = connection.address();
    let joined = tokio::select! {
        joined = answer_join(registrar, &connection, place) => joined,
        () = place.makes_room.cancelled() => Err(Busy.into()),
    };
    let is_busy = joined.as_ref().is_err_and(|error| error.is::<Busy>());
    connection.close(if is_busy { CloseCode::Unavailable } else { CloseCode::Normal });
    if let Err(error) = joined
        && let Some(unsaid) = refusals.may_say()
    {
        tracing::warn!(%address, error = format!("{error:#}"), unsaid, "a join failed");
    }
}

/// Others are joining: it has to come again.
#[derive(Debug, thiserror::Error)]
#[error("too many nodes join at once")]
struct Busy;

async fn answer_join(
    registrar: Arc<Registrar>,
    connection: &Connection,
    place: &Place,
) -> anyhow::Result<()> {
    let request = tokio::time::timeout(REQUEST_MAX, receive_request(connection)).await;
    let (mut sender, request) = request.context("no request came")??;
    let (enrolling, address) = (registrar.clone(), connection.address().ip());
    // Who has no good token is told so without a place among those who are served.
    let looked = {
        let (registrar, request) = (registrar.clone(), request.clone());
        tokio::task::spawn_blocking(move || registrar.redeem(&request, None).is_ok()).await?
    };
    if looked && !place.serve() {
        return Err(Busy.into());
    }
    let reply = tokio::task::spawn_blocking(move || enrolling.enrol_from(&request, address));
    let reply = reply.await?;
    let refused = match reply {
        Ok(accepted) => {
            send_piece(&mut sender, &accepted).await?;
            send_federation(&registrar, &mut sender).await?;
            send_piece(&mut sender, &JoinReply::Done).await?;
            None
        }
        Err(refused) => {
            send_piece(&mut sender, &JoinReply::Refused(refused)).await?;
            // Those were logged when they became too many, and a node whose key was
            // retired comes again with another one.
            Some(refused).filter(|r| !matches!(r, JoinRefused::TooMany | JoinRefused::KeyRetired))
        }
    };
    sender.finish();
    tokio::time::timeout(PIECE_MAX, sender.drained()).await.context("it does not listen")?;
    match refused {
        Some(refused) => bail!(refused),
        None => Ok(()),
    }
}

async fn receive_request(connection: &Connection) -> anyhow::Result<(FrameSender, JoinRequest)> {
    let (sender, mut receiver): (FrameSender, FrameReceiver) = connection.accept_stream().await?;
    receiver.limit(JOIN_REQUEST_BYTES_MAX);
    let frame = receiver.receive().await?.context("the stream ended before the request")?;
    Ok((sender, protocol::codec::decode(&frame)?))
}

async fn send_piece(sender: &mut FrameSender, piece: &JoinReply) -> anyhow::Result<()> {
    let sent = tokio::time::timeout(PIECE_MAX, sender.send(piece)).await;
    Ok(sent.context("it does not listen")??)
}

async fn send_federation(registrar: &Registrar, sender: &mut FrameSender) -> anyhow::Result<()> {
    let partition = registrar.membership.partition();
    let head = registrar.store.head(partition).map_or(0, |head| head.seq());
    for seq in 1..=head {
        let sets = registrar.store.change_sets(partition, seq, 1, 1)?;
        let set = sets.and_then(|sets| sets.into_iter().next());
        let set = set.with_context(|| format!("number {seq} of _federation is missing"))?;
        let piece = JoinReply::ChangeSet { header: set.header.encode(), body: set.body };
        send_piece(sender, &piece).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_tokens_are_counted_by_network_and_in_all() {
        let (tokens, start) = (UnknownTokens::default(), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for _ in 0..UNKNOWN_FROM_ONE.capacity {
            assert!(tokens.note(address("2001:db8::1"), start));
        }
        // What one network tries beyond its own share takes nothing from the others.
        for _ in 0..1000 {
            assert!(!tokens.note(address("2001:db8::2"), start), "the same network");
        }
        assert!(tokens.note(address("2001:db8:0:1::1"), start));
        assert!(tokens.note(address("192.0.2.1"), start));
        let others = (0..=255).filter(|n| tokens.note(IpAddr::from([198, 51, 100, *n]), start));
        assert_eq!(others.count(), 200 - 10 - 2);
        assert!(!tokens.note(address("192.0.2.1"), start), "in all");
        assert!(tokens.note(address("192.0.2.1"), start + UNKNOWN_IN_ALL.refill));
        let later = start + UNKNOWN_FROM_ONE.refill;
        assert!(tokens.note(address("2001:db8::1"), later));
        assert!(!tokens.note(address("2001:db8::1"), later));
    }

    #[test]
    fn the_file_of_invitations_stays_short_however_many_have_joined() {
        let now = 1_800_000_000;
        let name = "\u{90d1}".repeat(85);
        config::check_display_name(&name).unwrap();
        config::check_display_name(&format!("{name}\u{90d1}")).expect_err("it is the longest");
        let invite = |number: usize, used: bool| Invite {
            id: "0123456789abcdef".into(),
            secret_hash: "f".repeat(64),
            node: NodeId::new(&format!("{number:a>63}")).unwrap(),
            name: name.clone(),
            expires_unix: now + 1,
            used_unix: used.then_some(now),
            holder: used.then(|| Holder {
                signing_key: "a".repeat(64),
                certificate_key: Checksum::of(&[b"certificate"]),
            }),
            granted: used,
            root: u32::MAX,
        };
        let mut invites: Vec<Invite> = (0..5000).map(|number| invite(number, true)).collect();
        invites.push(invite(5000, false));
        forget_settled(&mut invites, now);
        assert_eq!(invites.len(), INVITES_SETTLED_MAX + 1);
        assert!(invites[0].node.as_str().ends_with("4700"), "the newest are kept");
        assert!(invites.last().unwrap().is_open(now));
        // All that may be open besides are used then.
        invites.extend((0..INVITES_OPEN_MAX).map(|number| invite(number, true)));
        let bytes = serde_json::to_vec(&invites).unwrap().len();
        assert!((bytes as u64) < keyfile::FILE_BYTES_MAX, "{bytes} bytes");
    }
}
