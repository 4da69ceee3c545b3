//! Files without which a node is none any more: which one is gone, and what to do.
//!
//! `init` and `join` make all of them, and nothing removes one. A node that went on without
//! its store would look new: empty, and with numbers to sign that were signed before.

use std::path::PathBuf;

use anyhow::anyhow;
use store::Store;

use super::dir::NodeDir;

/// Refuses a directory whose store is gone.
pub(super) fn refuse_without_store(dir: &NodeDir) -> anyhow::Result<()> {
    let path = dir.store();
    if Store::is_at(&path) {
        return Ok(());
    }
    // Whoever took the lock has made an empty one, which would be in the way of what is put
    // back. One with anything in it stays.
    let _ = std::fs::remove_dir(&path);
    // One that was being moved aside is not gone.
    Store::finish_setting_aside(&path)?;
    match Store::is_at(&path) {
        true => Ok(()),
        false => Err(anyhow!(text(path))),
    }
}

/// Says what to do about an error that comes from a file that is gone.
pub(super) fn explained(dir: &NodeDir, error: anyhow::Error) -> anyhow::Error {
    let made_once = [
        dir.certs(),
        dir.keys(),
        dir.anchor(),
        dir.certs().join("root.pem"),
        dir.certs().join("node.pem"),
        dir.keys().join("node.key"),
        dir.signing_key(),
    ];
    let message = format!("{error:#}");
    let is_missing = |path: &PathBuf| {
        // With an own PKI some of them lie elsewhere: only what the error speaks of counts.
        !path.exists() && message.contains(&*path.to_string_lossy())
    };
    match made_once.into_iter().find(is_missing) {
        Some(path) => error.context(text(path)),
        None => error,
    }
}

fn text(path: PathBuf) -> String {
    format!(
        "缺少 {0}，未做任何更改：如曾移动请放回原处；否则市级中心从备份恢复（creditsync restore），县级也可将本节点目录移到一旁，\
         在新目录用令牌加入（creditsync join） / {0} is missing, and nothing was changed. If it was moved, put it back; \
         otherwise restore a backup (creditsync restore), or, at a county, move this node's directory aside and join in a \
         new one with a token (creditsync join)",
        path.display()
    )
}
