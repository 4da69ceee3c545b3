//! What files are, by their first bytes and directories.

use std::io::Cursor;

use super::*;

fn kind(bytes: &[u8]) -> Kind {
    kind_of(bytes, "file.csv")
}

#[test]
fn what_is_not_read_is_named_for_what_it_is() {
    let utf16 = |text: &str| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let cases: Vec<(Vec<u8>, Foreign)> = vec![
        (b"<html><body><table>".to_vec(), Foreign::Html),
        (b"\xef\xbb\xbf\r\n <TABLE border=1>".to_vec(), Foreign::Html),
        (b"<?xml version=\"1.0\"?>\n<!DOCTYPE x><html xmlns=\"\">".to_vec(), Foreign::Html),
        (
            b"<?xml version=\"1.0\"?><?mso-application progid=\"Excel.Sheet\"?>".to_vec(),
            Foreign::Xml,
        ),
        (utf16("<html>"), Foreign::Html),
        (b"%PDF-1.7".to_vec(), Foreign::Pdf),
        (b"{\\rtf1\\ansi".to_vec(), Foreign::Rtf),
        (b"INSERT INTO `t` (`\xe4\xbb\xa3`) VALUES ('1')".to_vec(), Foreign::Sql),
        (b"-- MySQL dump 10.13\n--\n\n/*!40101 SET NAMES utf8 */;".to_vec(), Foreign::Sql),
        (
            b"/*\n Navicat\n*/\n\nSET NAMES utf8mb4;\nSET FOREIGN_KEY_CHECKS = 0;".to_vec(),
            Foreign::Sql,
        ),
        (utf16("create table t (a int)"), Foreign::Sql),
        (b"Rar!\x1a\x07\x01\0".to_vec(), Foreign::Archive),
        (b"\x89PNG\r\n".to_vec(), Foreign::Picture),
        (b"BM\x10\0\0\0\0\0\0\0\x36".to_vec(), Foreign::Picture),
        (b"SQLite format 3\0".to_vec(), Foreign::Database),
        (b"\0\x01\0\0Standard ACE DB\0".to_vec(), Foreign::Database),
        (b"MIME-Version: 1.0\r\n".to_vec(), Foreign::Mail),
        (b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), Foreign::LfsPointer),
        ([vec![0; 257], b"ustar\0".to_vec()].concat(), Foreign::Archive),
    ];
    for (bytes, foreign) in cases {
        assert_eq!(kind(&bytes), Kind::Foreign(foreign), "{:?}", String::from_utf8_lossy(&bytes));
        assert!(foreign.to_string().contains(" / "), "{foreign:?} in one language only");
    }
    let mut dbase = vec![0; 97];
    dbase[..4].copy_from_slice(&[3, 124, 5, 6]);
    dbase[8] = 97;
    dbase[96] = 0x0d;
    assert_eq!(kind(&dbase), Kind::Foreign(Foreign::Database));
}

#[test]
fn text_stays_text() {
    for text in [
        "uscc,name\n1,2\n",
        "",
        "   \n",
        "-- 说明\nuscc,name\n",
        "insert,into\n1,2\n",
        "[序号],名称\n",
        "{代码},名称\n",
        "set,names\n",
        "BM,name\n1,2",
        "\u{3}\u{c}",
    ] {
        assert_eq!(kind(text.as_bytes()), Kind::Text, "{text:?}");
    }
    assert_eq!(kind(&[0; 4096]), Kind::Text);
    assert_eq!(kind(b"\xc3\xfb\xb3\xc6,\xb4\xfa\xc2\xeb\r\n"), Kind::Text);
}

#[test]
fn json_is_told_by_its_first_marks() {
    for text in ["[{\"a\":1}]", " \n[ ]", "{\"a\":1}\n{\"a\":2}\n", "\u{feff}{}"] {
        assert_eq!(kind(text.as_bytes()), Kind::Json, "{text:?}");
    }
    let utf16: Vec<u8> = "[{".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(kind(&utf16), Kind::Json);
    assert_eq!(kind_of(b"{a: 1}", "x.JSON"), Kind::Json);
}

/// An archive of these entries, stored, each with its name as content too.
fn archive(names: &[&str]) -> Vec<u8> {
    use std::io::Write as _;

    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for name in names {
        zip.start_file(*name, stored).unwrap();
        if *name == "mimetype" {
            zip.write_all(b"application/vnd.oasis.opendocument.spreadsheet").unwrap();
        } else {
            zip.write_all(&vec![b'x'; 40_000]).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn office_files_are_told_from_archives_by_their_parts() {
    let of = |names: &[&str]| kind_of_file(&mut Cursor::new(archive(names)), "x").unwrap();
    // The part that tells lies beyond the front.
    assert_eq!(of(&["[Content_Types].xml", "_rels/.rels", "xl/workbook.xml"]), Kind::Workbook);
    assert_eq!(of(&["[Content_Types].xml", "_rels/.rels", "xl/workbook.bin"]), Kind::Workbook);
    assert_eq!(
        of(&["[Content_Types].xml", "_rels/.rels", "a", "word/document.xml"]),
        Kind::Foreign(Foreign::Document)
    );
    assert_eq!(
        of(&["[Content_Types].xml", "ppt/presentation.xml"]),
        Kind::Foreign(Foreign::Slides)
    );
    assert_eq!(of(&["mimetype", "content.xml"]), Kind::Workbook);
    assert_eq!(of(&["OFD.xml"]), Kind::Foreign(Foreign::Pdf));
    assert_eq!(of(&["2024.csv"]), Kind::Zip);
    assert_eq!(of(&["企业.csv", "xl/workbook.xml"]), Kind::Zip);
    assert_eq!(of(&[]), Kind::Zip);
}

/// A compound file whose directory names these streams.
fn compound_of(streams: &[&str]) -> Vec<u8> {
    let mut file = vec![0; 512 * 4];
    file[..8].copy_from_slice(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1");
    file[30] = 9;
    file[48] = 2;
    for (at, name) in streams.iter().enumerate() {
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let at = 512 * 3 + at * 128;
        file[at..at + units.len()].copy_from_slice(&units);
    }
    file
}

#[test]
fn compound_files_are_told_by_their_streams() {
    let of =
        |streams: &[&str]| kind_of_file(&mut Cursor::new(compound_of(streams)), "x.xls").unwrap();
    assert_eq!(of(&["Root Entry", "Workbook"]), Kind::Workbook);
    assert_eq!(of(&["Root Entry", "Book"]), Kind::Workbook);
    assert_eq!(of(&["EncryptionInfo", "EncryptedPackage"]), Kind::Foreign(Foreign::LockedWorkbook));
    assert_eq!(of(&["Root Entry", "WordDocument"]), Kind::Foreign(Foreign::Document));
    // Cut behind the magic number, or leading nowhere.
    assert_eq!(kind_of_file(&mut Cursor::new(b"\xd0\xcf\x11\xe0"), "x").unwrap(), Kind::Workbook);
    let mut far = compound_of(&[]);
    far[48..52].copy_from_slice(&[0xff; 4]);
    assert_eq!(kind_of_file(&mut Cursor::new(far), "x").unwrap(), Kind::Workbook);
}
