//! The file of the log of deliveries: JSON lines, written at the end.
//!
//! Used by [`super::History`]. Invariants: half a line, which a crash may leave,
//! spoils no other line; the file is bounded, and loses its oldest lines first;
//! only its owner may read it. Not here: what the lines mean (`event`).

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::event::Line;

const NAME: &str = "deliveries.jsonl";
/// The file at most: some 20 000 deliveries of a few hundred bytes, or a month of
/// small changes with what was stored before. Reading all of it takes a tenth of
/// a second.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The newest lines, which stay when it is full.
const BYTES_KEPT: u64 = BYTES_MAX / 2;
/// Where ids of the last second are looked for: several of the longest lines.
const TAIL_BYTES: u64 = 128 * 1024;

#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    path: PathBuf,
}

impl Log {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), path: dir.join(NAME) }
    }

    /// Appends a line, and makes it durable if that is asked for.
    pub fn append(&mut self, line: &Line, durable: bool) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        let mut file = match open(&self.path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                let file = open(&self.path, true)?;
                files::sync_directory(&self.dir)?;
                file
            }
            opened => opened?,
        };
        let length = file.metadata()?.len();
        if length + text.len() as u64 > BYTES_MAX {
            self.shorten()?;
            file = open(&self.path, false)?;
        }
        if !ends_with_a_line(&mut file)? {
            // What a crash has left there becomes a line of its own.
            text.insert(0, b'\n');
        }
        file.write_all(&text)?;
        if durable { file.sync_data() } else { Ok(()) }
    }

    /// All lines that can be read, the oldest first.
    pub fn lines(&self) -> Vec<Line> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "the log of deliveries cannot be read");
                }
                return Vec::new();
            }
        };
        let lines = BufReader::new(file.take(2 * BYTES_MAX)).split(b'\n');
        lines.map_while(Result::ok).filter_map(|line| serde_json::from_slice(&line).ok()).collect()
    }

    /// The end of the file as text.
    pub fn tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            // At once, and one byte more to see the end.
            let mut bytes = Vec::with_capacity(length.min(TAIL_BYTES) as usize + 1);
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Keeps the newest lines.
    fn shorten(&self) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let from = bytes.len().saturating_sub(usize::try_from(BYTES_KEPT).unwrap_or(usize::MAX));
        let begin = bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1);
        files::replace(&self.path, &bytes[begin.unwrap_or(bytes.len())..], files::PRIVATE)
    }
}

fn open(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create_new(new).mode(0o600).open(path)
}

fn ends_with_a_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
