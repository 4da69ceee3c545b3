//! Any well-formed table comes out as an independent reader reads it, and whatever
//! is done to one row costs that row.

use encoding_rs::GB18030;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{cases::Letters, *};

/// One import takes some ten milliseconds.
const CASES: u32 = 200;

/// Rows of a key and two texts.
type Rows = Vec<[String; 3]>;

/// Texts as people write them, and worse: separators, quotes, line breaks, blanks
/// at the edges, hanzi of every kind, accents, four-byte characters.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[甲乙丙丁市县公司有限郑州]{1,6}",
        2 => "[a-zA-Z0-9 .%/_-]{1,8}",
        1 => Just("\"".to_owned()),
        1 => Just(",".to_owned()),
        1 => Just(";".to_owned()),
        1 => Just("\t".to_owned()),
        1 => Just("|".to_owned()),
        1 => Just("，".to_owned()),
        1 => Just("\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        1 => Just("\\".to_owned()),
        1 => "[亅郳縷漒鑫喆éñ·（）—😀𠮷]{1,2}",
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn table() -> impl Strategy<Value = Rows> {
    let row = (text(), text());
    prop::collection::vec(row, 1..20).prop_map(|rows| {
        let keyed = |(number, (name, note)): (usize, (String, String))| {
            [format!("K{number:03}"), name, note]
        };
        rows.into_iter().enumerate().map(keyed).collect()
    })
}

/// How a table is written down.
#[derive(Debug, Clone)]
struct Writing {
    separator: char,
    quoted: bool,
    end: &'static str,
    title: bool,
    encoding: &'static str,
}

fn writing() -> impl Strategy<Value = Writing> {
    (
        prop::sample::select(vec![',', ';', '\t', '|', '^', '~', '，', '；']),
        any::<bool>(),
        prop::sample::select(vec!["\n", "\r\n"]),
        any::<bool>(),
        prop::sample::select(vec!["utf-8", "bom", "gb18030", "utf-16le", "utf-16be"]),
    )
        .prop_map(|(separator, quoted, end, title, encoding)| Writing {
            separator,
            quoted,
            end,
            title,
            encoding,
        })
}

/// A table as text, by the rules of RFC 4180.
fn write(rows: &Rows, how: &Writing) -> String {
    let cell = |text: &str| {
        let needs = text.contains(['"', '\n', '\r', how.separator]);
        // Blanks beside a quote belong to the writing, and not to the value.
        if needs || how.quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
    };
    let line = |cells: &[&str]| {
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        cells.join(&how.separator.to_string()) + how.end
    };
    let mut out = if how.title { format!("某市名单{}", how.end) } else { String::new() };
    out.push_str(&line(&["代码", "名称", "备注"]));
    for row in rows {
        out.push_str(&line(&row.each_ref().map(String::as_str)));
    }
    out
}

fn encode(text: &str, how: &Writing) -> Vec<u8> {
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{feff}{text}").encode_utf16().flat_map(order).collect()
    };
    match how.encoding {
        "utf-8" => text.as_bytes().to_vec(),
        "bom" => format!("\u{feff}{text}").into_bytes(),
        "gb18030" => GB18030.encode(text).0.into_owned(),
        "utf-16le" => utf16(u16::to_le_bytes),
        _ => utf16(u16::to_be_bytes),
    }
}

/// A value with a line that by itself is a row is not believed, by the rules: no
/// table here has one, so no line of a value has a separator.
fn believable(rows: &mut Rows, how: &Writing) {
    for text in rows.iter_mut().flatten().filter(|text| text.contains('\n')) {
        *text = text.replace(how.separator, "、");
    }
}

/// What an independent reader makes of the text.
fn independent(text: &str, how: &Writing) -> Vec<String> {
    // It knows separators of one byte only.
    let (text, separator) = match how.separator {
        wide if !wide.is_ascii() => (text.replace(wide, "\u{1f}"), 0x1f),
        plain => (text.to_owned(), plain as u8),
    };
    let text = if how.title { text.split_once(how.end).unwrap().1 } else { &text };
    let mut reader = ::csv::ReaderBuilder::new().delimiter(separator).from_reader(text.as_bytes());
    let row = |row: ::csv::StringRecord| {
        let wide = how.separator.to_string();
        row.iter().map(|text| text.replace('\u{1f}', &wide)).collect::<Vec<_>>().join("|")
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

fn runner() -> TestRunner {
    // It prints the seed of a failure.
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

fn import(letters: &Letters, bytes: &[u8]) -> Result<super::cases::Outcome, ImportError> {
    // What a rejected row's key has would stay as it is.
    letters.try_full("代码,名称,备注\n".as_bytes())?;
    letters.try_full(bytes)
}

#[test]
fn any_well_formed_table_comes_out_as_an_independent_reader_reads_it() {
    let letters = Letters::new();
    runner()
        .run(&(table(), writing()), |(mut rows, how)| {
            believable(&mut rows, &how);
            let text = write(&rows, &how);
            let outcome = import(&letters, &encode(&text, &how)).unwrap();
            prop_assert_eq!(&outcome.records, &independent(&text, &how), "{}", text);
            let report = outcome.report;
            prop_assert_eq!((report.rejected, report.skipped), (0, 0), "{}", text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_table_comes_out_of_json_as_it_is() {
    let letters = Letters::new();
    runner()
        .run(&(table(), any::<bool>()), |(rows, array)| {
            let object = |[code, name, note]: &[String; 3]| {
                serde_json::json!({ "代码": code, "名称": name, "备注": note }).to_string()
            };
            let objects: Vec<String> = rows.iter().map(object).collect();
            let text = match array {
                true => format!("[{}]", objects.join(",\n")),
                false => objects.join("\n"),
            };
            let outcome = import(&letters, text.as_bytes()).unwrap();
            let expected: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
            prop_assert_eq!(&outcome.records, &expected, "{}", text);
            Ok(())
        })
        .unwrap();
}

/// What is done to a file.
#[derive(Debug, Clone)]
enum Damage {
    Insert(u8),
    Delete,
    Replace(u8),
}

#[test]
fn what_is_done_to_one_row_costs_that_row() {
    let letters = Letters::new();
    let byte = prop::sample::select(b"\"\",;\t\\\n\r\0 '=\x1a\xff\xd6\xe5x1|".to_vec());
    let damage = prop_oneof![
        2 => byte.clone().prop_map(Damage::Insert),
        1 => Just(Damage::Delete),
        2 => byte.prop_map(Damage::Replace),
    ];
    let plain = prop::collection::vec("[甲乙丙丁市县公司有限郑州a-z]{1,8}", 8..30);
    let encoding = prop::sample::select(vec!["utf-8", "gb18030"]);
    runner()
        .run(&(plain, any::<bool>(), encoding, damage, any::<prop::sample::Index>()), |case| {
            let (names, quoted, encoding, damage, at) = case;
            let how = Writing { separator: ',', quoted, end: "\n", title: false, encoding };
            let rows: Rows = (0..)
                .zip(&names)
                .map(|(number, name)| [format!("K{number:03}"), name.clone(), "备注".into()])
                .collect();
            let bytes = encode(&write(&rows, &how), &how);
            let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let at = header + at.index(bytes.len() - header);
            let mut damaged = bytes.clone();
            match damage {
                Damage::Insert(byte) => damaged.insert(at, byte),
                Damage::Delete => drop(damaged.remove(at)),
                Damage::Replace(byte) => damaged[at] = byte,
            }
            let hit = bytes[header..at].iter().filter(|byte| **byte == b'\n').count();
            let outcome = import(&letters, &damaged).unwrap();
            let report = &outcome.report;
            let shown = String::from_utf8_lossy(&damaged).into_owned();
            // A key that became another row's key is another matter.
            prop_assume!(report.duplicates == 0);
            for (number, row) in rows.iter().enumerate() {
                let line = row.join("|");
                // A line end that goes joins two rows.
                let near = number == hit || number == hit + 1;
                prop_assert!(near || outcome.records.contains(&line), "{line} is lost: {shown}");
            }
            let lost = rows.len() as u64 - report.rows.min(rows.len() as u64);
            prop_assert!(report.rejected + report.skipped + lost <= 3, "{report:?}: {shown}");
            // Nothing is stored that is in no row.
            for text in outcome.records.iter().flat_map(|record| record.split('|')) {
                let decoded = match how.encoding {
                    "gb18030" => GB18030.decode_without_bom_handling(&damaged).0.into_owned(),
                    _ => shown.clone(),
                };
                let written = text.replace('"', "\"\"");
                let there = decoded.contains(text) || decoded.contains(&written);
                prop_assert!(there || shown.contains(text), "{text} is in no row: {decoded}");
            }
            Ok(())
        })
        .unwrap();
}
