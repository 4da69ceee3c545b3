//! The file that a person names for a command's output.
//!
//! Invariant: a regular file appears whole or not at all, where its name leads, links
//! followed; what is no regular file stays what it is, and is written into, or refused.
//!
//! Not here: files of the node's own directory (`files::replace`), where nobody else
//! puts links.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use files::Replacement;

/// Links that are followed, as the kernel does.
const LINKS_MAX: usize = 40;

/// Where output goes.
pub(super) enum Output {
    /// It takes its place when all is there.
    Whole(Replacement),
    /// A pipe or a device, which somebody reads meanwhile.
    Stream(File),
}

impl Output {
    /// Opens what `path` leads to. A new file gets this mode. Waits for a pipe's reader.
    pub(super) fn open(path: &Path, mode: u32) -> anyhow::Result<Self> {
        let (path, is_open_file) = followed(path)?;
        let kind = match fs::metadata(&path) {
            Ok(file) => Some(file.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let stream = match kind {
            // A rename would leave whoever has the file open with the old one.
            Some(kind) if kind.is_file() => is_open_file,
            Some(kind) if kind.is_fifo() => {
                // Nobody sees from outside what the command does until then.
                if !is_open_file {
                    eprintln!(
                        "{0}: waiting for somebody who reads this pipe / 等待 {0} 的读取方",
                        path.display()
                    );
                }
                true
            }
            Some(kind) if kind.is_char_device() => true,
            Some(kind) if kind.is_dir() => {
                bail!("这是目录，请写明其中的文件名 / this is a directory: name a file in it")
            }
            Some(kind) if kind.is_block_device() => bail!(
                "这是磁盘设备，写入会破坏其内容 / this is a disk, whose content that would destroy: name a file on it"
            ),
            Some(_) => bail!("这是套接字，不能写入 / this is a socket, which cannot be written to"),
            None => false,
        };
        Ok(if stream {
            // To the end: others may write to an open file, too.
            Self::Stream(OpenOptions::new().append(true).open(&path)?)
        } else {
            Self::Whole(Replacement::new(&path, mode)?)
        })
    }

    /// All was written: a file takes its place, durably.
    pub(super) fn commit(self) -> io::Result<()> {
        match self {
            Self::Whole(new) => new.commit().map(drop),
            Self::Stream(_) => Ok(()),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Whole(new) => new.write(bytes),
            Self::Stream(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a path leads at last, which need not be there; and whether it is a name for
/// an open file of some process, as `/dev/stdout` is.
fn followed(path: &Path) -> anyhow::Result<(PathBuf, bool)> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // What such a link says is for people, and no path.
        if fs::canonicalize(parent).is_ok_and(|parent| parent.starts_with("/proc")) {
            return Ok((path, true));
        }
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok((path, false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path, false)),
            Err(error) => return Err(error).context("follow the link"),
        }
    }
    bail!("链接层数过多 / too many links lead from one to the next")
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    };

    use super::*;

    #[track_caller]
    fn write(path: &Path, text: &str) -> anyhow::Result<()> {
        let mut out = Output::open(path, files::PRIVATE)?;
        out.write_all(text.as_bytes())?;
        Ok(out.commit()?)
    }

    #[test]
    fn links_are_written_through_and_nothing_special_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/old"), "old").unwrap();
        for (link, target) in
            [("a", "real/old"), ("b", "a"), ("dangling", "real/new"), ("dir", "real")]
        {
            symlink(target, at(link)).unwrap();
        }
        for (name, file) in [("b", "real/old"), ("dangling", "real/new"), ("plain", "plain")] {
            write(&at(name), name).unwrap();
            assert_eq!(fs::read_to_string(at(file)).unwrap(), name);
            assert_eq!(fs::metadata(at(file)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(["a", "b", "dangling"].iter().all(|name| at(name).is_symlink()));
        // Dropped before its end it has done nothing.
        let mut half = Output::open(&at("a"), files::PRIVATE).unwrap();
        half.write_all(b"half").unwrap();
        drop(half);
        assert_eq!(fs::read_to_string(at("real/old")).unwrap(), "b");

        symlink("loop", at("loop")).unwrap();
        let _listens = UnixListener::bind(at("socket")).unwrap();
        for (name, words) in [("dir", "directory"), ("socket", "socket"), ("loop", "links")] {
            let refused = write(&at(name), "x").unwrap_err().to_string();
            assert!(refused.contains(words), "{name}: {refused}");
        }
        write(Path::new("/dev/null"), "x").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
