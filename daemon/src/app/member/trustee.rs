//! What a member's hub says about trust is judged here: which roots to trust,
//! which signing keys `_federation` has for this node, how fresh all that is,
//! and a new anchor.
//!
//! Invariant: a hub is believed as far as signatures go and no further. A signing
//! key in this node's name that it did not make stops its writing; an anchor
//! counts if the root signed it. Which roots are trusted is the keeper's.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use certs::{bundle::root_id, enrol::Anchor, fault, keyfile};
use protocol::{
    federation::Registry,
    freshness::{Statement, is_stale},
    hash::Hash,
    id::PartitionId,
    message::Report,
};

use crate::{
    app::{
        alarms::{Alarm, Alarms},
        dir::NodeDir,
        keeper::Keeper,
        keys::OwnKeys,
        now_unix,
    },
    membership::Membership,
    store::Store,
    sync::Trustee as TrusteeOfSync,
};

/// The newest statement's time, in milliseconds since 1970, as text.
const FRESHNESS_FILE: &str = "freshness";
/// A statement a minute need not be a write a minute.
const WRITE_EVERY_MS: i64 = 10 * 60 * 1000;

/// The member's judge.
pub struct Trustee {
    dir: NodeDir,
    store: Store,
    membership: Arc<Membership>,
    own_keys: Arc<OwnKeys>,
    keeper: Arc<Keeper>,
    alarms: Arc<Alarms>,
    tell: tokio::sync::watch::Sender<()>,
    /// Which daemon this is, in reports.
    instance: [u8; 8],
    fresh: Mutex<Fresh>,
}

/// What was heard of freshness.
#[derive(Default)]
struct Fresh {
    /// The time of the newest statement that counts.
    at_ms: Option<i64>,
    /// As it is on the disk.
    written_ms: Option<i64>,
    /// One whose head has not arrived here yet.
    ahead: Option<Statement>,
}

/// What a trustee works with.
pub(in crate::app) struct Parts {
    pub dir: NodeDir,
    pub store: Store,
    pub membership: Arc<Membership>,
    pub own_keys: Arc<OwnKeys>,
    pub keeper: Arc<Keeper>,
    pub alarms: Arc<Alarms>,
    pub tell: tokio::sync::watch::Sender<()>,
}

impl Trustee {
    /// Reads what was heard before.
    pub(in crate::app) fn open(parts: Parts) -> anyhow::Result<Self> {
        let Parts { dir, store, membership, own_keys, keeper, alarms, tell } = parts;
        let mut instance = [0; 8];
        getrandom::fill(&mut instance).context("draw random bytes")?;
        let at_ms = std::fs::read_to_string(freshness_path(&dir)).ok();
        let at_ms = at_ms.and_then(|text| text.trim().parse::<i64>().ok());
        let fresh = Mutex::new(Fresh { at_ms, written_ms: at_ms, ahead: None });
        Ok(Self { dir, store, membership, own_keys, keeper, alarms, tell, instance, fresh })
    }

    /// Judges what `_federation` says now: at the start, and whenever it has
    /// moved. Blocks.
    pub fn look(&self) -> anyhow::Result<()> {
        let registry = self.membership.current()?;
        if self.keeper.follow_roots(&registry).context("take over the trusted roots")? {
            self.tell.send_replace(());
        }
        self.look_at_keys(&registry).context("take over this node's signing key")?;
        self.name_federation_anew().context("sign anew what names a forged _federation")?;
        let ahead = self.fresh().ahead.take();
        if let Some(statement) = ahead {
            self.judge(statement, &registry);
        }
        Ok(())
    }

    fn look_at_keys(&self, registry: &Registry) -> anyhow::Result<()> {
        let me = self.membership.me();
        let keys = registry.keys(me);
        let foreign = keys.iter().find(|known| !self.own_keys.knows(known.public.as_bytes()));
        if let Some(foreign) = foreign {
            let reason = format!(
                "the hub has registered a signing key for {me} that this node did not make (key {}, {}). Nothing \
                 is written until this is cleared up. If another machine was enrolled as {me} on purpose, this \
                 directory is the old one; otherwise call the municipal centre: somebody may speak in this county's \
                 name. After that, join again with a new token / 市级中心登记了并非本节点生成的签名密钥，已停止写入，请立即联系市级中心",
                foreign.number,
                crate::app::rfc3339(foreign.record.at_ms / 1000),
            );
            self.store.stop_own_writes(Some(reason.clone()));
            self.alarms.raise(Alarm::ForeignKey, reason);
            return Ok(());
        }
        if self.store.own_writes_stopped().is_some() {
            self.store.stop_own_writes(None);
        }
        self.alarms.clear(Alarm::ForeignKey);
        let Some(next) = self.own_keys.next()? else {
            return Ok(());
        };
        if registry.current_key(me).is_none_or(|known| known.public != next.public()) {
            return Ok(());
        }
        let mut last: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for (name, seq) in keys.iter().filter_map(|known| known.record.last.as_ref()).flatten() {
            if let Ok(partition) = PartitionId::parse(registry.federation(), name) {
                let highest = last.entry(partition).or_default();
                *highest = (*highest).max(*seq);
            }
        }
        let signed = self.store.adopt_signer_blocking(next, me.clone(), last)?;
        fault::point("key.adopted");
        self.own_keys.promote_next()?;
        tracing::info!(signed_anew = signed, "a new signing key signs from now on");
        self.tell.send_replace(());
        Ok(())
    }

    fn fresh(&self) -> std::sync::MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Takes a statement whose head is held here, keeps one that is ahead.
    fn judge(&self, statement: Statement, registry: &Registry) {
        let partition = self.membership.partition();
        if statement.partition != *partition || !statement.verify(registry.hub(), registry) {
            // A key that changes is announced by the change set behind the head.
            tracing::debug!("a statement of freshness does not verify (yet)");
            return;
        }
        let held = self.store.head(partition).map_or(0, |head| head.seq());
        if statement.head.seq > held {
            self.fresh().ahead = Some(statement);
            return;
        }
        match self.store.header_at(partition, statement.head.seq) {
            Ok(Some(known)) if known.hash() != statement.head.hash => {
                self.alarms.raise(
                    Alarm::OtherHistory,
                    format!(
                        "the hub signs for another _federation than this node holds (number {}): one of the two \
                         was forged or restored from an old backup. Call the municipal centre / 成员名册出现两份不同的历史",
                        statement.head.seq
                    ),
                );
                return;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a statement of freshness could not be compared");
                return;
            }
        }
        self.note_fresh(statement.at_ms);
    }

    fn note_fresh(&self, at_ms: i64) {
        let mut fresh = self.fresh();
        if fresh.at_ms.is_some_and(|known| known >= at_ms) {
            return;
        }
        fresh.at_ms = Some(at_ms);
        if fresh.written_ms.is_none_or(|written| at_ms - written >= WRITE_EVERY_MS) {
            fresh.written_ms = Some(at_ms);
            drop(fresh);
            note_contact(&self.dir, at_ms);
        }
    }

    /// When the hub last said what the newest `_federation` is, in milliseconds
    /// since 1970.
    pub fn fresh_at_ms(&self) -> Option<i64> {
        self.fresh().at_ms
    }

    /// Says so when nothing was heard for too long.
    pub fn check_freshness(&self, now_ms: i64) {
        let at_ms = self.fresh_at_ms();
        if !is_stale(at_ms, now_ms) {
            return self.alarms.clear(Alarm::Stale);
        }
        let since = at_ms.map_or("never".to_owned(), |at| crate::app::rfc3339(at / 1000));
        self.alarms.raise(
            Alarm::Stale,
            format!(
                "for a day or longer the hub has not confirmed what the newest list of members is (last: {since}), \
                 so revocations may have been withheld from this node. See 'creditsync status' for why it is not \
                 connected / 超过一天未收到市级中心的确认，可能未收到吊销通知"
            ),
        );
    }

    /// Takes an anchor of a higher epoch if a trusted root signed it. Answers
    /// whether it did. Blocks.
    pub(super) fn take_anchor(&self, anchor: Anchor) -> anyhow::Result<bool> {
        if !anchor.supersedes(&self.membership.anchor()) {
            return Ok(false);
        }
        anchor.verify_any(&self.keeper.bundle()?)?;
        let base = anchor.base.context("an anchor of a higher epoch names a base")?;
        keyfile::write_public(&self.dir.anchor(), &anchor.encode())?;
        fault::point("anchor.taken");
        tracing::warn!(
            epoch = anchor.epoch,
            base = base.seq,
            "the root CA has named a new signing key of the hub: the one before may have been stolen"
        );
        self.membership.set_anchor(anchor);
        self.forget_what_does_not_count()?;
        Ok(true)
    }

    /// Drops a `_federation` that goes on behind the anchor's base as the root
    /// does not want it: what a thief signed. It is fetched again from its
    /// beginning. Blocks.
    fn forget_what_does_not_count(&self) -> anyhow::Result<()> {
        let partition = self.membership.partition();
        let (Some(base), Some(head)) = (self.membership.anchor().base, self.store.head(partition))
        else {
            return Ok(());
        };
        if head.seq() < base.seq {
            return Ok(());
        }
        let registry = self.membership.current()?;
        let at_base = self.store.header_at(partition, base.seq)?;
        let same = at_base.is_some_and(|header| header.hash() == base.hash);
        let counts = same && (head.seq() == base.seq || head.signed.verify(&*registry).is_ok());
        if !counts {
            tracing::error!(
                held = head.seq(),
                base = base.seq,
                "this node's _federation holds what the hub's stolen key signed; it is fetched again"
            );
            keyfile::write_public(&misled_path(&self.dir), b"")?;
            self.store.forget_blocking(partition)?;
        }
        Ok(())
    }

    /// Once `_federation` is back from behind the anchor's base: own change sets
    /// that name what was dropped would be refused for ever. Blocks.
    fn name_federation_anew(&self) -> anyhow::Result<()> {
        let path = misled_path(&self.dir);
        let head = self.store.head(self.membership.partition());
        let (Some(base), Some(head)) = (self.membership.anchor().base, head) else {
            return Ok(());
        };
        if !path.exists() || head.seq() <= base.seq {
            return Ok(());
        }
        let me = self.membership.me().clone();
        let signed = self.store.name_federation_anew_blocking(me, base)?;
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        tracing::info!(signed_anew = signed, "_federation is the hub's own again");
        Ok(())
    }
}

impl TrusteeOfSync for Trustee {
    fn report(&self) -> Report {
        let roots: Vec<Hash> =
            self.keeper.bundle().unwrap_or_default().iter().map(root_id).collect();
        Report {
            instance: self.instance,
            roots,
            signing_key: self.own_keys.current().public().id(),
        }
    }

    fn stated(&self, bytes: &[u8]) {
        let judged = Statement::decode(bytes)
            .map_err(anyhow::Error::from)
            .and_then(|statement| Ok((statement, self.membership.current()?)));
        match judged {
            Ok((statement, registry)) => self.judge(statement, &registry),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "a statement of freshness is no good")
            }
        }
    }

    fn anchored(&self, bytes: &[u8]) -> bool {
        let taken = Anchor::decode(bytes)
            .map_err(anyhow::Error::from)
            .and_then(|anchor| self.take_anchor(anchor));
        taken.unwrap_or_else(|error| {
            tracing::error!(error = format!("{error:#}"), "the hub's anchor is refused");
            false
        })
    }
}

/// Lies there from when a forged `_federation` is dropped until nothing names it
/// any more.
fn misled_path(dir: &NodeDir) -> PathBuf {
    dir.certs().join("misled")
}

fn freshness_path(dir: &NodeDir) -> PathBuf {
    dir.certs().join(FRESHNESS_FILE)
}

/// Writes down when the hub was last known to have said everything.
pub(in crate::app) fn note_contact(dir: &NodeDir, at_ms: i64) {
    if let Err(error) = keyfile::write_public(&freshness_path(dir), at_ms.to_string().as_bytes()) {
        tracing::warn!(%error, "the time of the last statement of freshness could not be written down");
    }
}

/// The time of a join: all of `_federation` was there.
pub(in crate::app) fn note_join(dir: &NodeDir) {
    note_contact(dir, now_unix() * 1000);
}
