//! Headers of own partitions that a person has given up, on the disk.
//!
//! `partition resolve` and `partition refetch` drop what this node has signed and go on
//! behind what a peer holds. Another peer may hold some of what was dropped; without this
//! it would look like a fork again ([`crate::sync::GivenUp`]). One file a partition in
//! `aside/`, a hash a line; written, and durable, before anything is dropped.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use certs::keyfile;
use protocol::{change::SignedHeader, hash::Hash, id::PartitionId};

use super::node::Node;

/// The ending of the files' names.
const ENDING: &str = "given-up";
/// Headers that are kept of a partition, the newest: a follower that is further behind has
/// to be told by its own administrator. 6 MB of text, and a year of a busy county.
const HEADERS_MAX: usize = 100_000;

impl Node {
    /// Notes that what this node has signed of a partition counts no more where the history
    /// of `instead`, which comes in its place, does not have it.
    pub(super) fn note_given_up(
        &self,
        partition: &PartitionId,
        instead: Option<&SignedHeader>,
    ) -> anyhow::Result<()> {
        let have = self.store.seq(partition);
        let path = self.given_up_file(partition);
        let mut hashes = self.read_given_up(&path)?;
        // Where that goes on behind what is here, or ends within it, all before is in both.
        // Of a fork nobody knows where it begins; what is in both is seen when it is back.
        let common = match instead.map(|instead| (instead.header().seq, instead.hash())) {
            Some((seq, hash)) if self.store.header_hash_at(partition, seq)? == Some(hash) => seq,
            _ => 0,
        };
        let first = common.max(have.saturating_sub(HEADERS_MAX as u64)) + 1;
        if first > have {
            return Ok(());
        }
        for seq in first..=have {
            hashes.extend(self.store.header_hash_at(partition, seq)?);
        }
        self.keep_given_up(partition, &path, &hashes)
    }

    /// Notes heads of one more history of a partition, which counts no more either.
    pub(super) fn note_others_given_up(
        &self,
        partition: &PartitionId,
        heads: impl Iterator<Item = Hash>,
    ) -> anyhow::Result<()> {
        let path = self.given_up_file(partition);
        let mut hashes = self.read_given_up(&path)?;
        hashes.extend(heads);
        self.keep_given_up(partition, &path, &hashes)
    }

    fn keep_given_up(
        &self,
        partition: &PartitionId,
        path: &Path,
        hashes: &[Hash],
    ) -> anyhow::Result<()> {
        let hashes = &hashes[hashes.len().saturating_sub(HEADERS_MAX)..];
        let lines: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
        keyfile::create_private_dir(&self.dir.aside())?;
        files::replace(path, lines.as_bytes(), files::PRIVATE)
            .with_context(|| format!("write {}", path.display()))?;
        self.sync.given_up.note(partition, hashes.iter().copied());
        Ok(())
    }

    /// Takes up what was noted before this start.
    pub(super) fn load_given_up(&self) -> anyhow::Result<()> {
        let mine = self.store.heads().into_keys().chain(self.store.lost().into_keys());
        for partition in mine.filter(|partition| partition.origin == *self.membership.me()) {
            let hashes = self.read_given_up(&self.given_up_file(&partition))?;
            if !hashes.is_empty() {
                self.sync.given_up.note(&partition, hashes);
            }
        }
        Ok(())
    }

    fn given_up_file(&self, partition: &PartitionId) -> PathBuf {
        self.dir.aside().join(format!("{}-{}.{ENDING}", partition.dataset, partition.origin))
    }

    /// Lines that somebody has altered are left out: at worst a peer is asked for a proof.
    fn read_given_up(&self, path: &Path) -> anyhow::Result<Vec<Hash>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let suite = self.membership.suite();
        Ok(text.lines().filter_map(|line| Hash::parse(suite, line)).collect())
    }
}
