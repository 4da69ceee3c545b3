//! Workbooks that nothing in Rust writes, made by hand, with as little as a reader
//! asks for.

use std::io::{Cursor, Write as _};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// An archive of these parts.
pub fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        let method = match *name {
            "mimetype" => CompressionMethod::Stored,
            _ => CompressionMethod::Deflated,
        };
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An OpenDocument workbook of these tables.
pub fn ods(tables: &str) -> Vec<u8> {
    let content = format!(
        "<?xml version=\"1.0\"?><office:document-content xmlns:office=\"o\" xmlns:table=\"t\" xmlns:text=\"x\" xmlns:calcext=\"c\">\
         <office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body></office:document-content>"
    );
    archive(&[
        ("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"),
        (
            "META-INF/manifest.xml",
            b"<?xml version=\"1.0\"?><manifest:manifest xmlns:manifest=\"m\"/>",
        ),
        ("content.xml", content.as_bytes()),
    ])
}

/// A record of a binary workbook: kinds above 127 take two bytes.
fn record(out: &mut Vec<u8>, kind: u16, content: &[u8]) {
    if kind < 128 {
        out.push(kind as u8);
    } else {
        out.extend([kind as u8 & 0x7f | 0x80, (kind >> 7) as u8]);
    }
    assert!(content.len() < 128, "one byte of length");
    out.push(content.len() as u8);
    out.extend(content);
}

fn wide(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut out = (units.len() as u32).to_le_bytes().to_vec();
    out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    out
}

/// A binary workbook of one sheet: a header, and two rows of a text and a number.
pub fn xlsb() -> Vec<u8> {
    let mut book = Vec::new();
    record(&mut book, 0x83, &[]);
    record(&mut book, 0x8f, &[]);
    let sheet = [&[0; 4][..], &1u32.to_le_bytes(), &wide("rId1"), &wide("名单")].concat();
    record(&mut book, 0x9c, &sheet);
    record(&mut book, 0x90, &[]);
    record(&mut book, 0x84, &[]);
    let mut sheet = Vec::new();
    record(&mut sheet, 0x81, &[]);
    let dimension: Vec<u8> = [0u32, 3, 0, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    record(&mut sheet, 0x94, &dimension);
    record(&mut sheet, 0x91, &[]);
    let cell = |column: u32| [&column.to_le_bytes()[..], &[0; 4]].concat();
    let row = |out: &mut Vec<u8>, row: u32| {
        record(out, 0, &[&row.to_le_bytes()[..], &[0; 13]].concat());
    };
    let text = |out: &mut Vec<u8>, column: u32, text: &str| {
        record(out, 6, &[cell(column), wide(text)].concat());
    };
    let number = |out: &mut Vec<u8>, column: u32, number: f64| {
        record(out, 5, &[cell(column), number.to_le_bytes().to_vec()].concat());
    };
    row(&mut sheet, 0);
    text(&mut sheet, 0, "代码");
    text(&mut sheet, 1, "数");
    row(&mut sheet, 1);
    text(&mut sheet, 0, "甲");
    number(&mut sheet, 1, 5245.0);
    row(&mut sheet, 3);
    text(&mut sheet, 0, "乙");
    number(&mut sheet, 1, 0.5);
    record(&mut sheet, 0x92, &[]);
    record(&mut sheet, 0x82, &[]);
    archive(&[
        ("[Content_Types].xml", b"<Types/>"),
        ("xl/workbook.bin", &book),
        (
            "xl/_rels/workbook.bin.rels",
            b"<?xml version=\"1.0\"?><Relationships><Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" Target=\"worksheets/sheet1.bin\"/></Relationships>",
        ),
        ("xl/worksheets/sheet1.bin", &sheet),
    ])
}

/// A workbook of one sheet with this XML, and of these texts.
pub fn xlsx_of(sheet: &str, texts: &str) -> Vec<u8> {
    archive(&[
        ("[Content_Types].xml", b"<?xml version=\"1.0\"?><Types/>"),
        (
            "_rels/.rels",
            b"<?xml version=\"1.0\"?><Relationships><Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>",
        ),
        (
            "xl/workbook.xml",
            b"<?xml version=\"1.0\"?><workbook xmlns:r=\"r\"><sheets><sheet name=\"a\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>",
        ),
        (
            "xl/_rels/workbook.xml.rels",
            b"<?xml version=\"1.0\"?><Relationships><Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" Target=\"worksheets/sheet1.xml\"/></Relationships>",
        ),
        ("xl/sharedStrings.xml", texts.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}
