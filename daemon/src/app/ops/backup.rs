//! `backup`: all of this node into a file that the command has opened.

use std::{fs::File, io::ErrorKind, path::PathBuf};

use anyhow::{Context as _, bail};
use certs::keyfile::Passphrase;
use protocol::{id::PartitionId, moment::rfc3339};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Answer, Heed};
use crate::{
    admin::Reply,
    app::{
        node::{Node, passphrase},
        now_unix,
    },
    upkeep::backup::{
        BackupError, Copied, Keys, Manifest,
        output::{KeptOpen, Output, TAKES_NOTHING_MAX},
        save::{self, Plan, save},
    },
};

impl Node {
    pub(in crate::app) fn backup(
        &self,
        path: &str,
        file: Option<File>,
        without_keys: bool,
        given: Option<String>,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        // Both sides of the socket see to that.
        let file = file.context("the backup brings no open file")?;
        let given = given.and_then(|text| Passphrase::new(Zeroizing::new(text)));
        let passphrase = match given {
            Some(given) => Some(given),
            None => passphrase()?,
        };
        let (public, private, unseen) = self.named_files();
        let plan = Plan::of(self.dir.path(), &public, &private)?;
        let keys = plan.keys().taken(passphrase.is_some(), without_keys);
        if keys == Keys::LeftOut && self.is_hub() && !without_keys {
            bail!(
                "市级中心的备份须包含密钥，否则无法恢复：请用 --passphrase-file 指定口令文件（权限 0600）；若密钥另行保存，请加 \
                 --without-keys / a hub cannot come back without its keys: name a file (mode 0600) whose first line is a \
                 passphrase with --passphrase-file; or say --without-keys, if you keep the keys elsewhere"
            );
        }
        let outside: Vec<String> = plan.outside().iter().cloned().chain(unseen).collect();
        let manifest = Manifest {
            federation: self.identity.federation.to_string(),
            node: self.identity.node.to_string(),
            role: self.config.role().to_owned(),
            suite: self.membership.suite().number(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: rfc3339(now_unix()),
            keys,
            outside: outside.clone(),
        };
        let kept_open = KeptOpen::default();
        let out = Output::new(file, &kept_open).context("look at the file of the backup")?;
        // Whoever gave the command may have gone, and a daemon that ends waits for nobody.
        let heed =
            |copied: Copied| !self.shutdown.is_cancelled() && reply(Reply::Copied(copied)).is_ok();
        let node = save::Node {
            dir: self.dir.path(),
            store: &self.store,
            federation: self.membership.partition(),
            suite: self.membership.suite(),
        };
        let plan = (plan, &manifest, passphrase.as_ref());
        let saved = save(&node, plan, (out, &kept_open), &heed).map_err(|error| match error {
            BackupError::Io(error) if error.kind() == ErrorKind::TimedOut => {
                BackupError::TakesNothing(TAKES_NOTHING_MAX.as_secs())
            }
            BackupError::Io(error) if error.kind() == ErrorKind::StorageFull => {
                BackupError::NoRoom(error)
            }
            error => error,
        })?;
        let short = |name: &str| {
            PartitionId::parse_full(name).map_or(name.to_owned(), |partition| partition.to_string())
        };
        let left_out: Vec<_> = saved
            .left_out
            .iter()
            .map(|left| json!({ "partition": short(&left.partition), "reason": left.reason }))
            .collect();
        let needs_person = !left_out.is_empty() || (keys == Keys::LeftOut && !without_keys);
        tracing::info!(bytes = saved.bytes, records = saved.totals.records, "a backup was made");
        let answer = json!({
            "file": path,
            "node": manifest.node,
            "federation": manifest.federation,
            "role": manifest.role,
            "created": manifest.created,
            "keys": keys,
            "bytes": saved.bytes,
            "files": saved.totals.files,
            "partitions": saved.totals.partitions,
            "records": saved.totals.records,
            "left_out": left_out,
            "outside": outside,
        });
        Ok((answer, needs_person))
    }

    /// Files that the configuration names: public ones, private ones, and a folder of
    /// keys that cannot be looked into now.
    fn named_files(&self) -> (Vec<PathBuf>, Vec<PathBuf>, Option<String>) {
        let tls = &self.config.tls;
        let mut public: Vec<PathBuf> = tls.ca.iter().cloned().collect();
        let mut private = Vec::new();
        if let Some(pki) = &tls.pki {
            public.push(pki.certificate.clone());
            private.push(pki.key.clone());
        }
        let Some(folder) = &self.config.certificates.root_key_dir else {
            return (public, private, None);
        };
        let folder = self.dir.path().join(folder);
        let Ok(entries) = std::fs::read_dir(&folder) else {
            return (public, private, Some(folder.display().to_string()));
        };
        let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        private.extend(files.filter(|path| path.extension().is_some_and(|it| it == "key")));
        (public, private, None)
    }
}
