//! What the machine itself can do: the bounds that no system can beat.
//!
//! Also the check that the made-up rows compress like real ones.

use std::{
    fs::File,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, ensure};

use crate::{network::text_of, table::median};

/// Appends that are made durable one by one.
const APPENDS: usize = 1000;
/// A database's page.
const APPEND_BYTES: usize = 4096;
/// Rows that are compressed together: about what a page of the store holds.
pub const BLOCK_ROWS: usize = 64;
/// Memory-bound loops go over so much data.
const HASHED_BYTES: usize = 256 << 20;

/// What was measured.
pub struct Bounds {
    /// Median time of a 4 KiB append with `fdatasync`.
    pub append_ms: f64,
    /// BLAKE3 on one core.
    pub blake3_mb_s: f64,
    /// zstd level 1 over the rows in blocks, on one core.
    pub zstd_mb_s: f64,
    /// How well those blocks compress.
    pub zstd_ratio: f64,
    /// Reading the whole file as CSV records of bytes, on one core.
    pub parse_s: f64,
}

impl Bounds {
    /// Measures with the file of rows, in a directory of the disk under test.
    pub fn measure(csv: &Path, dir: &Path) -> anyhow::Result<Self> {
        let blocks = blocks(csv, false)?;
        let bytes: usize = blocks.iter().map(Vec::len).sum();
        let started = Instant::now();
        let compressed = compressed_bytes(&blocks)?;
        let zstd_mb_s = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
        Ok(Self {
            append_ms: append_ms(dir)?,
            blake3_mb_s: blake3_mb_s(),
            zstd_mb_s,
            zstd_ratio: bytes as f64 / compressed as f64,
            parse_s: parse_s(csv)?,
        })
    }
}

fn append_ms(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("appends");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for append in 0..APPENDS {
        let page = [append as u8; APPEND_BYTES];
        let started = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_file(path)?;
    Ok(median(&times))
}

fn blake3_mb_s() -> f64 {
    let data = vec![0x5a; HASHED_BYTES];
    let started = Instant::now();
    std::hint::black_box(blake3::hash(&data));
    data.len() as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn parse_s(csv: &Path) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut reader = csv::Reader::from_reader(BufReader::with_capacity(1 << 20, File::open(csv)?));
    let mut record = csv::ByteRecord::new();
    let mut fields = 0;
    while reader.read_byte_record(&mut record)? {
        fields += record.len();
    }
    std::hint::black_box(fields);
    Ok(started.elapsed().as_secs_f64())
}

/// The file's rows as CSV text, in blocks; sorted by code if asked for.
fn blocks(csv: &Path, sorted: bool) -> anyhow::Result<Vec<Vec<u8>>> {
    /// The column of the code.
    const CODE: usize = 1;
    let mut reader = csv::Reader::from_path(csv)?;
    let mut rows = reader.byte_records().collect::<Result<Vec<_>, _>>()?;
    if sorted {
        rows.sort_by(|a, b| a.get(CODE).cmp(&b.get(CODE)));
    }
    let block = |rows: &[csv::ByteRecord]| -> anyhow::Result<Vec<u8>> {
        let mut out = csv::Writer::from_writer(Vec::new());
        for row in rows {
            out.write_byte_record(row)?;
        }
        out.into_inner().map_err(|error| anyhow::anyhow!("{error}"))
    };
    rows.chunks(BLOCK_ROWS).map(block).collect()
}

fn compressed_bytes(blocks: &[Vec<u8>]) -> anyhow::Result<usize> {
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    let mut bytes = 0;
    for block in blocks {
        bytes += compressor.compress(block)?.len();
    }
    Ok(bytes)
}

/// How well rows of files compress in blocks, sorted by code within each file,
/// and how large a row is.
pub fn likeness(files: &[PathBuf]) -> anyhow::Result<(f64, f64)> {
    let (mut bytes, mut compressed, mut rows) = (0, 0, 0);
    for file in files {
        let blocks = blocks(file, true).with_context(|| format!("read {}", file.display()))?;
        bytes += blocks.iter().map(Vec::len).sum::<usize>();
        compressed += compressed_bytes(&blocks)?;
        rows += csv::Reader::from_path(file)?.byte_records().count();
    }
    ensure!(rows > 0, "no rows");
    Ok((bytes as f64 / compressed as f64, bytes as f64 / rows as f64))
}

/// Processor, memory, kernel, and the file system that was written to.
pub fn describe(dir: &Path) -> anyhow::Result<String> {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let kib: u64 = field(&file("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse()?;
    let file_system = text_of(Command::new("stat").args(["-f", "-c", "%T"]).arg(dir))?;
    Ok(format!(
        "{} cores of {}, {} GiB of memory, Linux {}, {}",
        std::thread::available_parallelism()?,
        field(&file("/proc/cpuinfo"), "model name"),
        kib >> 20,
        file("/proc/sys/kernel/osrelease").trim(),
        file_system.trim()
    ))
}
