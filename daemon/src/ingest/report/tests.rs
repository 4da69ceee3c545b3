//! Counts, words and the rejects file by themselves.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use protocol::schema::{Field, FieldType, RawSchema, Schema};

use super::{
    super::{
        map::Mapping,
        rows::{Fields, Place, REJECT_COLUMNS, RowNote, RowProblem, Span},
        validate::{RowIssue, Severity, Validator},
    },
    tally::PLACES_MAX,
    text::{About, for_people},
    *,
};
use crate::ingest::random::Random;

fn at(line: u64) -> Place {
    Place::new(0, line, line)
}

fn schema() -> Schema {
    let field = |name: &str, title: &str, values: &[&str]| Field {
        name: name.into(),
        title_zh: title.into(),
        title_en: format!("the {name}"),
        kind: FieldType::Text,
        required: true,
        personal: name == "person",
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        strict: true,
        ..Field::default()
    };
    Schema::check(RawSchema {
        dataset: "list".into(),
        version: 1,
        title_zh: "名单".into(),
        title_en: "a list".into(),
        key: vec!["code".into()],
        fields: vec![
            field("code", "代码", &[]),
            field("state", "状态", &["存续", "注销"]),
            field("person", "负责人", &[]),
        ],
        ..RawSchema::default()
    })
    .unwrap()
}

fn mapping(labels: &[&str]) -> Mapping {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    Mapping::new(&labels, &schema(), &[]).unwrap()
}

fn describer(labels: &[&str]) -> Describer {
    Describer::new(&schema(), &mapping(labels), Vec::new())
}

/// What is wrong with a row of the three columns.
fn issues(texts: [&str; 3]) -> Vec<RowIssue> {
    let mut validator = Validator::new(&schema(), mapping(&["code", "state", "person"]).columns());
    validator.row(texts).issues
}

fn rejected(path: &Path, describer: &Describer, rows: &[([&str; 3], Place)]) -> String {
    let mut file = RejectsFile::new(path.to_owned());
    for (texts, place) in rows {
        let mut batch = RejectedRows::default();
        batch.push(describer.words(*place, &issues(*texts)), texts);
        file.append(&batch, 1, describer).unwrap();
    }
    assert_eq!(file.finish().unwrap(), Some(path.to_owned()));
    fs::read_to_string(path).unwrap()
}

#[test]
fn nothing_wrong_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(RejectsFile::new(dir.path().join("r.csv")).finish().unwrap(), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn rejected_rows_stand_as_delivered_behind_words_about_them_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.csv");
    fs::write(&path, "from the last time").unwrap();
    let describer = describer(&["代码", "状态", "负责人"]);
    let rows = [(["=1+1", "开业", " 张,\"三\" "], Place::new(0, 9, 7)), (["c2", "", ""], at(10))];
    let text = rejected(&path, &describer, &rows);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = text.strip_prefix('\u{feff}').unwrap();
    let mut lines = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let lines: Vec<Vec<String>> =
        lines.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect();
    assert_eq!(lines[0], [REJECT_COLUMNS[0], REJECT_COLUMNS[1], "代码", "状态", "负责人"]);
    assert_eq!(lines[1][2..], ["=1+1", "开业", " 张,\"三\" "]);
    assert_eq!(lines[2][2..], ["c2", "", ""]);
    // Fields by their titles, the allowed values, both numbers of the line; never
    // the value.
    for part in ["第 9 行", "表格中第 7 行", "“状态”", "'the state'"] {
        assert!(lines[1][0].contains(part), "{part} in {lines:?}");
    }
    assert!(lines[1][1].contains("存续、注销"), "{lines:?}");
    assert!(!lines[1][0].contains("张") && !lines[1][1].contains("张"), "{lines:?}");
    for part in ["请把“状态”改为", "请补填“负责人”", "fill in 'the person'"] {
        assert!(lines[2][1].contains(part), "{part} in {lines:?}");
    }
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_hopeless_file_makes_a_bounded_file_that_says_how_many_more() {
    let dir = tempfile::tempdir().unwrap();
    let describer = describer(&["code", "state", "person"]);
    let mut file = RejectsFile::new(dir.path().join("r.csv"));
    let mut batch = RejectedRows::default();
    for line in 0..REJECT_ROWS_MAX / 4 + 2 {
        batch.push([line.to_string(), String::new()], &["a", "b", "c"]);
    }
    for number in 0..4 {
        assert_eq!(describer.is_full(), number == 4);
        file.append(&batch, REJECT_ROWS_MAX / 4 + 2, &describer).unwrap();
    }
    // Nobody writes rows down any more.
    assert!(describer.is_full());
    file.append(&RejectedRows::default(), 5, &describer).unwrap();
    let text = fs::read_to_string(file.finish().unwrap().unwrap()).unwrap();
    assert_eq!(text.lines().count() as u64, REJECT_ROWS_MAX + 2);
    assert!(text.lines().last().unwrap().contains("13 more rows"));
}

#[test]
fn what_is_not_finished_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let describer = describer(&["code", "state", "person"]);
    let mut batch = RejectedRows::default();
    batch.push(["x".into(), String::new()], &["a", "b", "c"]);
    let mut file = RejectsFile::new(dir.path().join("r.csv"));
    file.append(&batch, 1, &describer).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    drop(file);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn parts_with_other_columns_are_brought_into_the_first_ones_order() {
    let first = describer(&["person", "code", "state"]);
    let (text, spans) = ("abc", [Span::plain(0, 1), Span::plain(1, 2), Span::plain(2, 3)]);
    let other = mapping(&["code", "state", "person"]);
    assert_eq!(first.cells(Fields::new(text, &spans), &other), ["c", "a", "b"]);
    let same = mapping(&["person", "code", "state"]);
    assert_eq!(first.cells(Fields::new(text, &spans), &same), ["a", "b", "c"]);
}

#[test]
fn a_malformed_line_is_split_and_is_no_row_before_it_is_mended() {
    let describer = describer(&["code", "state", "person"]);
    for (line, cells) in [
        ("c1,\"存续,张三", &["c1", "\"存续", "张三"][..]),
        ("c1;存续;张,三", &["c1", "存续", "张,三"]),
        ("c1\t存续", &["c1", "存续", ""]),
        // Cells of a workbook, whatever is in them.
        ("c1\u{1}存,续,", &["c1", "存,续,", ""]),
        ("a,b,c,d,e", &["a", "b", "c", "d", "e"]),
        ("", &["", "", ""]),
    ] {
        let found = describer.malformed_cells(line);
        let (last, found) = found.split_last().unwrap();
        assert_eq!(found, cells);
        assert!(last.contains("delete this cell"), "{last}");
    }
    // A row that comes back unmended has neither the words nor the hint once more.
    let again = super::describe::Describer::new(
        &schema(),
        &mapping(&["问题/problem", "怎么办/what to do", "code", "state", "person"]),
        Vec::new(),
    );
    let hint = describer.malformed_cells("").pop().unwrap();
    for line in [
        format!("\"第 2 行，\"\"a\"\", b\",\"x, y\",c1,存续,,,{hint}"),
        format!("第 2 行;x;c1;存续;;;{hint}"),
        format!("a,b\u{1}c\u{1}c1\u{1}存续\u{1}\u{1}\u{1}{hint}"),
    ] {
        assert_eq!(again.malformed_cells(&line), ["c1", "存续", "", "", hint], "{line}");
    }
    // A megabyte without a line end is shortened, between two characters.
    let long = "长".repeat(400_000);
    assert!(describer.malformed_cells(&long)[0].len() <= 64 * 1024);
}

/// A problem of one of four kinds.
fn add_some(kind: u64, tally: &mut Tally, line: u64) {
    match kind {
        0 => tally.add_odd(at(line), RowNote::InnerQuote),
        1 => tally.add_malformed(at(line), &RowProblem::UnclosedQuote),
        2 => tally.add_duplicates(&[at(line), at(line + 1)], 2, at(line + 2), true),
        _ => issues(["c", "x", ""]).iter().for_each(|issue| tally.add_issue(at(line), issue)),
    }
}

#[test]
fn details_do_not_depend_on_where_batches_end() {
    let mut random = Random::new();
    for _ in 0..20 {
        let problems: Vec<u64> = (0..200).map(|_| random.below(4)).collect();
        let all = |batch_rows: usize| {
            let mut whole = Tally::default();
            for (number, kinds) in problems.chunks(batch_rows).enumerate() {
                let mut batch = Tally::default();
                for (line, kind) in (number * batch_rows..).zip(kinds) {
                    add_some(*kind, &mut batch, line as u64);
                }
                whole.merge(&batch);
            }
            [Severity::Reject, Severity::Warning].map(|severity| whole.details(severity, None, &[]))
        };
        assert_eq!(all(200), all(1));
        assert_eq!(all(200), all(7));
    }
}

#[test]
fn a_million_equal_warnings_are_one_line_and_ten_places() {
    let issue = RowIssue { severity: Severity::Warning, ..issues(["c", "x", "李四"])[0].clone() };
    let mut whole = Tally::default();
    for batch in 0..1000 {
        let mut tally = Tally::default();
        for row in 0..1000 {
            tally.add_issue(at(batch * 1000 + row + 2), &issue);
        }
        whole.merge(&tally);
    }
    let describer = describer(&["code", "state", "person"]);
    let details = whole.details(Severity::Warning, Some(&describer), &[]);
    assert_eq!(details.len(), 1);
    let Details { rule, field, title, count, places, sample, .. } = &details[0];
    assert_eq!((rule.as_str(), field.as_deref(), *count), ("values", Some("state"), 1_000_000));
    assert_eq!((title.as_deref(), sample.as_deref()), (Some("状态"), Some("x")));
    let first: Vec<String> = (2..2 + PLACES_MAX).map(|line| line.to_string()).collect();
    assert_eq!(places, &first);
    assert_eq!(whole.details(Severity::Reject, None, &[]), []);
}

#[test]
fn rows_of_a_key_are_told_with_the_one_that_counts() {
    let mut tally = Tally::default();
    tally.add_duplicates(&[at(2), at(3)], 2, at(9), false);
    let named: Vec<Place> = (10..26).map(at).collect();
    tally.add_duplicates(&named, 1000, at(2000), true);
    let details = tally.details(Severity::Warning, None, &[]);
    let [differing, equal] = &details[..] else { panic!("{details:?}") };
    assert_eq!((equal.rule.as_str(), equal.count), ("duplicate", 2));
    assert_eq!(
        (&equal.places[..], &equal.winners[..]),
        (&["2".into(), "3".into()][..], &["9".into(), "9".into()][..])
    );
    assert_eq!((differing.rule.as_str(), differing.count), ("duplicate-differing", 1000));
    assert_eq!((differing.places.len(), differing.winners.len()), (PLACES_MAX, PLACES_MAX));
    assert_eq!(differing.winners[0], "2000");
}

#[test]
fn what_a_rejects_file_leaves_out_stands_in_a_row_of_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let describer = describer(&["code", "state", "person"]);
    let mut file = RejectsFile::new(dir.path().join("a.rejects.csv"));
    let mut rows = RejectedRows::default();
    rows.push(["错".into(), "改".into()], &["c", "x", "y"]);
    file.append(&rows, 10, &describer).unwrap();
    let text = std::fs::read_to_string(file.finish().unwrap().unwrap()).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("另有 9 行未列出") && last.ends_with(",,,"), "{last}");
}

#[test]
fn kinds_are_bounded_and_what_is_left_out_is_counted() {
    let mut tally = Tally::default();
    let template = issues(["c", "x", "y"])[0].clone();
    for number in 0..5000u64 {
        let field = format!("f{number}");
        let issue = RowIssue { field: field.as_str().into(), ..template.clone() };
        tally.add_issue(at(number), &issue);
    }
    let details = tally.details(Severity::Reject, None, &[]);
    assert_eq!(details.iter().map(|one| one.count).sum::<u64>(), 5000);
    assert_eq!(details.len(), 65);
    assert_eq!(details.last().unwrap().rule, "more");
}

#[test]
fn people_are_told_the_outcome_the_numbers_and_what_to_do_in_both_languages() {
    let mut tally = Tally::default();
    for line in 2..30 {
        issues(["c", "x", "y"]).iter().for_each(|issue| tally.add_issue(at(line), issue));
    }
    let describer = describer(&["code", "state", "person"]);
    let report = ImportReport {
        rows: 40,
        inserted: 12,
        rejected: 28,
        reject_details: tally.details(Severity::Reject, Some(&describer), &[]),
        notes: vec![Note::new("cut", "可能没有传完", "may be cut off")],
        ..ImportReport::default()
    };
    let about = About {
        file: "五月.csv",
        dataset: "list",
        full: true,
        at: "2026-05-01 09:00:00 (UTC+08:00)",
        rejects: Some("五月.csv.rejects.csv"),
    };
    let text = for_people(&report, &about);
    let (zh, en) = text.split_once("\r\n\r\n").unwrap();
    for part in [
        "全量文件 五月.csv",
        "UTC+08:00",
        "有些行被拒绝",
        "新增 12",
        "拒绝 28",
        "五月.csv.rejects.csv",
        "可能没有传完",
        "拒绝 28 个，“状态”",
        "行 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 等",
    ] {
        assert!(zh.contains(part), "{part} in {zh}");
    }
    for part in
        ["The full file", "12 inserted", "28 rejected", "may be cut off", "28 x rejected: state"]
    {
        assert!(en.contains(part), "{part} in {en}");
    }
    // Every outcome has its own words.
    let all = [
        ImportReport { rows: 1, inserted: 1, ..ImportReport::default() },
        ImportReport { rows: 1, rejected: 1, ..ImportReport::default() },
        ImportReport { held: Some(Box::default()), ..ImportReport::default() },
        report,
    ];
    let outcomes = all.each_ref().map(ImportReport::outcome);
    use Outcome::{Attention, Done, Failed};
    assert_eq!(outcomes, [Done, Failed, Attention, Attention]);
    let texts = all.map(|report| for_people(&report, &about).lines().nth(1).unwrap().to_owned());
    for (number, text) in texts.iter().enumerate() {
        assert!(!texts[..number].contains(text), "{texts:?}");
    }
}

#[test]
fn the_report_has_the_documented_shape() {
    let report = ImportReport {
        rows: 15,
        inserted: 1,
        updated: 2,
        deleted: 50,
        unchanged: 3,
        rejected: 4,
        duplicates: 5,
        ..ImportReport::default()
    };
    assert!(report.adds_up());
    assert!(!ImportReport { rows: 16, ..report.clone() }.adds_up());
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        "{\"rows\":15,\"inserted\":1,\"updated\":2,\"deleted\":50,\"unchanged\":3,\
         \"rejected\":4,\"skipped\":0,\"warnings\":0,\"duplicates\":5,\"suspicious\":0,\
         \"change_sets\":0,\"seq\":0,\"seconds\":0.0,\"rejects_file\":null,\"held\":null,\"delivery\":null,\
         \"warning_details\":[],\"reject_details\":[],\"notes\":[]}"
    );
}
