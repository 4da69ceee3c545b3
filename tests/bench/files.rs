//! The files of a run. Each is written when it is first asked for, and is the
//! same for every system and round.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use crate::rows::{self, COUNTIES};

/// Of so many rows one is among the scattered updates.
const UPDATES_ONE_OF: u64 = 10;

/// A file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFile {
    /// All rows as they are at first.
    Base,
    /// The same rows in another order.
    Shuffled,
    /// All rows, one of them changed.
    OneChanged,
    /// The changed rows of [`RowFile::Updated`] alone.
    Updates,
    /// All rows, ten percent changed.
    Updated,
    /// All rows, so many changed.
    Differing(u64),
    /// One county's share of the base.
    County(u64),
    /// The base with rows that warn, repeat or are rejected.
    Messy,
    /// The first rows of the base, as a workbook.
    Workbook,
}

/// Rows of a workbook: a spreadsheet has room for ten times as many, and people
/// have a tenth.
pub const WORKBOOK_ROWS_MAX: u64 = 100_000;

/// Where the files lie, and how many rows there are.
pub struct Files {
    dir: PathBuf,
    rows: u64,
}

impl Files {
    /// Files of so many rows below `dir`.
    pub fn new(dir: &Path, rows: u64) -> Self {
        Self { dir: dir.to_owned(), rows }
    }

    /// The rows of [`RowFile::Base`].
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The file, written if it is not there.
    pub fn get(&self, file: RowFile) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(format!("{file:?}.csv"));
        if path.exists() {
            return Ok(path);
        }
        let rows = 0..self.rows;
        let (base, updated) = (0, 1);
        match file {
            RowFile::Base => rows::write(&path, &mut rows.map(|number| (number, base))),
            RowFile::Shuffled => {
                let mut shuffled = rows.map(|place| (rows::scattered(place, self.rows), base));
                rows::write(&path, &mut shuffled)
            }
            RowFile::OneChanged => self.write_changed(&path, &HashSet::from([self.one_changed()])),
            RowFile::Updates => {
                let mut changed = self.updated().map(|number| (number, updated));
                rows::write(&path, &mut changed)
            }
            RowFile::Updated => self.write_changed(&path, &self.updated().collect()),
            RowFile::Differing(count) => self.write_changed(
                &path,
                &(0..count).map(|change| rows::scattered(change, self.rows)).collect(),
            ),
            RowFile::County(county) => {
                let mut share = rows.filter(|number| number % COUNTIES == county);
                rows::write(&path, &mut (&mut share).map(|number| (number, base)))
            }
            RowFile::Messy => rows::write_messy(&path, self.rows),
            RowFile::Workbook => rows::write_workbook(&path, self.rows.min(WORKBOOK_ROWS_MAX)),
        }?;
        Ok(path)
    }

    fn write_changed(&self, path: &Path, changed: &HashSet<u64>) -> anyhow::Result<u64> {
        let version = |number| u32::from(changed.contains(&number));
        rows::write(path, &mut (0..self.rows).map(|number| (number, version(number))))
    }

    /// The row that differs in [`RowFile::OneChanged`].
    pub fn one_changed(&self) -> u64 {
        self.rows / 2
    }

    /// The rows of [`RowFile::Updates`]: in their first changed version.
    pub fn updated(&self) -> impl Iterator<Item = u64> + use<> {
        let rows = self.rows;
        (0..(rows / UPDATES_ONE_OF).max(1)).map(move |change| rows::scattered(change, rows))
    }
}
