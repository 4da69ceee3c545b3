//! What a system's processes take: memory while it works, and disk.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;

/// How often memory is looked at. A look costs some 30 µs a process.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The unit of `/proc/PID/status`.
const KIB: u64 = 1024;

/// Watches the resident memory of one side of a system until it is asked.
pub struct MemoryWatch {
    over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<u64>>,
}

impl MemoryWatch {
    /// Watches these processes and all below them.
    pub fn start(roots: Vec<u32>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let watcher = std::thread::spawn(move || {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(resident_bytes(&roots));
                std::thread::park_timeout(LOOK_EVERY);
            }
            peak
        });
        Self { over, watcher: Some(watcher) }
    }

    /// The most bytes that were resident at one time.
    pub fn peak_bytes(mut self) -> anyhow::Result<u64> {
        let watcher = self.end().context("it is ended once")?;
        watcher.join().map_err(|_| anyhow::anyhow!("memory could not be watched"))
    }

    fn end(&mut self) -> Option<JoinHandle<u64>> {
        self.over.store(true, Ordering::Relaxed);
        let watcher = self.watcher.take()?;
        watcher.thread().unpark();
        Some(watcher)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Anonymous memory of all processes, and once what they have in common: the
/// largest share of files (the program itself) and of shared memory (the buffers
/// of a database). Adding up resident sets would count those for each process.
fn resident_bytes(roots: &[u32]) -> u64 {
    let (mut own, mut files, mut shared) = (0, 0, 0);
    for id in family(roots) {
        // It may be gone by now.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status")) else { continue };
        own += field(&status, "RssAnon:");
        files = files.max(field(&status, "RssFile:"));
        shared = shared.max(field(&status, "RssShmem:"));
    }
    (own + files + shared) * KIB
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
}

/// The processes and all their descendants.
fn family(roots: &[u32]) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(id) = found.get(next).copied() {
        next += 1;
        let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { continue };
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    found
}

/// Bytes that a file, or all files below a directory, occupy.
pub fn disk_bytes(path: &Path) -> anyhow::Result<u64> {
    let metadata = match std::fs::symlink_metadata(path) {
        // A database removes files while they are counted.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        metadata => metadata?,
    };
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += disk_bytes(&entry?.path())?;
        }
    }
    Ok(bytes)
}
