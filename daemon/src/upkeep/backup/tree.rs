//! Which files of a node's directory are in its backup, and where a restored one may
//! put files.
//!
//! In are the configuration, `certs/`, `deliveries/`, `rejects/` and what the
//! configuration names inside the directory; private keys are [`super::keys`]' matter. Not
//! in are `store/` (partitions are copied instead), `run/`, and `inbox/`, whose files
//! belong to those who drop them. Neither are a hub's open invitations
//! (`keys/invites.json`): a token that was used since could be used again.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::words::BackupError;

/// The configuration: the first file of a backup, and the last one of a restore.
pub const CONFIG: &str = "creditsync.toml";
/// The root of trust for `_federation`.
pub const ANCHOR: &str = "certs/anchor";
/// Private keys.
pub const KEYS: &str = "keys";
/// What is seen of members all the time: the one file of `certs/` that need not be of the
/// moment of `_federation`.
const SEEN: &str = "certs/members.json";
/// The log of deliveries, which may be older than what it speaks of, never newer.
const DELIVERIES: &str = "deliveries/_log/deliveries.jsonl";
/// Folders of a directory that a backup has nothing of.
const NOT_IN: [&str; 3] = ["store", "run", "inbox"];
/// Folders inside each other.
const DEPTH_MAX: usize = 8;
/// Files: a held delivery has two, and what takes a delivery back one.
const FILES_MAX: usize = 200_000;
/// The longest path that is taken and restored.
const PATH_BYTES_MAX: usize = 1024;

/// Files to be copied, as paths below the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Before the partitions.
    pub first: Vec<String>,
    /// With `_federation`.
    pub last: Vec<String>,
    /// Private keys that the configuration names inside the directory.
    pub keys: Vec<String>,
    /// What the configuration names outside of it.
    pub outside: Vec<String>,
}

/// What the files of a directory are. The configuration names `public` files and private
/// `keys`.
pub fn files(dir: &Path, public: &[PathBuf], keys: &[PathBuf]) -> Result<Files, BackupError> {
    let mut found = Files::default();
    // Deliveries that end meanwhile have no line yet: those behind it are found anyway.
    let mut first = vec![DELIVERIES.to_owned()];
    for folder in ["deliveries", "rejects"] {
        walk(dir, folder, DEPTH_MAX, &mut first)?;
    }
    first.push(SEEN.to_owned());
    let mut last = Vec::new();
    walk(dir, "certs", DEPTH_MAX, &mut last)?;
    for path in public {
        match inside(dir, path) {
            Some(path) => last.push(path),
            None => found.outside.push(path.display().to_string()),
        }
    }
    for path in keys {
        match inside(dir, path) {
            Some(path) if path.starts_with("keys/") => {}
            Some(path) => found.keys.push(path),
            None => found.outside.push(path.display().to_string()),
        }
    }
    last.retain(|path| path != SEEN && !found.keys.contains(path));
    last.dedup();
    let mut known = std::collections::BTreeSet::new();
    first.retain(|path| known.insert(path.clone()) && !found.keys.contains(path));
    last.retain(|path| known.insert(path.clone()));
    (found.first, found.last) = (first, last);
    Ok(found)
}

/// A path that the configuration names, below the directory.
fn inside(dir: &Path, path: &Path) -> Option<String> {
    let path = dir.join(path);
    let text = path.strip_prefix(dir).ok()?.to_str()?.to_owned();
    may_be_restored(&text).then_some(text)
}

/// Regular files below a folder. A hidden one is being written or removed.
fn walk(
    dir: &Path,
    folder: &str,
    depth: usize,
    found: &mut Vec<String>,
) -> Result<(), BackupError> {
    let path = dir.join(folder);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(BackupError::file(&path))?,
    };
    let mut names: Vec<_> = Vec::new();
    for entry in entries {
        names.push(entry.map_err(BackupError::file(&path))?);
    }
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // It may just have gone.
        let Ok(kind) = entry.file_type() else { continue };
        let inside = format!("{folder}/{name}");
        if name.starts_with('.') || !may_be_restored(&inside) {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            walk(dir, &inside, depth - 1, found)?;
        } else if kind.is_file() {
            found.push(inside);
        }
        if found.len() > FILES_MAX {
            let problem = format!("there are more than {FILES_MAX} files in {}", dir.display());
            return Err(BackupError::File {
                path: path.display().to_string(),
                source: io::Error::other(problem),
            });
        }
    }
    Ok(())
}

/// Whether a backup may have, and a restore may write, a file of this path.
pub fn may_be_restored(path: &str) -> bool {
    let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let first = path.split('/').next().unwrap_or_default();
    is_plain
        && !path.is_empty()
        && path.len() <= PATH_BYTES_MAX
        && !path.bytes().any(|byte| byte == 0)
        && path.split('/').count() <= DEPTH_MAX + 2
        && !path.split('/').any(|part| part.is_empty())
        && !NOT_IN.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_taken_in_an_order_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        for path in [
            "creditsync.toml",
            "certs/anchor",
            "certs/members.json",
            "certs/node.pem",
            "keys/node.key",
            "keys/invites.json",
            "deliveries/a-1/data",
            "deliveries/a-1/delivery.json",
            "deliveries/.b-1/data",
            "deliveries/_log/a-1.images",
            "deliveries/_log/deliveries.jsonl",
            "rejects/a.csv",
            "rejects/.a.csv.0.tmp",
            "store/sled/db",
            "store/recall/a",
            "run/lock",
            "inbox/enterprise/a.csv",
            "daemon.log",
            "pki/node.pem",
            "pki/node.key",
        ] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.join("rejects/link")).unwrap();
        let public = ["pki/node.pem", "/elsewhere/ca.pem", "../ca.pem"].map(PathBuf::from);
        let keys = [dir.join("pki/node.key"), "keys/node.key".into(), "/stick/root.key".into()];
        let expected = Files {
            first: [
                "deliveries/_log/deliveries.jsonl",
                "deliveries/_log/a-1.images",
                "deliveries/a-1/data",
                "deliveries/a-1/delivery.json",
                "rejects/a.csv",
                "certs/members.json",
            ]
            .map(str::to_owned)
            .into(),
            last: ["certs/anchor", "certs/node.pem", "pki/node.pem"].map(str::to_owned).into(),
            keys: vec!["pki/node.key".into()],
            outside: ["/elsewhere/ca.pem", "../ca.pem", "/stick/root.key"]
                .map(str::to_owned)
                .into(),
        };
        assert_eq!(files(dir, &public, &keys).unwrap(), expected);
    }

    #[test]
    fn nothing_is_restored_outside_of_the_directory_or_where_the_node_works() {
        for path in ["creditsync.toml", "certs/anchor", "pki/a/b", "deliveries/甲-1/data"] {
            assert!(may_be_restored(path), "{path}");
        }
        let long = "a/".repeat(DEPTH_MAX + 2) + "a";
        for path in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a//b",
            "a/",
            "./a",
            "run/lock",
            "store/sled/db",
            "store",
            "inbox/a",
            "a\0b",
            &long,
            &"a".repeat(PATH_BYTES_MAX + 1),
        ] {
            assert!(!may_be_restored(path), "{path:?}");
        }
    }
}
