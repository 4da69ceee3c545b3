//! Files in every encoding, whole and broken.

use std::io::Cursor;

use encoding_rs::GB18030;
use protocol::schema::{Field, RawSchema, Schema};

use super::{
    scan::{Grammar, Quotes, Scan, find3, plain_record, scan_record},
    *,
};
use crate::ingest::{
    rows::{Row, RowProblem},
    source::{Recallable as _, SourceError, Table as _},
};
use crate::sources::COLUMNS_MAX;

/// Three texts, the first of which is the key.
fn schema() -> Schema {
    let field = |name: &str, aliases: &[&str]| Field {
        name: name.into(),
        title_zh: format!("栏{name}"),
        title_en: format!("the {name}"),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..Field::default()
    };
    let mut fields =
        vec![field("a", &["甲", "名称"]), field("b", &["乙", "代码"]), field("c", &["丙"])];
    fields[0].required = true;
    Schema::check(RawSchema {
        dataset: "letters".into(),
        version: 1,
        title_zh: "字母".into(),
        title_en: "letters".into(),
        key: vec!["a".into()],
        fields,
        ..RawSchema::default()
    })
    .unwrap()
}

fn open_bytes(bytes: &[u8], encoding: Encoding) -> Result<CsvTable, SourceError> {
    let source = Box::new(Cursor::new(bytes.to_vec()));
    let options = Options { encoding, ignored: &[] };
    open("some.csv", source, bytes.len() as u64, options, &schema())
}

fn for_each_row(file: &mut CsvTable, mut visit: impl FnMut(Row<'_>)) {
    loop {
        let batch = file.next_rows().unwrap();
        if batch.is_empty() {
            return;
        }
        batch.for_each(&mut visit);
    }
}

/// A whole file as lines of `line: field|field` or `line! code`, with a note's
/// code behind it.
fn read(bytes: &[u8], encoding: Encoding) -> Vec<String> {
    let mut file = open_bytes(bytes, encoding).unwrap();
    let mut out = Vec::new();
    for_each_row(&mut file, |row| out.push(text_of(row)));
    assert_eq!(file.bytes_read(), bytes.len() as u64);
    assert_eq!(read_bodies(bytes, encoding), out, "{bytes:?}");
    out
}

fn text_of(row: Row<'_>) -> String {
    match row {
        Row::Fields { place, fields, note } => {
            assert_eq!(fields.len(), fields.iter().count());
            assert_eq!(fields.get(0), fields.iter().next());
            let texts = fields.iter().collect::<Vec<_>>().join("|");
            let note = note.map(|note| format!(" ({})", note.code())).unwrap_or_default();
            format!("{}: {texts}{note}", place.line())
        }
        Row::Malformed { place, problem, .. } => format!("{}! {}", place.line(), problem.code()),
    }
}

/// The same, where only the rows' ends are looked for at first.
fn read_bodies(bytes: &[u8], encoding: Encoding) -> Vec<String> {
    let mut file = open_bytes(bytes, encoding).unwrap();
    let mut out = Vec::new();
    loop {
        let bodies = file.next_bodies().unwrap();
        if bodies.is_empty() {
            return out;
        }
        let batch = bodies.split(&Vec::from_iter(0..bodies.len()));
        batch.for_each(&mut |row| out.push(text_of(row)));
    }
}

fn refused(bytes: &[u8]) -> String {
    match open_bytes(bytes, Encoding::Auto) {
        Ok(_) => panic!("{bytes:?} is read"),
        Err(error) => error.to_string(),
    }
}

fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(order).collect()
}

const SMALL: &str = "名称,代码\n郑州某某有限公司,1\n县城小店😀,2\n";

#[test]
fn encodings_are_found_and_read_alike() {
    let expected = ["2: 郑州某某有限公司|1", "3: 县城小店😀|2"];
    let gb = GB18030.encode(SMALL).0.into_owned();
    let cases: [(&str, Vec<u8>, Encoding); 7] = [
        ("UTF-8", SMALL.into(), Encoding::Utf8),
        ("UTF-8", format!("\u{feff}{SMALL}").into(), Encoding::Utf8),
        ("GB18030", gb, Encoding::Gb18030),
        ("UTF-16LE", utf16(&format!("\u{feff}{SMALL}"), u16::to_le_bytes), Encoding::Utf16),
        ("UTF-16BE", utf16(&format!("\u{feff}{SMALL}"), u16::to_be_bytes), Encoding::Utf16),
        ("UTF-16LE", utf16(SMALL, u16::to_le_bytes), Encoding::Utf16),
        ("UTF-16BE", utf16(SMALL, u16::to_be_bytes), Encoding::Utf16),
    ];
    for (name, bytes, named) in cases {
        for encoding in [Encoding::Auto, named] {
            let file = open_bytes(&bytes, encoding).unwrap();
            assert_eq!(file.reading()[0], name, "{encoding:?}");
            assert_eq!(file.mapping().labels(), ["名称", "代码"], "{name}");
            assert_eq!(read(&bytes, encoding), expected, "{name}");
        }
    }
}

#[test]
fn a_broken_row_is_rejected_and_the_file_goes_on() {
    let mut bytes = b"a,b\n".to_vec();
    for index in 0..9 {
        let broken: &[u8] = if index == 4 { b"\xe5\x8e" } else { "县".as_bytes() };
        bytes.extend_from_slice(b"1,");
        bytes.extend_from_slice(broken);
        bytes.extend_from_slice(b"\r\n");
    }
    let rows = read(&bytes, Encoding::Auto);
    assert_eq!(rows.len(), 9);
    for (index, row) in rows.iter().enumerate() {
        let line = index + 2;
        let expected =
            if index == 4 { format!("{line}! encoding") } else { format!("{line}: 1|县") };
        assert_eq!(*row, expected);
    }
    // A lead byte without its trail, in GB18030 and in UTF-16.
    let mut gb = GB18030.encode("甲,乙\n").0.into_owned();
    gb.extend_from_slice(b"1,\xd6\n2,\xd6\xd0\n");
    assert_eq!(read(&gb, Encoding::Auto), ["2! encoding", "3: 2|中"]);
    let mut wide = utf16("\u{feff}甲,乙\n1,", u16::to_le_bytes);
    wide.extend_from_slice(&[0x00, 0xd8]);
    wide.extend(utf16("\n2,中\n", u16::to_le_bytes));
    assert_eq!(read(&wide, Encoding::Auto), ["2! encoding", "3: 2|中"]);
    wide.push(0x41);
    assert_eq!(read(&wide, Encoding::Auto), ["2! encoding", "3: 2|中", "4! field-count"]);
}

#[test]
fn a_character_cut_by_the_chunk_is_no_fault() {
    for shift in 0..4 {
        let mut text = format!("a,b\n{},", "x".repeat(CHUNK - 12 + shift));
        text.push_str(&"县😀".repeat(9));
        text.push('\n');
        let file = open_bytes(text.as_bytes(), Encoding::Auto).unwrap();
        assert_eq!(file.reading()[0], "UTF-8");
        assert_eq!(read(text.as_bytes(), Encoding::Auto).len(), 1);
    }
    let cut = b"\xe7\x94\xb2,b\n1,\xe5\x8e";
    assert_eq!(read(cut, Encoding::Auto), ["2! encoding"]);
}

#[test]
fn quoted_values_and_every_line_end_are_read() {
    let text = "a,b\r\n\"x\r\ny\",\"say \"\"hi\"\"\"\n\r\n   \n\"\",5\"6\n\"县\",,\"\n7,8";
    assert_eq!(
        read(text.as_bytes(), Encoding::Auto),
        ["2: x\r\ny|say \"hi\"", "6: |5\"6 (inner-quote)", "7! unclosed-quote", "8: 7|8"]
    );
    let gb = GB18030.encode("甲,乙\n\"某\"\"县\"\"\n城\",1\n").0.into_owned();
    assert_eq!(read(&gb, Encoding::Auto), ["2: 某\"县\"\n城|1"]);
    assert_eq!(read(b"a,b\n1,", Encoding::Auto), ["2: 1|"]);
    assert_eq!(read(b"a,b\n1,\"2\"", Encoding::Auto), ["2: 1|2"]);
    assert_eq!(read(b"a,b\r1,2\r\r3,4\r", Encoding::Auto), ["2: 1|2", "4: 3|4"]);
}

#[test]
fn a_carriage_return_within_a_value_does_not_cut_it() {
    for end in ["\n", "\r\n"] {
        let text = ["甲,丙", "1,x\ry", "2,\ry", "3,\"p\rq\"", "4,\"p\"\rq", "5,z"].join(end);
        let rows = ["2: 1|x\ry", "3: 2|\ry", "4: 3|p\rq", "5! stray-quote", "6: 5|z"];
        assert_eq!(read(text.as_bytes(), Encoding::Auto), rows);
        assert_eq!(read(&GB18030.encode(&text).0, Encoding::Auto), rows);
    }
    // A file whose lines end with one has no other way to say so.
    assert_eq!(read("甲,丙\r1,x\ry,\r".as_bytes(), Encoding::Auto), ["2: 1|x", "3: y|"]);
}

#[test]
fn other_separators_are_found_in_the_header() {
    assert_eq!(read(b"a\tb\n1,5\t2\n", Encoding::Auto), ["2: 1,5|2"]);
    assert_eq!(read(b"\n a ; b \n1;2\n", Encoding::Auto), ["3: 1|2"]);
    assert_eq!(read(b"a\n1\n\n2,3\n", Encoding::Auto), ["2: 1", "4! field-count"]);
}

#[test]
fn a_stray_quote_costs_one_row() {
    for quoted in [false, true] {
        for place in ["\"stray,1,2", "1,\"stray,2", "1,2,\"stray", "\"stra\"y,1,2"] {
            let mut text = "a,b,c\n".to_owned();
            for index in 0..1000 {
                let row = match (index == 500, quoted) {
                    (true, _) => place.to_owned(),
                    (_, true) => format!("\"{index}\",x,\"县\""),
                    (_, false) => format!("{index},x,县"),
                };
                text.push_str(&row);
                text.push('\n');
            }
            let rows = read(text.as_bytes(), Encoding::Auto);
            assert_eq!(rows.len(), 1000, "{place}");
            for (index, row) in rows.iter().enumerate() {
                let line = index + 2;
                if index == 500 {
                    assert!(row.starts_with(&format!("{line}! ")), "{place}: {row}");
                } else {
                    assert_eq!(*row, format!("{line}: {index}|x|县"), "{place}");
                }
            }
        }
    }
}

#[test]
fn a_stray_quote_in_a_large_file_is_followed_one_mebibyte_at_most() {
    let mut text = "a,b\n\"x,1\n".to_owned();
    let rows = 3 * ROW_BYTES_MAX / 4;
    text.push_str(&"1,2\n".repeat(rows));
    let mut file = open_bytes(text.as_bytes(), Encoding::Auto).unwrap();
    let mut good = 0;
    for_each_row(&mut file, |row| match row {
        Row::Fields { .. } => good += 1,
        Row::Malformed { place, problem, .. } => {
            let line = place.line();
            assert_eq!((line, problem), (2, RowProblem::UnclosedQuote));
        }
    });
    assert_eq!(good, rows);
    assert!(file.buffer_bytes() <= ROW_BYTES_MAX + 2 * CHUNK);
}

#[test]
fn a_line_above_the_limit_is_rejected_and_the_next_one_read() {
    let long = "x".repeat(3 * ROW_BYTES_MAX);
    for line in [long.clone(), format!("\"{long}"), format!("1,\"{long}\"")] {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!("a,b{end}{line}{end}3,4{end}");
            let rows = read(text.as_bytes(), Encoding::Auto);
            assert_eq!(rows, ["2! row-too-long", "3: 3|4"]);
        }
    }
    let fits = format!("a,b\n1,{}\n", "x".repeat(ROW_BYTES_MAX - 8));
    assert_eq!(read(fits.as_bytes(), Encoding::Auto).len(), 1);
}

#[test]
fn a_wrong_field_count_names_both_numbers() {
    let mut file = open_bytes(b"a,b\n1,2,3\n", Encoding::Auto).unwrap();
    let mut problems = Vec::new();
    for_each_row(&mut file, |row| match row {
        Row::Malformed { place, problem, .. } => problems.push((place.line(), problem)),
        Row::Fields { .. } => panic!("the row has three fields"),
    });
    assert_eq!(problems, [(2, RowProblem::FieldCount { expected: 2, found: 3 })]);
    assert_eq!(read(b"a,b\n1\n,\n1,2\n", Encoding::Auto), ["2! field-count", "3: |", "4: 1|2"]);
}

#[test]
fn a_header_is_required_and_has_to_be_sound() {
    for empty in ["", "\n\n", "  \r\n\t\n", "\u{feff}"] {
        let error = open_bytes(empty.as_bytes(), Encoding::Auto).map(drop).unwrap_err();
        assert!(matches!(error, SourceError::Empty(_)), "{empty:?}");
    }
    let many = "x,".repeat(COLUMNS_MAX + 1);
    assert!(refused(many.as_bytes()).contains("1025"));
    let file = open_bytes(b"a,b", Encoding::Auto).unwrap();
    assert_eq!(file.mapping().labels(), ["a", "b"]);
}

#[test]
fn a_row_of_another_encoding_is_told_of() {
    use encoding_rs::{BIG5, EUC_KR, SHIFT_JIS};
    for separator in [",", "|"] {
        let text = |bytes: &[u8]| GB18030.decode_without_bom_handling(bytes).0.into_owned();
        let foreign: [&[u8]; 3] = [
            &EUC_KR.encode("대한민국 서울특별시 강남구").0,
            &SHIFT_JIS.encode("ソフトウェアの会社").0,
            &BIG5.encode("台北市政府測試統一編號").0,
        ];
        // Names of a rare kind, and in other alphabets, are only that.
        let own = ["郑州鑫淼商贸有限公司", "パナソニック株式会社", "ООО Восток", "张三·买买提"];
        let mut bytes = GB18030.encode(&format!("甲{separator}乙\n")).0.into_owned();
        let mut expected = Vec::new();
        for line in 1..30 {
            bytes.extend_from_slice(format!("{line}{separator}").as_bytes());
            let place = line + 1;
            let encoded;
            let row = if line % 10 == 5 {
                let row = foreign[line / 10];
                expected.push(match line {
                    25 => format!("{place}! encoding"),
                    _ => format!("{place}: {line}|{} (doubtful-encoding)", text(row)),
                });
                row
            } else {
                expected.push(format!("{place}: {line}|{}", own[line % 4]));
                encoded = GB18030.encode(own[line % 4]).0;
                &encoded
            };
            bytes.extend_from_slice(row);
            bytes.push(b'\n');
        }
        assert_eq!(read(&bytes, Encoding::Auto), expected);
        // Who names the encoding knows better.
        let named = read(&bytes, Encoding::Gb18030);
        assert_eq!(named[5 - 1], format!("6: 5|{}", text(foreign[0])));
    }
}

#[test]
fn a_damaged_byte_of_utf8_makes_no_row_of_gbk() {
    let good = "甲,乙,丙\n1,a市a,备注\n";
    for at in 0..6 {
        let mut row = "2,a市a,备注".as_bytes().to_vec();
        let place = row.len() - 6 + at;
        row[place] = 0xd6;
        let found = read(&[good.as_bytes(), &row, b"\n"].concat(), Encoding::Auto);
        assert_eq!(found, ["2: 1|a市a|备注", "3! encoding"], "{at}");
    }
}

#[test]
fn hanzi_of_gbk_that_are_valid_utf8_are_hanzi() {
    let gbk = |text: &str| GB18030.encode(text).0.into_owned();
    // In a file of nothing else, in one with a header of hanzi, and in a row of UTF-8.
    assert_eq!(read(&gbk("a,b\n1,豫A1\n2,通一元\n"), Encoding::Auto), ["2: 1|豫A1", "3: 2|通一元"]);
    let rows = "甲,乙\n1,豫A1\n2,豫A2\n3,豫A3\n4,豫A4\n";
    let expected = ["2: 1|豫A1", "3: 2|豫A2", "4: 3|豫A3", "5: 4|豫A4"];
    assert_eq!(read(&gbk(rows), Encoding::Auto), expected);
    let mixed = [rows.as_bytes(), &gbk("5,豫A5\n")].concat();
    let mut with = expected.map(str::to_owned).to_vec();
    with.push("6: 5|豫A5 (other-encoding)".to_owned());
    assert_eq!(read(&mixed, Encoding::Auto), with);
    let short = "a,b\n1,毛\n2,鲁\n3,KFC\n";
    assert_eq!(read(&gbk(short), Encoding::Auto), ["2: 1|毛", "3: 2|鲁", "4: 3|KFC"]);
    let short = "甲,乙\n1,毛\n2,鲁\n3,路\n4,陆\n";
    assert_eq!(read(&gbk(short), Encoding::Auto).len(), 4);
    // Letters of other alphabets stay what they are.
    let letters = "a,b\n1,Müller\n2,Привет\n3,Café\n";
    assert_eq!(
        read(letters.as_bytes(), Encoding::Auto),
        ["2: 1|Müller", "3: 2|Привет", "4: 3|Café"]
    );
}

#[test]
fn finding_bytes_agrees_with_looking_at_each() {
    let data: Vec<u8> = (0..=255).cycle().step_by(7).take(997).collect();
    for needles in [[0, 1, 255], [b',', b'\n', b'\r'], [128, 127, 129], [3, 3, 3]] {
        for from in 0..data.len() {
            let expected = data[from..]
                .iter()
                .position(|byte| needles.contains(byte))
                .map_or(data.len(), |at| from + at);
            assert_eq!(find3(&data, from, needles[0], needles[1], needles[2]), expected);
        }
    }
}

#[test]
fn a_record_that_is_found_quickly_is_the_one_that_is_there() {
    let pieces = ["a,b", "a", ",", " ", "\t", "\"", "\n", "\r", "\r\n"];
    let mut found = 0;
    for number in 0..pieces.len().pow(4) {
        let piece = |place: u32| pieces[number / pieces.len().pow(place) % pieces.len()];
        let text: String = (0..4).map(piece).collect();
        for lone_cr in [false, true] {
            let Some((body, end)) = plain_record(text.as_bytes(), lone_cr) else { continue };
            found += 1;
            let grammar = Grammar { separator: b',', quotes: Quotes::Doubled, lone_cr };
            // What follows is not known yet.
            match scan_record(text.as_bytes(), false, grammar, &mut Vec::new(), 9) {
                Scan::Record { body: b, end: e, lines: 1, escaped: false, .. } => {
                    assert_eq!((body, end), (b, e), "{text:?}");
                    assert!(!text[..body].trim().is_empty(), "{text:?}");
                }
                _ => panic!("{text:?}"),
            }
        }
    }
    assert!(found > 2000);
}

#[test]
fn any_bytes_are_read_line_by_line() {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let seed = RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut below = |limit: u64| {
        // xorshift64*, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    };
    let pieces: [&[u8]; 10] =
        [b"\"", b"\"\"", b",", b"\n", b"\r", b"\r\n", b"a", b" ", "县".as_bytes(), b"\xd6"];
    for _ in 0..5_000 {
        let mut bytes = b"a,b\n".to_vec();
        for _ in 0..below(40) {
            bytes.extend_from_slice(pieces[below(pieces.len() as u64) as usize]);
        }
        for encoding in [Encoding::Auto, Encoding::Utf8, Encoding::Gb18030, Encoding::Utf16] {
            let Ok(mut file) = open_bytes(&bytes, encoding) else {
                // What is no text in any way.
                assert!(matches!(encoding, Encoding::Utf16 | Encoding::Auto), "{bytes:?}");
                continue;
            };
            let mut last = 1;
            let mut read = 0;
            for_each_row(&mut file, |row| {
                let line = match row {
                    Row::Fields { place, fields, .. } => {
                        read += fields.iter().map(str::len).sum::<usize>();
                        assert!(encoding == Encoding::Utf16 || fields.len() == 2);
                        place.line()
                    }
                    Row::Malformed { place, .. } => place.line(),
                };
                assert!(line > last || encoding == Encoding::Utf16, "{bytes:?}");
                last = line;
            });
            assert!(read <= 2 * bytes.len(), "{bytes:?}");
            // Also where only the rows' ends are looked for.
            self::read(&bytes, encoding);
        }
    }
}
