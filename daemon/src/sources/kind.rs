//! What a delivered file is, by its content; its name only decides where the
//! content may be either.
//!
//! Used by [`super::file`] before a reader is chosen. Invariant: at most
//! [`FRONT_BYTES`] at the front, as many at the end, and one sector of a compound
//! file are looked at, whatever the file claims. What is not read is named for
//! what it is, with the way out ([`Foreign`]). Not here: whether a file that looks
//! right can be read.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read, Seek, SeekFrom},
};

use encoding_rs::{UTF_16BE, UTF_16LE};

/// Bytes at the front, and at the end, that are looked at: the first entries of an
/// archive, and the directory at its end unless it has many hundred of them.
pub const FRONT_BYTES: usize = 64 * 1024;
/// Bytes of a compound file's directory that are looked at: 128 entries, where a
/// workbook has some ten.
const DIRECTORY_BYTES: u64 = 16 * 1024;
/// Comments in front of a dump's first statement that are skipped.
const SQL_COMMENTS_MAX: usize = 1000;

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text with separators, or something that only its reader can judge.
    Text,
    /// JSON: an array, an object, or lines.
    Json,
    /// A workbook: `.xlsx`, `.xlsm`, `.xlsb`, `.xls`, `.ods`.
    Workbook,
    /// A gzip.
    Gzip,
    /// A ZIP archive.
    Zip,
    /// Nothing that is read.
    Foreign(Foreign),
}

/// Files that are delivered by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A web page, which many systems name `.xls`.
    Html,
    /// XML, which Excel 2003 and some systems name `.xls`.
    Xml,
    /// A workbook that only its password opens.
    LockedWorkbook,
    /// A document of Word or WPS.
    Document,
    /// Slides.
    Slides,
    /// Rich text.
    Rtf,
    /// A PDF or OFD document.
    Pdf,
    /// A picture.
    Picture,
    /// Statements of SQL.
    Sql,
    /// A database's file.
    Database,
    /// An archive of another kind than ZIP and gzip.
    Archive,
    /// A message of electronic mail, or a web page stored as one.
    Mail,
    /// What git stores in place of a large file.
    LfsPointer,
    /// UTF-32, which nothing writes on purpose.
    Utf32,
    /// A program.
    Program,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::Html => {
                "这是网页（有些系统把它导出为 .xls），请用 Excel 或 WPS 打开后另存为 .xlsx，或从原系统导出 CSV / \
                 this is a web page (some systems export it as .xls): open it in Excel and save it as .xlsx, or export CSV from its system"
            }
            Foreign::Xml => {
                "这是 XML 文件（有些系统把它导出为 .xls），请用 Excel 或 WPS 打开后另存为 .xlsx，或从原系统导出 CSV 或 JSON / \
                 this is XML (some systems export it as .xls): open it in Excel and save it as .xlsx, or export CSV or JSON from its system"
            }
            Foreign::LockedWorkbook => {
                "这是设有密码的工作簿，请在 Excel 或 WPS 中去掉打开密码，另存后重新交付 / \
                 this workbook is protected by a password: remove it in Excel, save the file and deliver it again"
            }
            Foreign::Document => {
                "这是 Word 文档，请把其中的表格复制到 Excel 或 WPS 表格，保存为 .xlsx，或从原系统导出 CSV / \
                 this is a Word document: copy its table into Excel and save it as .xlsx, or export CSV from the system it came from"
            }
            Foreign::Slides => {
                "这是演示文稿，请从原系统导出 CSV 或 .xlsx / \
                 these are slides: export CSV or .xlsx from the system the data came from"
            }
            Foreign::Rtf => {
                "这是 RTF 文档，请把其中的表格复制到 Excel 或 WPS 表格，保存为 .xlsx / \
                 this is an RTF document: copy its table into Excel and save it as .xlsx"
            }
            Foreign::Pdf => {
                "这是 PDF 或 OFD 版式文档，请从原系统导出 CSV 或 .xlsx / \
                 this is a PDF or OFD document: export CSV or .xlsx from the system it came from"
            }
            Foreign::Picture => {
                "这是图片，请从原系统导出 CSV 或 .xlsx / \
                 this is a picture: export CSV or .xlsx from the system it came from"
            }
            Foreign::Sql => {
                "这是 SQL 脚本，请把表导出为 CSV（例如 Navicat 的“导出向导”或 mysql --batch），而不是 INSERT 语句 / \
                 this is an SQL dump: export the table as CSV instead of INSERT statements"
            }
            Foreign::Database => {
                "这是数据库文件（Access、SQLite、dBASE 等），请把表导出为 CSV 或 .xlsx / \
                 this is a database file (Access, SQLite, dBASE): export the table as CSV or .xlsx"
            }
            Foreign::Archive => {
                "这种压缩格式（RAR、7z、tar、xz 等）不受支持，请解压后交付，或改用 ZIP / \
                 archives of this kind (RAR, 7z, tar, xz) are not read: unpack it and deliver the files, or pack them as ZIP"
            }
            Foreign::Mail => {
                "这是邮件或单文件网页（MHTML），请用 Excel 或 WPS 打开后另存为 .xlsx，或交付邮件的附件 / \
                 this is a mail or a web page in one file (MHTML): open it in Excel and save it as .xlsx, or deliver the mail's attachment"
            }
            Foreign::LfsPointer => {
                "这只是 git-lfs 的指针，不是文件内容，请先执行 git lfs pull / \
                 this is a pointer of git-lfs and not the file: run 'git lfs pull' first"
            }
            Foreign::Utf32 => {
                "文件编码为 UTF-32，请另存为 UTF-8 / this is UTF-32: save it as UTF-8"
            }
            Foreign::Program => {
                "这是可执行程序，不是数据文件，请检查是否选错了文件 / \
                 this is a program and no data: look whether the right file was chosen"
            }
        })
    }
}

/// What a file is that is open.
pub fn kind_of_file(file: &mut (impl Read + Seek), name: &str) -> io::Result<Kind> {
    file.seek(SeekFrom::Start(0))?;
    let mut front = Vec::new();
    file.take(FRONT_BYTES as u64).read_to_end(&mut front)?;
    let kind = kind_of(&front, name);
    let is_office = front.starts_with(ZIP) && kind == Kind::Workbook;
    if is_office && !is_workbook_part(&front) {
        // Which of the office formats stands in the directory at the end.
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(FRONT_BYTES as u64)))?;
        let mut end = Vec::new();
        file.take(FRONT_BYTES as u64).read_to_end(&mut end)?;
        return Ok(if is_workbook_part(&end) { kind } else { office_part(&end).unwrap_or(kind) });
    }
    if front.starts_with(COMPOUND) {
        return compound(&front, file);
    }
    Ok(kind)
}

/// What a file is whose first bytes are `front`.
pub fn kind_of(front: &[u8], name: &str) -> Kind {
    if front.starts_with(ZIP) {
        return zip(front);
    }
    if front.starts_with(COMPOUND) {
        return Kind::Workbook;
    }
    if front.starts_with(b"\x1f\x8b") {
        return Kind::Gzip;
    }
    if front.starts_with(b"PK\x05\x06") {
        // An archive with nothing in it.
        return Kind::Zip;
    }
    if let Some(foreign) = magic(front) {
        return Kind::Foreign(foreign);
    }
    text(&as_text(front), name)
}

const ZIP: &[u8] = b"PK\x03\x04";
/// Microsoft's compound files: the older office formats, and encrypted new ones.
const COMPOUND: &[u8] = b"\xd0\xcf\x11\xe0";

fn magic(front: &[u8]) -> Option<Foreign> {
    let kinds: [(usize, &[u8], Foreign); 29] = [
        (0, b"%PDF", Foreign::Pdf),
        (0, b"{\\rtf", Foreign::Rtf),
        (0, b"Rar!\x1a", Foreign::Archive),
        (0, b"7z\xbc\xaf\x27\x1c", Foreign::Archive),
        (0, b"\x28\xb5\x2f\xfd", Foreign::Archive),
        (0, b"\xfd7zXZ\0", Foreign::Archive),
        (0, b"BZh", Foreign::Archive),
        (0, b"MSCF\0", Foreign::Archive),
        (257, b"ustar", Foreign::Archive),
        (0, b"\x89PNG", Foreign::Picture),
        (0, b"\xff\xd8\xff", Foreign::Picture),
        (0, b"GIF8", Foreign::Picture),
        (0, b"II*\0", Foreign::Picture),
        (0, b"MM\0*", Foreign::Picture),
        (8, b"WEBP", Foreign::Picture),
        (4, b"ftypheic", Foreign::Picture),
        (6, b"\0\0\0\0", Foreign::Picture),
        (0, b"SQLite format 3\0", Foreign::Database),
        (4, b"Standard Jet DB", Foreign::Database),
        (4, b"Standard ACE DB", Foreign::Database),
        (0, b"PGDMP", Foreign::Database),
        (0, b"\xff\xfe\0\0", Foreign::Utf32),
        (0, b"\0\0\xfe\xff", Foreign::Utf32),
        (0, b"\x7fELF", Foreign::Program),
        (0, b"MZ\x90\0", Foreign::Program),
        (0, b"MIME-Version:", Foreign::Mail),
        (0, b"Received: ", Foreign::Mail),
        (0, b"Return-Path: ", Foreign::Mail),
        (0, b"version https://git-lfs.github.com/spec/", Foreign::LfsPointer),
    ];
    let found = kinds.iter().find(|(at, bytes, foreign)| {
        let there = front.get(*at..).is_some_and(|rest| rest.starts_with(bytes));
        // Zeros alone say nothing: a bitmap has them at that place.
        there && (*at != 6 || *foreign != Foreign::Picture || front.starts_with(b"BM"))
    });
    found.map(|(_, _, foreign)| *foreign).or_else(|| is_dbase(front).then_some(Foreign::Database))
}

/// dBASE and its descendants have no magic number, but a header that fits.
fn is_dbase(front: &[u8]) -> bool {
    let Some((header, _)) = front.split_at_checked(32) else {
        return false;
    };
    let length = usize::from(u16::from_le_bytes([header[8], header[9]]));
    [0x03, 0x04, 0x30, 0x31, 0x32, 0x43, 0x83, 0x8b, 0xcb, 0xf5].contains(&header[0])
        && (1..=12).contains(&header[2])
        && (1..=31).contains(&header[3])
        && length >= 65
        && front.get(length - 1).or(front.get(length.saturating_sub(264))) == Some(&0x0d)
}

/// Office files are archives, too: by their first entry, or by their parts.
fn zip(front: &[u8]) -> Kind {
    let name_bytes = front.get(26..28).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]));
    let extra_bytes = front.get(28..30).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]));
    let rest = front.get(30..).unwrap_or_default();
    let (name, rest) = rest.split_at_checked(name_bytes.into()).unwrap_or((rest, &[]));
    let content = rest.get(usize::from(extra_bytes)..).unwrap_or_default();
    if name == b"mimetype" {
        let is = |kind: &str| content.starts_with(kind.as_bytes());
        return if is("application/vnd.oasis.opendocument.spreadsheet") {
            Kind::Workbook
        } else if is("application/vnd.oasis.opendocument.presentation") {
            Kind::Foreign(Foreign::Slides)
        } else {
            Kind::Foreign(Foreign::Document)
        };
    }
    if name == b"OFD.xml" {
        return Kind::Foreign(Foreign::Pdf);
    }
    let parts: [&[u8]; 6] =
        [b"[Content_Types].xml", b"xl/", b"_rels/", b"docProps/", b"word/", b"ppt/"];
    if !parts.iter().any(|part| name.starts_with(part)) {
        return Kind::Zip;
    }
    if is_workbook_part(front) {
        Kind::Workbook
    } else {
        office_part(front).unwrap_or(Kind::Workbook)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn is_workbook_part(bytes: &[u8]) -> bool {
    contains(bytes, b"xl/workbook.")
}

fn office_part(bytes: &[u8]) -> Option<Kind> {
    if contains(bytes, b"word/document") {
        return Some(Kind::Foreign(Foreign::Document));
    }
    contains(bytes, b"ppt/presentation").then_some(Kind::Foreign(Foreign::Slides))
}

/// Which office program's file it is: the names of its streams, in the directory.
fn compound(front: &[u8], file: &mut (impl Read + Seek)) -> io::Result<Kind> {
    let (Some(shift), Some(first)) = (front.get(30..32), front.get(48..52)) else {
        return Ok(Kind::Workbook);
    };
    let shift = u32::from(u16::from_le_bytes([shift[0], shift[1]]).clamp(9, 12));
    let first = u64::from(u32::from_le_bytes([first[0], first[1], first[2], first[3]]));
    file.seek(SeekFrom::Start((first + 1) << shift))?;
    let mut directory = Vec::new();
    file.take(DIRECTORY_BYTES).read_to_end(&mut directory)?;
    let has = |name: &str| {
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        contains(&directory, &units)
    };
    Ok(if has("EncryptedPackage") {
        Kind::Foreign(Foreign::LockedWorkbook)
    } else if has("WordDocument") {
        Kind::Foreign(Foreign::Document)
    } else if has("PowerPoint Document") {
        Kind::Foreign(Foreign::Slides)
    } else if has("__properties_version") {
        Kind::Foreign(Foreign::Mail)
    } else {
        Kind::Workbook
    })
}

/// The front as text, as far as telling markup from JSON asks for.
fn as_text(front: &[u8]) -> Cow<'_, str> {
    let decoded = match front {
        [0xff, 0xfe, rest @ ..] => UTF_16LE.decode_without_bom_handling(rest).0,
        [0xfe, 0xff, rest @ ..] => UTF_16BE.decode_without_bom_handling(rest).0,
        [b'{' | b'[' | b'<', 0, ..] => UTF_16LE.decode_without_bom_handling(front).0,
        [0, b'{' | b'[' | b'<', ..] => UTF_16BE.decode_without_bom_handling(front).0,
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        _ => String::from_utf8_lossy(front),
    };
    match decoded.trim_start().len() {
        length if length == decoded.len() => decoded,
        length => Cow::Owned(decoded[decoded.len() - length..].to_owned()),
    }
}

fn text(text: &str, name: &str) -> Kind {
    let begins = |words: &[&str]| {
        words.iter().any(|word| {
            text.get(..word.len()).is_some_and(|front| front.eq_ignore_ascii_case(word))
        })
    };
    if begins(&["<!doctype html", "<html", "<table", "<meta", "<head", "<body", "<div", "<style"]) {
        return Kind::Foreign(Foreign::Html);
    }
    if begins(&["<?xml", "<workbook", "<!--"]) {
        let is_page = text.get(..text.floor_char_boundary(1024)).unwrap_or(text);
        let is_page = is_page.to_ascii_lowercase().contains("<html");
        return Kind::Foreign(if is_page { Foreign::Html } else { Foreign::Xml });
    }
    if is_json(text, name) {
        return Kind::Json;
    }
    if is_sql(text) {
        return Kind::Foreign(Foreign::Sql);
    }
    Kind::Text
}

/// An object or an array, by its first two marks; a header may begin with one.
fn is_json(text: &str, name: &str) -> bool {
    let mut marks = text.chars().filter(|character| !character.is_whitespace());
    let named = [".json", ".jsonl", ".ndjson", ".geojson"]
        .iter()
        .any(|ending| name.to_ascii_lowercase().trim_end_matches(".gz").ends_with(ending));
    match (marks.next(), marks.next()) {
        (Some('{'), Some('"' | '}')) | (Some('['), Some('{' | ']' | '[')) => true,
        (Some('{' | '['), _) => named,
        _ => false,
    }
}

/// Statements, below comments.
fn is_sql(mut text: &str) -> bool {
    for _ in 0..SQL_COMMENTS_MAX {
        text = text.trim_start();
        let rest = if text.starts_with("--") || text.starts_with('#') {
            text.split_once('\n')
        } else if text.starts_with("/*") && !text.starts_with("/*!") {
            text.split_once("*/")
        } else {
            break;
        };
        match rest {
            Some((_, rest)) => text = rest,
            None => return false,
        }
    }
    let end = |word: &str| word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words: Vec<String> = text
        .split_whitespace()
        .take(2)
        .map(|word| word[..end(word).unwrap_or(word.len())].to_ascii_uppercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    text.starts_with("/*!4")
        || text.starts_with("/*!5")
        || matches!(
            words.as_slice(),
            ["INSERT" | "REPLACE", "INTO" | "IGNORE"]
                | ["CREATE", "TABLE" | "DATABASE" | "SCHEMA" | "TEMPORARY" | "SEQUENCE"]
                | ["DROP", "TABLE" | "DATABASE" | "SCHEMA"]
                | ["ALTER", "TABLE" | "SESSION"]
                | ["LOCK", "TABLES"]
                | ["SET", "NAMES" | "FOREIGN_KEY_CHECKS" | "STATEMENT_TIMEOUT" | "DEFINE"]
                | ["SET", "IDENTITY_INSERT" | "ANSI_NULLS" | "CLIENT_ENCODING"]
                | ["START" | "BEGIN", "TRANSACTION"]
                | ["DELETE" | "TRUNCATE", "FROM" | "TABLE"]
        )
}

#[cfg(test)]
mod tests;
