//! An archive as the pipeline sees it: the files in it that fit the dataset, one
//! after the other.
//!
//! Used by [`crate::sources::file`], which also opens the files. Invariants: files
//! that are read have the same fields, so that a missing column means the same for
//! all of them; a file that has labels of the dataset and does not fit refuses the
//! archive, since whoever packed it meant it; anything else that is left out is
//! told of. What was read to its end is given back to the disk.

use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

use protocol::{
    schema::Schema,
    uscc::{self, Quality},
};

use super::{Archive, PackedError, Use};
use crate::{
    ingest::{
        map::Mapping,
        rows::{Place, Row},
        source::{LeftOut, Rows, SourceError, Summary, Table},
        temporary::TemporaryFiles,
        words::languages,
    },
    sources::{child::Program, error::Told},
};

/// Opens the table of a file that was unpacked: its name, and its content.
pub type OpenInner<'o> = &'o dyn Fn(String, File) -> Result<Box<dyn Table>, SourceError>;

/// Opens an archive, which is unpacked to files without a name in `room`.
pub fn open(
    name: &str,
    file: File,
    gzip: bool,
    room: &TemporaryFiles,
    program: Program,
    schema: &Schema,
    open_inner: OpenInner<'_>,
) -> Result<PackedTable, SourceError> {
    let mut archive =
        Archive::open(file, gzip, name, program).map_err(|error| told(name, &error))?;
    archive.refuse_what_is_inside().map_err(|error| told(name, &error))?;
    let entries: Vec<_> = archive.files().cloned().collect();
    let mut table = PackedTable { inner: Vec::new(), at: 0, left_out: Vec::new() };
    let hidden = archive.entries().iter().filter(|entry| entry.used == Use::Hidden);
    let bare = |name: &str| name.trim_end_matches('~').trim_end_matches(".bak").to_owned();
    let is_data = |name: &str| may_be_data(name, "") || may_be_data(&bare(name), "");
    let hidden = hidden.map(|entry| &entry.name).filter(|name| is_data(name));
    for name in hidden.take(HIDDEN_TOLD_MAX) {
        table.left_out.push(LeftOut {
            zh: format!("压缩包内的“{name}”是隐藏、未完成或备份文件，未读取；如果是数据，请改名后重新打包"),
            en: format!("'{name}' in the archive is hidden, not whole or a copy and was not read: give it another name if it is data"),
            doubtful: true,
        });
    }
    let mut refused = None;
    for entry in &entries {
        let shown = format!("{name}: {}", entry.name);
        let unpacked = archive.unpack(entry, room).map_err(|error| match error {
            // What a child says names no file.
            PackedError::Child(_) => told(&shown, &error),
            _ => told(name, &error),
        })?;
        let bytes = unpacked.bytes;
        let front = front_of(&unpacked.file);
        match open_inner(shown.clone(), unpacked.file) {
            Ok(opened) => table.add(&shown, &entry.name, opened, bytes)?,
            Err(error @ (SourceError::Access(_) | SourceError::Changed { .. })) => {
                return Err(error);
            }
            Err(SourceError::Header { name, problem }) if problem.is_of(schema) => {
                return Err(SourceError::Header { name, problem });
            }
            Err(error) => {
                let name = &entry.name;
                let [zh, en] = languages(&error);
                table.left_out.push(LeftOut {
                    zh: format!("压缩包内的“{name}”未读取：{zh}"),
                    en: format!("'{name}' in the archive was not read: {en}"),
                    doubtful: may_be_data(name, &front),
                });
                refused.get_or_insert(error);
            }
        }
    }
    match (table.inner.is_empty(), refused) {
        (false, _) => Ok(table),
        (true, Some(error)) => Err(error),
        // There is a file, or opening the archive would have failed.
        (true, None) => Err(told(name, &PackedError::Empty)),
    }
}

fn told(name: &str, error: &PackedError) -> SourceError {
    let told = Box::new(Told(format!("{name}: {error}")));
    if error.is_passing() { SourceError::Access(told) } else { SourceError::Content(told) }
}

/// A file of an archive.
struct Inner {
    /// None once it was read to its end.
    table: Option<Box<dyn Table>>,
    mapping: Arc<Mapping>,
    reading: Vec<String>,
    summary: Summary,
    /// Its name in the archive.
    name: String,
    /// Its first part among those of the archive.
    part: usize,
    bytes: u64,
}

/// An archive whose files are being read.
pub struct PackedTable {
    inner: Vec<Inner>,
    at: usize,
    left_out: Vec<LeftOut>,
}

impl PackedTable {
    fn add(
        &mut self,
        shown: &str,
        name: &str,
        table: Box<dyn Table>,
        bytes: u64,
    ) -> Result<(), SourceError> {
        let (mapping, summary) = (table.mapping().clone(), table.summary());
        let part = self.inner.last().map_or(0, |last| last.part + last.summary.parts.len().max(1));
        let refuse = |text: String| Err(SourceError::Content(Box::new(Told(text))));
        if part + summary.parts.len().max(1) > Place::PARTS_MAX {
            return refuse(format!(
                "{shown}: 压缩包内的文件和工作表超过 {0} 个；请分成几个压缩包 / the archive has more than {0} files and sheets: deliver several archives",
                Place::PARTS_MAX
            ));
        }
        if let Some(first) = self.inner.first()
            && !first.mapping.has_fields_of(&mapping)
        {
            return refuse(format!(
                "{shown}: 与“{0}”的列不同，不能一起读取；请分别交付，或统一各文件的列 / it has other columns than '{0}', so they cannot be read together: deliver them one by one, or give them the same columns",
                first.name
            ));
        }
        let (reading, name) = (table.reading(), name.to_owned());
        self.inner.push(Inner { table: Some(table), mapping, reading, summary, name, part, bytes });
        Ok(())
    }
}

impl Table for PackedTable {
    fn mapping(&self) -> &Arc<Mapping> {
        // There is one at least, or there would be no table.
        &self.inner[0].mapping
    }

    fn reading(&self) -> Vec<String> {
        let mut reading = vec!["packed".to_owned()];
        for inner in &self.inner {
            reading.push(inner.name.clone());
            reading.extend(inner.reading.iter().cloned());
        }
        reading
    }

    fn bytes_total(&self) -> u64 {
        self.inner.iter().map(|inner| inner.bytes).sum()
    }

    fn bytes_read(&self) -> u64 {
        let read = |inner: &Inner| match &inner.table {
            Some(table) => table.bytes_read().min(inner.bytes),
            None => inner.bytes,
        };
        self.inner.iter().map(read).sum()
    }

    fn next_rows(&mut self) -> Result<Box<dyn Rows>, SourceError> {
        let last = self.inner.len() - 1;
        loop {
            let at = self.at.min(last);
            let inner = &mut self.inner[at];
            let Some(table) = &mut inner.table else {
                return Ok(
                    super::super::texts::TextRows::default().mapped(at, inner.mapping.clone())
                );
            };
            let rows = table.next_rows()?;
            // Lines without content count though they are no rows.
            if !rows.is_empty() || rows.blank() > 0 {
                return Ok(Box::new(PlacedRows { rows, part: inner.part }));
            }
            inner.summary = table.summary();
            inner.table = None;
            self.at = (at + 1).min(last);
        }
    }

    fn summary(&self) -> Summary {
        let mut all = Summary { left_out: self.left_out.clone(), ..Summary::default() };
        for inner in &self.inner {
            let own = inner.table.as_ref().map_or_else(|| inner.summary.clone(), |t| t.summary());
            match own.parts.is_empty() {
                true => all.parts.push(inner.name.clone()),
                false => {
                    all.parts
                        .extend(own.parts.iter().map(|part| format!("{} [{part}]", inner.name)));
                }
            }
            all.cut |= own.cut;
            all.left_out.extend(own.left_out.iter().map(|one| LeftOut {
                zh: format!("{}：{}", inner.name, one.zh),
                en: format!("{}: {}", inner.name, one.en),
                doubtful: one.doubtful,
            }));
        }
        all
    }
}

/// Rows of one file among those of the archive.
struct PlacedRows {
    rows: Box<dyn Rows>,
    part: usize,
}

impl Rows for PlacedRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn blank(&self) -> u64 {
        self.rows.blank()
    }

    fn mapping(&self) -> &Arc<Mapping> {
        self.rows.mapping()
    }

    fn body(&self, at: usize) -> Option<&[u8]> {
        self.rows.body(at)
    }

    fn for_each(self: Box<Self>, visit: &mut dyn FnMut(Row<'_>)) {
        let first = self.part;
        let moved = |place: Place| Place::new(first + place.part(), place.line(), place.row());
        self.rows.for_each(&mut |row| {
            visit(match row {
                Row::Fields { place, fields, note } => {
                    Row::Fields { place: moved(place), fields, note }
                }
                Row::Malformed { place, problem, text } => {
                    Row::Malformed { place: moved(place), problem, text }
                }
            });
        });
    }
}

/// Hidden files that are told of one by one: who sees so many knows.
const HIDDEN_TOLD_MAX: usize = 10;
/// Bytes of a file that are looked at to know a table from a remark.
const FRONT_BYTES: u64 = 64 * 1024;

fn front_of(file: &File) -> String {
    let mut front = vec![0; FRONT_BYTES as usize];
    // What cannot be read here is told of by whoever reads it.
    let length = file.read_at(&mut front, 0).unwrap_or_default();
    String::from_utf8_lossy(&front[..length]).into_owned()
}

/// Whether a file of that name, which begins like that, is meant as a table: a
/// picture or a remark beside it is not.
fn may_be_data(name: &str, front: &str) -> bool {
    const ENDINGS: [&str; 12] = [
        "csv", "tsv", "xls", "xlsx", "xlsm", "xlsb", "et", "ods", "json", "jsonl", "ndjson", "sql",
    ];
    /// Lines that a remark does not have.
    const LINES_MIN: usize = 200;
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let ending = file.trim_start_matches('.').rsplit_once('.');
    if ending.is_some_and(|(_, ending)| ENDINGS.contains(&&*ending.to_ascii_lowercase())) {
        return true;
    }
    // A text by any other name, with credit codes or as long as no remark.
    let is_code = |word: &str| matches!(uscc::judge(word), Ok(Quality::Valid));
    !front.contains('\0')
        && (front.split(|c: char| !c.is_ascii_alphanumeric()).any(is_code)
            || front.lines().count() > LINES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_beside_tables_is_none() {
        let long = "1\t2\n".repeat(300);
        let code = "甲 91410000170001401D 乙";
        for (name, front, data) in [
            ("五月.csv", "", true),
            ("a/B.XLSX", "", true),
            (".x/b.csv", "", true),
            ("说明.txt", "第一行\n第二行", false),
            ("export.txt", &long, true),
            ("a.b/EXPORT", code, true),
            ("export.prn", code, true),
            ("盖章.jpg", "\0\u{fffd}", false),
            ("README", "91410100", false),
        ] {
            assert_eq!(may_be_data(name, front), data, "{name}");
        }
    }
}
