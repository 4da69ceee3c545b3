//! Whose files a node's files are: those of whoever owns its directory.
//!
//! A service runs as a user of its own, and an administrator gives commands as root.
//! Invariant: where a command makes files in a directory of another user, it works as
//! that user from before the first of them, so nothing is left that the service cannot
//! read, and root follows no link that the service has put there.
//!
//! Not here: a daemon, which is whoever starts it; one that may not read its files is
//! told whose they are.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{
    process::{Gid, Uid, geteuid, getgroups},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::dir::NodeDir;

/// Files that are looked at for one of another user: what a start reads comes long
/// before.
const LOOKED_AT_MAX: usize = 10_000;

/// While it lives, this thread and those that it starts work as the directory's owner.
/// What the owner may not do, as writing an export to where only root may, comes
/// before or after.
pub struct AsOwner {
    groups: Vec<Gid>,
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        // Whoever goes on after an error may less, and is told so.
        let _ = set_thread_res_uid(None, Uid::ROOT, None);
        let _ = set_thread_res_gid(None, Gid::ROOT, None);
        let _ = set_thread_groups(&self.groups);
    }
}

/// As root in a directory of another user: works as that user from here on. Call it
/// before another thread of ours begins: each has its own user (the allocator's makes no
/// files).
pub fn become_owner(dir: &NodeDir) -> anyhow::Result<Option<AsOwner>> {
    // A directory that is not there yet will be the caller's.
    let Ok(owner) = fs::metadata(dir.path()) else {
        return Ok(None);
    };
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(None);
    }
    let name = user_name(owner.uid());
    let context = || {
        format!("以目录属主 {name} 的身份执行 / work as {name}, who owns {}", dir.path().display())
    };
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    let groups = getgroups().map_err(io::Error::from).with_context(context)?;
    let working = AsOwner { groups };
    set_thread_groups(&[gid]).map_err(io::Error::from).with_context(context)?;
    set_thread_res_gid(None, gid, None).map_err(io::Error::from).with_context(context)?;
    set_thread_res_uid(None, uid, None).map_err(io::Error::from).with_context(context)?;
    eprintln!(
        "{0} belongs to {name}, so this command works as {name} / 目录 {0} 属于 {name}，本命令以其身份执行",
        dir.path().display()
    );
    Ok(Some(working))
}

/// A daemon that root starts by hand where a service of another user works.
pub fn warn_of_root(dir: &NodeDir) {
    let owner = fs::metadata(dir.path()).map_or(0, |owner| owner.uid());
    if geteuid().is_root() && owner != 0 {
        tracing::warn!(
            dir = %dir.path().display(), owner = user_name(owner),
            "this daemon runs as root in another user's directory: what it writes cannot be read when it is started as \
             that user / 以 root 身份运行，而目录属于其他用户：之后以该用户启动时将无法读取其写入的文件"
        );
    }
}

/// Adds to an error that something may not be read or written whose it is, and what to
/// do about it.
pub fn explain_denied(dir: &NodeDir, error: anyhow::Error) -> anyhow::Error {
    let is_denied = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    let explained =
        error.chain().any(is_denied).then(|| explanation(dir.path(), geteuid().as_raw()));
    match explained.flatten() {
        Some(explanation) => error.context(explanation),
        None => error,
    }
}

/// What is wrong with the owners of a node's files where user `me` runs it.
fn explanation(dir: &Path, me: u32) -> Option<String> {
    let (file, uid) = of_another(dir, me)?;
    let is_all = file == dir;
    let (me, owner, dir) = (user_name(me), user_name(uid), dir.display());
    Some(if is_all {
        format!(
            "{dir} belongs to {owner}, and this node was started as {me}: start it as {owner} (systemctl start \
             creditsync, or sudo -u {owner}) / {dir} 属于 {owner}，而本节点以 {me} 的身份启动：请以 {owner} 的身份启动\
             （systemctl start creditsync，或 sudo -u {owner}）"
        )
    } else {
        let file = file.display();
        format!(
            "{file} belongs to {owner}, and this node runs as {me}: a command was given as another user. Put it right: \
             sudo chown -R {me}: {dir} / {file} 属于 {owner}，而本节点以 {me} 的身份运行：曾有命令以其他用户执行。请执行 \
             sudo chown -R {me}: {dir}"
        )
    })
}

/// A file in a directory, or the directory itself, that is not this user's.
fn of_another(dir: &Path, me: u32) -> Option<(PathBuf, u32)> {
    let mut to_look = vec![dir.to_owned()];
    let mut looked = 0;
    while let Some(path) = to_look.pop() {
        let file = fs::symlink_metadata(&path).ok()?;
        if file.uid() != me {
            return Some((path, file.uid()));
        }
        looked += 1;
        if file.is_dir() && looked < LOOKED_AT_MAX {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            to_look.extend(entries.take(LOOKED_AT_MAX).map(|entry| entry.path()));
        }
    }
    None
}

/// The name of a user, or the number of one who has none.
fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        (fields.nth(1)? == uid.to_string()).then_some(name)
    };
    users.lines().find_map(of).unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_a_file_is_told_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeDir::new(dir.path());
        let denied =
            || anyhow::Error::from(io::Error::from(ErrorKind::PermissionDenied)).context("read x");
        let text = format!("{:#}", explain_denied(&node, denied()));
        assert!(!text.contains("chown"), "all of it is ours: {text}");
        let me = geteuid().as_raw();
        assert_eq!(of_another(dir.path(), me), None);
        let other = explanation(dir.path(), me + 1).unwrap();
        assert!(other.contains("start it as") && !other.contains("chown"), "{other}");
        assert_eq!(
            (user_name(0).as_str(), user_name(4_000_000_000).as_str()),
            ("root", "4000000000")
        );
    }
}
