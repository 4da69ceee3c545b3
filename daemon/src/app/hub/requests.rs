//! What connected members ask of the hub: a certificate, a signing key that
//! follows their present one; and what they report.
//!
//! The connection has proved who asks. A request is answered by number of the
//! node that asks, never by what the request says of itself.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use certs::{fault, verify::VerifiedPeer};
use protocol::{
    federation::{Introduction, succession_bytes},
    freshness::Statement,
    hex,
    id::NodeId,
    message::{NewKeyRequest, RenewRequest, Report, RequestRefused},
    sign::{PublicKey, SignaturePurpose},
};

use super::{Ending, Registrar, puts, seen::Daemons};
use crate::{app::now_unix, limit::Budget, sync::Office};

/// What one member may ask: far more than an honest one does, and little work.
pub(super) const REQUESTS: Budget = Budget { capacity: 20, refill: Duration::from_secs(2) };
/// Members whose requests are counted: more than a city has counties. A busy one
/// beyond them is told to ask again later.
pub(super) const MEMBERS_MAX: usize = 1000;
/// Signing keys that a node may have had: each is a record for ever.
const KEYS_MAX: usize = 1000;

impl Office for Registrar {
    fn own_history_is_back(&self) {
        // Files and keys were those of the older `_federation`.
        if let Err(error) = self.settle_restored(None).and_then(|()| self.settle()) {
            tracing::error!(
                error = format!("{error:#}"),
                "what _federation says now, as it came back from a member, could not be taken over"
            );
        }
    }

    fn renew(
        &self,
        peer: &VerifiedPeer,
        request: &RenewRequest,
    ) -> Result<Vec<Vec<u8>>, RequestRefused> {
        let node = &peer.identity().node;
        if self.budgets.allow(node, Instant::now()).is_none() {
            return Err(RequestRefused::TooOften);
        }
        // It may have been revoked, or have joined again, while this waited: its
        // connection ends any moment, but with a new certificate it could make
        // another one. Neither happens between this look and the certificate's date.
        let _changing = self.change();
        if self.membership.admits(peer).is_err() || self.membership.is_rebuilding() {
            // Without all of the list nobody knows whose certificate was withdrawn.
            return Err(RequestRefused::Failed);
        }
        let authority = self.authority().map_err(|error| failed(node, &error))?;
        let registry = self.membership.current().map_err(|error| failed(node, &error.into()))?;
        let issued = self.issue((&authority, &registry), peer.identity(), &request.csr, false);
        let chain = issued.map_err(|error| {
            error.answer(node, RequestRefused::Mismatch, RequestRefused::Failed)
        })?;
        tracing::debug!(%node, "a certificate was renewed");
        Ok(chain.iter().map(|certificate| certificate.to_vec()).collect())
    }

    fn new_key(&self, peer: &VerifiedPeer, request: &NewKeyRequest) -> Result<u64, RequestRefused> {
        let node = &peer.identity().node;
        if self.budgets.allow(node, Instant::now()).is_none() {
            return Err(RequestRefused::TooOften);
        }
        if self.store.lost().keys().any(|lost| lost.origin == *node || lost.dataset.is_system()) {
            // Up to which number the present key has signed is not known here.
            return Err(RequestRefused::Failed);
        }
        self.register_next_key(node, request)
            .map_err(|error| failed(node, &error))?
            .inspect(|seq| tracing::info!(%node, federation_seq = seq, "a signing key follows its predecessor"))
    }

    fn reported(&self, peer: &VerifiedPeer, report: Report) -> Option<String> {
        let node = &peer.identity().node;
        // Each may be a write; those above the budget are only kept in memory. A
        // report is not repeated, and rotations wait for what it says.
        let may_write = self.reports.allow(node, Instant::now()).is_some();
        let daemons = self.seen.report(peer, report, now_unix(), may_write);
        if let Err(error) = self.settle_restored(Some(node)) {
            tracing::error!(
                error = format!("{error:#}"),
                "it could not be noted that members hold no more than this hub"
            );
        }
        if daemons == Daemons::One {
            return None;
        }
        let alarm = format!(
            "two daemons take turns with the certificate of {node}: it was copied, or two machines run \
             from one directory. If it may be stolen: creditsync revoke {node} / 两台机器在使用同一证书"
        );
        if daemons == Daemons::TwoNow {
            tracing::error!(%node, serial = peer.serial_hex(), "{alarm}");
        }
        Some(alarm)
    }

    fn statement(&self) -> Option<Vec<u8>> {
        let partition = self.membership.partition();
        let head = self.store.head(partition)?.position();
        let key = self.own_keys.current();
        Some(Statement::sign(partition.clone(), head, now_unix() * 1000, &key).encode())
    }

    fn anchor(&self) -> Option<Vec<u8>> {
        let anchor = self.membership.anchor();
        (anchor.epoch > 1).then(|| anchor.encode())
    }
}

impl Registrar {
    fn register_next_key(
        &self,
        node: &NodeId,
        request: &NewKeyRequest,
    ) -> anyhow::Result<Result<u64, RequestRefused>> {
        let refused = Ok(Err(RequestRefused::Mismatch));
        let Ok(new) = self.membership.suite().public_key(&request.signing_key) else {
            return refused;
        };
        let _changing = self.change();
        let registry = self.membership.current()?;
        let Some(current) = registry.current_key(node) else {
            return refused;
        };
        if current.public == new {
            // The answer to an earlier request was lost.
            let head = self.store.head(self.membership.partition());
            return Ok(Ok(head.map_or(0, |head| head.seq())));
        }
        let keys = registry.keys(node);
        let federation = self.membership.federation();
        let bytes = succession_bytes(federation, node, &current.public.id(), &new);
        let signed = |key: &PublicKey, purpose, signature: &[u8]| {
            key.verify(purpose, &bytes, signature).is_ok()
        };
        if keys.len() >= KEYS_MAX
            || keys.iter().any(|known| known.public == new)
            || !signed(&new, SignaturePurpose::Possession, &request.possession)
            || !signed(&current.public, SignaturePurpose::Succession, &request.countersignature)
        {
            tracing::warn!(%node, "a request for a new signing key was refused");
            return refused;
        }
        let countersignature = Some(hex::encode(&request.countersignature));
        let head = self.with_key_suspended(&registry, node, || {
            let next = (&new, Introduction::Succession, countersignature);
            let entries = self.succession(&registry, node, Some(next), Ending::Routine)?;
            self.commit(puts(&entries)?).context("write the new signing key")
        })?;
        fault::point("key.registered");
        Ok(Ok(head.seq()))
    }
}

fn failed(node: &NodeId, error: &anyhow::Error) -> RequestRefused {
    tracing::error!(%node, error = format!("{error:#}"), "a member's request could not be served");
    RequestRefused::Failed
}
