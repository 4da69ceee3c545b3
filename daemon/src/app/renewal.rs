//! The task that keeps certificates alive: renews this node's before it ends,
//! loads files that changed, and at a hub carries rotations of authorities on.
//!
//! It looks once a second, at what is in memory: certificates may live for
//! seconds only, and a file that was replaced should be used at once.
//!
//! Invariant: what is due follows from the wall clock, when it is tried again from
//! the one that only goes forward. A clock that was ahead for a moment must not put
//! anything off until that moment comes again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
const AUTHORITY_RETRY: Duration = Duration::from_secs(600);
/// A renewed certificate is not renewed again before this, whatever is wrong.
const AFTER_SUCCESS: Duration = Duration::from_secs(2);
/// The wall clock was set if it moved by so much more or less than time passed: more
/// than a busy machine sleeps between two looks, less than any certificate lives that
/// a year's authority issues.
const CLOCK_SET: Duration = Duration::from_secs(3600);
/// After that no rotation goes on by itself for a day: a wrong clock is noticed and set
/// within one. At the hub's it would make an authority that begins in a year, and end
/// the one that everybody has a certificate of.
const AFTER_CLOCK_SET: Duration = Duration::from_secs(24 * 3600);

/// Runs until `shutdown`; `hangup` asks for everything to be loaded again.
pub(super) async fn keep_renewed(
    node: Arc<Node>,
    hangup: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut renewal = Renewal::new();
    let was_away = node.registrar.as_ref().is_some_and(|hub| hub.was_away(now_unix()));
    let grace = if was_away { AUTHORITY_GRACE } else { Duration::ZERO };
    let mut may_rotate_at = Instant::now() + grace;
    let mut clock = Clock::new(Instant::now(), OffsetDateTime::now_utc());
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
        if let Some(moved) = clock.was_set(Instant::now(), now) {
            tracing::warn!(
                moved_s = moved.whole_seconds(), clock = %certs::date(now),
                "this machine's clock was set; if it is wrong, set it right"
            );
            let pause = if clock.is_as_it_was() { Duration::ZERO } else { AFTER_CLOCK_SET };
            may_rotate_at = Instant::now() + pause;
        }
        if Instant::now() >= may_rotate_at && node.registrar.is_some() {
            let node = node.clone();
            let rotated = tokio::task::spawn_blocking(move || rotate_authorities(&node, now)).await;
            if !rotated.unwrap_or(true) {
                may_rotate_at = Instant::now() + AUTHORITY_RETRY;
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

/// The wall clock beside the one that only goes forward.
struct Clock {
    looked: Instant,
    said: OffsetDateTime,
    /// How far it was set in all: forward is positive.
    off: time::Duration,
}

impl Clock {
    fn new(looked: Instant, said: OffsetDateTime) -> Self {
        Self { looked, said, off: time::Duration::ZERO }
    }

    /// By how much the wall clock was set since it was looked at, if it was. A machine
    /// that slept looks the same.
    fn was_set(&mut self, now: Instant, says: OffsetDateTime) -> Option<time::Duration> {
        let moved = (says - self.said) - (now - self.looked);
        (self.looked, self.said) = (now, says);
        let was_set = moved.unsigned_abs() >= CLOCK_SET;
        self.off += if was_set { moved } else { time::Duration::ZERO };
        was_set.then_some(moved)
    }

    /// Whether it goes as at the start: never set, or set back.
    fn is_as_it_was(&self) -> bool {
        self.off.unsigned_abs() < CLOCK_SET
    }
}

/// The renewal of this node's own certificate.
struct Renewal {
    /// Drawn once for a certificate.
    random: u32,
    facts: Option<(Arc<Shown>, CertificateFacts)>,
    failures: u32,
    next_attempt: Instant,
}

impl Renewal {
    fn new() -> Self {
        Self { random: random(), facts: None, failures: 0, next_attempt: Instant::now() }
    }

    async fn look(&mut self, node: &Arc<Node>, now: OffsetDateTime) {
        let shown = node.keeper.shown();
        // A member with a PKI of its own has no use for another certificate.
        if Instant::now() < self.next_attempt
            || (node.keeper.is_foreign() && node.registrar.is_none())
        {
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
        // One that begins in the future was issued before a clock was set back.
        let is_due = rotate::is_due(facts, self.random, now) || now < facts.not_before;
        if !is_due && !wants_another(node, &shown) {
            // What it failed for is over: a clock that was wrong, most likely.
            if std::mem::take(&mut self.failures) > 0 {
                node.keeper.needs_no_other();
            }
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
                self.next_attempt = Instant::now() + AFTER_SUCCESS;
            }
            Err(error) => {
                node.keeper.note(Some(&error));
                self.failures = self.failures.saturating_add(1);
                let wait = rotate::retry_after(self.failures, remaining);
                // It is positive and short.
                self.next_attempt = Instant::now() + wait.unsigned_abs();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_from_time_that_passes() {
        let (start, date) = (Instant::now(), OffsetDateTime::UNIX_EPOCH + time::Duration::days(9));
        let mut clock = Clock::new(start, date);
        let passed = Duration::from_secs(7200);
        assert_eq!(clock.was_set(start + passed, date + passed), None, "a machine that was busy");
        let forward = time::Duration::days(45);
        assert_eq!(clock.was_set(start + passed, date + passed + forward), Some(forward));
        assert_eq!(clock.was_set(start + passed, date + passed + forward), None, "told once");
        assert!(!clock.is_as_it_was());
        assert_eq!(clock.was_set(start + passed, date + passed), Some(-forward));
        assert!(clock.is_as_it_was());
    }
}
