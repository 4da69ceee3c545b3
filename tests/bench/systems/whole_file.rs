//! Systems that keep a file the same on both sides, and know nothing of rows.
//!
//! A county's file lies below `dir/county-N`, the hub's copies below
//! `dir/hub/county-N`. A delivery is the file with another content.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::ensure;

use super::Setting;
use crate::{
    files::RowFile,
    rows::{self, COUNTIES},
    table::{Column, median},
    usage::{MemoryWatch, disk_bytes},
    works::{DIFFERENCES, Line, Work},
};

/// The name of the file that is kept the same.
pub const NAME: &str = "register.csv";
/// How often one row is changed: each time costs as much as the whole file.
const SINGLE_CHANGES: u32 = 5;

/// Keeps files the same.
pub trait FileSync: Sync {
    /// Makes the hub's copy of a county's file equal to it and durable; answers
    /// the county's peak of memory meanwhile.
    fn deliver(&self, county: usize) -> anyhow::Result<u64>;

    /// Watches the hub's memory.
    fn watch_hub(&self) -> anyhow::Result<MemoryWatch>;
}

/// The directory that a county shares.
pub fn county_dir(dir: &Path, county: usize) -> PathBuf {
    dir.join(format!("county-{county}"))
}

/// The hub's copy of that.
pub fn hub_dir(dir: &Path, county: usize) -> PathBuf {
    dir.join("hub").join(format!("county-{county}"))
}

/// Makes the directories of so many counties.
pub fn make_dirs(dir: &Path, counties: usize) -> anyhow::Result<()> {
    for county in 0..counties {
        std::fs::create_dir_all(county_dir(dir, county))?;
        std::fs::create_dir_all(hub_dir(dir, county))?;
    }
    Ok(())
}

/// The works on a hub and one county.
pub fn measure_pair(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    dir: &Path,
    sync: &impl FileSync,
) -> anyhow::Result<()> {
    put(dir, 0, &setting.files.get(RowFile::Base)?)?;
    let memory = sync.watch_hub()?;
    let copied = deliver(setting, dir, sync)?;
    column.put_seconds(Line::CopyTime, copied.time);
    column.put_megabytes(Line::CopyWire, copied.wire_bytes);
    column.put_mebibytes(Line::CopyCountyMemory, copied.county_memory);
    column.put_mebibytes(Line::CopyHubMemory, memory.peak_bytes()?);
    column.put_megabytes(Line::CopyHubDisk, disk_bytes(&dir.join("hub"))?);

    if setting.wants(Work::FullAgain) {
        let mut memory = 0;
        for (file, time_line, wire_line) in [
            (RowFile::Base, Line::SameTime, Line::SameWire),
            (RowFile::Shuffled, Line::ShuffledTime, Line::ShuffledWire),
            (RowFile::OneChanged, Line::OneChangedTime, Line::OneChangedWire),
        ] {
            if file == RowFile::OneChanged {
                // One row is to differ from what is there.
                put(dir, 0, &setting.files.get(RowFile::Base)?)?;
                deliver(setting, dir, sync)?;
            }
            put(dir, 0, &setting.files.get(file)?)?;
            let delivered = deliver(setting, dir, sync)?;
            column.put_seconds(time_line, delivered.time);
            column.put_kilobytes(wire_line, delivered.wire_bytes);
            memory = memory.max(delivered.county_memory);
        }
        column.put_mebibytes(Line::FullAgainMemory, memory);
    }
    if setting.wants(Work::Updates) {
        put(dir, 0, &setting.files.get(RowFile::Updated)?)?;
        let memory = sync.watch_hub()?;
        let delivered = deliver(setting, dir, sync)?;
        column.put_seconds(Line::UpdatesTime, delivered.time);
        column.put_megabytes(Line::UpdatesWire, delivered.wire_bytes);
        column.put_mebibytes(Line::UpdatesCountyMemory, delivered.county_memory);
        column.put_mebibytes(Line::UpdatesHubMemory, memory.peak_bytes()?);
    }
    if setting.wants(Work::OneRow) {
        one_row(setting, column, dir, sync)?;
    }
    if setting.wants(Work::Differences) {
        for (count, time_line, wire_line, _) in DIFFERENCES {
            put(dir, 0, &setting.files.get(RowFile::Base)?)?;
            deliver(setting, dir, sync)?;
            put(dir, 0, &setting.files.get(RowFile::Differing(count))?)?;
            let repaired = deliver(setting, dir, sync)?;
            column.put_seconds(time_line, repaired.time);
            column.put_kilobytes(wire_line, repaired.wire_bytes);
        }
    }
    Ok(())
}

fn one_row(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    dir: &Path,
    sync: &impl FileSync,
) -> anyhow::Result<()> {
    let rows = setting.files.rows();
    let changed = setting.dir.join("one-changed.csv");
    let (mut times_ms, mut bytes) = (Vec::new(), 0);
    for change in 0..SINGLE_CHANGES {
        let number = rows::scattered(u64::from(change), rows);
        let version = |row| if row == number { change + 2 } else { 0 };
        rows::write(&changed, &mut (0..rows).map(|row| (row, version(row))))?;
        if change == 0 {
            // The one before may differ in many rows.
            put(dir, 0, &setting.files.get(RowFile::Base)?)?;
            deliver(setting, dir, sync)?;
        }
        put(dir, 0, &changed)?;
        let delivered = deliver(setting, dir, sync)?;
        times_ms.push(delivered.time.as_secs_f64() * 1000.0);
        bytes += delivered.wire_bytes;
    }
    std::fs::remove_file(changed)?;
    column.put(Line::OneRowMedian, median(&times_ms));
    column.put_kilobytes(Line::OneRowWire, bytes / u64::from(SINGLE_CHANGES));
    Ok(())
}

/// The work of all counties at once.
pub fn measure_counties(
    setting: &Setting<'_>,
    column: &mut Column<'_>,
    dir: &Path,
    sync: &impl FileSync,
) -> anyhow::Result<()> {
    let counties = 0..usize::try_from(COUNTIES)?;
    for county in counties.clone() {
        put(dir, county, &setting.files.get(RowFile::County(county as u64))?)?;
    }
    let memory = sync.watch_hub()?;
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let deliveries: Vec<_> =
            counties.clone().map(|county| scope.spawn(move || sync.deliver(county))).collect();
        for delivery in deliveries {
            delivery.join().map_err(|_| anyhow::anyhow!("a delivery panicked"))??;
        }
        anyhow::Ok(())
    })?;
    column.put_seconds(Line::CountiesTime, started.elapsed());
    column.put_megabytes(Line::CountiesWire, setting.network.bytes()? - wire);
    column.put_mebibytes(Line::CountiesHubMemory, memory.peak_bytes()?);
    column.put_megabytes(Line::CountiesHubDisk, disk_bytes(&dir.join("hub"))?);
    counties.into_iter().try_for_each(|county| expect_equal(dir, county))
}

struct Delivered {
    time: std::time::Duration,
    wire_bytes: u64,
    county_memory: u64,
}

fn deliver(setting: &Setting<'_>, dir: &Path, sync: &impl FileSync) -> anyhow::Result<Delivered> {
    let wire = setting.network.bytes()?;
    let started = Instant::now();
    let county_memory = sync.deliver(0)?;
    let time = started.elapsed();
    let wire_bytes = setting.network.bytes()? - wire;
    expect_equal(dir, 0)?;
    Ok(Delivered { time, wire_bytes, county_memory })
}

/// A county's file becomes a copy of `file`, at once.
fn put(dir: &Path, county: usize, file: &Path) -> anyhow::Result<()> {
    // Beside the shared directory: nobody shall deliver half of it.
    let copy = dir.join(format!("next-{county}.csv"));
    std::fs::copy(file, &copy)?;
    File::options().append(true).open(&copy)?.sync_all()?;
    std::fs::rename(copy, county_dir(dir, county).join(NAME))?;
    Ok(())
}

fn expect_equal(dir: &Path, county: usize) -> anyhow::Result<()> {
    let open = |dir: PathBuf| File::open(dir.join(NAME)).map(BufReader::new);
    let (mut left, mut right) = (open(county_dir(dir, county))?, open(hub_dir(dir, county))?);
    let (mut left_part, mut right_part) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let bytes = left.read(&mut left_part)?;
        if bytes == 0 {
            ensure!(right.read(&mut right_part)? == 0, "the hub's file is longer");
            return Ok(());
        }
        right.read_exact(&mut right_part[..bytes])?;
        ensure!(left_part[..bytes] == right_part[..bytes], "the hub's file differs");
    }
}
