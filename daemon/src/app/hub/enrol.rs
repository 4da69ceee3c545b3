//! Lets a node in that shows a token: its request, what it is granted, and what it is sent.
//!
//! Used by the daemon, for connections whose peer is not known yet ([`serve_join`]).
//! Invariant: everything that a request can be wrong in comes before its token is used up,
//! and nothing is granted before that is durable ([`super::invite`]). Not here: who may be
//! joining at once ([`super::joining`]).

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use certs::{fault, identity::Identity};
use protocol::{
    federation::{CaKind, CaState, Entry, Introduction, Member, Registry, Revocation, Role},
    hex,
    message::{
        CloseCode, JOIN_REQUEST_BYTES_MAX, JoinRefused, JoinReply, JoinRequest, possession_bytes,
    },
    sign::{PublicKey, SignaturePurpose},
    suite::checksum::Checksum,
};

use super::{
    Ending, Registrar,
    invite::{Holder, Invite},
    joining::Place,
    puts,
};
use crate::{
    app::now_unix,
    limit::{Budget, Limiter},
    net::{Connection, FrameReceiver, FrameSender, network_of},
};

/// The request has to arrive within this time after the handshake: it is one frame,
/// which a node that joins sends at once.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// A node that is let in has to take each piece of the answer within this time.
const PIECE_MAX: Duration = Duration::from_secs(10);

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

impl Registrar {
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
    let head = registrar.store.seq(partition);
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
}
