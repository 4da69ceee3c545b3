//! The sidecar `HEADS`: which heads were durable a moment ago.
//!
//! A database file that lost its end opens as if nothing were wrong. The
//! sidecar is written within a second of a commit, never ahead of it, and
//! synced; a partition that opens behind its sidecar has lost what was
//! acknowledged. It keeps its line, nothing of its own is written to it, and it
//! is said to be damaged, until its head is there again; the others are not
//! concerned. A partition that is about to be forgotten leaves the sidecar first.
//!
//! It is text: a line with the node whose store this is, and one a partition: full name,
//! number, header hash, root, records; the last line is a checksum of those before.

use std::{
    collections::BTreeMap, fmt::Write as _, os::unix::fs::DirBuilderExt as _, path::Path,
    sync::Arc, time::Duration,
};

use protocol::{change::SignedHeader, id::PartitionId, suite::checksum::Checksum};

use crate::{
    error::StoreError,
    state::{Lost, PartitionState, Shared, lock},
};

pub const FILE: &str = "HEADS";
/// In front of the node's name.
const OWNER: &str = "node ";
/// Heads that move within this time share one write of the file.
const WRITE_EVERY: Duration = Duration::from_millis(500);

/// The sidecar's text, if there is one and it is whole.
pub fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let file = path.join(FILE);
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::File { path: file, problem: error.to_string() }),
    };
    let Some((lines, checksum)) = split_checksum(&text) else {
        // It is replaced atomically, so this is damage from elsewhere. The
        // database itself is checked by its own means.
        tracing::warn!(file = %file.display(), "the sidecar is unreadable and is written anew");
        return Ok(None);
    };
    if Checksum::of(&[lines.as_bytes()]).to_string() != checksum {
        tracing::warn!(file = %file.display(), "the sidecar's checksum is wrong; it is written anew");
        return Ok(None);
    }
    Ok(Some(text))
}

/// Whether there is a sidecar, whole or not.
pub fn is_there(path: &Path) -> bool {
    path.join(FILE).exists()
}

/// Whose store a sidecar says it is, and what the database has lost of what it says.
type Said = (Option<String>, BTreeMap<PartitionId, Lost>);

/// Compares the sidecar with what the database holds; none if the sidecar says nothing and
/// has to be written anew.
pub fn check(
    path: &Path,
    partitions: &BTreeMap<PartitionId, Arc<PartitionState>>,
) -> Result<Option<Said>, StoreError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let lines = split_checksum(&text).map_or("", |(lines, _)| lines);
    let mut lost = BTreeMap::new();
    for line in lines.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(seq)) = (words.next(), words.next()) else { continue };
        let (Ok(partition), Ok(expected)) = (PartitionId::parse_full(name), seq.parse::<u64>())
        else {
            continue;
        };
        let head = partitions.get(&partition).and_then(|state| state.head());
        let found = head.map_or(0, |head| head.seq());
        if found < expected {
            tracing::error!(
                %partition, found, expected,
                "the database holds less of a partition than was acknowledged: it is damaged, or of an older time. What is \
                 missing is taken back from a peer / 数据库中的记录少于已确认的数量，可能已损坏或来自旧备份；缺少的部分将从对端取回"
            );
            lost.insert(partition, Lost { seq: expected, line: line.to_owned() });
        }
    }
    let owner = lines.lines().find_map(|line| line.strip_prefix(OWNER)).map(str::to_owned);
    Ok(Some((owner, lost)))
}

fn split_checksum(text: &str) -> Option<(&str, &str)> {
    let body = text.strip_suffix('\n')?;
    let start = body.rfind('\n').map_or(0, |at| at + 1);
    Some((&text[..start], &body[start..]))
}

/// Starts the thread that writes the sidecar; it ends, with a last write, when
/// the writer closes.
pub fn spawn(shared: Arc<Shared>) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let path = shared.path.clone();
    std::thread::Builder::new()
        .name("store-heads".into())
        .spawn(move || run(&shared))
        .map_err(|error| StoreError::File { path, problem: error.to_string() })
}

fn run(shared: &Shared) {
    loop {
        let (mutex, moved) = &shared.sidecar;
        let mut state = lock(mutex);
        while !state.dirty && !state.closing {
            state = moved.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        if !state.closing {
            // Give later commits of the same burst the chance to share.
            (state, _) = moved
                .wait_timeout_while(state, WRITE_EVERY, |state| !state.closing)
                .unwrap_or_else(|e| e.into_inner());
        }
        let closing = state.closing;
        let dirty = std::mem::take(&mut state.dirty);
        drop(state);
        if dirty && let Err(error) = write(shared) {
            tracing::warn!(path = %shared.path.display(), %error, "the sidecar HEADS could not be written");
        }
        if closing {
            return;
        }
    }
}

/// Writes the sidecar without this partition; until `shared.forgetting` names
/// none, nobody writes it with it.
pub fn leave_out(shared: &Shared, partition: &PartitionId) -> Result<(), StoreError> {
    *lock(&shared.forgetting) = Some(partition.clone());
    write(shared).map_err(|error| {
        *lock(&shared.forgetting) = None;
        StoreError::File { path: shared.path.join(FILE), problem: error.to_string() }
    })
}

/// What a store has lost that has nothing of a partition's history up to this header.
pub fn lost(signed: &SignedHeader) -> Lost {
    let header = signed.header();
    let (name, seq) = (header.partition.full_name(), header.seq);
    let line = format!("{name} {seq} {} {} {}", signed.hash(), header.root, header.records);
    Lost { seq, line }
}

/// In a store that was made in place of a damaged one, until something is in it.
const REBUILDING: &str = "REBUILDING";

/// Moves a store away, and leaves one that has lost all that the sidecar names.
pub fn set_aside(path: &Path, aside: &Path) -> Result<(), StoreError> {
    let file_error = |path: &Path, problem: std::io::Error| StoreError::File {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    // The new one is complete before it takes the place of the other.
    let new = beside(path);
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&new);
    made.map_err(|error| file_error(&new, error))?;
    for (name, bytes) in [(FILE, std::fs::read(path.join(FILE))), (REBUILDING, Ok(Vec::new()))] {
        match bytes {
            Ok(bytes) => files::replace(&new.join(name), &bytes, files::PRIVATE),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| file_error(&new.join(name), error))?;
    }
    std::fs::rename(path, aside).map_err(|error| file_error(path, error))?;
    finish_setting_aside(path)
}

/// Goes on with what an interrupted [`set_aside`] has left.
pub fn finish_setting_aside(path: &Path) -> Result<(), StoreError> {
    let new = beside(path);
    if path.exists() || !new.exists() {
        return Ok(());
    }
    std::fs::rename(&new, path)
        .and_then(|()| files::sync_directory_of(path))
        .map_err(|error| StoreError::File { path: new, problem: error.to_string() })
}

fn beside(path: &Path) -> std::path::PathBuf {
    path.with_extension("new")
}

/// Whether an empty database is one that was made in place of a damaged one; of one that
/// is not empty that is no question any more.
pub fn is_rebuilding(path: &Path, is_empty: bool) -> bool {
    let mark = path.join(REBUILDING);
    if !is_empty {
        let _ = std::fs::remove_file(&mark);
    }
    mark.exists()
}

/// Writes the sidecar at once.
pub fn write_now(shared: &Shared) -> Result<(), StoreError> {
    write(shared).map_err(|error| StoreError::File {
        path: shared.path.join(FILE),
        problem: error.to_string(),
    })
}

fn write(shared: &Shared) -> std::io::Result<()> {
    let forgetting = lock(&shared.forgetting);
    let partitions = shared.partitions();
    let heads = partitions.into_iter().filter_map(|(partition, state)| {
        let head = state.head()?;
        let (position, summary) = (head.position(), &head.summary);
        let name = partition.full_name();
        let (seq, hash) = (position.seq, position.hash);
        let line = format!("{name} {seq} {hash} {} {}", summary.root, summary.records);
        Some((partition, line))
    });
    let mut lines: BTreeMap<PartitionId, String> = heads.collect();
    for (partition, lost) in lock(&shared.lost).iter() {
        lines.insert(partition.clone(), lost.line.clone());
    }
    if let Some(forgetting) = &*forgetting {
        lines.remove(forgetting);
    }
    let owner = lock(&shared.owner).clone();
    let mut text = owner.map_or_else(String::new, |owner| format!("{OWNER}{owner}\n"));
    for line in lines.values() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    let checksum = Checksum::of(&[text.as_bytes()]);
    let _ = writeln!(text, "{checksum}");
    files::replace(&shared.path.join(FILE), text.as_bytes(), files::PRIVATE)
}
