//! The inbox's folders: walked, made, and opened without following a link.
//!
//! Used by everything in the inbox that touches a directory. Who may drop files
//! may also put a link anywhere, so that a path means something else between two
//! steps. Invariant: what is written to or moved is named by a directory that is
//! held open, and each of its parents was opened as what it is. Not here: what
//! files become.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write as _},
    os::unix::fs::fchown,
    path::{Component, Path, PathBuf},
};

use protocol::schema::fold_label;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, renameat, unlinkat},
    io::Errno,
    path::Arg,
};

use super::{
    names::{HALF, Meaning, is_hidden},
    words,
};

/// Folders within folders that are read: a year, a month, an office; more is the
/// work of a program that lost its way.
pub(super) const DEPTH_MAX: usize = 8;
/// Folders of a dataset that are read: one a day for several years.
pub(super) const FOLDERS_MAX: usize = 2000;
/// Entries of a folder that are looked at in a pass: more than a county delivers
/// in a year. The others are seen when these are gone.
pub(super) const ENTRIES_MAX: usize = 100_000;
/// Folders that the inbox fills itself.
pub(super) const OUTCOMES: [&str; 3] = ["done", "attention", "failed"];

/// Who besides the daemon may drop files and read reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access {
    /// The group, by its number.
    pub group: Option<u32>,
}

impl Access {
    /// A folder in which others drop files. The sticky bit keeps one of the group
    /// from moving the daemon's folders and others' files away; the daemon, whose
    /// folder it is, may.
    pub(super) fn share_to_write(self, folder: impl AsFd) -> io::Result<()> {
        self.share(folder, 0o3770)
    }

    /// A folder in which they find what became of them.
    pub(super) fn share_to_read(self, folder: impl AsFd) -> io::Result<()> {
        self.share(folder, 0o2750)
    }

    /// A report, or the rejected rows: for whom the delivered file was.
    pub(super) fn share_file(self, file: impl AsFd) -> io::Result<()> {
        self.share(file, 0o640)
    }

    fn share(self, what: impl AsFd, mode: u32) -> io::Result<()> {
        let Some(group) = self.group else {
            return Ok(());
        };
        fchown(what.as_fd(), None, Some(group))?;
        // After the group: changing that takes special bits away.
        Ok(fchmod(what.as_fd(), Mode::from_raw_mode(mode))?)
    }
}

/// A folder that files are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// Its path below the one of the dataset that it belongs to, or below `full`.
    pub sub: PathBuf,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub folders: Vec<Folder>,
    /// Folders that cannot be read, and why, in Chinese and in English.
    pub unread: Vec<(PathBuf, [String; 2])>,
}

/// `root` and the folders below it from which files are taken; `full` says that it
/// is the one of full files.
pub(super) fn walk(root: &Path, full: bool) -> Walk {
    let mut walk = Walk::default();
    let mut open = vec![Folder { path: root.to_owned(), sub: PathBuf::new() }];
    while let Some(folder) = open.pop() {
        let depth = folder.sub.components().count();
        if depth > DEPTH_MAX || walk.folders.len() == FOLDERS_MAX {
            let why = words::too_many_folders(DEPTH_MAX, FOLDERS_MAX);
            walk.unread.push((folder.path, why));
            continue;
        }
        let entries = match check_folder(&folder.path).and_then(|()| entries(&folder.path)) {
            Ok(entries) => entries,
            Err(error) => {
                let why = words::unreadable_folder(&error);
                walk.unread.push((folder.path, why));
                continue;
            }
        };
        let names = entries
            .into_iter()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name())
            .filter(|name| !is_hidden(name));
        let mut below: Vec<OsString> = Vec::new();
        for name in names {
            match meaning_of(&name) {
                // The inbox's own.
                Some(_) if depth == 0 && !full && is_reserved(&name) => {}
                Some(meaning) => {
                    walk.unread.push((folder.path.join(&name), words::misplaced(meaning)))
                }
                None => below.push(name),
            }
        }
        // The last is looked at first.
        below.sort_unstable_by(|a, b| b.cmp(a));
        open.extend(
            below
                .into_iter()
                .map(|name| Folder { path: folder.path.join(&name), sub: folder.sub.join(&name) }),
        );
        walk.folders.push(folder);
    }
    walk
}

/// Names of folders that mean something at the top of a dataset's.
fn is_reserved(name: &OsStr) -> bool {
    name == "full" || OUTCOMES.iter().any(|outcome| name == *outcome)
}

/// What people mean by a name, however they spell it. Read as changes, a full file
/// would delete nothing; read once more, an old file would undo newer ones.
fn meaning_of(name: &OsStr) -> Option<Meaning> {
    let name = fold_label(&name.to_string_lossy());
    if ["full", "全量", "全量数据", "全量文件", "全部", "全部数据"].contains(&name.as_str())
    {
        Some(Meaning::Full)
    } else if OUTCOMES.contains(&name.as_str()) {
        Some(Meaning::DealtWith)
    } else {
        None
    }
}

/// Refuses what is not a folder itself: who may drop files here could let a link
/// lead to the node's own files.
pub(super) fn check_folder(dir: &Path) -> io::Result<()> {
    if fs::symlink_metadata(dir)?.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::NotADirectory,
        "不是文件夹，或者是符号链接 / not a folder, or a symbolic link, which is not followed here",
    ))
}

pub(super) fn open_folder(parent: impl AsFd, name: impl Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Opens the folder at `below` in `root`, each part of it as a folder of its own.
pub(super) fn open_below(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let mut folder = open_folder(CWD, root, OFlags::empty())?;
    for name in names_of(below) {
        folder = open_folder(&folder, name, OFlags::NOFOLLOW)?;
    }
    Ok(folder)
}

/// As [`open_below`], and makes what is missing for others to read.
pub(super) fn make_below(root: &OwnedFd, below: &Path, access: Access) -> io::Result<OwnedFd> {
    let mut folder = open_folder(root, ".", OFlags::empty())?;
    for name in names_of(below) {
        let made = match mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        folder = open_folder(&folder, name, OFlags::NOFOLLOW)?;
        if made {
            access.share_to_read(&folder)?;
        }
    }
    Ok(folder)
}

fn names_of(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}

/// Makes a folder for others to drop files in, unless there is one.
pub(super) fn make_folder(dir: &Path, access: Access) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_folder(dir)?,
        other => other?,
    }
    if access.group.is_some() {
        access.share_to_write(open_folder(CWD, dir, OFlags::NOFOLLOW)?)?;
    }
    Ok(())
}

/// What lies in a folder, up to a limit.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(dir)?.take(ENTRIES_MAX).collect()
}

/// Writes a file in `folder`, in place of what has its name. Whoever looks for it
/// finds all of it or nothing.
pub(super) fn write_whole(
    folder: &OwnedFd,
    name: &OsStr,
    bytes: &[u8],
    access: Access,
) -> io::Result<()> {
    match unlinkat(folder, HALF, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut out = fs::File::from(openat(folder, HALF, flags, Mode::from_raw_mode(0o600))?);
    out.write_all(bytes)?;
    access.share_file(&out)?;
    Ok(renameat(folder, HALF, folder, name)?)
}

/// Removes a file that may be there.
pub(super) fn remove(folder: &OwnedFd, name: &OsStr) {
    // What stays is replaced by the next of its name, or lies there for a person.
    let _ = unlinkat(folder, name, AtFlags::empty());
}
