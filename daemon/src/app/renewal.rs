//! The task that keeps certificates alive: renews this node's before it ends,
//! loads files that changed, and at a hub carries rotations of authorities on.
//!
//! It looks once a second, at what is in memory: certificates may live for
//! seconds only, and a file that was replaced should be used at once.

use std::{sync::Arc, time::Duration};

use certs::{identity::CertificateFacts, rotate};
use protocol::{federation::CaKind, federation::certificate_id, id::NodeId};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{keeper::Shown, member, node::Node, now_unix};

/// How often is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A hub that was away for long, or whose clock is about to be set, knows of
/// nobody's return yet: it goes on with rotations after this time only.
const AUTHORITY_GRACE: Duration = Duration::from_secs(300);
/// An authority that cannot be rotated is tried again after this time.
const AUTHORITY_RETRY: time::Duration = time::Duration::minutes(10);
/// A renewed certificate is not renewed again before this, whatever is wrong.
const AFTER_SUCCESS: time::Duration = time::Duration::seconds(2);

/// Runs until `shutdown`; `hangup` asks for everything to be loaded again.
pub(super) async fn keep_renewed(
    node: Arc<Node>,
    hangup: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut renewal = Renewal::new();
    let mut authority_retry_at = OffsetDateTime::UNIX_EPOCH;
    let started = std::time::Instant::now();
    let was_away = node.registrar.as_ref().is_some_and(|hub| hub.was_away(now_unix()));
    let grace = if was_away { AUTHORITY_GRACE } else { Duration::ZERO };
    loop {
        let asked = tokio::select! {
            _ = look.tick() => false,
            () = hangup.notified() => true,
            () = shutdown.cancelled() => return,
        };
        if asked || node.keeper.files_changed() {
            let node = node.clone();
            // What is wrong is remembered and said by the keeper.
            let _ = tokio::task::spawn_blocking(move || drop(node.keeper.reload())).await;
        }
        let now = OffsetDateTime::now_utc();
        let may_rotate = started.elapsed() >= grace && now >= authority_retry_at;
        if may_rotate && node.registrar.is_some() {
            let node = node.clone();
            let rotated = tokio::task::spawn_blocking(move || rotate_authorities(&node, now)).await;
            if !rotated.unwrap_or(true) {
                authority_retry_at = now + AUTHORITY_RETRY;
            }
        }
        if let Some(trustee) = &node.trustee {
            trustee.check_freshness(now_unix() * 1000);
            if trustee.has_to_look() {
                let trustee = trustee.clone();
                let looked = tokio::task::spawn_blocking(move || trustee.look()).await;
                if let Ok(Err(error)) = looked {
                    tracing::debug!(error = format!("{error:#}"), "looked again in vain");
                }
            }
        }
        renewal.look(&node, now).await;
    }
}

/// Goes on with a rotation of authorities; false if it failed.
fn rotate_authorities(node: &Node, now: OffsetDateTime) -> bool {
    let Some(registrar) = &node.registrar else {
        return true;
    };
    let connected: Vec<NodeId> = node.sync.peers.connected_nodes();
    registrar.note_connected(connected.iter(), now.unix_timestamp());
    match registrar.rotate_ca_if_due(now, u32::MAX) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the certificate authority could not be rotated; trying again in ten minutes"
            );
            false
        }
    }
}

/// The renewal of this node's own certificate.
struct Renewal {
    /// Drawn once for a certificate.
    random: u32,
    facts: Option<(Arc<Shown>, CertificateFacts)>,
    failures: u32,
    next_attempt: OffsetDateTime,
}

impl Renewal {
    fn new() -> Self {
        Self {
            random: random(),
            facts: None,
            failures: 0,
            next_attempt: OffsetDateTime::UNIX_EPOCH,
        }
    }

    async fn look(&mut self, node: &Arc<Node>, now: OffsetDateTime) {
        let shown = node.keeper.shown();
        // A member with a PKI of its own has no use for another certificate.
        if now < self.next_attempt || (node.keeper.is_foreign() && node.registrar.is_none()) {
            return;
        }
        if self.facts.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, &shown)) {
            match shown.federation.facts() {
                Ok(facts) => self.facts = Some((shown.clone(), facts)),
                Err(error) => {
                    return tracing::warn!(%error, "this node's certificate is unreadable");
                }
            }
        }
        let Some((_, facts)) = &self.facts else { return };
        let remaining = facts.not_after - now;
        // A hub's that begins in the future was issued before the clock was set back.
        let is_early = node.registrar.is_some() && now < facts.not_before;
        let is_due = rotate::is_due(facts, self.random, now) || is_early;
        if !is_due && !wants_another(node, &shown) {
            return;
        }
        // Without a connection there is nobody to ask; that is no failure.
        let connected = || node.sync.peers.connection(node.membership.hub()).is_some();
        if node.registrar.is_none() && !connected() {
            return;
        }
        let renewed = if let Some(registrar) = node.registrar.clone() {
            let renewing = tokio::task::spawn_blocking(move || registrar.renew_own_certificate());
            renewing.await.unwrap_or_else(|error| Err(error.into()))
        } else {
            member::requests::renew(node).await
        };
        match renewed {
            Err(error) if node.registrar.is_none() && !connected() => {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "the connection ended before an answer"
                );
            }
            Ok(()) => {
                tracing::info!("this node's certificate was renewed");
                let after = node.clone();
                let followed = tokio::task::spawn_blocking(move || after.follow_roots()).await;
                if let Err(error) = followed.unwrap_or_else(|error| Err(error.into())) {
                    node.keeper.note(Some(&error));
                }
                (self.failures, self.random) = (0, random());
                // Whatever it was for may take a moment to be seen.
                self.next_attempt = now + AFTER_SUCCESS;
            }
            Err(error) => {
                node.keeper.note(Some(&error));
                self.failures = self.failures.saturating_add(1);
                self.next_attempt = now + rotate::retry_after(self.failures, remaining);
            }
        }
    }
}

/// Whether the certificate, though far from its end, is to be replaced: another
/// authority is in use, or at a hub the certificates that lead to roots are
/// others now.
fn wants_another(node: &Node, shown: &Shown) -> bool {
    if let Some(registrar) = &node.registrar {
        return !registrar.is_settled().unwrap_or(true);
    }
    let Ok(registry) = node.membership.current() else {
        return false;
    };
    let issuer = shown.federation.chain.get(1).map(|issuer| certificate_id(issuer));
    let active = registry.active_ca(CaKind::Issuing);
    active.is_some_and(|(_, known)| issuer != Some(certificate_id(&known.certificate)))
}

fn random() -> u32 {
    // Without randomness a node renews at the earliest moment, which is harmless.
    getrandom::u32().unwrap_or(0)
}
