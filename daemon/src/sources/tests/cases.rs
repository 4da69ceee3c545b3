//! Files as they really come: for each kind of trouble the right values.

use encoding_rs::{BIG5, EUC_KR, Encoding as Charset, GB18030, SHIFT_JIS, WINDOWS_1252};

use super::*;
use crate::{ingest::words::ImportRequest, sources::csv::Encoding};

/// `code` (the key), `name`, `note`; `name` has an alias with a comma in it.
fn letters() -> RawSchema {
    let field = |name: &str, title: &str, kind| Field {
        name: name.into(),
        title_zh: title.into(),
        title_en: format!("title of {name}"),
        kind,
        ..Field::default()
    };
    let mut fields = vec![
        field("code", "代码", FieldType::Code),
        field("name", "名称", FieldType::Text),
        field("note", "备注", FieldType::Text),
    ];
    fields[0].required = true;
    fields[1].aliases = vec!["名称(省,市)".into()];
    RawSchema { dataset: "letters".into(), key: vec!["code".into()], fields, ..raw_schema(1) }
}

/// What a file comes to: its records as `code|name|note`, and its report.
pub(super) struct Outcome {
    pub records: Vec<String>,
    pub report: ImportReport,
    rejects: String,
}

impl Outcome {
    /// Whether the report has a problem of that rule, first at that place.
    #[track_caller]
    fn assert_told(&self, rule: &str, place: &str) {
        let details = self.report.reject_details.iter().chain(&self.report.warning_details);
        let found = details.filter(|one| one.rule == rule).map(|one| one.places[0].as_str());
        assert_eq!(found.collect::<Vec<_>>(), [place], "{rule} in {:?}", self.report);
    }
}

/// A world with a dataset of three texts.
pub(super) struct Letters(World);

impl Letters {
    pub fn new() -> Self {
        let world = World::new();
        world.apply_schema(letters());
        Self(world)
    }

    fn try_read(&self, bytes: &[u8], reading: Reading) -> Result<Outcome, ImportError> {
        self.import(bytes, reading, None)
    }

    /// Takes a file for the whole register, whatever it does to it.
    pub fn try_full(&self, bytes: &[u8]) -> Result<Outcome, ImportError> {
        self.import(bytes, Reading::default(), Some(approved("letters")))
    }

    fn import(
        &self,
        bytes: &[u8],
        reading: Reading,
        approved: Option<Approval>,
    ) -> Result<Outcome, ImportError> {
        let world = &self.0;
        let path = world.path("files/letters.csv");
        fs::write(&path, bytes).unwrap();
        let source = Arc::new(DeliveredFile::open(&path, Links::Follow, reading).unwrap());
        let dataset = DatasetId::new("letters").unwrap();
        let rejects = world.path("rejects/letters.csv");
        let request = ImportRequest {
            dataset: dataset.clone(),
            source,
            full: approved.is_some(),
            approved,
            rejects,
        };
        let report = world.importer.import(&request, &|_| {})?;
        assert!(report.adds_up(), "{report:?}");
        let rejects = report.rejects_file.as_ref();
        let rejects = rejects.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
        let content = world.content_of_partition(&world.membership.own_partition(&dataset));
        let line = |(code, rest): (String, Vec<String>)| format!("{code}|{}", rest.join("|"));
        Ok(Outcome { records: content.into_iter().map(line).collect(), report, rejects })
    }

    fn read(bytes: &[u8]) -> Outcome {
        Self::new().try_read(bytes, Reading::default()).unwrap()
    }

    fn refused(bytes: &[u8]) -> String {
        match Self::new().try_read(bytes, Reading::default()) {
            Ok(outcome) => panic!("it is read: {:?}", outcome.records),
            Err(error) => error.to_string(),
        }
    }
}

#[track_caller]
fn check(bytes: impl AsRef<[u8]>, records: &[&str], rejected: u64, skipped: u64) -> Outcome {
    let outcome = Letters::read(bytes.as_ref());
    let text = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    assert_eq!(outcome.records, records, "{text}");
    let report = &outcome.report;
    assert_eq!(
        (report.rejected, report.skipped),
        (rejected, skipped),
        "{text} {}",
        outcome.rejects
    );
    outcome
}

#[test]
fn every_separator_is_found_by_what_the_labels_mean() {
    let row = ["1|甲|x"];
    for separator in [",", "\t", ";", "|", "\x01", "^", "~", "，", "；"] {
        let text = format!("代码{separator}名称{separator}备注\n1{separator}甲{separator}x\n");
        check(&text, &row, 0, 0);
        check(GB18030.encode(&text).0, &row, 0, 0);
        if separator == "\x01" {
            // A control character is no part of a value.
            continue;
        }
        let quoted = format!(
            "\"代码\"{separator}\"名称\"{separator}\"备注\"\n\"1\"{separator}\"甲{separator}乙\"{separator}\"x\"\n"
        );
        let row = format!("1|甲{separator}乙|x");
        check(&quoted, &[&row], 0, 0);
        check(GB18030.encode(&quoted).0, &[&row], 0, 0);
        // Blanks around quotes.
        let blanks = quoted.replace(&format!("\"{separator}\""), &format!("\" {separator}  \""));
        check(format!(" {}", blanks.replace("\"\n", "\"  \n")), &[&row], 0, 0);
    }
    check("代码\t名称(省,市)\t备注\n1\t甲\tx\n", &row, 0, 0);
    check("sep=;\n代码;名称;备注\n1;甲;x\n", &row, 0, 0);
    check("\u{feff}\"sep=|\"\r\n代码|名称|备注\r\n1|甲|x\r\n", &row, 0, 0);
    // Characters of GB18030 may have these as their second bytes.
    let text = "代码|名称|备注\n1|亅郳~縷|漒^x\n";
    check(GB18030.encode(text).0, &["1|亅郳~縷|漒^x"], 0, 0);
}

#[test]
fn a_header_stands_below_titles_and_above_its_second_line() {
    let row = ["1|甲|x"];
    check("2024年名单,,\n单位：中牟县,,\n\n代码,名称,备注\n1,甲,x\n", &row, 0, 0);
    check("# 导出于 2024-05-01\n# \"未结束\n代码,名称,备注\n1,甲,x\n", &row, 0, 0);
    check("code,name,note\n代码,名称,备注\n1,甲,x\n", &row, 0, 1);
    check("代码,名称,备注\ncode,name,note\n1,甲,x\n\u{feff}代码,名称,备注\n", &row, 0, 2);
    check("代码,名称,备注\n1,甲,x\n 代 码 ,*名称,备注：\n", &row, 0, 1);
    let far = "说明\n".repeat(21) + "代码,名称,备注\n1,甲,x\n";
    assert!(Letters::refused(far.as_bytes()).contains("20"));
    // Above the twenty-first, but not above the twentieth.
    check("说明\n".repeat(19) + "代码,名称,备注\n1,甲,x\n", &row, 0, 0);
}

#[test]
fn labels_are_compared_as_people_read_them() {
    for header in [
        "CODE,名 称,*备注",
        "代码,名称\u{200b},备注",
        "代码：,名称(必填),＊备注",
        " 代码 ,ｎａｍｅ,Title Of Note",
    ] {
        check(format!("{header}\n1,甲,x\n"), &["1|甲|x"], 0, 0);
    }
    let twice = Letters::refused("代码,代 码,名称\n1,1,甲\n".as_bytes());
    assert!(twice.contains("several columns name the field code"), "{twice}");
    let unknown = Letters::refused("代码,名称,火星\n1,甲,x\n".as_bytes());
    assert!(unknown.contains("火星") && unknown.contains("--ignore-column"), "{unknown}");
    let reading = Reading { ignored: vec!["火 星".into()], ..Reading::default() };
    let outcome = Letters::new().try_read("代码,名称,火星\n1,甲,x\n".as_bytes(), reading).unwrap();
    assert_eq!(outcome.records, ["1|甲|"]);
    // The columns of a file of rejected rows that was mended.
    let mended =
        format!("{},代码,名称\n坏,改,1,甲\n", crate::ingest::rows::REJECT_COLUMNS.join(","));
    check(mended, &["1|甲|"], 0, 0);
}

#[test]
fn when_nothing_fits_it_says_what_was_tried() {
    let text = Letters::refused("什么,是\n1,2\n".as_bytes());
    for part in ["什*,是", "代码", "前 2 行", "\\x01", "；"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let near = Letters::refused("代码;名 字;备注\n1;2;3\n".as_bytes());
    for part in ["第 1 行", "分隔符为 ;", "名 字"] {
        assert!(near.contains(part), "{part}: {near}");
    }
}

#[test]
fn columns_without_label_and_content_are_ignored() {
    let rows = ["1|甲|x", "2|乙|y"];
    check("代码,名称,备注,,\n1,甲,x,,\n2,乙,y,,\n", &rows, 0, 0);
    check("代码,名称,备注\n1,甲,x,\n2,乙,y, ,\n", &rows, 0, 0);
    check("代码,名称,备注,,\n1,甲,x\n2,乙,y,\n", &rows, 0, 0);
    check("代码,,名称,备注\n1,,甲,x\n2, ,乙,y\n", &rows, 0, 0);
    let many = ",".repeat(16_381);
    check(format!("代码,名称,备注{many}\n1,甲,x{many}\n2,乙,y{many}\n"), &rows, 0, 0);
    // A value in one of them costs its row.
    let outcome = check("代码,名称,备注,,\n1,甲,x,,z\n2,乙,y,,\n", &rows[1..], 1, 0);
    outcome.assert_told("unlabelled-value", "2");
    let row = outcome.rejects.lines().nth(1).unwrap();
    assert!(row.contains("第 5 列") && row.contains(",1,甲,x,,z,←"), "{}", outcome.rejects);
    check("代码,,名称,备注\n1,q,甲,x\n2,,乙,y\n", &rows[1..], 1, 0);
    check("代码,名称,备注\n1,甲,x,z\n2,乙,y\n", &rows[1..], 1, 0);
}

#[test]
fn a_forgotten_quote_costs_its_own_row() {
    let header = "代码,名称,备注\n";
    let outcome = check(
        format!("{header}1,甲,x\n2,乙,\"y\n3,丙,z\n4,丁,w\"\n5,戊,v\n"),
        &["1|甲|x", "3|丙|z", "4|丁|w\"", "5|戊|v"],
        1,
        0,
    );
    assert_eq!((outcome.report.suspicious, outcome.report.warnings), (1, 1));
    // Quotes that stand for "the same as above".
    let ditto = format!("{header}1,甲,x\n2,\",y\n3,\",z\n4,\",w\n5,\",v\n6,乙,u\n");
    let outcome = Letters::read(ditto.as_bytes());
    assert!(outcome.records.contains(&"6|乙|u".to_owned()), "{:?}", outcome.records);
    assert!(outcome.records.iter().all(|record| !record.contains('\n')), "{:?}", outcome.records);
    assert_eq!(outcome.report.inserted + outcome.report.rejected, 6);
    check(
        "代码\t名称\t备注\n1\t\"甲 公司\tx\n2\t乙 3\"\ty\n3\t丙\tz\n",
        &["2|乙 3\"|y", "3|丙|z"],
        1,
        0,
    );
    // Well-formed values with line breaks stay what they are.
    check(
        format!("{header}1,甲,\"一\n二，三\"\n2,\"乙\r\n丙\",\"x,\ny,z\"\n"),
        &["1|甲|一\n二，三", "2|乙\r\n丙|x,\ny,z"],
        0,
        0,
    );
}

#[test]
fn odd_quotes_are_read_and_said() {
    let outcome = check("代码,名称,备注\n1,78\"桌,木制\n", &["1|78\"桌|木制"], 0, 0);
    assert_eq!((outcome.report.warnings, outcome.report.suspicious), (1, 1));
    outcome.assert_told("inner-quote", "2");
    let outcome = check(
        "代码,名称,备注\n1,\"甲 \\\"乙\\\" 丙\",\"a\\\\b\"\n2,\"\\\"\",y\n3,\"丙\\\\\",z\n",
        &["1|甲 \"乙\" 丙|a\\b", "2|\"|y", "3|丙\\\\|z"],
        0,
        0,
    );
    assert_eq!(outcome.report.warnings, 2);
    outcome.assert_told("backslash-quote", "2");
}

#[test]
fn zero_bytes_cost_a_row_or_are_padding() {
    let outcome = check("代码,名称,备注\n1,甲\0,x\n2,乙,y\n", &["2|乙|y"], 1, 0);
    outcome.assert_told("control-character", "2");
    let padding = "\0".repeat(5000);
    let text = format!(
        "代码,名称,备注\n1,甲,x\n{padding}2,\"乙\",y{padding}\n{padding}\n3,丙,z\n{padding}"
    );
    let outcome = check(text, &["1|甲|x", "2|乙|y", "3|丙|z"], 0, 2);
    assert_eq!((outcome.report.warnings, outcome.report.suspicious), (1, 1));
    outcome.assert_told("zero-padding", "3");
    let huge = "\0".repeat(3 << 20);
    check(format!("代码,名称,备注\n1,甲,x\n{huge}2,乙,y\n"), &["1|甲|x", "2|乙|y"], 0, 0);
}

#[test]
fn rows_that_are_no_data_are_skipped() {
    let text = "代码,名称,备注\n1,甲,x\n,,\n\n \n,\" \",\n合计,,\n合计：1条,,1\n,总 计,2\n\x1a";
    check(text, &["1|甲|x"], 0, 8);
    // What has a key is data.
    check("代码,名称,备注\n1,合计,x\n", &["1|合计|x"], 0, 0);
}

#[test]
fn lines_are_those_of_a_spreadsheet_too() {
    let text = "名单\n代码,名称,备注\n1,\"甲\n乙\",x\n\n2,丙,y,z\n";
    let world = Letters::new();
    let outcome = world.try_read(text.as_bytes(), Reading::default()).unwrap();
    // Physical line 6; a spreadsheet shows it as row 5.
    outcome.assert_told("field-count", "6 (row 5)");
    assert!(outcome.rejects.contains("第 6 行（表格中第 5 行）"), "{}", outcome.rejects);
}

#[test]
fn a_sum_below_a_column_that_is_passed_over_is_no_row() {
    let reading = Reading { ignored: vec!["序号".into()], ..Reading::default() };
    let text = "序号,代码,名称,备注\n1,a,甲,x\n合计,,1,\n合计,b,乙,\n";
    let outcome = Letters::new().try_read(text.as_bytes(), reading).unwrap();
    assert_eq!(outcome.records, ["a|甲|x", "b|乙|"]);
    assert_eq!((outcome.report.rejected, outcome.report.skipped), (0, 1));
}

#[test]
fn blank_lines_are_counted_wherever_a_group_of_rows_ends() {
    // A full group of rows before nothing but blank lines.
    let rows: String = (0..4096).map(|number| format!("{number},甲,x\n")).collect();
    let outcome = Letters::read(format!("代码,名称,备注\n{rows}\n,,\n\n").as_bytes());
    assert_eq!((outcome.report.inserted, outcome.report.skipped), (4096, 3));
}

#[test]
fn a_second_table_below_the_first_is_not_read_as_more_of_it() {
    for second in ["备注,代码,名称\ny,2,乙\n", "title of name,代码,编号\n乙,2,7\n"] {
        let refused = Letters::refused(format!("代码,名称,备注\n1,甲,x\n{second}").as_bytes());
        assert!(refused.contains("第 3 行") && refused.contains("line 3"), "{refused}");
    }
    // One that names more columns is no reason to pass over the rows above it.
    let outcome = check("代码,名称\n1,甲\n代码,名称,备注\n2,乙,y\n", &["1|甲|"], 2, 0);
    assert!(outcome.rejects.contains("2,乙,y"), "{}", outcome.rejects);
}

#[test]
fn lines_of_zero_bytes_make_a_file_doubtful() {
    let zeros = "\0".repeat(1000);
    for text in [format!("2,乙,y\n{zeros}"), format!("{zeros}\n2,乙,y\n")] {
        let outcome = check(format!("代码,名称,备注\n1,甲,x\n{text}"), &["1|甲|x", "2|乙|y"], 0, 1);
        assert_eq!(outcome.report.notes[0].code, "cut");
    }
}

#[test]
fn bytes_that_merely_decode_are_not_stored() {
    let cases: [(&'static Charset, &str, &str); 5] = [
        (BIG5, "code,name,note\n1,統一編號,中華民國\n2,許功蓋,測試\n", "Big5"),
        (
            SHIFT_JIS,
            "code,name,note\n1,東京都千代田区,試験\n2,ソフトウェア株式会社,備考\n",
            "Shift_JIS",
        ),
        (EUC_KR, "code,name,note\n1,서울특별시,한국\n", "EUC-KR"),
        (WINDOWS_1252, "code,name,note\n2,Müller & Söhne,y\n3,Jürgen,z\n", "windows-1252"),
        (BIG5, "code,name,note\n1,台北市政府,測試\n", "Big5"),
    ];
    for (charset, text, name) in cases {
        let (bytes, _, lost) = charset.encode(text);
        assert!(!lost, "{text}");
        let refused = Letters::refused(&bytes);
        assert!(refused.contains(name) && refused.contains("--encoding"), "{name}: {refused}");
        // Named, it is read.
        let encoding: Encoding = name.parse().unwrap();
        let reading = Reading { encoding, ..Reading::default() };
        let outcome = Letters::new().try_read(&bytes, reading).unwrap();
        let expected: Vec<String> =
            text.lines().skip(1).map(|line| line.replace(',', "|")).collect();
        assert_eq!(outcome.records, expected, "{name}");
        assert_eq!(outcome.report.rejected, 0, "{name}");
    }
    let small = GB18030.encode("code,name,note\n1,郑州市中牟县,备注\n").0.into_owned();
    check(small, &["1|郑州市中牟县|备注"], 0, 0);
}

#[test]
fn rows_of_another_encoding_are_read_as_what_they_are() {
    let (gb, utf8) =
        (|text: &str| GB18030.encode(text).0.into_owned(), |text: &str| text.as_bytes().to_vec());
    let mut bytes =
        gb("代码,名称,备注\n1,郑州市商贸有限公司,甲\n2,中牟县农业合作社,乙\n3,新密市建设局,丙\n");
    bytes.extend(utf8("4,登封市旅游局,丁\n"));
    bytes.extend(gb("5,巩义市企业服务中心,戊\n"));
    let outcome = check(
        &bytes,
        &[
            "1|郑州市商贸有限公司|甲",
            "2|中牟县农业合作社|乙",
            "3|新密市建设局|丙",
            "4|登封市旅游局|丁",
            "5|巩义市企业服务中心|戊",
        ],
        0,
        0,
    );
    outcome.assert_told("other-encoding", "5");
    let mut bytes = utf8("代码,名称,备注\n1,郑州市商贸有限公司,甲\n2,中牟县农业合作社,乙\n");
    bytes.extend(gb("3,新密市建设局,丙\n"));
    let rows = ["1|郑州市商贸有限公司|甲", "2|中牟县农业合作社|乙", "3|新密市建设局|丙"];
    check(&bytes, &rows, 0, 0);
    // Whatever separates the columns; where the separator may be a byte of a
    // character, a row of UTF-8 is not taken for GB18030.
    for (separator, rejected) in [(';', 0), ('|', 1)] {
        let text = |text: &str| text.replace(',', &separator.to_string());
        let mut bytes =
            gb(&text("代码,名称,备注\n1,郑州市商贸有限公司,甲\n2,中牟县农业合作社,乙\n"));
        bytes.extend(utf8(&text("4,登封市旅游局,丁\n")));
        bytes.extend(gb(&text("5,巩义市企业服务中心,戊\n")));
        let mut rows =
            vec!["1|郑州市商贸有限公司|甲", "2|中牟县农业合作社|乙", "5|巩义市企业服务中心|戊"];
        if rejected == 0 {
            rows.insert(2, "4|登封市旅游局|丁");
        }
        check(&bytes, &rows, rejected, 0);
    }
    // Two bytes that are characters in both.
    let bytes = gb("代码,名称,备注\n1,联通,甲\n2,移动,乙\n");
    check(&bytes, &["1|联通|甲", "2|移动|乙"], 0, 0);
}

#[test]
fn a_file_that_may_be_cut_says_so() {
    let cut = |text: &str| {
        let world = Letters::new();
        let path = world.0.path("files/letters.csv");
        fs::write(&path, text).unwrap();
        let file = DeliveredFile::open(&path, Links::Follow, Reading::default()).unwrap();
        let schema = Schema::check(letters()).unwrap();
        let mut table = crate::ingest::source::Source::open(&file, &schema).unwrap();
        while !table.next_rows().unwrap().is_empty() {}
        table.summary().cut
    };
    assert!(cut("代码,名称,备注\n1,甲,x\n2,乙"));
    assert!(cut("代码,名称,备注\n1,甲,x\n2,乙,y"));
    assert!(cut("代码,名称,备注\n1,甲,x\n2,\"乙"));
    for whole in ["代码,名称,备注\n1,甲,x\n", "代码,名称,备注", "代码,名称,备注\r\n1,甲,x\r\n\x1a"]
    {
        assert!(!cut(whole), "{whole}");
    }
}

/// Codes of digits as a spreadsheet leaves them: whether the check character is
/// right is an accident.
fn rounded_codes(right: bool) -> impl Iterator<Item = String> {
    (0..).map(|number| format!("914101{number:09}000")).filter(move |code| {
        (protocol::uscc::check_character(&code.as_bytes()[..17]) == '0') == right
    })
}

#[test]
fn a_rounded_code_that_is_right_by_accident_is_told_by_the_others() {
    let letters = Letters::new();
    let mut raw = letters_of_codes();
    raw.dataset = "codes".into();
    letters.0.apply_schema(raw);
    let import = |codes: &[String], full: bool| {
        let world = &letters.0;
        let path = world.path("files/codes.csv");
        let lines = codes.iter().map(|code| format!("{code},某公司\n")).collect::<String>();
        fs::write(&path, format!("code,name\n{lines}")).unwrap();
        let file = DeliveredFile::open(&path, Links::Follow, Reading::default()).unwrap();
        let request = ImportRequest {
            dataset: DatasetId::new("codes").unwrap(),
            source: Arc::new(file),
            full,
            approved: None,
            rejects: world.path("rejects/codes.csv"),
        };
        let report = world.importer.import(&request, &|_| {}).unwrap();
        (report.inserted, report.unchanged, report.rejected)
    };
    let right: Vec<String> = rounded_codes(true).take(3).collect();
    let wrong: Vec<String> = rounded_codes(false).take(5).collect();
    // Alone they are codes like any others; and what is stored stays.
    assert_eq!(import(&right[..1], false), (1, 0, 0));
    let mixed = [&right[..], &wrong[..]].concat();
    assert_eq!(import(&mixed, false), (0, 1, 7));
    assert_eq!(import(&mixed, true), (0, 1, 7), "a full file that is noted");
    assert_eq!(import(&mixed, true), (0, 1, 7), "and the same when it is recalled");
}

/// A credit code as the key, and a name.
fn letters_of_codes() -> RawSchema {
    let mut raw = letters();
    raw.fields.truncate(2);
    raw.fields[0].kind = FieldType::Uscc;
    raw
}
