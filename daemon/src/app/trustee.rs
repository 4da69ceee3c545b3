//! What a member's hub says about trust is judged here: which roots to trust,
//! which signing keys `_federation` has for this node, and a new anchor.
//!
//! Invariant: a hub is believed as far as signatures go and no further. A signing
//! key in this node's name that it did not make stops its writing; an anchor
//! counts if the root signed it. Which roots are trusted is the keeper's; how fresh
//! all that is, [`super::freshness`]'s.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use certs::{bundle::root_id, enrol::Anchor, fault, keyfile};
use protocol::{
    federation::Registry, freshness::Statement, id::PartitionId, message::Report, moment::rfc3339,
    suite::checksum::Checksum,
};
use store::Store;

use crate::{
    app::{
        alarms::{Alarm, Alarms},
        catalogue,
        dir::{NodeDir, remove},
        freshness::Freshness,
        keeper::Keeper,
        keys::OwnKeys,
        own_history::{Joining, OwnHistory},
        restored::Restored,
    },
    membership::Membership,
    sync::{Claims, Trustee as TrusteeOfSync},
};

/// Why this node writes nothing: somebody else's key was registered in its name.
const FOREIGN_KEY_FILE: &str = "foreign-key";
/// Why this node writes nothing: it has joined again, and this directory is from
/// before.
const SUPERSEDED_FILE: &str = "superseded";
/// Partitions of which an alarm names the last number: a line of a screen.
const NUMBERS_NAMED_MAX: usize = 3;

/// The member's judge.
pub struct Trustee {
    dir: NodeDir,
    store: Store,
    membership: Arc<Membership>,
    own_keys: Arc<OwnKeys>,
    keeper: Arc<Keeper>,
    alarms: Arc<Alarms>,
    own_history: OwnHistory,
    tell: tokio::sync::watch::Sender<()>,
    /// Which daemon this is, in reports.
    instance: [u8; 8],
    freshness: Freshness,
    /// Held while the note of doubt is written or settled: who looks in between would
    /// settle it by the anchor before.
    doubt: Mutex<()>,
    /// The last look did not come to its end.
    unseen: AtomicBool,
}

/// What a trustee works with.
pub(super) struct Parts {
    pub dir: NodeDir,
    pub store: Store,
    pub membership: Arc<Membership>,
    pub own_keys: Arc<OwnKeys>,
    pub keeper: Arc<Keeper>,
    pub alarms: Arc<Alarms>,
    pub claims: Arc<Claims>,
    pub tell: tokio::sync::watch::Sender<()>,
}

impl Trustee {
    /// Reads what was heard before.
    pub(super) fn open(parts: Parts) -> anyhow::Result<Self> {
        let Parts { dir, store, membership, own_keys, keeper, alarms, claims, tell } = parts;
        let own_history = OwnHistory::new(&dir, store.clone(), membership.clone(), claims);
        let mut instance = [0; 8];
        getrandom::fill(&mut instance).context("draw random bytes")?;
        let freshness = Freshness::open(&dir, store.clone(), membership.clone(), alarms.clone());
        let unseen = AtomicBool::new(false);
        let doubt = Mutex::default();
        Ok(Self {
            dir,
            store,
            membership,
            own_keys,
            keeper,
            alarms,
            own_history,
            tell,
            instance,
            freshness,
            doubt,
            unseen,
        })
    }

    /// Judges what `_federation` says now: at the start, and whenever it has
    /// moved. Blocks.
    pub fn look(&self) -> anyhow::Result<()> {
        self.unseen.store(true, Ordering::Relaxed);
        self.look_once()?;
        self.unseen.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the last look failed: it is to be tried again.
    pub fn has_to_look(&self) -> bool {
        self.unseen.load(Ordering::Relaxed)
    }

    fn look_once(&self) -> anyhow::Result<()> {
        self.settle_doubt().context("compare _federation with the anchor")?;
        let registry = self.membership.current()?;
        self.forget_what_a_thief_signed(&registry).context("drop what a thief signed")?;
        if self.keeper.follow_roots(&registry).context("take over the trusted roots")? {
            self.tell.send_replace(());
        }
        catalogue::look(&self.membership, &self.alarms).context("look at the catalogue")?;
        self.look_at_keys(&registry).context("take over this node's signing key")?;
        self.freshness.judge_again(&registry);
        Ok(())
    }

    fn look_at_keys(&self, registry: &Registry) -> anyhow::Result<()> {
        let me = self.membership.me();
        let keys = registry.keys(me);
        let foreign = keys.iter().find(|known| !self.own_keys.knows(&known.public));
        if let Some(foreign) = foreign {
            let reason = format!(
                "the hub has registered a signing key for {me} that this node did not make (key {}, {}). Nothing \
                 is written until this is cleared up. If another machine was enrolled as {me} on purpose, this \
                 directory is the old one; otherwise call the municipal centre: somebody may speak in this county's \
                 name. After that, join again with a new token / 市级中心登记了并非本节点生成的签名密钥，已停止写入，请立即联系市级中心",
                foreign.number,
                rfc3339(foreign.record.at_ms / 1000),
            );
            return self.stop_writing(Alarm::ForeignKey, FOREIGN_KEY_FILE, reason);
        }
        // Whoever wrote such a key can also take it out again: that settles nothing.
        let stops = [(Alarm::ForeignKey, FOREIGN_KEY_FILE), (Alarm::Superseded, SUPERSEDED_FILE)];
        for (alarm, file) in stops {
            let path = self.dir.certs().join(file);
            if path.exists() {
                let reason = keyfile::read_public(&path)?;
                let reason = String::from_utf8_lossy(&reason).into_owned();
                return self.stop_writing(alarm, file, reason);
            }
        }
        let restored = Restored::of(&self.dir);
        if let Some(reason) = restored.text()? {
            self.store.stop_own_writes(Some(reason.clone()));
            self.alarms.raise(Alarm::Restored, reason);
            // In this order: whoever clears it meanwhile has not seen this stop.
            if restored.is_restored() {
                return Ok(());
            }
        }
        if self.store.own_writes_stopped().is_some() {
            self.store.stop_own_writes(None);
        }
        self.alarms.clear(Alarm::ForeignKey);
        self.alarms.clear(Alarm::Superseded);
        self.alarms.clear(Alarm::Restored);
        // Up to here others hold what earlier keys signed: that stays.
        let mut last: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for (name, seq) in keys.iter().filter_map(|known| known.record.last.as_ref()).flatten() {
            if let Ok(partition) = PartitionId::parse(registry.federation(), name) {
                let highest = last.entry(partition).or_default();
                *highest = (*highest).max(*seq);
            }
        }
        // Before another key signs: a new machine of this node takes its own history
        // back first.
        self.own_history.settle()?;
        let next = self.own_keys.next()?;
        let next = next.filter(|next| {
            registry.current_key(me).is_some_and(|known| known.public == next.public())
        });
        let Some(next) = next else {
            self.alarms.clear(Alarm::Uncounted);
            self.look_whether_the_key_ended(registry);
            return self.name_heads_that_count(registry, last);
        };
        // Signing what the hub has acknowledged before would make a second history, so
        // the present key goes on until the list of members is corrected.
        if let Some(alarm) = self.counted_below_acknowledged(&last) {
            self.alarms.raise(Alarm::Uncounted, alarm);
            return Ok(());
        }
        let signed = self.store.adopt_signer_blocking(next, me.clone(), last)?;
        fault::point("key.adopted");
        self.own_keys.promote_next()?;
        self.alarms.clear(Alarm::Uncounted);
        self.alarms.clear(Alarm::KeyEnded);
        tracing::info!(signed_anew = signed, "a new signing key signs from now on");
        self.tell.send_replace(());
        Ok(())
    }

    /// What a person is told where the hub counts less of an own partition than it has
    /// acknowledged.
    fn counted_below_acknowledged(&self, last: &BTreeMap<PartitionId, u64>) -> Option<String> {
        let (me, hub) = (self.membership.me(), self.membership.hub());
        let own = self.store.heads().into_keys().filter(|own| own.origin == *me);
        let mut uncounted = own.filter_map(|partition| {
            let acked = self.store.acks(&partition).get(hub).map_or(0, |ack| ack.seq);
            let counted = last.get(&partition).copied().unwrap_or(0);
            (acked > counted).then_some((partition, acked, counted))
        });
        let (partition, acked, counted) = uncounted.next()?;
        Some(format!(
            "{partition}：市级中心已确认收到第 {acked} 号，但其成员名册只承认到第 {counted} 号，本节点因此不启用新的签名密钥，\
             否则将产生两份不同的历史。本节点继续用原密钥写入，中心更正名册之前不接收这些记录。请致电市级中心核实：\
             中心可能恢复了旧备份，若其不知情，其签名密钥可能已被盗用 / {partition}: the hub has acknowledged number \
             {acked}, but its list of members counts up to number {counted} only, so this node does not begin to use its \
             new signing key: that would make a second history. It goes on writing with the key that it has, and the hub \
             takes nothing of it until the list is corrected. Call the municipal centre: it may have been restored from an \
             old backup; if it knows nothing of this, its signing key may be stolen"
        ))
    }

    /// What is signed above the last numbers of the present key counts once another
    /// key has signed it, so this node goes on writing; a person gets it that key.
    fn look_whether_the_key_ended(&self, registry: &Registry) {
        let (me, present) = (self.membership.me(), self.own_keys.current().public());
        let mut keys = registry.keys(me).iter().filter(|known| known.public == present);
        let Some(last) = keys.find_map(|known| known.record.last.as_ref()) else {
            return self.alarms.clear(Alarm::KeyEnded);
        };
        let mut own = last.iter().filter_map(|(name, seq)| {
            let partition = PartitionId::parse(registry.federation(), name).ok()?;
            (partition.origin == *me).then(|| format!("{partition}: {seq}"))
        });
        let mut numbers: Vec<String> = own.by_ref().take(NUMBERS_NAMED_MAX).collect();
        if numbers.is_empty() {
            numbers.push("0".into());
        }
        if own.next().is_some() {
            numbers.push("…".into());
        }
        let numbers = numbers.join(", ");
        self.alarms.raise(
            Alarm::KeyEnded,
            format!(
                "市级中心已停用本节点当前的签名密钥（最后编号 {numbers}），其后签署的记录暂不被接收；本节点继续写入，\
                 换用新密钥后会自动重新签署。若本节点已被吊销或移除，请向市级中心索取令牌并执行 creditsync join；\
                 若市级中心不知情，其签名密钥可能已被盗用 / the hub has ended this node's signing key (last numbers: \
                 {numbers}), so what the key signs above them is not taken. This node goes on writing, and signs it \
                 again once it has a new key. If the municipal centre has ended it on purpose, ask for a token and \
                 give: creditsync join. If it knows nothing of this, its own signing key may be stolen"
            ),
        );
    }

    /// From now on until the hub has answered, its last numbers of earlier keys of this
    /// node are believed: a person has let this directory join with a token.
    pub(super) fn join_begins(&self) -> anyhow::Result<Joining<'_>> {
        self.own_history.join_begins()
    }

    /// What a person has to know of last numbers that are above the heads here.
    pub(super) fn own_history_alarms(&self) -> anyhow::Result<Vec<String>> {
        self.own_history.alarms()
    }

    /// After the theft of the hub's key: what this node signed while it held the
    /// thief's `_federation` names heads that nobody else has, so nobody would
    /// take it. It is signed anew, as far as the hub does not hold it.
    fn name_heads_that_count(
        &self,
        registry: &Registry,
        mut last: BTreeMap<PartitionId, u64>,
    ) -> anyhow::Result<()> {
        let (me, hub) = (self.membership.me(), self.membership.hub());
        if !self.is_whole_again(registry) {
            return Ok(());
        }
        for partition in self.store.heads().into_keys().filter(|own| own.origin == *me) {
            let acked = self.store.acks(&partition).get(hub).map_or(0, |ack| ack.seq);
            let highest = last.entry(partition).or_default();
            *highest = (*highest).max(acked);
        }
        let signer = self.own_keys.current();
        let signed = self.store.adopt_signer_blocking(signer, me.clone(), last)?;
        if signed > 0 {
            tracing::info!(signed_anew = signed, "change sets name a _federation that counts now");
        }
        Ok(())
    }

    /// A restored directory writes again once the hub has said what it holds of this
    /// node's own history, and that is back.
    fn settle_restored(&self) -> anyhow::Result<()> {
        let restored = Restored::of(&self.dir);
        if !restored.is_restored() || !self.own_history.is_back() {
            return Ok(());
        }
        restored.clear()?;
        self.look()
    }

    /// Own writes stop, also after a restart, until this node has joined again.
    fn stop_writing(&self, alarm: Alarm, file: &str, reason: String) -> anyhow::Result<()> {
        self.store.stop_own_writes(Some(reason.clone()));
        self.alarms.raise(alarm, reason.clone());
        Ok(keyfile::write_public(&self.dir.certs().join(file), reason.as_bytes())?)
    }

    /// When the hub last said what the newest `_federation` is, in milliseconds
    /// since 1970.
    pub fn fresh_at_ms(&self) -> Option<i64> {
        self.freshness.at_ms()
    }

    /// Says so when nothing was heard for too long.
    pub fn check_freshness(&self, now_ms: i64) {
        self.freshness.check(now_ms);
    }

    fn take_anchor(&self, anchor: Anchor) -> anyhow::Result<bool> {
        if !anchor.supersedes(&self.membership.anchor()) {
            return Ok(false);
        }
        anchor.verify_any(&self.keeper.bundle()?)?;
        self.use_anchor(anchor)?;
        Ok(true)
    }

    /// Goes by an anchor of a higher epoch, which was verified, from now on.
    ///
    /// Dying half-way, it leaves the note that the `_federation` here is to be
    /// looked at; [`Trustee::look`] does so at the next start.
    pub fn use_anchor(&self, anchor: Anchor) -> anyhow::Result<()> {
        let base = anchor.base.context("an anchor of a higher epoch names a base")?;
        let one_at_a_time = self.doubt();
        keyfile::write_public(&doubt_path(&self.dir), anchor.epoch.to_string().as_bytes())?;
        keyfile::write_public(&self.dir.anchor(), &anchor.encode())?;
        fault::point("anchor.taken");
        tracing::warn!(
            epoch = anchor.epoch,
            base = base.seq,
            "the root CA has named a new signing key of the hub: the one before may have been stolen"
        );
        self.membership.set_anchor(anchor);
        self.settle_doubt_alone()?;
        drop(one_at_a_time);
        self.history_begins_anew();
        Ok(())
    }

    /// What was heard of numbers above what is held here may have been a thief's.
    pub fn history_begins_anew(&self) {
        self.freshness.begins_anew();
    }

    /// Drops a `_federation` that is not the one that the root names, or that goes
    /// on behind the anchor's base with a key that does not count: what a thief
    /// signed. It is fetched again from its beginning. Once an anchor, because
    /// what is fetched then is less than the base for a while. Blocks.
    fn settle_doubt(&self) -> anyhow::Result<()> {
        let _one_at_a_time = self.doubt();
        self.settle_doubt_alone()
    }

    fn doubt(&self) -> std::sync::MutexGuard<'_, ()> {
        // It guards files, which may be looked at again after anything.
        self.doubt.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn settle_doubt_alone(&self) -> anyhow::Result<()> {
        let note = doubt_path(&self.dir);
        if !note.exists() {
            return Ok(());
        }
        let partition = self.membership.partition();
        if let (Some(base), Some(head)) =
            (self.membership.anchor().base, self.store.head(partition))
        {
            let registry = self.membership.current()?;
            let at_base = self.store.header_at(partition, base.seq)?;
            let same = at_base.is_some_and(|header| header.hash() == base.hash);
            let counts = same && (head.seq() == base.seq || head.signed.verify(&*registry).is_ok());
            if !counts {
                tracing::warn!(
                    held = head.seq(),
                    base = base.seq,
                    "this node's _federation may hold what the hub's stolen key signed; it is fetched again"
                );
                self.store.forget_blocking(partition)?;
            }
        }
        remove(&note)
    }

    /// After the theft of the hub's key, drops those of the hub's partitions that
    /// the thief went on with. They are fetched again. Blocks.
    fn forget_what_a_thief_signed(&self, registry: &Registry) -> anyhow::Result<()> {
        if !self.is_whole_again(registry) {
            return Ok(());
        }
        for (partition, head) in self.store.heads() {
            let is_hubs = partition.origin == *self.membership.hub();
            if is_hubs && !partition.dataset.is_system() && head.signed.verify(registry).is_err() {
                tracing::warn!(%partition, "it ends with what the hub's stolen key signed; it is fetched again");
                self.store.forget_blocking(&partition)?;
            }
        }
        Ok(())
    }

    /// Whether `_federation` is here up to behind the base of an anchor that was
    /// signed after a theft.
    fn is_whole_again(&self, registry: &Registry) -> bool {
        let anchor = self.membership.anchor();
        let mut keys = registry.keys(self.membership.hub()).iter();
        anchor.base.is_some() && keys.any(|known| known.public == anchor.hub_key)
    }
}

impl TrusteeOfSync for Trustee {
    fn report(&self) -> Report {
        let roots: Vec<Checksum> =
            self.keeper.bundle().unwrap_or_default().iter().map(root_id).collect();
        Report {
            instance: self.instance,
            roots,
            signing_key: self.own_keys.current().public().id(),
        }
    }

    fn superseded(&self) {
        // While this very node joins again, its connection of before ends like this.
        let Ok(_not_joining) = self.keeper.asking.try_lock() else {
            return;
        };
        let reason = format!(
            "{} has joined again since this directory's certificate was issued. Nothing is written here: if that \
             was in another directory or on another machine, this directory is the old one; otherwise call the \
             municipal centre: somebody may speak in this county's name. After that, join again with a new token \
             / 本节点已在别处重新加入，此目录是旧的，已停止写入；若非本单位所为，请立即联系市级中心",
            self.membership.me()
        );
        if let Err(error) = self.stop_writing(Alarm::Superseded, SUPERSEDED_FILE, reason) {
            tracing::warn!(
                error = format!("{error:#}"),
                "that this directory is the old one could not be written down"
            );
        }
    }

    fn own_history_answered(&self) {
        if let Err(error) = self.own_history.settle().and_then(|()| self.settle_restored()) {
            // Last numbers of earlier keys are believed until the next answer.
            tracing::warn!(
                error = format!("{error:#}"),
                "what the hub holds of this node's own history could not be noted"
            );
        }
    }

    fn welcomed(&self) {
        self.own_history.heard();
        self.own_history_answered();
        let path = self.dir.certs().join(SUPERSEDED_FILE);
        if !path.exists() {
            return;
        }
        let settled = remove(&path).and_then(|()| self.look());
        if let Err(error) = settled {
            tracing::warn!(error = format!("{error:#}"), "this node goes on writing nothing");
        }
    }

    fn stated(&self, bytes: &[u8]) {
        let judged = Statement::decode(bytes)
            .map_err(anyhow::Error::from)
            .and_then(|statement| Ok((statement, self.membership.current()?)));
        match judged {
            Ok((statement, registry)) => self.freshness.judge(statement, &registry),
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

/// Lies there from a new anchor until `_federation` was compared with it.
fn doubt_path(dir: &NodeDir) -> PathBuf {
    dir.certs().join("federation-in-doubt")
}

/// An administrator has looked at why this node wrote nothing, and joined again.
pub(super) fn stops_are_settled(dir: &NodeDir) -> anyhow::Result<()> {
    remove(&dir.certs().join(FOREIGN_KEY_FILE))?;
    remove(&dir.certs().join(SUPERSEDED_FILE))
}
