//! The generations of the certificate authorities.
//!
//! A rotation has three steps, each a single change set of `_federation`:
//!
//! 1. *prepare*: keys and certificates of the next generation are made and made
//!    known; everybody trusts them from then on, nobody uses them yet;
//! 2. *activate*: they issue; the ones before are retiring, and nodes renew;
//! 3. *retire*: what the old ones issued counts no more.
//!
//! Between the steps everybody has to have followed who was seen in the last 30
//! days, unless a person agrees by name that they are locked out. What comes next is read off `_federation` and the files each time, so a
//! rotation that was interrupted anywhere goes on by being asked to. The root's
//! key is needed in the first step only.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, bail};
use certs::{
    CertError,
    authority::{CaDirs, CaRole, ROOT_LIFETIME},
    bundle::root_id,
    enrol::{Anchor, RootOfTrust},
    fault, identity, keyfile, rotate,
};
use protocol::{
    federation::{CaKind, CaRecord, CaState, Entry, KnownCa, Registry, certificate_id},
    hex,
    id::NodeId,
    moment::rfc3339,
    suite::checksum::Checksum,
};
use serde_json::{Value as Json, json};
use time::{Duration, OffsetDateTime};

use super::{
    Registrar, issuer_choice, puts,
    rotation::{
        Rotation, Step, certificate, done, early_authority, names, next_step, next_words, waiting,
    },
};
use crate::{
    admin::Late,
    app::{alarms::Alarm, now_unix},
};

/// The anchor as the next root signed it, until that root is in use.
const NEXT_ANCHOR_FILE: &str = "anchor.next";

/// How long members that are connected are waited for. They renew and connect anew
/// within two or three seconds; a busy machine takes longer, and who asks sits there.
const FOLLOW_MAX: std::time::Duration = std::time::Duration::from_secs(20);
/// How often is looked whether they have.
const FOLLOW_LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// What became of a step.
enum Taken {
    Done(Json),
    /// Nothing was done.
    Waits(Json),
    /// Somebody else has done it, or begun with another.
    Overtaken,
}

impl Registrar {
    /// Does the next step of a rotation. Members that are connected follow within
    /// seconds, so they are waited for, for [`FOLLOW_MAX`] at most; `connected`
    /// answers who they are. Answers what was done, and whether somebody is waited
    /// for. Blocks.
    pub(in crate::app) fn rotate_ca(
        &self,
        asked: &Rotation<'_>,
        connected: &dyn Fn() -> Vec<NodeId>,
    ) -> anyhow::Result<(Json, bool)> {
        let registry = self.membership.current()?;
        let step = next_step(&registry);
        let until = Instant::now() + FOLLOW_MAX;
        let mut there = connected();
        loop {
            let registry = self.membership.current()?;
            let late = self.late(&registry, &step);
            let follows = late.iter().any(|node| there.contains(node));
            if next_step(&registry) != step || !follows || Instant::now() >= until {
                break;
            }
            std::thread::sleep(FOLLOW_LOOK);
            there = connected();
        }
        match self.take_step(asked, &step, &there)? {
            Taken::Done(answer) => Ok((answer, false)),
            Taken::Waits(answer) => Ok((answer, true)),
            Taken::Overtaken => Ok((self.went_on(&step)?, false)),
        }
    }

    /// Does this step, unless another one has become due meanwhile.
    fn take_step(
        &self,
        asked: &Rotation<'_>,
        step: &Step,
        connected: &[NodeId],
    ) -> anyhow::Result<Taken> {
        let _changing = self.change();
        self.refuse_restored()?;
        let registry = self.membership.current()?;
        if next_step(&registry) != *step {
            return Ok(Taken::Overtaken);
        }
        let is_issuing_only =
            matches!(step, Step::Activate { root: None, .. } | Step::Retire { root: None, .. });
        if asked.root && is_issuing_only {
            bail!(
                "正在单独轮换签发机构，待 'creditsync ca show' 显示下一步为 none 后再更换根 / a rotation of the issuing CA \
                 alone is under way; when 'creditsync ca show' says that its next step is none, ask for another root again"
            );
        }
        let late = self.late(&registry, step);
        if !asked.may_lock_out(step, &late) {
            return Ok(Taken::Waits(waiting(step, &late, connected)));
        }
        let mut answer = match step {
            Step::Begin => self.prepare(&registry, asked.root, &self.cas_at(asked.root_keys))?,
            Step::Activate { root, issuing } => self.activate(&registry, *root, *issuing)?,
            Step::Retire { root, issuing } => self.retire(&registry, *root, *issuing)?,
        };
        if !late.is_empty() {
            tracing::warn!(
                step = step.name(),
                locked_out = names(&late),
                "a rotation did not wait for nodes"
            );
            let registry = self.membership.current()?;
            let now_due = next_step(&registry);
            answer["next"] = json!(next_words(step, &now_due, &late));
        }
        answer["locked_out"] = json!(late);
        self.settle()?;
        self.tell.send_replace(());
        Ok(Taken::Done(answer))
    }

    /// The answer where a running hub, or another command, has done the step.
    fn went_on(&self, step: &Step) -> anyhow::Result<Json> {
        let registry = self.membership.current()?;
        let (root, issuing) = match (step, next_step(&registry)) {
            (Step::Activate { root, issuing }, _) => (*root, Some(*issuing)),
            (Step::Retire { root, issuing }, _) => (*root, *issuing),
            (Step::Begin, Step::Activate { root, issuing }) => (root, Some(issuing)),
            (Step::Begin, Step::Retire { .. } | Step::Begin) => (None, None),
        };
        let head = self.store.head(self.membership.partition());
        Ok(done(step, root, issuing, head.map_or(0, |head| head.seq()), &next_step(&registry)))
    }

    /// Members that this step would leave behind.
    fn late(&self, registry: &Registry, step: &Step) -> Vec<NodeId> {
        match step {
            Step::Begin => Vec::new(),
            // Under an authority that has not begun nobody can verify this hub and hear of
            // the next one.
            Step::Activate { .. } if early_authority(registry, OffsetDateTime::now_utc()) => {
                Vec::new()
            }
            Step::Activate { root, .. } => self.not_prepared(registry, *root),
            Step::Retire { .. } => self.not_renewed(registry),
        }
    }

    /// Goes on with a rotation that is under way, and begins one of the issuing
    /// CA when two thirds of its life are over and the root's key is at hand.
    /// Answers whether anything was done. Blocks.
    pub fn rotate_ca_if_due(&self, now: OffsetDateTime, random: u32) -> anyhow::Result<bool> {
        let registry = self.membership.current()?;
        let step = next_step(&registry);
        let due = match &step {
            Step::Begin => self.is_rotation_due(&registry, now, random)?,
            Step::Activate { .. } | Step::Retire { .. } => self.late(&registry, &step).is_empty(),
        };
        if !due {
            return Ok(false);
        }
        let asked = Rotation { root: false, late: Late::Wait, root_keys: None };
        let Taken::Done(done) = self.take_step(&asked, &step, &[])? else {
            return Ok(false);
        };
        tracing::info!(step = %done["step"], "the rotation of certificate authorities went on");
        Ok(true)
    }

    /// Whether the issuing CA is to be followed now. Where a person is needed for
    /// that, or for the root, an alarm says so.
    fn is_rotation_due(
        &self,
        registry: &Registry,
        now: OffsetDateTime,
        random: u32,
    ) -> anyhow::Result<bool> {
        let (_, issuing) =
            registry.active_ca(CaKind::Issuing).context("no issuing CA is in use")?;
        let (root, known) = registry.active_ca(CaKind::Root).context("no root CA is in use")?;
        let facts = identity::facts(&certificate(issuing))?;
        let root_facts = identity::facts(&certificate(known))?;
        let is_due = rotate::is_due(&facts, random, now) || now < facts.not_before;
        let has_key = self.cas.has_root_key(root);
        if is_due && !has_key {
            self.alarms.raise(
                Alarm::Authority,
                format!(
                    "the issuing CA ends on {} and is to be followed, which needs the root key ({}): creditsync ca \
                     rotate --root-key DIR / 签发机构即将到期，请插入根密钥后执行 creditsync ca rotate --root-key",
                    facts.not_after.date(),
                    CaRole::Root.key_file(root),
                ),
            );
        } else if rotate::is_due(&root_facts, random, now) {
            self.alarms.raise(
                Alarm::Authority,
                format!(
                    "the root CA ends on {} and is to be followed: creditsync ca rotate --root / 根证书即将到期",
                    root_facts.not_after.date()
                ),
            );
        } else {
            self.alarms.clear(Alarm::Authority);
        }
        // Under a root that ends no later another issuing CA would not live longer.
        Ok(is_due && has_key && facts.not_after < root_facts.not_after)
    }

    /// Where the CAs lie, with the roots' keys elsewhere if somebody says so.
    fn cas_at(&self, root_keys: Option<&Path>) -> CaDirs {
        let mut cas = self.cas.clone();
        if let Some(path) = root_keys {
            cas.root_keys = self.cas.root_keys.beside(path);
        }
        cas
    }

    fn prepare(&self, registry: &Registry, new_root: bool, cas: &CaDirs) -> anyhow::Result<Json> {
        let federation = self.membership.federation();
        let now = OffsetDateTime::now_utc();
        let lifetime = Duration::seconds(self.config.certificates.issuing_lifetime_s as i64);
        let newest = |kind| registry.cas(kind).next_back().map_or(0, |(number, _)| number);
        let (current, _) = registry.active_ca(CaKind::Root).context("no root CA is in use")?;
        if !cas.has_root_key(current) {
            // Before a key of the next root is made in a place that is no place.
            let file = cas.root_keys.file(&CaRole::Root.key_file(current));
            return Err(CertError::RootKeyAbsent(file).into());
        }
        let issuing = newest(CaKind::Issuing) + 1;
        let mut entries = Vec::new();
        let root = if new_root {
            let next = newest(CaKind::Root) + 1;
            let certificate = cas.create_root(federation, next, now, ROOT_LIFETIME)?;
            let cross = cas.cross_sign(current, next, now)?;
            let anchor = cas.sign_anchor(next, &self.membership.anchor())?;
            let path = self.dir.certs().join(NEXT_ANCHOR_FILE);
            keyfile::write_public(&path, &anchor.encode())?;
            fault::point("ca.next-anchor-written");
            let record = CaRecord {
                certificate: hex::encode(&certificate),
                cross: Some(hex::encode(&cross)),
                root: None,
                state: CaState::Next,
            };
            entries.push(Entry::Ca(CaKind::Root, next, record));
            next
        } else {
            current
        };
        // What an interrupted rotation of another kind has left belongs to another
        // root, and nobody knows it.
        cas.discard_issuing_of_others(issuing, root)?;
        let certificate = cas.create_issuing(federation, issuing, root, now, lifetime)?;
        let record = CaRecord {
            certificate: hex::encode(&certificate),
            cross: None,
            root: Some(root),
            state: CaState::Next,
        };
        entries.push(Entry::Ca(CaKind::Issuing, issuing, record));
        let head = self.commit(puts(&entries)?)?;
        fault::point("ca.prepared");
        let begun = Step::Activate { root: new_root.then_some(root), issuing };
        Ok(done(&Step::Begin, new_root.then_some(root), Some(issuing), head.seq(), &begun))
    }

    fn activate(
        &self,
        registry: &Registry,
        root: Option<u32>,
        issuing: u32,
    ) -> anyhow::Result<Json> {
        let mut entries = Vec::new();
        let next = [(CaKind::Issuing, Some(issuing)), (CaKind::Root, root)];
        for (kind, number) in next {
            let Some(number) = number else { continue };
            if let Some((before, known)) = registry.active_ca(kind) {
                entries.push(Entry::Ca(kind, before, record(known, CaState::Retiring)));
            }
            let known = registry.ca(kind, number).context("the next authority is gone")?;
            entries.push(Entry::Ca(kind, number, record(known, CaState::Active)));
        }
        let head = self.commit(puts(&entries)?)?;
        fault::point("ca.activated");
        let then = Step::Retire { root, issuing: Some(issuing) };
        Ok(done(&Step::Activate { root, issuing }, root, Some(issuing), head.seq(), &then))
    }

    fn retire(
        &self,
        registry: &Registry,
        root: Option<u32>,
        issuing: Option<u32>,
    ) -> anyhow::Result<Json> {
        // Members refuse a hub that shows a certificate of a retired authority.
        self.settle_own_certificate().context("renew the hub's own certificate first")?;
        let mut entries = Vec::new();
        for (kind, number) in [(CaKind::Root, root), (CaKind::Issuing, issuing)] {
            if let Some(known) = number.and_then(|number| registry.ca(kind, number)) {
                let number = number.unwrap_or_default();
                entries.push(Entry::Ca(kind, number, record(known, CaState::Retired)));
            }
        }
        let head = self.commit(puts(&entries)?)?;
        fault::point("ca.retired");
        Ok(done(&Step::Retire { root, issuing }, root, issuing, head.seq(), &Step::Begin))
    }

    /// Members that do not know the next generation yet: that do not trust the
    /// next root, or have not heard all that `_federation` says.
    fn not_prepared(&self, registry: &Registry, root: Option<u32>) -> Vec<NodeId> {
        let head = self.store.seq(self.membership.partition());
        let acks = self.store.acks(self.membership.partition());
        let id = root.and_then(|root| registry.ca(CaKind::Root, root));
        let id = id.map(|known| root_id(&certificate(known)));
        self.seen.behind(
            now_unix(),
            |node| registry.active_member(node).is_some(),
            |node, seen| {
                let heard = acks.get(node).is_some_and(|ack| ack.seq >= head);
                !heard || id.is_some_and(|id| !seen.roots.contains(&id))
            },
        )
    }

    /// Members whose certificate the authority in use did not issue.
    fn not_renewed(&self, registry: &Registry) -> Vec<NodeId> {
        let active = registry.active_ca(CaKind::Issuing);
        let active = active.map(|(_, known)| certificate_id(&known.certificate));
        let is_old = |issuer: Option<Checksum>| {
            // A foreign PKI's certificates are not this hub's to renew.
            let ours = issuer.is_some_and(|id| registry.issuing_ca(&id).is_some());
            ours && issuer != active
        };
        self.seen.behind(
            now_unix(),
            |node| registry.active_member(node).is_some(),
            |_, seen| is_old(seen.issuer),
        )
    }

    /// Takes the anchor that the root in use signed, and deletes keys of issuing
    /// CAs that are retired.
    pub(super) fn settle_anchor(&self) -> anyhow::Result<()> {
        let registry = self.membership.current()?;
        let next = self.dir.certs().join(NEXT_ANCHOR_FILE);
        if next.exists()
            && let Some((number, known)) = registry.active_ca(CaKind::Root)
        {
            let anchor = Anchor::decode(&keyfile::read_public(&next)?)
                .with_context(|| format!("{} is damaged", next.display()))?;
            let root = RootOfTrust::from_certificate(&certificate(known))?;
            let current = self.membership.anchor();
            let same = Anchor { signature: current.signature.clone(), ..anchor.clone() } == current;
            if anchor.verify(&root).is_ok() && same {
                keyfile::write_public(&self.dir.anchor(), &anchor.encode())?;
                fault::point("ca.anchor-replaced");
                self.membership.set_anchor(anchor);
                let gone = std::fs::remove_file(&next);
                gone.with_context(|| format!("remove {}", next.display()))?;
                tracing::info!(root = number, "the anchor is signed by the root in use");
            }
        }
        for (number, known) in registry.cas(CaKind::Issuing) {
            if known.state == CaState::Retired {
                self.cas.delete_key(CaRole::Issuing, number)?;
            }
        }
        Ok(())
    }

    /// All authorities, and how a rotation stands.
    pub fn show_cas(&self) -> anyhow::Result<Json> {
        let registry = self.membership.current()?;
        let active = issuer_choice(&registry)?;
        let mut authorities = Vec::new();
        for kind in [CaKind::Root, CaKind::Issuing] {
            for (number, known) in registry.cas(kind) {
                let certificate = certificate(known);
                let facts = identity::facts(&certificate)?;
                let key = match kind {
                    CaKind::Root => self.cas.has_root_key(number),
                    CaKind::Issuing => self.cas.keys.exists(&CaRole::Issuing.key_file(number)),
                };
                authorities.push(json!({
                    "kind": kind.as_str(),
                    "number": number,
                    "state": known.state,
                    "root": known.root,
                    "subject": facts.subject,
                    "serial": facts.serial_hex,
                    "id": certificate_id(&certificate).to_string(),
                    "not_before": rfc3339(facts.not_before.unix_timestamp()),
                    "not_after": rfc3339(facts.not_after.unix_timestamp()),
                    "key_here": key,
                }));
            }
        }
        let next = next_step(&registry);
        Ok(json!({
            "authorities": authorities,
            "root": active.root,
            "issuing": active.issuing,
            "anchor_epoch": self.membership.anchor().epoch,
            "next_step": next.name(),
            "waiting_for": self.late(&registry, &next),
        }))
    }

    /// Signs an anchor of a higher epoch with the root in use.
    pub(super) fn sign_anchor(
        &self,
        anchor: &Anchor,
        root_keys: Option<&Path>,
    ) -> anyhow::Result<Anchor> {
        let registry = self.membership.current()?;
        let (root, _) = registry.active_ca(CaKind::Root).context("no root CA is in use")?;
        if next_step(&registry) != Step::Begin {
            bail!(
                "a rotation of authorities is under way, and its anchor is signed already; end it first: \
                 creditsync ca rotate --force"
            );
        }
        Ok(self.cas_at(root_keys).sign_anchor(root, anchor)?)
    }
}

fn record(known: &KnownCa, state: CaState) -> CaRecord {
    CaRecord {
        certificate: hex::encode(&known.certificate),
        cross: known.cross.as_deref().map(hex::encode),
        root: known.root,
        state,
    }
}
