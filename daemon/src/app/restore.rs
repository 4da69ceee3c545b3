//! A node made of a backup, in a directory that is empty or not there yet.
//!
//! All or nothing: the configuration is written last, and a directory without it is no
//! node; on a failure all that was made is removed. Behind it lies the mark by which the
//! node signs no number twice (`restored`). Not here: how a backup is read
//! ([`crate::upkeep::backup`]).

use std::{fs, io::Read, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, bail};
use certs::keyfile::{self, Passphrase};
use config::NodeConfig;
use protocol::{id::PartitionId, moment::rfc3339, suite::Suite};
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use serde_json::{Value as Json, json};

use super::{
    dir::NodeDir,
    lock::{DirLock, Occupant},
    node::open_store,
    now_unix,
    restored::Restored,
};
use crate::upkeep::backup::{BackupError, Copied, Keys, Summary, restore::restore};

/// What a file system has in each of its roots.
const LOST_AND_FOUND: &str = "lost+found";

/// Asks for the passphrase of the keys.
pub type AskPassphrase<'a> = &'a dyn Fn() -> Result<Option<Passphrase>, BackupError>;

/// Makes `dir` the node that a backup was made of. Blocks.
pub fn restore_into(
    dir: &NodeDir,
    input: impl Read,
    ask: AskPassphrase<'_>,
    heed: &mut dyn FnMut(Copied),
) -> anyhow::Result<Json> {
    dir.check_length()?;
    check_empty(dir)?;
    let owner = fs::metadata(dir.path()).ok().map(|found| (found.uid(), found.gid()));
    // What others have made there is theirs, so nothing is removed if this fails.
    let lock = take(dir)?;
    let done = fill(dir, input, ask, heed);
    drop(lock);
    if done.is_err() {
        remove_all(dir.path(), owner.is_some());
    }
    let (summary, keys) = done?;
    if let Some(owner) = owner
        && let Err(error) = hand_over(dir.path(), owner)
    {
        eprintln!(
            "creditsync: {0} 的文件未能改为该目录所有者所有（{error:#}），请用 chown 更正 / the files in {0} could not be given \
             to the directory's owner ({error:#}); do it with chown",
            dir.path().display()
        );
    }
    let mut answer = summary.json();
    answer["dir"] = json!(dir.path());
    answer["has_keys"] = json!(keys);
    Ok(answer)
}

fn fill(
    dir: &NodeDir,
    input: impl Read,
    ask: AskPassphrase<'_>,
    heed: &mut dyn FnMut(Copied),
) -> anyhow::Result<(Summary, bool)> {
    let restored = restore(input, (dir.path(), &dir.store()), ask, heed)?;
    let (summary, text) = (restored.summary, restored.config);
    let config = NodeConfig::parse(&String::from_utf8_lossy(&text))
        .context("creditsync.toml in the backup")?;
    let suite = Suite::from_number(summary.manifest.suite)?;
    // As every start does it; and it writes the sidecar.
    let store = open_store(dir, &config, suite)?;
    let heads = store.heads();
    let wanted = summary.partitions.iter().filter(|entry| entry.seq > 0);
    for entry in wanted.clone() {
        let partition = PartitionId::parse_full(&entry.partition)?;
        let found = heads.get(&partition).map_or(0, |head| head.seq());
        if found != entry.seq {
            bail!("{partition}: number {found} came out of number {}", entry.seq);
        }
    }
    drop(store);
    let members = wanted.filter(|entry| entry.partition.contains("/_federation/"));
    let federation_seq = members.map(|entry| entry.seq).max().unwrap_or(0);
    let is_hub = config.upstream.is_none();
    let (at, created) = (rfc3339(now_unix()), &summary.manifest.created);
    Restored::of(dir).mark(is_hub, &at, created, federation_seq)?;
    keyfile::write_public(&dir.config(), &text)?;
    files::sync_directory(dir.path()).context("make the directory durable")?;
    let has_keys = summary.manifest.keys != Keys::LeftOut;
    Ok((summary, has_keys))
}

/// Takes the directory, if there is nothing in it but what this makes.
fn take(dir: &NodeDir) -> anyhow::Result<DirLock> {
    dir.create()?;
    let lock = dir.lock(Occupant::Command)?;
    // Again: whoever had the directory may have begun to make a node of it.
    let has_store = fs::read_dir(dir.store())?.next().is_some();
    let begun = [dir.config(), dir.certs(), dir.keys()].iter().any(|path| path.exists());
    if has_store || begun {
        bail!(
            "{0} 正由其他命令创建或恢复，未恢复任何内容：请用 --dir 指定空目录 / another command has begun to make a node of {0}, and \
             nothing was restored: name an empty directory with --dir",
            dir.path().display()
        );
    }
    Ok(lock)
}

/// Refuses a directory with anything in it.
fn check_empty(dir: &NodeDir) -> anyhow::Result<()> {
    let path = dir.path();
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("look into {}", path.display()))?,
    };
    for entry in entries {
        let name = entry.with_context(|| format!("look into {}", path.display()))?.file_name();
        if name == LOST_AND_FOUND {
            continue;
        }
        let (what, what_zh) = match dir.is_node() {
            true => ("is a node already", "已是节点目录"),
            false => ("is not empty", "不是空目录"),
        };
        bail!(
            "{0} {what_zh}（有 {1}），未恢复任何内容：请先停止守护进程并将其移走，或用 --dir 指定空目录 / {0} {what} (it has {1}), \
             and nothing was restored: stop its daemon and move it away, or name an empty directory with --dir",
            path.display(),
            name.to_string_lossy().escape_debug()
        );
    }
    Ok(())
}

/// Removes all that was made in a directory that was empty, and the directory if it was
/// not there.
fn remove_all(path: &Path, was_there: bool) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOST_AND_FOUND) {
        let path = entry.path();
        let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            eprintln!("creditsync: 请删除 {0}（{error}）/ remove {0}: {error}", path.display());
        }
    }
    if !was_there {
        let _ = fs::remove_dir(path);
    }
}

/// Gives all files to who owns the directory: root restores for the user that the daemon
/// runs as.
fn hand_over(path: &Path, (uid, gid): (u32, u32)) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() || uid == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOST_AND_FOUND {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            hand_over(&path, (uid, gid))?;
        }
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(CWD, &path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("chown {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_command_has_begun_is_refused_behind_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        for (place, begun) in
            ["certs/anchor", "keys/node.key", "store/sled/db", "creditsync.toml"].iter().enumerate()
        {
            let dir = NodeDir::new(&directory.path().join(place.to_string()));
            // Both have found it empty, and the other one was first.
            drop(take(&dir).unwrap());
            let file = dir.path().join(begun);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "x").unwrap();
            let refused = take(&dir).unwrap_err().to_string();
            assert!(refused.contains("another command"), "{begun}: {refused}");
            assert!(file.exists());
        }
    }

    #[test]
    fn only_an_empty_directory_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let dir = NodeDir::new(directory.path());
        check_empty(&dir).unwrap();
        check_empty(&NodeDir::new(&directory.path().join("absent"))).unwrap();
        fs::create_dir(directory.path().join(LOST_AND_FOUND)).unwrap();
        check_empty(&dir).unwrap();
        fs::write(directory.path().join("a\u{1b}"), "x").unwrap();
        let refused = check_empty(&dir).unwrap_err().to_string();
        assert!(refused.contains("is not empty (it has a\\u{1b})"), "{refused}");
        remove_all(directory.path(), true);
        check_empty(&dir).unwrap();
        assert!(directory.path().join(LOST_AND_FOUND).exists());
    }
}
