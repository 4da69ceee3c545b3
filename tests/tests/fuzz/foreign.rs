//! Workbooks and archives, which a child reads: whatever becomes of the child, its
//! parent gets rows in order or a reason.
//!
//! Bytes of a compressed part hardly ever survive a change, so an input of
//! `workbook` is one part of a workbook behind a letter that says which; the rest is
//! made around it.

use std::{
    fs::File,
    io::{Cursor, Seek as _, Write as _},
};

use daemon::{
    ingest::{
        rows::{Place, Row},
        source::Table,
        temporary::TemporaryFiles,
    },
    sources::{
        child::Program,
        packed::Archive,
        sheet::table::{Options, open},
    },
};
use harness::node::program;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::targets::enterprise;

/// A sheet of an `.xlsx`, its table of texts, the content of an `.ods`, an `.xls`.
pub const SHEET: u8 = b'x';
pub const TEXTS: u8 = b't';
pub const CONTENT: u8 = b'o';
pub const OLD: u8 = b's';

/// An `.xlsx` whose table of texts is a part of its own: header and one row.
pub const SHEET_OF_TEXTS: &str = "<worksheet><sheetData>\
    <row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c><c r=\"B1\" t=\"s\"><v>1</v></c></row>\
    <row r=\"2\"><c r=\"A2\" t=\"s\"><v>2</v></c><c r=\"B2\" t=\"s\"><v>3</v></c></row>\
    </sheetData></worksheet>";
const NO_TEXTS: &[u8] = b"<sst/>";

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn child() -> Program {
    Program::At(program().to_owned())
}

/// An archive of these parts, as they are.
pub fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, content) in parts {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn xlsx(sheet: &[u8], texts: &[u8]) -> Vec<u8> {
    archive(&[
        ("[Content_Types].xml", b"<Types/>"),
        (
            "_rels/.rels",
            b"<Relationships><Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>",
        ),
        (
            "xl/workbook.xml",
            b"<workbook xmlns:r=\"r\"><sheets><sheet name=\"a\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>",
        ),
        (
            "xl/_rels/workbook.xml.rels",
            b"<Relationships><Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" Target=\"worksheets/sheet1.xml\"/></Relationships>",
        ),
        ("xl/sharedStrings.xml", texts),
        ("xl/worksheets/sheet1.xml", sheet),
    ])
}

fn ods(content: &[u8]) -> Vec<u8> {
    archive(&[
        ("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"),
        ("META-INF/manifest.xml", b"<manifest:manifest xmlns:manifest=\"m\"/>"),
        ("content.xml", content),
    ])
}

/// Reads the workbook of which these bytes are a part; says whether all of it was.
pub fn workbook(bytes: &[u8]) -> bool {
    let whole = match bytes.split_first() {
        Some((&SHEET, part)) => xlsx(part, NO_TEXTS),
        Some((&TEXTS, part)) => xlsx(SHEET_OF_TEXTS.as_bytes(), part),
        Some((&CONTENT, part)) => ods(part),
        Some((&OLD, part)) => part.to_vec(),
        _ => return false,
    };
    let options = Options { sheet: None, ignored: &[] };
    let total = whole.len() as u64;
    let opened = open("some.xlsx", file(&whole), total, options, child(), enterprise());
    let Ok(mut table) = opened else { return false };
    let columns = table.mapping().labels().len();
    let mut last = Place::new(0, 0, 0);
    let mut check = |row: Row<'_>| {
        let (Row::Fields { place, .. } | Row::Malformed { place, .. }) = row;
        assert!(place > last, "{place:?} after {last:?}");
        last = place;
        if let Row::Fields { fields, .. } = row {
            assert_eq!(fields.len(), columns);
        }
    };
    loop {
        match table.next_rows() {
            Ok(rows) if rows.is_empty() => return true,
            Ok(rows) => rows.for_each(&mut check),
            Err(_) => return false,
        }
    }
}

/// Unpacks all of an archive; says whether that could be done.
pub fn packed(bytes: &[u8]) -> bool {
    let files = TemporaryFiles::new(&std::env::temp_dir());
    let gzip = bytes.starts_with(&[0x1f, 0x8b]);
    let Ok(mut archive) = Archive::open(file(bytes), gzip, "some.gz", child()) else {
        return false;
    };
    let entries: Vec<_> = archive.files().cloned().collect();
    archive.refuse_what_is_inside().is_ok()
        && entries.iter().all(|entry| {
            let unpacked = archive.unpack(entry, &files);
            unpacked.is_ok_and(|one| one.file.metadata().unwrap().len() == one.bytes)
        })
}
