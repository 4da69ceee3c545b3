//! The inbox as the settings want it.
//!
//! Used by the daemon at its start. Invariant: a group or an encoding that does not
//! exist ends the start, and is not found out by the first file. Not here: watching
//! the folders (`sources::inbox`).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{getegid, geteuid, getgroups};

use super::{dir::NodeDir, node::Node};
use crate::sources::{
    Reading,
    inbox::{Access, Inbox, touched},
};

/// The system's groups, a line each: NAME:x:NUMBER:MEMBERS.
const GROUPS: &str = "/etc/group";
/// Bytes of that file that are read: some ten thousand groups. Those of a directory
/// service are not in it, and are named by their number.
const GROUPS_BYTES_MAX: u64 = 4 << 20;

/// The inbox of a node.
pub(super) fn of(node: &Node, dir: &NodeDir) -> anyhow::Result<Inbox> {
    let settings = &node.config.inbox;
    let group = settings.group.as_deref().map(own_group).transpose()?;
    let mut readings = HashMap::new();
    for (dataset, encoding) in &settings.encoding {
        let encoding = encoding.parse().map_err(|error| {
            anyhow::anyhow!("creditsync.toml: inbox.encoding.{dataset}: {error}")
        })?;
        readings.insert(dataset.clone(), Reading { encoding, ..Reading::default() });
    }
    Ok(Inbox {
        dir: dir.inbox(),
        importer: node.importer.clone(),
        deliveries: node.deliveries.clone(),
        membership: node.membership.clone(),
        stable: Duration::from_secs(settings.stable_s),
        incomplete: Duration::from_secs(settings.incomplete_wait_s),
        touched,
        access: Access { group },
        readings,
    })
}

/// The number of a group that this process may give files to.
fn own_group(group: &str) -> anyhow::Result<u32> {
    let number = group_number(group)?;
    let is_member = geteuid().is_root()
        || getegid().as_raw() == number
        || getgroups()?.iter().any(|one| one.as_raw() == number);
    if !is_member {
        bail!(
            "creditsync.toml: inbox.group: 运行 creditsync 的用户不属于组“{group}”，请执行 usermod -aG {group} creditsync 后重启 / \
             the user that creditsync runs as is no member of the group '{group}': usermod -aG {group} creditsync, and start it again"
        );
    }
    Ok(number)
}

/// A group's number, by its name or by itself.
fn group_number(group: &str) -> anyhow::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let text = read_groups(Path::new(GROUPS)).with_context(|| format!("read {GROUPS}"))?;
    match number_in(&text, group) {
        Some(number) => Ok(number),
        None => bail!(
            "creditsync.toml: inbox.group: 没有名为“{group}”的组，请先创建（groupadd {group}）或写组的编号 / \
             there is no group '{group}' in {GROUPS}: make it (groupadd {group}), or write its number"
        ),
    }
}

fn read_groups(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(GROUPS_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number_in(text: &str, group: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(group)).then(|| parts.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_and_number() {
        let text = "root:x:0:\nsftp:x:1007:anna,creditsync\nbroken\nsftp2:x:no:\n";
        assert_eq!(number_in(text, "sftp"), Some(1007));
        assert_eq!((number_in(text, "sft"), number_in(text, "sftp2")), (None, None));
        assert_eq!(number_in(text, "broken"), None);
        assert_eq!(group_number("1234").unwrap(), 1234);
        let own = getegid().as_raw();
        assert_eq!(own_group(&own.to_string()).unwrap(), own);
        if !geteuid().is_root() {
            let error = own_group("4000000000").unwrap_err().to_string();
            assert!(error.contains("usermod"), "{error}");
        }
        let error = group_number("no-such-group-anywhere").unwrap_err().to_string();
        assert!(error.contains("inbox.group") && error.contains("groupadd"), "{error}");
    }
}
