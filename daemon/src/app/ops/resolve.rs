//! `partition resolve`: a partition of which two histories are signed goes on with one.
//!
//! At its origin: what is here is set aside in files, dropped, and the history that the
//! peer holds is taken back, so that whoever holds that follows again by itself
//! ([`crate::sync`]). With `--keep origin` the difference is then issued again, as new
//! change sets behind it. It may be interrupted anywhere: a record says how far it came,
//! nothing is written to the partition in between, and the command goes on when it is
//! given again. Writes of the partition are held from the record on until it is done. At a
//! follower only a copy is dropped.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use certs::{fault, keyfile};
use files::Replacement;
use protocol::{
    change::{Change, SignedHeader},
    id::PartitionId,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::OwnChanges;

use super::{
    super::{
        dir::remove,
        export,
        node::{Node, no_partition},
        runtime::with_runtime,
    },
    Answer, Heed,
    others::Others,
};
use crate::{
    admin::{ExportFormat, Keep, Reply},
    sync,
};

/// The peer's history has to be back within this time, or the command ends and is given
/// again later.
const BACK_MAX: Duration = Duration::from_secs(600);
/// Peers with longer histories may take so long to show whether they have the chosen one.
const SHOWN_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(200);
/// Changes and bytes of a change set that is issued again: well within what one may have.
const CHANGES_MAX: usize = 5000;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The ending of a record's name.
const RECORD: &str = "resolve";

/// A resolution that was begun.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    partition: String,
    keep: Keep,
    /// The head that the peer held, in hexadecimal.
    theirs: String,
    /// The hash of the head that was here.
    ours: String,
    /// What was here: keys and records, in key order, in hexadecimal.
    entries: PathBuf,
    /// The same for people.
    table: PathBuf,
}

impl Node {
    pub(in crate::app) fn partition_resolve(
        &self,
        text: &str,
        keep: Keep,
        reply: Heed<'_>,
    ) -> anyhow::Result<Answer> {
        let partition = self.parse_partition(text)?;
        if partition.origin != *self.membership.me() {
            return self.resolve_copy(&partition, keep);
        }
        if partition.dataset.is_system() {
            bail!(
                "{partition} 由市级中心签发：请在持有另一份历史的各县执行 creditsync partition refetch {partition}，各县将以中心现在的\
                 名册为准；此后加入或更换密钥的节点需要新令牌 / {partition} is what this hub says of the federation: give \
                 'creditsync partition refetch {partition}' at the members that hold the other history, and they go by what \
                 the hub says now; nodes that joined or changed their keys in the other one need a new token"
            );
        }
        if self.started.is_none() {
            bail!(
                "节点未运行：请先启动守护进程 / no daemon runs here, and the other history comes from a peer: start the node first"
            );
        }
        let path = self.record_of(&partition);
        // An import that is under way ends first; those that come are refused from then on.
        let begun = self.importer.alone(&partition, || self.give_up_ours(&partition, keep, &path));
        let Some((record, theirs)) = begun? else {
            let seq = self.store.seq(&partition);
            let answer = json!({ "partition": partition.to_string(), "keep": keep.name(), "seq": seq, "changed": false });
            return Ok((answer, false));
        };
        let mut others = Others::new(&theirs, self.held_by_peers(&partition));
        self.await_theirs(&partition, &theirs, &mut others, reply)?;
        let reissued = self.importer.alone(&partition, || {
            // Until the difference is issued nothing else is.
            self.store.hold_own_writes(&partition, None);
            let reissued = self.go_on(&partition, keep, &record, &mut others);
            fault::point("fork.reissued");
            let reissued = reissued.and_then(|reissued| remove(&path).map(|()| reissued));
            if reissued.is_err() {
                self.store.hold_own_writes(&partition, Some(unfinished(&partition, keep)));
            }
            reissued
        })?;
        let given_up = others.given_up();
        given_up.iter().for_each(|other| self.connect_again(&other.node));
        remove(&record.entries)?;
        let head = self.store.head(&partition).ok_or_else(|| no_partition(&partition))?;
        tracing::warn!(%partition, keep = keep.name(), seq = head.seq(), reissued, "two histories are one again");
        let answer = json!({
            "partition": partition.to_string(),
            "keep": keep.name(),
            "seq": head.seq(),
            "records": head.summary.records,
            "reissued": reissued,
            "set_aside": record.table,
            "given_up": given_up,
            "changed": true,
        });
        // Where another history is held, somebody has to fetch it again.
        Ok((answer, !given_up.is_empty()))
    }

    /// Sets aside what is here of its own and drops it, if that is not done yet. None if
    /// there is nothing to resolve.
    fn give_up_ours(
        &self,
        partition: &PartitionId,
        keep: Keep,
        path: &Path,
    ) -> anyhow::Result<Option<(Record, SignedHeader)>> {
        let record = match read_record(path)? {
            Some(record) if record.keep != keep => bail!(
                "{partition} 正按 --keep {0} 处理，尚未完成：请以相同选项重新执行 / {partition} is being resolved with --keep {0}, \
                 and not done yet: give the command with that again",
                record.keep.name()
            ),
            Some(record) => record,
            None => match self.begin_resolving(partition, keep, path)? {
                Some(record) => record,
                None => return Ok(None),
            },
        };
        let theirs = protocol::hex::decode(&record.theirs)
            .and_then(|bytes| SignedHeader::decode(&bytes).ok())
            .with_context(|| format!("{} is damaged", path.display()))?;
        self.store.hold_own_writes(partition, Some(unfinished(partition, keep)));
        fault::point("fork.set-aside");
        if !self.is_dropped(partition, &theirs)? {
            let head = self.store.head(partition).map(|head| head.position());
            if head.is_none_or(|head| head.hash.to_string() != record.ours) {
                // What was set aside is not what is here: a daemon without this record has
                // written to it.
                remove(path)?;
                self.store.hold_own_writes(partition, None);
                bail!(
                    "{partition} 在此期间有新的变更，未作处理：请重新执行 / {partition} was written to meanwhile, and nothing was done: \
                     give the command again"
                );
            }
            self.note_given_up(partition, Some(&theirs))?;
            self.store.give_up_blocking(theirs.clone(), head)?;
        }
        fault::point("fork.dropped");
        Ok(Some((record, theirs)))
    }

    /// Holds the writes of partitions whose resolution was begun and has not ended: what
    /// comes in between would be taken back by what was set aside.
    pub(in crate::app) fn hold_unresolved(&self) -> anyhow::Result<()> {
        let files = match std::fs::read_dir(self.dir.aside()) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("look for partitions that are being resolved"),
        };
        for file in files {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != RECORD) {
                continue;
            }
            let known = read_record(&path).and_then(|record| {
                let named = record.map(|record| {
                    let partition = PartitionId::parse_full(&record.partition)?;
                    Ok::<_, protocol::id::NameError>((partition, record.keep))
                });
                named.transpose().with_context(|| format!("{} is damaged", path.display()))
            });
            match known {
                Ok(Some((partition, keep))) => {
                    let reason = Some(unfinished(&partition, keep));
                    self.store.hold_own_writes(&partition, reason);
                }
                Ok(None) => {}
                // A file that somebody has altered keeps no node from its work.
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "what is being resolved cannot be read"
                ),
            }
        }
        Ok(())
    }

    /// At who holds a copy, nothing of its own can be lost.
    fn resolve_copy(&self, partition: &PartitionId, keep: Keep) -> anyhow::Result<Answer> {
        let origin = &partition.origin;
        if keep == Keep::Hub {
            bail!(
                "请在 {origin} 执行：creditsync partition resolve {partition} --keep hub；它取回本节点持有的历史后，本节点自动解除隔离 \
                 / give this at {origin}: creditsync partition resolve {partition} --keep hub. When it has taken back what is \
                 held here, the quarantine here ends by itself"
            );
        }
        self.partition_refetch(&partition.to_string(), None, false)
    }

    fn record_of(&self, partition: &PartitionId) -> PathBuf {
        self.dir.aside().join(format!("{}-{}.{RECORD}", partition.dataset, partition.origin))
    }

    /// Sets aside what is here. None if the peer's history has it, so that there is
    /// nothing to resolve.
    fn begin_resolving(
        &self,
        partition: &PartitionId,
        keep: Keep,
        path: &Path,
    ) -> anyhow::Result<Option<Record>> {
        let head = self.store.head(partition).ok_or_else(|| no_partition(partition))?;
        let peer = self.holder_of_another(partition)?;
        let theirs = with_runtime(|runtime| {
            Ok(runtime.block_on(sync::peer_head(&self.sync, &peer, partition))?)
        })?;
        let theirs = theirs.with_context(|| {
            format!("{peer} 没有该分区，无需处理 / {peer} holds nothing of it, so there is nothing to resolve")
        })?;
        let seq = theirs.header().seq;
        // It is never taken back, so nothing may be dropped in its favour.
        if self.sync.given_up.contains(&self.store, partition, theirs.position()) {
            bail!(
                "{peer} 持有的 {partition} 历史已被放弃，未作处理：请在 {peer} 执行 creditsync partition refetch {partition} / the history \
                 of {partition} that {peer} holds was given up here, and nothing was done: give 'creditsync partition \
                 refetch {partition}' at {peer}"
            );
        }
        if self.store.header_hash_at(partition, seq)? == Some(theirs.hash()) {
            // Ours goes on behind it. What else was proven once nobody holds any more who is
            // here, so nothing would ever bring it back.
            self.store.await_own_history(partition, 0);
            if self.store.quarantine_reason(partition).is_some() {
                with_runtime(|runtime| Ok(runtime.block_on(self.store.release(partition))?))?;
            }
            self.connect_again(&peer);
            return Ok(None);
        }
        let aside = self.dir.aside();
        keyfile::create_private_dir(&aside)?;
        let name =
            format!("{}-{}-{}", partition.dataset, partition.origin, super::super::now_unix());
        let (entries, table) =
            (aside.join(format!("{name}.entries")), aside.join(format!("{name}.csv")));
        self.save_entries(partition, &entries)?;
        self.save_table(partition, &table)?;
        let record = Record {
            partition: partition.full_name(),
            keep,
            theirs: protocol::hex::encode(&theirs.encode()),
            ours: head.signed.hash().to_string(),
            entries,
            table,
        };
        files::replace(path, &serde_json::to_vec(&record)?, files::PRIVATE)
            .with_context(|| format!("write {}", path.display()))?;
        tracing::warn!(%partition, %peer, ours = head.seq(), theirs = seq, aside = %record.table.display(), "what is here is set aside, and the history that the peer holds is taken back");
        Ok(Some(record))
    }

    fn save_entries(&self, partition: &PartitionId, path: &Path) -> anyhow::Result<()> {
        let context = || format!("set aside what is here in {}", path.display());
        let mut snapshot =
            self.store.snapshot_blocking(partition)?.ok_or_else(|| no_partition(partition))?;
        let mut out = BufWriter::new(Replacement::new(path, files::PRIVATE).with_context(context)?);
        for leaf in snapshot.leaves() {
            for (key, value) in leaf.with_context(context)?.entries() {
                let (key, value) = (protocol::hex::encode(key), protocol::hex::encode(value));
                writeln!(out, "{key} {value}").with_context(context)?;
            }
        }
        let new = out.into_inner().map_err(|error| error.into_error()).with_context(context)?;
        new.commit().with_context(context).map(drop)
    }

    fn save_table(&self, partition: &PartitionId, path: &Path) -> anyhow::Result<()> {
        let context = || format!("set aside what is here in {}", path.display());
        let new = Replacement::new(path, files::PRIVATE).with_context(context)?;
        let out = std::cell::RefCell::new(BufWriter::new(new));
        export::export(self, &partition.to_string(), ExportFormat::Csv, &|chunk| {
            Ok(out.borrow_mut().write_all(chunk.as_bytes())?)
        })
        .with_context(context)?;
        let new = out.into_inner().into_inner().map_err(|error| error.into_error());
        new.with_context(context)?.commit().with_context(context).map(drop)
    }

    /// Whether what was here of its own was dropped.
    fn is_dropped(&self, partition: &PartitionId, theirs: &SignedHeader) -> anyhow::Result<bool> {
        let known = self.store.header_hash_at(partition, theirs.header().seq)?;
        Ok(self.store.head(partition).is_none()
            || known == Some(theirs.hash())
            || self.store.lost().contains_key(partition))
    }

    /// Waits until the peer's history is here.
    fn await_theirs(
        &self,
        partition: &PartitionId,
        theirs: &SignedHeader,
        others: &mut Others,
        reply: Heed<'_>,
    ) -> anyhow::Result<()> {
        let seq = theirs.header().seq;
        let is_back = || {
            let known = self.store.header_hash_at(partition, seq)?;
            let have = self.store.seq(partition);
            Ok::<_, anyhow::Error>(have >= seq && known.is_none_or(|known| known == theirs.hash()))
        };
        // Whatever streams have of it is of no use any more.
        self.sync.peers.connected_nodes().iter().for_each(|node| self.connect_again(node));
        // What was proven of another history is not awaited any more: `theirs` is, and what
        // goes on behind that is proven by the next connections.
        self.store.await_own_history(partition, 0);
        let until = Instant::now() + BACK_MAX;
        while !is_back()? {
            self.give_up_others(partition, others)?;
            if Instant::now() >= until || self.shutdown.is_cancelled() {
                bail!(
                    "{partition} 的历史尚未从对端取回：连接恢复后会自动继续取回，再次执行同一命令即可完成 / the history of {partition} is not \
                     back yet: it comes by itself once the peer is connected (creditsync status); give the same command again \
                     to end what was begun"
                );
            }
            reply(Reply::Working)
                .context("the command went away; give it again to end what was begun")?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// With the peer's history here: what was set aside is issued again where it is kept,
    /// and whatever others hold counts no more. Answers the number of changes.
    fn go_on(
        &self,
        partition: &PartitionId,
        keep: Keep,
        record: &Record,
        others: &mut Others,
    ) -> anyhow::Result<u64> {
        // Connections were made anew just now.
        let until = Instant::now() + SHOWN_MAX;
        while !self.give_up_others(partition, others)? && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        loop {
            self.give_up_others(partition, others)?;
            let issued = match keep {
                Keep::Hub => Ok(0),
                Keep::Origin => self.issue_again(partition, &record.entries),
            };
            // One more history may have been seen meanwhile; there are as many as peers.
            let is_seen = || {
                let evidence = self.store.evidence(partition);
                evidence.is_ok_and(|evidence| !evidence.is_empty())
            };
            if issued.is_ok() || !is_seen() {
                return issued;
            }
        }
    }

    /// Issues what was set aside again, where it differs. Answers the number of changes.
    fn issue_again(&self, partition: &PartitionId, entries: &Path) -> anyhow::Result<u64> {
        let schema = self.schema(&partition.dataset)?;
        let mut snapshot =
            self.store.snapshot_blocking(partition)?.ok_or_else(|| no_partition(partition))?;
        let mut now = snapshot.leaves().flat_map(|leaf| match leaf {
            Ok(leaf) => {
                let entries = leaf.entries().map(|(key, value)| Ok((key.to_vec(), value.to_vec())));
                entries.collect::<Vec<_>>()
            }
            Err(error) => vec![Err(error)],
        });
        let mut wanted = read_entries(entries)?;
        let (mut stored, mut kept) = (now.next().transpose()?, wanted.next().transpose()?);
        let (mut changes, mut bytes, mut count) = (Vec::new(), 0, 0u64);
        let commit = |changes: &mut Vec<Change>| {
            let own = OwnChanges {
                partition: partition.clone(),
                changes: std::mem::take(changes),
                schema_version: schema.version(),
                keep_body: true,
            };
            self.store.commit_own_later(own)?.wait().map(drop)
        };
        loop {
            // The lesser key of the two comes first.
            let (is_old, is_new) = match (&stored, &kept) {
                (None, None) => break,
                (Some((stored, _)), Some((kept, _))) => (stored <= kept, kept <= stored),
                (stored, kept) => (stored.is_some(), kept.is_some()),
            };
            let mut old = None;
            if is_old {
                old = std::mem::replace(&mut stored, now.next().transpose()?);
            }
            let mut new = None;
            if is_new {
                new = std::mem::replace(&mut kept, wanted.next().transpose()?);
            }
            let change = match (old, new) {
                (Some((_, before)), Some((_, value))) if before == value => continue,
                (_, Some((key, value))) => Change::Put { key, value },
                (Some((key, _)), None) => Change::Delete { key },
                (None, None) => continue,
            };
            bytes += change.key().len() + change.entry().map_or(0, |(_, value)| value.len());
            changes.push(change);
            count += 1;
            if changes.len() >= CHANGES_MAX || bytes >= BYTES_MAX {
                commit(&mut changes)?;
                bytes = 0;
            }
        }
        if !changes.is_empty() {
            commit(&mut changes)?;
        }
        Ok(count)
    }
}

/// Why nothing is written to a partition meanwhile, and what ends that.
fn unfinished(partition: &PartitionId, keep: Keep) -> String {
    let keep = keep.name();
    format!(
        "{partition} 正在处理两份历史（--keep {keep}），尚未完成，在此之前不写入：请再次执行 creditsync partition resolve {partition} \
         --keep {keep} / {partition} is being resolved with --keep {keep}, and nothing is written to it before that is \
         done: give 'creditsync partition resolve {partition} --keep {keep}' again"
    )
}

fn read_record(path: &Path) -> anyhow::Result<Option<Record>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let record = serde_json::from_slice(&bytes);
            Ok(Some(record.with_context(|| format!("{} is damaged", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// A key and its record.
type Pair = (Vec<u8>, Vec<u8>);

/// What was set aside, in key order.
fn read_entries(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Pair>>> {
    let name = path.to_owned();
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    Ok(BufReader::new(file).lines().map(move |line| {
        let line = line.with_context(|| format!("read {}", name.display()))?;
        let decoded = line.split_once(' ').and_then(|(key, value)| {
            Some((protocol::hex::decode(key)?, protocol::hex::decode(value)?))
        });
        decoded.with_context(|| format!("{} is damaged", name.display()))
    }))
}
