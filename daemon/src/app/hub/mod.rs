//! The hub's office: everything by which a hub says who belongs to its
//! federation, with which keys and certificates.
//!
//! - [`invite`]: tokens, and who has used them;
//! - [`enrol`]: letting in who shows one;
//! - [`joining`]: how many may show one at once;
//! - [`requests`]: what connected members ask for: certificates, signing keys;
//! - [`revoke`]: nodes and certificates that count no more;
//! - [`ca`]: the generations of the certificate authorities, with [`rotation`] for what
//!   a rotation does next and says;
//! - [`own_key`]: the hub's own signing key, in routine and after a theft;
//! - [`moving`]: where the hub is dialled, and who has heard of it;
//! - [`seen`]: what was seen of members, so that nobody is left behind.
//!
//! Invariant: the state of all this is what `_federation` says. Whatever else a
//! change needs (files, the hub's own certificate) follows from that by
//! [`Registrar::settle`], which may be interrupted and repeated at any point.

mod ca;
mod enrol;
mod good;
mod invite;
mod joining;
mod moving;
mod own_key;
mod requests;
mod revoke;
mod rotation;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::Context as _;
use certs::{
    CertError,
    authority::{Authority, CaDirs, IssuerChoice},
    identity::Identity,
};
use config::NodeConfig;
use protocol::{
    change::Change,
    federation::{CaKind, CaState, Entry, Introduction, KeyRecord, Registry},
    id::{NodeId, PartitionId},
    moment::rfc3339,
    sign::PublicKey,
};
use rustls::pki_types::CertificateDer;
use store::{Head, Store};
use time::OffsetDateTime;
use tokio::sync::watch;

pub use self::moving::check_addresses;
pub(super) use self::{enrol::serve_join, joining::Joining, rotation::Rotation};
use super::{
    alarms::{Alarm, Alarms},
    catalogue,
    changes::federation_changes,
    dir::NodeDir,
    keeper::Keeper,
    keys::OwnKeys,
    now_unix,
    restored::Restored,
};
use crate::{limit::Limiter, membership::Membership, sync::Claims};

/// The hub's office.
pub struct Registrar {
    dir: NodeDir,
    config: NodeConfig,
    identity: Identity,
    cas: CaDirs,
    own_keys: Arc<OwnKeys>,
    keeper: Arc<Keeper>,
    alarms: Arc<Alarms>,
    store: Store,
    membership: Arc<Membership>,
    /// Tells connected members that there is news about trust.
    tell: watch::Sender<()>,
    seen: seen::Seen,
    /// Invitations are read, changed and written by one at a time.
    invites: Mutex<()>,
    unknown_tokens: enrol::UnknownTokens,
    /// What is read of `_federation` and what is then written belong together.
    changing: Mutex<()>,
    /// Its own certificate is renewed by one at a time.
    renewing: Mutex<()>,
    budgets: Limiter<NodeId>,
    /// For reports, so that they leave renewals alone.
    reports: Limiter<NodeId>,
    /// What members say that they hold of the hub's own history.
    claims: Arc<Claims>,
    /// Members that have said that since the start.
    heard: Mutex<BTreeSet<NodeId>>,
}

/// What a registrar works with.
pub(super) struct Parts {
    pub dir: NodeDir,
    pub config: NodeConfig,
    pub identity: Identity,
    pub cas: CaDirs,
    pub own_keys: Arc<OwnKeys>,
    pub keeper: Arc<Keeper>,
    pub alarms: Arc<Alarms>,
    pub store: Store,
    pub membership: Arc<Membership>,
    pub tell: watch::Sender<()>,
    pub claims: Arc<Claims>,
}

impl Registrar {
    /// Reads what was seen of members; changes nothing.
    pub(super) fn open(parts: Parts) -> anyhow::Result<Self> {
        let seen = seen::Seen::load(parts.dir.certs().join("members.json"))?;
        let Parts { dir, config, identity, cas, own_keys, keeper, alarms, .. } = parts;
        let Parts { store, membership, tell, claims, .. } = parts;
        Ok(Self {
            dir,
            config,
            identity,
            cas,
            own_keys,
            keeper,
            alarms,
            store,
            membership,
            tell,
            seen,
            invites: Mutex::default(),
            unknown_tokens: enrol::UnknownTokens::default(),
            changing: Mutex::default(),
            renewing: Mutex::default(),
            budgets: Limiter::new(requests::REQUESTS, requests::MEMBERS_MAX),
            reports: Limiter::new(requests::REQUESTS, requests::MEMBERS_MAX),
            claims,
            heard: Mutex::default(),
        })
    }

    /// Brings files and keys to what `_federation` says: after each step of a
    /// rotation, and at the start, because one may have been interrupted.
    pub fn settle(&self) -> anyhow::Result<()> {
        self.settle_own_key().context("settle the hub's signing key")?;
        let registry = self.membership.current()?;
        self.look_at_catalogue().context("look at the catalogue")?;
        self.keeper.follow_roots(&registry).context("take over the trusted roots")?;
        if let Err(error) = self.settle_own_certificate() {
            // The task that renews tries again.
            self.keeper.note(Some(&error));
        }
        // One that was only needed by the certificate before.
        self.keeper.follow_roots(&registry).context("take over the trusted roots")?;
        self.settle_anchor().context("settle the anchor")
    }

    /// Says what of its own `_federation` is ignored.
    pub fn look_at_catalogue(&self) -> anyhow::Result<()> {
        catalogue::look(&self.membership, &self.alarms)
    }

    /// This hub's own certificate becomes one of the authority in use, if it is
    /// not. Blocks.
    fn settle_own_certificate(&self) -> anyhow::Result<()> {
        if self.is_settled()? {
            return Ok(());
        }
        self.renew_own_certificate()
    }

    /// The hub's own certificate, issued by its own authority. Blocks.
    pub fn renew_own_certificate(&self) -> anyhow::Result<()> {
        // Two at once would use one waiting key.
        let _one_at_a_time = self.renewing.lock().unwrap_or_else(|error| error.into_inner());
        let csr = self.keeper.request()?;
        let now = OffsetDateTime::now_utc();
        let chain = self.authority()?.issue(&self.identity, &csr, now, self.lifetime())?;
        self.keeper.install(chain)
    }

    /// These members are connected at `now`, seconds since 1970.
    pub fn note_connected<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>, now: i64) {
        self.seen.connected(nodes, now);
    }

    /// Whether this hub was away for a day or more, or has a wrong clock: what it
    /// knows of members may be old.
    pub fn was_away(&self, now: i64) -> bool {
        self.seen.is_stale(now)
    }

    /// Whether this hub's own certificate is one that the authority in use would
    /// issue: that one's, with the certificates of roots that are needed now.
    pub fn is_settled(&self) -> anyhow::Result<bool> {
        let registry = self.membership.current()?;
        let choice = issuer_choice(&registry)?;
        let issuing = registry.ca(CaKind::Issuing, choice.issuing).map(|ca| &ca.certificate);
        let root = registry.ca(CaKind::Root, choice.root).filter(|_| !choice.cross_by.is_empty());
        let cross = root.and_then(|ca| ca.cross.as_ref());
        let shown = self.keeper.shown();
        let above = shown.federation.chain.iter().skip(1).map(|certificate| certificate.to_vec());
        Ok(above.eq(issuing.into_iter().chain(cross).cloned()))
    }

    /// One change of `_federation` at a time, from what is read to what is
    /// written.
    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Refuses what a hub must not do that was restored and may be behind its members.
    fn refuse_restored(&self) -> anyhow::Result<()> {
        Restored::of(&self.dir).refuse()
    }

    /// A restored hub writes again once every member has said what it holds, and nothing is
    /// claimed that is not back, or shown to be nobody's. `peer` has just said it.
    fn settle_restored(&self, peer: Option<&NodeId>) -> anyhow::Result<()> {
        let mut heard = self.heard.lock().unwrap_or_else(|error| error.into_inner());
        heard.extend(peer.cloned());
        let restored = Restored::of(&self.dir);
        if !restored.is_restored() {
            return Ok(());
        }
        let registry = self.membership.current()?;
        // Once all of the list is here, nobody can hold anything of a dataset that is not in it.
        let may_be = |partition: &PartitionId| registry.schema(&partition.dataset).is_some();
        if self.claims.any_open(|it| self.store.seq(it), may_be) {
            return Ok(());
        }
        let is_awaited = |node: &NodeId| {
            node != self.membership.me()
                && registry.active_member(node).is_some()
                && registry.revocation(node, None).is_none()
        };
        let mut awaited = registry.members().keys().filter(|node| is_awaited(node));
        if awaited.all(|node| heard.contains(node)) {
            restored.clear()?;
            self.store.stop_own_writes(None);
            self.alarms.clear(Alarm::Restored);
        }
        Ok(())
    }

    /// Writes records of `_federation`; what is read for them is read under
    /// [`Registrar::change`]. Blocks.
    fn commit(&self, changes: Vec<Change>) -> anyhow::Result<Arc<Head>> {
        self.refuse_restored()?;
        let own = federation_changes(&self.membership, changes);
        Ok(self.store.commit_own_later(own)?.wait()?)
    }

    /// As [`Registrar::commit`], for who has not read anything before.
    pub fn commit_alone(&self, changes: Vec<Change>) -> anyhow::Result<Arc<Head>> {
        let _changing = self.change();
        self.commit(changes)
    }

    /// The authority that issues now, as `_federation` says.
    pub(super) fn authority(&self) -> anyhow::Result<Authority> {
        let registry = self.membership.current()?;
        Ok(Authority::open(&self.cas, &issuer_choice(&registry)?)?)
    }

    /// The life of the certificates that this hub issues.
    pub(super) fn lifetime(&self) -> time::Duration {
        time::Duration::seconds(self.config.certificates.lifetime_s as i64)
    }

    /// Issues a certificate that counts: it begins no earlier than those of its node
    /// have to, and later than all that the node had if `after_all_before`.
    ///
    /// Dates are in seconds, and several may be issued in one: then it is put off, at
    /// most until now, so that it is valid at once.
    fn issue(
        &self,
        (authority, registry): (&Authority, &Registry),
        identity: &Identity,
        csr: &[u8],
        after_all_before: bool,
    ) -> Result<Vec<CertificateDer<'static>>, NotIssued> {
        let now = OffsetDateTime::now_utc();
        let late = self.put_off((authority, registry), &identity.node, after_all_before, now)?;
        Ok(authority.issue(identity, csr, now + late, self.lifetime())?)
    }

    /// By how much a certificate that is issued to `node` at `now` has to be put off, or
    /// why none would count.
    fn put_off(
        &self,
        (authority, registry): (&Authority, &Registry),
        node: &NodeId,
        after_all_before: bool,
        now: OffsetDateTime,
    ) -> Result<time::Duration, NotIssued> {
        let begins = authority.begins(now, self.lifetime());
        let late_max: time::Duration = now - begins;
        let begins = begins.unix_timestamp();
        let member = registry.members().get(node);
        let from = member.and_then(|member| member.certificates_from).unwrap_or(begins);
        // One that lives for seconds cannot be put off by a whole one.
        let step = i64::from(late_max >= time::Duration::SECOND);
        let earliest = if after_all_before { begins.max(from).saturating_add(step) } else { from };
        let late = time::Duration::seconds(earliest.saturating_sub(begins).max(0));
        if late.is_positive() && late > late_max {
            let after = late.saturating_sub(late_max).whole_seconds().saturating_add(1);
            let again = now.unix_timestamp().saturating_add(after);
            return Err(NotIssued::ClockSetBack { from, again });
        }
        Ok(late)
    }

    /// The numbers up to which this hub holds what `node` owns, or has held it: what was
    /// acknowledged counts also while it is lost here.
    fn heads_of(&self, node: &NodeId) -> BTreeMap<PartitionId, u64> {
        let heads = self.store.heads().into_iter().map(|(partition, head)| (partition, head.seq()));
        let mut numbers = BTreeMap::new();
        let of_it = |(partition, _): &(PartitionId, u64)| partition.origin == *node;
        for (partition, seq) in heads.chain(self.store.lost()).filter(of_it) {
            let known = numbers.entry(partition).or_insert(seq);
            *known = seq.max(*known);
        }
        numbers
    }

    /// The records that let `next` follow on all keys of `node` that count now.
    /// Each of those ends with what this hub holds. Nothing that they sign may be
    /// on its way: see [`Registrar::with_key_suspended`].
    fn succession(
        &self,
        registry: &Registry,
        node: &NodeId,
        next: Option<(&PublicKey, Introduction, Option<String>)>,
        ending: Ending,
    ) -> anyhow::Result<Vec<Entry>> {
        let revoked = !matches!(ending, Ending::Routine);
        let mut heads = self.heads_of(node);
        if let Ending::StolenAt(partition, seq) = ending {
            heads.insert(partition, seq);
        }
        let last: BTreeMap<String, u64> =
            heads.into_iter().map(|(partition, seq)| (partition.to_string(), seq)).collect();
        let mut entries = Vec::new();
        for known in registry.keys(node).iter().filter(|known| known.record.last.is_none()) {
            let record = KeyRecord { revoked, ..known.record.clone() };
            entries.extend(record.retired(node, known.number, last.clone())?);
        }
        if let Some((key, by, countersignature)) = next {
            let number = registry.keys(node).last().map_or(1, |known| known.number + 1);
            let record = KeyRecord::new(key, by, now_unix() * 1000);
            entries.push(Entry::Key(
                node.clone(),
                number,
                KeyRecord { countersignature, ..record },
            ));
        }
        Ok(entries)
    }

    /// Does `work`, which retires a member's present key, while nothing that the
    /// key signed is taken: the numbers that `work` reads stay true. After that
    /// `_federation` refuses such change sets, but one that was verified before
    /// may still wait for the writer, so only a failure lifts it. Blocks.
    fn with_key_suspended<T>(
        &self,
        registry: &Registry,
        node: &NodeId,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Some(key) = registry.current_key(node).map(|known| known.public.id()) else {
            return work();
        };
        self.store.suspend_key(key)?;
        let done = work();
        if done.is_err() {
            self.store.resume_key(key)?;
        }
        done
    }
}

/// Why a certificate is not issued.
#[derive(Debug, thiserror::Error)]
enum NotIssued {
    /// The request is not as it has to be.
    #[error(transparent)]
    Request(CertError),
    /// This hub cannot issue it.
    #[error(transparent)]
    Hub(CertError),
    /// It would begin before those of its node have to; both in seconds since 1970.
    #[error(
        "this hub's clock was set back: by it, the node joined last with a certificate from {0}, and one that is \
         issued now would begin before that, so it would not count. Compare the clock with the right time (date -u). \
         If it is right now, certificates for this node are issued again from {1} on / 本机时钟曾快于实际时间：该节点上次加入时\
         取得的证书自 {0} 起生效，现在签发的证书会早于它而不被承认。请核对本机时间；时间无误，则自 {1} 起才能再为该节点签发证书",
        rfc3339(*from), rfc3339(*again)
    )]
    ClockSetBack { from: i64, again: i64 },
}

impl From<CertError> for NotIssued {
    fn from(error: CertError) -> Self {
        match error {
            CertError::Request { .. } => Self::Request(error),
            error => Self::Hub(error),
        }
    }
}

impl NotIssued {
    /// What `node`, which has asked for it, is answered. The log says more.
    fn answer<R>(self, node: &NodeId, mismatch: R, failed: R) -> R {
        match self {
            Self::Request(error) => {
                tracing::warn!(%node, %error, "a certificate request was refused");
                mismatch
            }
            error => {
                tracing::error!(%node, %error, "a certificate could not be issued");
                failed
            }
        }
    }
}

/// Why a signing key counts no more.
enum Ending {
    /// Another follows it, or its node goes.
    Routine,
    /// It may be in the wrong hands.
    Stolen,
    /// The same, and in one partition another number than what is held is its last.
    StolenAt(PartitionId, u64),
}

/// Which CAs issue, and which certificates of roots by older roots are shown
/// with what they issue.
fn issuer_choice(registry: &Registry) -> anyhow::Result<IssuerChoice> {
    let (issuing, known) =
        registry.active_ca(CaKind::Issuing).context("_federation names no issuing CA in use")?;
    let root = known.root.context("the issuing CA in use names no root")?;
    // Only one rotation runs at a time, so there is at most one.
    let retiring = registry.cas(CaKind::Root).filter(|(_, known)| known.state == CaState::Retiring);
    let cross_by = retiring.map(|(number, _)| number).filter(|number| *number < root).collect();
    Ok(IssuerChoice { issuing, root, cross_by })
}

/// Changes that write these records.
fn puts(entries: &[Entry]) -> anyhow::Result<Vec<Change>> {
    Ok(entries.iter().map(Entry::put).collect::<Result<_, _>>()?)
}
