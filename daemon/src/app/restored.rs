//! The mark of a directory that was made of a backup: since the backup this node may
//! have signed more than it knows, and a number must not be signed twice.
//!
//! `restore` leaves it in `certs/`, with the text that people are shown. At a member
//! nothing of its own is written until the hub has said what it holds of it and that is
//! back (`trustee`). At the hub nothing of its own is written, `_federation` first of all,
//! until every member has said what it holds, and that is back (`hub`). Invariant: it is
//! durable before the directory is a node, and goes only by [`Restored::clear`].

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use certs::keyfile;

use super::dir::{NodeDir, remove};

/// The mark's name in `certs/`.
const RESTORED_FILE: &str = "restored";
/// Where a directory that has no keys puts what is in the way of a join.
const ASIDE: &str = "restored";

/// A directory's mark.
#[derive(Debug, Clone)]
pub(super) struct Restored(PathBuf);

impl Restored {
    /// The mark of this directory, which may not be there.
    pub fn of(dir: &NodeDir) -> Self {
        Self(dir.certs().join(RESTORED_FILE))
    }

    /// Whether it is there.
    pub fn is_restored(&self) -> bool {
        self.0.exists()
    }

    /// What people are told, if it is there.
    pub fn text(&self) -> anyhow::Result<Option<String>> {
        match keyfile::read_public(&self.0) {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(_) if !self.is_restored() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses what must not be done while it is there.
    pub fn refuse(&self) -> anyhow::Result<()> {
        match self.text()? {
            Some(text) => bail!("{text}"),
            None => Ok(()),
        }
    }

    /// It is known that nobody holds more of this node's own history.
    pub fn clear(&self) -> anyhow::Result<()> {
        remove(&self.0)?;
        files::sync_directory_of(&self.0).context("remove the mark of a restored directory")?;
        tracing::info!("what this node has signed before it was restored is here; it writes again");
        Ok(())
    }

    /// Puts the mark into a directory that is no node yet. `created` is when the backup
    /// was made, `federation_seq` how far its list of members goes.
    pub fn mark(
        &self,
        is_hub: bool,
        at: &str,
        created: &str,
        federation_seq: u64,
    ) -> anyhow::Result<()> {
        let text = if is_hub {
            format!(
                "本中心的目录于 {at} 由 {created} 的备份恢复，各县可能已持有更新的成员名册，暂停邀请、吊销、轮换等一切写入。全部成员\
                 都连接过一次、缺少的部分取回后，自动恢复写入（creditsync status）。若有成员不再连接，请在其余各县执行 creditsync \
                 status 查看 _federation 的序号：均不大于 {federation_seq} 时，删除 {path} 并重启本节点 / this hub's directory was \
                 restored at {at} from a backup of {created}, and members may hold a newer list of members: nothing of its \
                 own is written, no invitation, revocation or rotation. It writes again by itself once every member has \
                 connected and what was missing is back (creditsync status). If one of them does not come any more, look at \
                 the number of _federation in 'creditsync status' at the others: if none is above {federation_seq}, remove \
                 {path} and restart this node",
                path = self.0.display()
            )
        } else {
            format!(
                "本目录于 {at} 由 {created} 的备份恢复，此后本节点可能还签署过记录：连接市级中心并取回这些记录之前，不写入本节点自己的\
                 记录。请启动守护进程并等待连接（creditsync status），之后自动恢复写入；恢复前的目录不得再运行 / this directory was \
                 restored at {at} from a backup of {created}, and this node may have signed more since then: nothing of its \
                 own is written until the hub is connected and that is back. Let the daemon run and connect (creditsync \
                 status); after that it writes again by itself. The directory from before must not run any more"
            )
        };
        Ok(keyfile::write_public(&self.0, text.as_bytes())?)
    }
}

/// Whether a directory was restored from a backup without keys, and has none yet.
pub fn lacks_keys(dir: &NodeDir) -> bool {
    dir.is_node() && Restored::of(dir).is_restored() && !dir.signing_key().exists()
}

/// Refuses to open such a directory, and says what to do.
pub(super) fn refuse_without_keys(dir: &NodeDir, is_hub: bool) -> anyhow::Result<()> {
    if !lacks_keys(dir) {
        return Ok(());
    }
    let keys = dir.keys();
    if is_hub {
        bail!(
            "{0} 由不含密钥的备份恢复：请把另行保存的密钥文件放回该目录（权限 0600），否则市级中心无法启动 / this directory was \
             restored from a backup without keys: put the key files that you keep elsewhere into {0} (mode 0600). Without \
             them this hub cannot come back",
            keys.display()
        );
    }
    bail!(
        "{0} 由不含密钥的备份恢复：请把另行保存的密钥文件放回该目录（权限 0600），或向市级中心索取令牌后执行 creditsync join / this \
         directory was restored from a backup without keys: put the key files that you keep elsewhere into {0} (mode \
         0600), or ask the hub for a token and give: creditsync join",
        keys.display()
    );
}

/// Makes room for a join in a directory that has no keys: what only its earlier keys
/// could go on with is moved into a folder of it, which is answered. The directory is no
/// node after that. It may be interrupted and repeated.
pub fn set_aside(dir: &NodeDir) -> anyhow::Result<PathBuf> {
    let _lock = dir.lock(super::lock::Occupant::Command)?;
    let aside = dir.path().join(ASIDE);
    keyfile::create_private_dir(&aside)?;
    // The configuration goes last: without it nobody comes here again.
    for path in [dir.store(), dir.certs(), dir.keys(), dir.config()] {
        let Some(name) = path.file_name().filter(|_| path.exists()) else { continue };
        let to = aside.join(name);
        std::fs::rename(&path, &to)
            .with_context(|| format!("move {} to {}", path.display(), to.display()))?;
    }
    files::sync_directory(dir.path()).context("set aside what was restored")?;
    dir.create()?;
    Ok(aside)
}

/// What a person has told this node about personal fields counts on after a join.
pub fn keep_personal(dir: &NodeDir, aside: &std::path::Path) -> anyhow::Result<()> {
    let before = aside.join("certs").join("personal.json");
    if !before.exists() {
        return Ok(());
    }
    Ok(keyfile::replace_list(&dir.personal(), &keyfile::read_list(&before)?)?)
}
