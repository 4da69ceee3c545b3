//! The real registrations of a city and its twelve districts and counties: 13
//! processes, each with its own file. The data is not part of the project;
//! where it is missing the test says so and passes.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::PathBuf,
};

use encoding_rs::GB18030;
use harness::{
    federation::{Federation, HUB},
    node::{Node, workspace},
    table::{ENTERPRISE_FIELDS, ENTERPRISE_TITLES, Table},
};
use serde_json::Value as Json;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{
    cli::stopped_hub,
    formats::{archive, array, gzip, lines, xlsx},
};

/// Where the files are, beside the source tree.
const DATA: &str = "../shared/data/zhengzhou_by_county";

fn data() -> Option<Vec<(String, PathBuf)>> {
    let mut files: Vec<(String, PathBuf)> = std::fs::read_dir(workspace().join(DATA))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    files.sort();
    Some(files)
}

/// The next month's delivery: every 40th row gone, every 15th changed, and some
/// that were not there before.
fn next_delivery(owner: u32, table: &Table) -> (Table, [u64; 4]) {
    let mut next = Table::default();
    let (mut deleted, mut updated, mut unchanged) = (0, 0, 0);
    for (index, row) in table.0.values().enumerate() {
        if index % 40 == 7 {
            deleted += 1;
            continue;
        }
        let mut row = row.clone();
        if index % 15 == 3 {
            row[0].push_str("（更名）");
            row[8].insert_str(0, "迁至");
            updated += 1;
        } else {
            unchanged += 1;
        }
        next.put(row);
    }
    let added = Table::synthetic(owner, 0..25, "新设");
    next.put_all(&added);
    (next, [25, updated, deleted, unchanged])
}

#[track_caller]
fn assert_same(federation: &Federation, node: &Node, expected: &Table) {
    let name = node.own("enterprise");
    let own = node.partition(&name).unwrap();
    let copy = federation.hub.partition(&name).unwrap();
    for field in ["seq", "head", "root", "records"] {
        assert_eq!(own[field], copy[field], "{name}: {field}");
    }
    assert_eq!(own["records"], expected.len());
    let export = Table::parse(&federation.hub.export(&name));
    assert_eq!(export.len(), expected.len());
    for (code, row) in &expected.0 {
        assert_eq!(export.0.get(code), Some(row), "{name}: {code}");
    }
}

#[test]
fn a_city_and_its_counties_deliver_real_registrations() {
    let Some(files) = data() else {
        println!("SKIPPED: {DATA} is not there");
        return;
    };
    assert_eq!(files.len(), 13);
    let counties: Vec<&str> =
        files.iter().map(|(name, _)| name.as_str()).filter(|name| *name != HUB).collect();
    let federation = Federation::new(&counties);
    let node_of = |name: &str| federation.nodes().find(|node| node.name() == name).unwrap();

    let mut tables = Vec::new();
    let mut rows = 0;
    for (name, path) in &files {
        let table = Table::read(path);
        let report = node_of(name).import("enterprise", path);
        let count = |field: &str| report[field].as_u64().unwrap();
        let accepted = count("inserted") + count("updated") + count("unchanged");
        assert_eq!(accepted + count("rejected") + count("duplicates"), count("rows"));
        assert_eq!(count("inserted") as usize, table.len(), "{report:#}");
        rows += count("rows");
        tables.push((name.clone(), table));
    }
    assert_eq!(rows, 10_689);
    federation.wait_converged();
    for (name, table) in &tables {
        assert_same(&federation, node_of(name), table);
    }

    for (owner, (name, table)) in tables.iter_mut().enumerate() {
        let (next, expected) = next_delivery(u32::try_from(owner).unwrap(), table);
        let file = next.write(federation.dir(), &format!("{name}-next.csv"));
        let report = node_of(name).import_full("enterprise", &file);
        let done = ["inserted", "updated", "deleted", "unchanged"];
        assert_eq!(done.map(|field| report[field].as_u64().unwrap()), expected, "{name}");
        assert_eq!((&report["rejected"], &report["held"]), (&Json::from(0), &Json::Null));
        *table = next;
    }
    federation.wait_converged();
    for (name, table) in &tables {
        assert_same(&federation, node_of(name), table);
    }
    federation.finish();
}

/// A workbook of LibreOffice as small as it can be.
fn ods(table: &Table) -> Vec<u8> {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let cell = |text: &str| {
            format!(
                "<table:table-cell office:value-type=\"string\"><text:p>{}</text:p></table:table-cell>",
                escaped(text)
            )
        };
        format!("<table:table-row>{}</table:table-row>", cells.map(cell).collect::<String>())
    };
    let mut rows = row(&mut ENTERPRISE_TITLES.into_iter());
    for values in table.0.values() {
        rows.push_str(&row(&mut values.iter().map(String::as_str)));
    }
    let content = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><office:document-content \
         xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\" \
         xmlns:text=\"urn:oasis:names:tc:opendocument:xmlns:text:1.0\" \
         xmlns:table=\"urn:oasis:names:tc:opendocument:xmlns:table:1.0\"><office:body>\
         <office:spreadsheet><table:table table:name=\"企业\">{rows}</table:table>\
         </office:spreadsheet></office:body></office:document-content>"
    );
    let manifest = "<?xml version=\"1.0\"?><manifest:manifest \
         xmlns:manifest=\"urn:oasis:names:tc:opendocument:xmlns:manifest:1.0\"/>";
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // Its kind stands in front, as it is.
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("mimetype", stored).unwrap();
    zip.write_all(b"application/vnd.oasis.opendocument.spreadsheet").unwrap();
    for (name, text) in [("META-INF/manifest.xml", manifest), ("content.xml", &content)] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Every file comes in once as it is; in every other encoding and format it then
/// has to be the same in every field, or rows would be updated or new.
#[test]
fn the_real_files_are_the_same_in_every_encoding_and_format() {
    let Some(files) = data() else {
        println!("SKIPPED: {DATA} is not there");
        return;
    };
    let (_dir, hub) = stopped_hub();
    let file = |name: &str, content: &[u8]| {
        let path = hub.dir().with_file_name(name);
        fs::write(&path, content).unwrap();
        path
    };
    for (name, path) in &files {
        let table = Table::read(path);
        let text = fs::read_to_string(path).unwrap();
        let text = text.trim_start_matches('\u{feff}');
        let report = hub.import("enterprise", path);
        assert_eq!((&report["rejected"], &report["held"]), (&0.into(), &Json::Null), "{name}");
        // Field names instead of titles: nothing but the rows tells the encoding.
        let (header, rows) = text.split_once('\n').unwrap();
        let plain = format!("{}\n{rows}", ENTERPRISE_FIELDS.join(","));
        let utf16 = |text: &str, order: fn(u16) -> [u8; 2]| {
            text.encode_utf16().flat_map(order).collect::<Vec<u8>>()
        };
        let semicolons = {
            let mut out = csv::WriterBuilder::new().delimiter(b';').from_writer(Vec::new());
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            out.write_record(reader.headers().unwrap()).unwrap();
            reader.records().for_each(|row| out.write_record(&row.unwrap()).unwrap());
            out.into_inner().unwrap()
        };
        let csv = text.as_bytes();
        assert!(header.contains("统一社会信用代码"), "{header}");
        for (form, content) in [
            ("bom.csv", format!("\u{feff}{text}").into_bytes()),
            ("gbk.csv", GB18030.encode(text).0.into_owned()),
            ("plain-gbk.csv", GB18030.encode(&plain).0.into_owned()),
            ("utf-16le.csv", utf16(&format!("\u{feff}{text}"), u16::to_le_bytes)),
            ("utf-16be.csv", utf16(text, u16::to_be_bytes)),
            ("semicolons.csv", semicolons),
            ("book.xlsx", xlsx(&table)),
            ("book.ods", ods(&table)),
            ("rows.json", array(&table)),
            ("rows.jsonl", lines(&table)),
            ("rows.csv.gz", gzip(csv)),
            ("rows.zip", archive(&[("名单.csv", csv)])),
            ("book.zip", archive(&[("名单.xlsx", &xlsx(&table))])),
        ] {
            let report = hub.import("enterprise", &file(&format!("{name}-{form}"), &content));
            let changed = ["inserted", "updated", "deleted", "rejected", "change_sets"];
            let changed = changed.map(|count| report[count].as_u64().unwrap());
            assert_eq!(changed, [0; 5], "{name} {form}: {report:#}");
            assert_eq!(report["unchanged"], table.len(), "{name} {form}: {report:#}");
        }
    }
}
