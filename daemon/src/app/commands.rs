//! What a request does. The daemon calls this for commands that come over its
//! socket; without a daemon the command calls it itself.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use protocol::{
    federation::Entry,
    id::{DatasetId, NodeId, PartitionId},
    moment::rfc3339,
    schema::Schema,
};
use serde_json::{Value as Json, json};

use super::{
    certificates, export,
    hub::Rotation,
    member::{
        join::join_again,
        requests::{new_signing_key, renew},
    },
    node::Node,
    ops::{Answer, Heed},
    repair,
    runtime::with_runtime,
    status, verify,
};
use crate::{
    admin::{Handler, Reply, Request},
    ingest::{ImportRequest, stamp::rejects_path},
    sources::{DeliveredFile, Reading},
};

/// How often a command that waits looks whether the daemon is ending, and whether
/// anybody still listens: neither must take as long as the command would.
const WAIT_LOOK: Duration = Duration::from_millis(250);

impl Handler for Node {
    fn handle(&self, request: Request, file: Option<File>, reply: Heed<'_>) -> Reply {
        match self.execute(request, file, reply) {
            Ok((value, attention)) => Reply::Done { value, attention },
            Err(error) => Reply::Failed(format!("{error:#}")),
        }
    }
}

impl Node {
    /// Does what a request asks, with the file that it brings. Blocks.
    pub fn execute(
        &self,
        request: Request,
        file: Option<File>,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        match request {
            Request::Status => Ok((status::status(self)?, false)),
            Request::Import { dataset, path, full, reading, wait_s } => {
                if wait_s.is_some() && self.started.is_none() {
                    bail!(
                        "no daemon runs here, so nothing would reach the hub: start it, or leave out --wait / \
                         本节点未在运行，数据不会送达市中心：请先启动节点，或去掉 --wait"
                    );
                }
                let last = Cell::new(None);
                let noting = |told| {
                    if let Reply::Progress(progress) = &told {
                        last.set(Some(*progress));
                    }
                    reply(told)
                };
                let imported = self.import(&dataset, &path, file, full, reading, &noting)?;
                // Of a held delivery nothing is on its way.
                match wait_s.filter(|_| imported.0["held"].is_null()) {
                    None => Ok(imported),
                    Some(seconds) => {
                        // A command that went away is not waited for.
                        let listens =
                            || last.get().is_none_or(|last| reply(Reply::Progress(last)).is_ok());
                        let dataset = DatasetId::new(&dataset)?;
                        self.wait_for_hub(&dataset, imported, seconds, &listens)
                    }
                }
            }
            Request::Export { target, format } => {
                export::export(self, &target, format, &|chunk| reply(Reply::Chunk(chunk)))
            }
            Request::Backup { path, without_keys, passphrase } => {
                self.backup(&path, file, without_keys, passphrase, reply)
            }
            Request::Get { dataset, key } => self.get(&dataset, &key),
            Request::Verify { partition, deep } => verify::verify(self, partition.as_deref(), deep),
            Request::Repair { partition } => repair::repair(self, &partition),
            Request::ChoreList => Ok(self.chore_list()),
            Request::ChoreRun { name } => self.chore_run(&name),
            Request::ChorePause { name } => self.chore_pause(&name),
            Request::PartitionRefetch { partition, good, yes } => {
                self.partition_refetch(&partition, good, yes)
            }
            Request::PartitionResolve { partition, keep } => {
                self.partition_resolve(&partition, keep, reply)
            }
            Request::DatasetList => self.dataset_list(),
            Request::DatasetShow { dataset } => self.dataset_show(&dataset),
            Request::DatasetApply { text } => self.dataset_apply(&text),
            Request::DatasetAccept { dataset, version } => self.dataset_accept(&dataset, version),
            Request::NodeList => self.node_list(),
            Request::DeliveryList { all } => self.delivery_list(all),
            Request::DeliveryShow { id } => self.delivery_show(&id),
            Request::DeliveryPreview { id } => self.delivery_preview(&id, reply),
            Request::DeliveryApprove { id, seen_seq, author } => {
                self.delivery_approve(&id, seen_seq, author.checked(), reply)
            }
            Request::DeliveryDiscard { id, author } => self.delivery_discard(&id, author.checked()),
            Request::DeliveryUndo { id, force, author } => {
                self.delivery_undo(&id, force, author.checked())
            }
            Request::RecordDelete { dataset, key, author } => {
                self.record_delete(&dataset, &key, author.checked())
            }
            Request::NodeShow { node } => self.node_show(&node),
            Request::NodeRemove { node, force } => {
                let mut answer = self.registrar()?.remove(&node, force)?;
                answer["kept"] = json!(self.kept_of(&NodeId::new(&node)?));
                Ok((answer, false))
            }
            Request::Revoke { node, serial, reason } => {
                let answer = self.registrar()?.revoke(&node, serial.as_deref(), &reason)?;
                Ok((answer, false))
            }
            Request::CertShow => Ok((certificates::show(self)?, false)),
            Request::CertCheck { days } => certificates::check(self, days),
            Request::CertRenew { signing_key, stolen, root_key_dir } => {
                self.cert_renew(signing_key, stolen, root_key_dir.as_deref().map(Path::new))
            }
            Request::CaShow => Ok((self.registrar()?.show_cas()?, false)),
            Request::CaRotate { root, late, root_key_dir } => {
                let root_keys = root_key_dir.as_deref().map(Path::new);
                // Nobody is connected to a daemon that ends.
                let connected = || match self.shutdown.is_cancelled() {
                    true => Vec::new(),
                    false => self.sync.peers.connected_nodes(),
                };
                self.registrar()?.rotate_ca(&Rotation { root, late, root_keys }, &connected)
            }
            Request::HubMove { addresses } => self.hub_move(&addresses),
            Request::JoinAgain { token } => {
                let answer = with_runtime(|runtime| join_again(self, &token, runtime))?;
                Ok((answer, false))
            }
            Request::Invite { node, name, ttl_s, address } => {
                let registrar = self.registrar()?;
                let token = registrar.invite(&node, name, ttl_s, address)?;
                let expires = rfc3339(token.expires_unix);
                let registry = self.membership.current()?;
                let member = registry.members().get(&token.node);
                let answer = json!({
                    "node": token.node,
                    "token": token.to_text(),
                    "expires": expires,
                    "replaces_member": member.is_some(),
                    "revoked": registry.revocation(&token.node, None).is_some(),
                    "removed": member.is_some_and(|member| member.removed),
                });
                Ok((answer, false))
            }
        }
    }

    fn import(
        &self,
        dataset: &str,
        path: &str,
        file: Option<File>,
        full: bool,
        reading: Reading,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        // Both sides of the socket see to that.
        let file = file.context("the import brings no open file")?;
        let dataset = DatasetId::new(dataset)?;
        let name = Path::new(path).file_name().map_or(path.into(), OsStr::to_string_lossy);
        let source = DeliveredFile::new(name.into_owned(), file, reading)?.read_for(&self.importer);
        let request = ImportRequest {
            rejects: rejects_path(&self.dir.rejects(), &dataset),
            dataset,
            source: Arc::new(source),
            full,
            approved: None,
        };
        self.run_import(&request, reply)
    }

    /// Adds to an import's report whether the hub holds what was imported, which
    /// is waited for.
    fn wait_for_hub(
        &self,
        dataset: &DatasetId,
        (mut report, attention): Answer,
        seconds: u32,
        listens: &dyn Fn() -> bool,
    ) -> anyhow::Result<Answer> {
        let partition = self.membership.own_partition(dataset);
        let hub = self.membership.hub();
        let seq = report["seq"].as_u64().unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        let mut at_hub = seq == 0 || partition.origin == *hub;
        while !at_hub && !self.shutdown.is_cancelled() && listens() {
            let left = deadline.saturating_duration_since(Instant::now());
            at_hub = self.store.wait_for_ack(&partition, hub, seq, left.min(WAIT_LOOK));
            if left.is_zero() {
                break;
            }
        }
        report["at_hub"] = at_hub.into();
        if !at_hub {
            report["at_hub_reason"] = status::why_not_at_hub(self, &partition).into();
        }
        Ok((report, attention || !at_hub))
    }

    /// The newest schema of a dataset, or an error that names those there are.
    pub(super) fn schema(&self, dataset: &DatasetId) -> anyhow::Result<Schema> {
        let registry = self.membership.current()?;
        if let Some(schema) = registry.schema(dataset) {
            return Ok(schema.clone());
        }
        let known: Vec<&str> =
            registry.datasets().map(|schema| schema.dataset().as_str()).collect();
        let known = known.join(", ");
        bail!(
            "没有数据集“{dataset}”，现有：{known} / there is no dataset '{dataset}'; the catalogue has: {known}"
        )
    }

    fn dataset_list(&self) -> anyhow::Result<Answer> {
        let registry = self.membership.current()?;
        let list: Vec<Json> = registry
            .datasets()
            .map(|schema| {
                let heads = self.heads(Some(schema.dataset()));
                let records: u64 = heads.values().map(|head| head.summary.records).sum();
                json!({
                    "dataset": schema.dataset(),
                    "version": schema.version(),
                    "title_zh": schema.raw().title_zh,
                    "title_en": schema.raw().title_en,
                    "fields": schema.fields().len(),
                    "partitions": heads.len(),
                    "records": records,
                })
            })
            .collect();
        Ok((json!({ "datasets": list }), false))
    }

    fn dataset_show(&self, dataset: &str) -> anyhow::Result<Answer> {
        let schema = self.schema(&DatasetId::new(dataset)?)?;
        Ok((serde_json::to_value(schema.raw())?, false))
    }

    fn dataset_apply(&self, text: &str) -> anyhow::Result<Answer> {
        let schema =
            config::catalogue::parse_schema(text).context("the schema file is not valid")?;
        let dataset = schema.dataset().clone();
        if dataset.is_system() {
            bail!("{dataset} is the system's own dataset");
        }
        let registrar = self.registrar()?;
        // Two at once must not publish two schemas under one version.
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(|error| error.into_inner());
        let registry = self.membership.current()?;
        let known = registry.schema(&dataset);
        if known == Some(&schema) {
            return Ok((
                json!({ "dataset": dataset, "version": schema.version(), "changed": false }),
                false,
            ));
        }
        let next = known.map_or(1, |known| known.version() + 1);
        if schema.version() != next {
            bail!(
                "{dataset}: the file says version {}; the next version is {next}",
                schema.version()
            );
        }
        if let Some(known) = known
            && key_shape(known) != key_shape(&schema)
        {
            bail!(
                "{dataset}: the key fields and their types cannot change, because stored records are \
                 found by them. Make a dataset of another name"
            );
        }
        let bytes = serde_json::to_string(schema.raw())?.len();
        if let Some(limit) = registry.no_room_for(&dataset, bytes) {
            bail!("{dataset}: {limit}");
        }
        let head = registrar.commit_alone(vec![Entry::Schema(schema.clone()).put()?])?;
        let seq = head.seq();
        registrar.look_at_catalogue()?;
        Ok((
            json!({ "dataset": dataset, "version": schema.version(), "changed": true, "federation_seq": seq }),
            false,
        ))
    }

    /// The administrator agrees that what a dataset does not call personal any more
    /// is shown.
    fn dataset_accept(&self, dataset: &str, version: Option<u32>) -> anyhow::Result<Answer> {
        let dataset = DatasetId::new(dataset)?;
        let masked = self.membership.masked()?;
        let fields = masked.into_iter().find(|masked| masked.dataset == dataset);
        let fields = fields.map(|masked| masked.fields).unwrap_or_default();
        let version = self.membership.accept_dataset(&dataset, version)?;
        super::catalogue::look(&self.membership, &self.alarms)?;
        tracing::warn!(%dataset, version, ?fields, "an administrator agrees that these fields are not personal");
        Ok((json!({ "dataset": dataset, "version": version, "fields": fields }), false))
    }

    fn cert_renew(
        &self,
        signing_key: bool,
        stolen: bool,
        root_keys: Option<&Path>,
    ) -> anyhow::Result<Answer> {
        if stolen && !signing_key {
            bail!(
                "--stolen is about the signing key: creditsync cert renew --signing-key --stolen"
            );
        }
        let answer = match (&self.registrar, signing_key) {
            (Some(registrar), true) if stolen => registrar.replace_stolen_key(root_keys)?,
            (Some(registrar), true) => registrar.renew_signing_key()?,
            (None, true) if stolen => bail!(
                "at a county a stolen signing key is the hub's business: there, creditsync revoke {}, then \
                 creditsync invite {0}, and here creditsync join",
                self.membership.me()
            ),
            (None, true) => {
                let seq = with_runtime(|runtime| runtime.block_on(new_signing_key(self)))?;
                json!({ "node": self.membership.me(), "federation_seq": seq })
            }
            (Some(registrar), false) => {
                registrar.renew_own_certificate()?;
                json!({ "certificates": certificates::list(self)? })
            }
            (None, false) if self.keeper.is_foreign() => bail!(
                "this node shows a certificate of your own PKI, which its hub does not renew: replace the files that \
                 [tls] in creditsync.toml names; they are loaded when they change"
            ),
            (None, false) => {
                with_runtime(|runtime| runtime.block_on(renew(self)))?;
                json!({ "certificates": certificates::list(self)? })
            }
        };
        Ok((answer, false))
    }

    fn node_show(&self, node: &str) -> anyhow::Result<Answer> {
        let node = NodeId::new(node)?;
        let registry = self.membership.current()?;
        let Some(member) = registry.members().get(&node) else {
            bail!("{node} is not in this federation; 'creditsync node list' shows who is");
        };
        let revocations: Vec<Json> = registry
            .revocations(&node)
            .map(|(serial, revocation)| {
                json!({
                    "serial": serial,
                    "at": rfc3339(revocation.at_ms / 1000),
                    "reason": revocation.reason,
                })
            })
            .collect();
        let partitions: Vec<String> = self
            .heads(None)
            .into_keys()
            .filter(|partition| partition.origin == node)
            .map(|partition| partition.to_string())
            .collect();
        let seen =
            self.registrar.as_ref().map_or(Json::Null, |registrar| registrar.seen_json(&node));
        let answer = json!({
            "node": node,
            "name": member.name,
            "role": member.role,
            "removed": member.removed,
            "revoked": registry.revocation(&node, None).is_some(),
            "revocations": revocations,
            "signing_keys": certificates::signing_keys(self, &node)?,
            "seen": seen,
            "partitions": partitions,
            "kept": self.kept_of(&node),
        });
        Ok((answer, false))
    }

    fn node_list(&self) -> anyhow::Result<Answer> {
        let registry = self.membership.current()?;
        let mut heard_of = BTreeMap::new();
        self.sync.peers.visit(|node, peer| {
            heard_of.insert(node.clone(), peer.connected);
        });
        let connected = |node: &NodeId| {
            if node == self.membership.me() {
                return Json::Null;
            }
            heard_of.get(node).map_or(Json::Null, |connected| json!(connected))
        };
        let nodes: Vec<Json> = registry
            .members()
            .iter()
            .map(|(node, member)| {
                let keys = registry.keys(node).iter().map(|known| &known.record.public);
                json!({
                    "node": node,
                    "name": member.name,
                    "role": member.role,
                    "removed": member.removed,
                    "revoked": registry.revocation(node, None).is_some(),
                    "signing_keys": keys.collect::<Vec<_>>(),
                    "connected": connected(node),
                    "partitions": self.kept_of(node).len(),
                })
            })
            .collect();
        Ok((json!({ "nodes": nodes }), false))
    }

    /// What lies here of a node's partitions, as `node remove` and `node show` say it.
    fn kept_of(&self, node: &NodeId) -> Vec<Json> {
        let heads = self.heads(None).into_iter().filter(|(partition, _)| partition.origin == *node);
        let kept = heads.map(|(partition, head)| {
            json!({ "partition": partition.to_string(), "records": head.summary.records })
        });
        kept.collect()
    }

    /// The partition that a text names in this federation.
    pub(super) fn parse_partition(&self, text: &str) -> anyhow::Result<PartitionId> {
        Ok(PartitionId::parse(&self.identity.federation, text)?)
    }
}

fn key_shape(schema: &Schema) -> Vec<(&str, &str)> {
    let field = |&index: &usize| {
        let field = &schema.fields()[index];
        (field.name.as_str(), field.kind.as_str())
    };
    schema.key().iter().map(field).collect()
}
