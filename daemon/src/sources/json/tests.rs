//! JSON as rows: layouts, damage, limits.

use std::io::Cursor;

use super::*;
use crate::sources::texts::{COLUMNS_MAX, ROW_BYTES_MAX};

type Shown = Vec<(u64, Result<Vec<String>, &'static str>)>;

fn read_named(bytes: &[u8], name: &str) -> Result<(Vec<String>, Shown, bool), String> {
    let mut file = JsonFile::from_bytes(bytes.to_vec(), name).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    loop {
        let rows = file.next_rows().unwrap();
        if rows.is_empty() {
            return Ok((file.header().to_vec(), all, file.is_cut()));
        }
        all.extend(rows.shown());
    }
}

fn read(text: &str) -> (Vec<String>, Shown, bool) {
    read_named(text.as_bytes(), "x.json").unwrap()
}

fn rows(text: &str) -> Shown {
    read(text).1
}

fn row(line: u64, cells: &[&str]) -> (u64, Result<Vec<String>, &'static str>) {
    (line, Ok(cells.iter().map(|cell| (*cell).to_owned()).collect()))
}

#[test]
fn an_odd_quote_on_a_line_of_many_records_costs_its_record() {
    let good = |name: &str| format!("{{\"a\":\"{name}\",\"b\":1}}");
    for odd in ["{\"a\":\"乙\"丙\",\"b\":2}", "{\"a\":\"乙,\"b\":2}", "{\"a\":乙\",\"b\":2}"] {
        for (open, comma, close) in
            [("[", ",", "]"), ("", ",", ""), ("[", " , ", "]"), ("{\"data\":[", ",", "]}")]
        {
            let records = [good("甲"), odd.to_owned(), good("丙"), good("丁")];
            let text = format!("{open}{}{close}", records.join(comma));
            let found = rows(&text);
            let names: Vec<_> = found
                .iter()
                .map(|(_, row)| row.as_ref().map(|row| row[0].clone()).unwrap_or_default())
                .collect();
            assert_eq!(names, ["甲", "", "丙", "丁"], "{text}");
        }
    }
    // The last one; a file without its bracket is cut.
    let last = format!("[{},{{\"a\":\"x\"y\"}}]\n", good("甲"));
    assert_eq!(read(&last).1[1], (2, Err("json-syntax")));
    assert!(!read(&last).2 && read(last.trim_end_matches("]\n")).2);
    // At the end, and in several records.
    let text =
        format!("[{},{{\"a\":\"x\"y\"}},{},{{\"a\":\"x\"}},{{\"b\":2\"}}]", good("甲"), good("乙"));
    let found: Vec<_> = rows(&text).into_iter().map(|(_, row)| row.is_ok()).collect();
    assert_eq!(found, [true, false, true, true, false]);
    // Also where everything behind it is on one line, and long.
    let many: Vec<String> = (0..100_000).map(|number| good(&number.to_string())).collect();
    let text = format!("[{},{{\"a\":\"乙\"丙\"}},{}]", good("甲"), many.join(","));
    let found = rows(&text);
    let good_ones = found.iter().filter(|(_, row)| row.is_ok()).count();
    assert_eq!((found.len(), good_ones), (100_002, 100_001));
    // What looks like the beginning of a record may be a part of one, broken or not.
    for value in ["NaN", "\"a\tb\""] {
        let text =
            format!("[{{\"a\":1,\"v\":{value},\"l\":[{{\"x\":1}},{{\"x\":2}}]}},{{\"a\":2}}]");
        let found: Vec<_> = rows(&text).into_iter().map(|(_, row)| row.is_ok()).collect();
        assert_eq!(found, [false, true], "{text}");
    }
    let cut = "[{\"a\":1},{\"a\":2,\"l\":[{\"x\":1},{\"x\":2},{\"x\":";
    let found: Vec<_> = rows(cut).into_iter().map(|(_, row)| row.is_ok()).collect();
    assert_eq!(found, [true, false]);
    let nested = "[{\"a\":[{\"b\":1},{\"b\":2}]},{\"a\":\"},{\\\"b\"}]";
    assert_eq!(rows(nested), [(1, Err("json-nested")), row(2, &["},{\"b"])]);
}

#[test]
fn an_array_lines_and_a_wrapped_array_are_the_same_rows() {
    let cells = [["甲", "1"], ["乙", "2"]];
    for (text, lines) in [
        ("[{\"a\":\"甲\",\"b\":1},{\"a\":\"乙\",\"b\":2}]", [1, 2]),
        ("[\n  {\n \"a\": \"甲\",\n \"b\": 1},\n  {\"a\":\"乙\",\"b\":2}\n]\n", [2, 5]),
        ("{\"a\":\"甲\",\"b\":1}\n\n{\"a\":\"乙\",\"b\":2}", [1, 3]),
        ("{\"a\":\"甲\",\"b\":1}\r\n{\"a\":\"乙\",\"b\":2}\r\n", [1, 2]),
        (
            "{\"code\":0,\"data\":[{\"a\":\"甲\",\"b\":1},{\"a\":\"乙\",\"b\":2}],\"total\":2}",
            [1, 2],
        ),
        (
            "{\"data\":{\"n\":[1,{\"x\":[]}],\"list\":[\n{\"a\":\"甲\",\"b\":1},\n{\"a\":\"乙\",\"b\":2}]}}",
            [2, 3],
        ),
        ("{\n\"a\":\"甲\",\n\"b\":1\n}\n{\n\"a\":\"乙\",\n\"b\":2\n}\n", [1, 5]),
        ("\u{feff}[{\"a\":\"甲\",\"b\":1},{\"a\":\"乙\",\"b\":2}]", [1, 2]),
    ] {
        let expected = [row(lines[0], &cells[0]), row(lines[1], &cells[1])];
        let (header, rows, cut) = read(text);
        assert_eq!(
            (header.join(","), rows.as_slice(), cut),
            ("a,b".into(), &expected[..], false),
            "{text}"
        );
    }
}

#[test]
fn values_keep_the_digits_that_they_have() {
    let text = "[{\"a\":914101001700014012,\"b\":1.50,\"c\":true,\"d\":null,\"e\":\"\\u4e2d\\n\\\"x\\\"\"},\
                {\"e\":\"\",\"f\":1e3}]";
    let (header, rows, _) = read(text);
    assert_eq!(header, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(
        rows,
        [
            row(1, &["914101001700014012", "1.50", "true", "", "中\n\"x\"", ""]),
            row(2, &["", "", "", "", "", "1e3"]),
        ]
    );
}

#[test]
fn one_bad_element_costs_one_row() {
    let line = |bad: &str| format!("{{\"a\":1}}\n{bad}\n{{\"a\":3}}\n");
    let array = |bad: &str| format!("[\n{{\"a\":1}},\n{bad},\n{{\"a\":3}}\n]");
    for (bad, code) in [
        ("{\"a\":{\"x\":1}}", "json-nested"),
        ("{\"a\":[1,2]}", "json-nested"),
        ("{\"a\":1,\"a\":2}", "json-repeated-name"),
        ("{\"a\":tru}", "json-syntax"),
        ("{\"a\" 1}", "json-syntax"),
        ("{\"a\":\"x}", "json-syntax"),
        ("{\"a\":\"x\",b\":\"y}", "json-syntax"),
        ("{\"a\":\"\\ud800\"}", "json-syntax"),
        ("7", "json-not-an-object"),
        ("\"x\"", "json-not-an-object"),
        ("[1]", "json-not-an-object"),
    ] {
        assert_eq!(rows(&line(bad)), [row(1, &["1"]), (2, Err(code)), row(3, &["3"])], "{bad}");
        assert_eq!(rows(&array(bad)), [row(2, &["1"]), (3, Err(code)), row(4, &["3"])], "{bad}");
    }
    let bytes = b"{\"a\":1}\n{\"a\":\"\xc4\xe3\"}\n{\"a\":3}\n";
    let shown = read_named(bytes, "x.jsonl").unwrap().1;
    assert_eq!(shown, [row(1, &["1"]), (2, Err("encoding")), row(3, &["3"])]);
}

#[test]
fn a_file_that_is_cut_says_so() {
    let whole = "[{\"a\":1},\n{\"a\":2}]";
    assert!(!read(whole).2);
    for length in 9..whole.len() {
        let (_, rows, cut) = read(&whole[..length]);
        assert!(cut, "{length}");
        assert_eq!(rows[0], row(1, &["1"]));
        assert_eq!(rows.last().unwrap().1, Err("json-cut"), "{length}");
    }
    // A line that is cut is a bad line.
    assert_eq!(rows("{\"a\":1}\n{\"a\":"), [row(1, &["1"]), (2, Err("json-syntax"))]);
}

#[test]
fn what_is_no_table_is_refused_in_words() {
    let refused = |text: &str| read_named(text.as_bytes(), "x.json").unwrap_err();
    for (text, word) in [
        ("", "no record"),
        ("[]", "no record"),
        ("{}", "no record"),
        ("[1,2]", "no objects"),
        ("[[1],[2]]", "no objects"),
        ("{\"企业\":[{\"a\":1}],\"个体\":[{\"a\":2}]}", "(企业, 个体)"),
    ] {
        let error = refused(text);
        assert!(error.contains(word) && error.contains(" / "), "{text}: {error}");
    }
    let many: Vec<String> = (0..=COLUMNS_MAX).map(|n| format!("\"c{n}\":1")).collect();
    assert!(refused(&format!("[{{{}}}]", many.join(","))).contains("1024"));
    // An object without an array of objects is one record.
    assert_eq!(rows("{\"a\":1,\"b\":\"[\"}"), [row(1, &["1", "["])]);
}

#[test]
fn utf_16_and_named_gb18030_are_read() {
    let text = "[{\"名称\":\"合成企业😀\"}]";
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> =
        format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [little, big] {
        let (header, rows, _) = read_named(&bytes, "x.json").unwrap();
        assert_eq!((header, rows), (vec!["名称".to_owned()], vec![row(1, &["合成企业😀"])]));
    }
    let gbk = encoding_rs::GB18030.encode(text).0.into_owned();
    let error = read_named(&gbk, "x.json").unwrap_err();
    assert!(error.contains("--encoding"), "{error}");
    let length = gbk.len() as u64;
    let mut file = JsonFile::open(
        Box::new(Cursor::new(gbk)),
        length,
        "x.json",
        Charset::Named(encoding_rs::GB18030),
    )
    .unwrap();
    assert_eq!(file.next_rows().unwrap().shown(), [row(1, &["合成企业😀"])]);
}

#[test]
fn depth_and_length_have_limits() {
    let deep = format!("[{{\"a\":{}1{}}},{{\"a\":2}}]", "[".repeat(500_000), "]".repeat(500_000));
    assert_eq!(rows(&deep), [(1, Err("json-nested")), row(2, &["2"])]);
    let open = format!("[{{\"a\":1}},{}", "[{\"a\":".repeat(300_000));
    assert_eq!(rows(&open), [row(1, &["1"]), (2, Err("json-cut"))]);
    let long = format!("[{{\"a\":\"{}\"}},\n{{\"a\":2}}]", "x".repeat(ROW_BYTES_MAX));
    assert_eq!(rows(&long), [(1, Err("row-too-long")), row(2, &["2"])]);
    let long_line = format!("{{\"a\":\"{}\"}}\n{{\"a\":2}}\n", "x".repeat(5 * ROW_BYTES_MAX));
    let shown = read_named(long_line.as_bytes(), "x.jsonl").unwrap().1;
    assert_eq!(shown, [(1, Err("row-too-long")), row(2, &["2"])]);
}

/// An array that is made while it is read, so that no memory holds it.
struct Endless {
    at: u64,
    length: u64,
}

const ELEMENT: &[u8] = b"{\"a\":\"0123456789012345678901234567890123456789\"},";

impl io::Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min((self.length - self.at) as usize);
        for byte in &mut into[..count] {
            *byte = match self.at {
                0 => b'[',
                at => ELEMENT[((at - 1) % ELEMENT.len() as u64) as usize],
            };
            self.at += 1;
        }
        Ok(count)
    }
}

impl io::Seek for Endless {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let io::SeekFrom::Start(at) = to else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.at = at;
        Ok(at)
    }
}

#[test]
fn a_long_array_is_read_in_little_memory() {
    let length = 1 + ELEMENT.len() as u64 * 400_000;
    let mut file =
        JsonFile::open(Box::new(Endless { at: 0, length }), length, "x.json", Charset::Auto)
            .unwrap();
    let mut count = 0;
    loop {
        let rows = file.next_rows().unwrap();
        if rows.is_empty() {
            break;
        }
        count += rows.len();
        assert!(file.elements.buffer_bytes() <= 2 * ROW_BYTES_MAX);
    }
    assert_eq!(count, 400_001, "400 000 elements, and one that is cut");
}

#[test]
fn what_follows_the_array_is_not_passed_over() {
    let open = |text: &str| JsonFile::from_bytes(text.as_bytes().to_vec(), "a.json");
    for more in
        ["[{\"a\":1}]\n[{\"a\":2}]", "[{\"a\":1}] xx", "{\"d\":[{\"a\":1}],\"n\":{\"m\":[1]}} 7"]
    {
        let error = open(more).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("ends in line 1"), "{more}: {error}");
    }
    for (whole, cut) in [
        ("[{\"a\":1}]\n \n", false),
        ("{\"d\":[{\"a\":1}],\"n\":{\"m]\":[1]}}\n", false),
        ("{\"d\":[{\"a\":1}],\"n\":{", true),
        ("{\"d\":[{\"a\":1}]", true),
    ] {
        let mut file = open(whole).unwrap();
        while !file.next_rows().unwrap().is_empty() {}
        assert_eq!(file.is_cut(), cut, "{whole}");
    }
}
