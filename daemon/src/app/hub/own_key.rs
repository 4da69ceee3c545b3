//! The hub's own signing key: followed in routine, and replaced after a theft.
//!
//! In routine the old key signs the record that names the new one, so nobody
//! needs anything else. After a theft the old key proves nothing: the root signs
//! an anchor of a higher epoch, which says up to where the old one counts.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use certs::{enrol::Anchor, fault, keyfile};
use protocol::{
    federation::{Entry, Introduction, KeyRecord, Registry, succession_bytes},
    hex,
    id::PartitionId,
    sign::SignaturePurpose,
};
use serde_json::{Value as Json, json};

use store::StoreError;

use super::{Ending, Registrar, puts};
use crate::app::{changes::federation_changes, now_unix};

impl Registrar {
    /// The next signing key of the hub follows the present one. Blocks.
    pub fn renew_signing_key(&self) -> anyhow::Result<Json> {
        let _changing = self.change();
        self.refuse_restored()?;
        let registry = self.membership.current()?;
        let me = self.membership.me().clone();
        let current = registry.current_key(&me).context("_federation names no key of this hub")?;
        let next = self.own_keys.prepare_next()?;
        let federation = self.membership.federation();
        let bytes = succession_bytes(federation, &me, &current.public.id(), &next.public());
        let present = self.own_keys.current();
        let countersignature =
            hex::encode(present.sign(SignaturePurpose::Succession, &bytes).as_bytes());
        let system = self.membership.partition().clone();
        let (number, record) = (current.number, current.record.clone());
        let new = KeyRecord {
            countersignature: Some(countersignature),
            ..KeyRecord::new(&next.public(), Introduction::Succession, now_unix() * 1000)
        };
        let membership = self.membership.clone();
        let build = move |mut heads: BTreeMap<PartitionId, u64>| {
            // The old key's last word is the change set that says so.
            *heads.entry(system).or_default() += 1;
            let last = heads.into_iter().map(|(partition, seq)| (partition.to_string(), seq));
            let changes = record.retired(&me, number, last.collect()).and_then(|mut entries| {
                entries.push(Entry::Key(me, number + 1, new));
                entries.iter().map(Entry::put).collect()
            });
            let changes = changes.map_err(|error| {
                tracing::error!(%error, "the signing key cannot be followed by another one");
                let problem = "the last numbers of the present key do not fit _federation";
                StoreError::Changes { partition: membership.partition().clone(), problem }
            })?;
            Ok(federation_changes(&membership, changes))
        };
        let me = self.membership.me();
        let head = self.store.rotate_signer(next.clone(), me.clone(), build)?;
        fault::point("key.registered");
        self.own_keys.promote_next()?;
        self.tell.send_replace(());
        Ok(json!({
            "node": me, "signing_key": hex::encode(next.public().as_bytes()), "number": number + 1,
            "federation_seq": head.seq(),
        }))
    }

    /// The signing key may be in the wrong hands: the root names a new one, and
    /// from here on nothing counts that the old one signs. Blocks.
    pub fn replace_stolen_key(&self, root_keys: Option<&Path>) -> anyhow::Result<Json> {
        let _changing = self.change();
        self.refuse_restored()?;
        // One that was interrupted comes first: its change sets count.
        self.settle_own_key().context("finish an earlier change of the signing key")?;
        let base = self.store.head(self.membership.partition());
        let base = base.context("there is no _federation")?.position();
        let next = self.own_keys.prepare_next()?;
        let before = self.membership.anchor();
        let epoch = before.epoch.checked_add(1).context("too many epochs")?;
        let mut earlier = before.earlier.clone();
        earlier.push(before.hub_key);
        let anchor = Anchor {
            hub_key: next.public(),
            epoch,
            base: Some(base),
            earlier,
            signature: Vec::new(),
            ..before
        };
        let anchor = self.sign_anchor(&anchor, root_keys)?;
        let reason = "the hub's signing key is being replaced; if that failed, start the hub again";
        self.store.stop_own_writes(Some(reason.into()));
        // After a failure nothing may be written: a start finishes it.
        let head = self.take_up_anchor(&anchor)?;
        self.store.stop_own_writes(None);
        self.drop_open_invites().context("drop invitations that name the old key")?;
        self.tell.send_replace(());
        tracing::warn!(
            epoch,
            "the hub's signing key was replaced; nothing counts that the old one signs from now on"
        );
        Ok(json!({
            "node": self.membership.me(), "signing_key": hex::encode(next.public().as_bytes()),
            "epoch": epoch, "base": base.seq, "federation_seq": head,
        }))
    }

    /// Uses a signed anchor for this hub's next key. Repeatable at any point.
    fn take_up_anchor(&self, anchor: &Anchor) -> anyhow::Result<u64> {
        keyfile::write_public(&self.dir.anchor(), &anchor.encode())?;
        fault::point("key.anchor-written");
        self.membership.set_anchor(anchor.clone());
        // Before members meet what the new key signs.
        self.tell.send_replace(());
        self.register_anchored_key(anchor)
    }

    /// Lets the key that the anchor names sign, and ends those before it.
    fn register_anchored_key(&self, anchor: &Anchor) -> anyhow::Result<u64> {
        let registry = self.membership.current()?;
        let me = self.membership.me().clone();
        let base = anchor.base.context("the anchor names no base")?;
        if let Some(known) = registry.current_key(&me) {
            // Nothing of it is on its way when this answers.
            self.store.suspend_key(known.public.id())?;
        }
        self.own_keys.use_next()?;
        let next = (&anchor.hub_key, Introduction::Anchor, None);
        let ending = Ending::StolenAt(self.membership.partition().clone(), base.seq);
        let entries = self.succession(&registry, &me, Some(next), ending)?;
        let head = self.commit(puts(&entries)?)?;
        fault::point("key.registered");
        self.own_keys.promote_next()?;
        Ok(head.seq())
    }

    /// Takes up what an interrupted replacement has left: the next key is in
    /// `_federation`, or in the anchor.
    pub(super) fn settle_own_key(&self) -> anyhow::Result<()> {
        let registry = self.membership.current()?;
        let Some(next) = self.own_keys.next()? else {
            return Ok(());
        };
        let anchor = self.membership.anchor();
        if is_current(&registry, self.membership.me(), &next) {
            self.own_keys.use_next()?;
            self.own_keys.promote_next()?;
        } else if anchor.hub_key == next.public() {
            self.register_anchored_key(&anchor)?;
        } else if self.own_keys.current().public() == next.public() {
            bail!("{} is the present key", self.own_keys.next_path().display());
        }
        Ok(())
    }
}

fn is_current(
    registry: &Registry,
    me: &protocol::id::NodeId,
    key: &protocol::sign::SigningKey,
) -> bool {
    registry.current_key(me).is_some_and(|known| known.public == key.public())
}
