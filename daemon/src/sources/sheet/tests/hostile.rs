//! Workbooks that are cut, lie about their sizes, or were made to cost much. Those
//! that end their reader's process are in `tests/tests/e2e`, where there is one.

use std::io::Cursor;

use super::{
    super::inflate::{Limits, check},
    made::{archive, xlsx_of},
    *,
};

fn fault(bytes: &[u8]) -> Option<Fault> {
    match Workbook::open(file(bytes), program()) {
        Err(ChildError::Fault(fault)) => Some(fault),
        Err(error) => panic!("{error}"),
        Ok(workbook) => workbook.sheets().iter().find_map(|sheet| sheet.fault),
    }
}

const SHEET: &str = "<?xml version=\"1.0\"?><worksheet><dimension ref=\"A1:XFD1048576\"/><sheetData>\
    <row r=\"1\"><c r=\"A1\" t=\"inlineStr\"><is><t>代码</t></is></c></row>\
    <row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row></sheetData></worksheet>";

#[test]
fn a_workbook_that_is_cut_is_refused() {
    let whole = xlsx_of(SHEET, "<sst/>");
    for length in [0, 3, 4, 30, whole.len() / 2, whole.len() - 1] {
        assert_eq!(fault(&whole[..length]), Some(Fault::Damaged), "{length}");
    }
    for length in [512, 1024, TYPED_XLS.len() / 2] {
        assert_eq!(fault(&TYPED_XLS[..length]), Some(Fault::Damaged), "{length}");
    }
    let mut flipped = whole.clone();
    let at = whole.windows(9).position(|part| part == b"sheet1.xm").unwrap() + 20;
    flipped[at] ^= 0xff;
    assert_eq!(fault(&flipped), Some(Fault::Damaged));
}

#[test]
fn an_ods_without_an_end_tag_is_refused() {
    let tables = "<table:table table:name=\"a\"><table:table-row><table:table-cell/></table:table-row></table:table>";
    assert_eq!(fault(&ods(tables)), None);
    for cut in ["</table:table>", "</table:table-row>", "<table:table-row>"] {
        assert_eq!(fault(&ods(&tables.replace(cut, ""))), Some(Fault::Damaged), "{cut}");
    }
    assert_eq!(fault(&ods("<table:table><table:table-row><!-- ")), Some(Fault::Damaged));
}

#[test]
fn what_an_ods_repeats_has_a_limit() {
    let of = |row: &str, cell: &str, text: &str| {
        ods(&format!(
            "<table:table table:name=\"a\"><table:table-row><table:table-cell office:value-type=\"string\"><text:p>代码</text:p></table:table-cell></table:table-row>\
            <table:table-row {row}><table:table-cell office:value-type=\"string\" {cell}><text:p>{text}</text:p></table:table-cell></table:table-row></table:table>"
        ))
    };
    let long = "x".repeat(200_000);
    let bomb = of("table:number-rows-repeated=\"1000000\"", "", &long);
    assert_eq!(fault(&bomb), Some(Fault::TooLarge));
    let workbook = open(&of("", "table:number-columns-repeated=\"16384\"", &long));
    assert_eq!(rows(&workbook, 0, 1, 1), [(2, Err("row-too-long"))]);
    let workbook = open(&of("table:number-rows-repeated=\"2000000\"", "", "x"));
    let mut reader = workbook.read(0, 1, &["x".into()], Columns::default()).unwrap();
    let found = std::iter::repeat_with(|| reader.next_rows()).find(|rows| rows.is_err());
    assert!(matches!(found, Some(Err(ChildError::Fault(Fault::TooLarge)))));
}

#[test]
fn what_lies_under_merged_cells_is_not_there() {
    let cell = |place: &str, text: &str| {
        format!("<c r=\"{place}\" t=\"inlineStr\"><is><t>{text}</t></is></c>")
    };
    let rows_of = [
        cell("A1", "代码") + &cell("B1", "名称") + &cell("C1", "备注"),
        cell("A2", "甲") + &cell("B2", "一") + &cell("C2", "旧"),
        cell("A3", "乙") + &cell("B3", "旧") + &cell("C3", "x"),
        cell("A4", "丙") + &cell("B4", "二") + &cell("C4", "y"),
    ];
    let rows_of: String =
        (1..).zip(&rows_of).map(|(at, row)| format!("<row r=\"{at}\">{row}</row>")).collect();
    let merges = "<mergeCells><mergeCell ref=\"B2:C2\"/><mergeCell ref=\"B3:B4\"/></mergeCells>";
    let sheet = format!("<worksheet><sheetData>{rows_of}</sheetData>{merges}</worksheet>");
    let workbook = open(&xlsx_of(&sheet, "<sst/>"));
    assert_eq!(
        rows(&workbook, 0, 1, 3),
        [row(2, &["甲", "一", ""]), row(3, &["乙", "旧", "x"]), (4, Err("merged-cell"))]
    );
    let hidden = ods(
        "<table:table table:name=\"a\"><table:table-row><table:table-cell office:value-type=\"string\"><text:p>代码</text:p></table:table-cell></table:table-row>\
        <table:table-row><table:table-cell office:value-type=\"string\" table:number-columns-spanned=\"2\"><text:p>甲</text:p></table:table-cell><table:covered-table-cell office:value-type=\"string\"><text:p>旧</text:p></table:covered-table-cell></table:table-row></table:table>",
    );
    assert_eq!(rows(&open(&hidden), 0, 1, 2), [row(2, &["甲", ""])]);
}

#[test]
fn two_rows_of_one_number_are_no_row() {
    let cell = |place: &str| format!("<c r=\"{place}\"><v>1</v></c>");
    let of = |rows: &[&[&str]]| -> String {
        rows.iter()
            .map(|cells| cells.iter().map(|place| cell(place)).collect::<String>())
            .map(|cells| format!("<row>{cells}</row>"))
            .collect()
    };
    let sheet = of(&[&["A1", "B1"], &["A2", "B2"], &["A2"], &["A3", "B3"], &["A4", "B4", "B4"]]);
    let workbook =
        open(&xlsx_of(&format!("<worksheet><sheetData>{sheet}</sheetData></worksheet>"), "<sst/>"));
    assert_eq!(
        rows(&workbook, 0, 1, 2),
        [(2, Err("damaged-cell")), row(3, &["1", "1"]), (4, Err("damaged-cell"))]
    );
}

#[test]
fn a_cell_far_away_costs_its_row() {
    let workbook = open(&xlsx_of(SHEET, "<sst/>"));
    assert_eq!(rows(&workbook, 0, 1, 1), [(1_048_576, Err("row-too-long"))]);
}

#[test]
fn what_makes_no_sense_is_refused_or_costs_its_sheet() {
    let of = |rows: &str| {
        let sheet = format!("<worksheet><sheetData>{rows}</sheetData></worksheet>");
        fault(&xlsx_of(&sheet, "<sst count=\"1000\" uniqueCount=\"1000\"><si><t>a</t></si></sst>"))
    };
    assert_eq!(of("<row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c></row>"), None);
    // A text that is not there and all that there is, a row that goes back, a place
    // that is none.
    assert_eq!(of("<row r=\"1\"><c r=\"A1\" t=\"s\"><v>1</v></c></row>"), Some(Fault::Damaged));
    let back =
        "<row r=\"2\"><c r=\"A2\"><v>1</v></c></row><row r=\"1\"><c r=\"A1\"><v>1</v></c></row>";
    assert_eq!(of(back), Some(Fault::Damaged));
    assert_eq!(of("<row r=\"0\"><c r=\"A0\"><v>1</v></c></row>"), Some(Fault::Damaged));
}

#[test]
fn a_cell_that_cannot_be_read_costs_its_row() {
    let good = |row: u32| {
        format!(
            "<row r=\"{row}\"><c r=\"A{row}\" t=\"s\"><v>0</v></c><c r=\"B{row}\"><v>1</v></c></row>"
        )
    };
    let of = |rows: &[&str]| {
        let sheet = format!("<worksheet><sheetData>{}</sheetData></worksheet>", rows.concat());
        open(&xlsx_of(&sheet, "<sst><si><t>a</t></si></sst>"))
    };
    let ok = |line| row(line, &["a", "1"]);
    for odd in [
        "t=\"s\"><v>7</v>",
        "t=\"b\"><v>2</v>",
        "t=\"n\"><v>x</v>",
        "t=\"e\"><v>#WHAT</v>",
        "t=\"n\"><v>nan</v>",
    ] {
        // Between two cells of a row.
        let row = format!(
            "<row r=\"3\"><c r=\"A3\" t=\"s\"><v>0</v></c><c r=\"B3\" {odd}</c><c r=\"C3\"><v>1</v></c></row>"
        );
        let workbook = of(&[&good(1), &good(2), &row, &good(4)]);
        let found = rows(&workbook, 0, 1, 2);
        assert!(found[1].0 == 3 && found[1].1.is_err(), "{odd}: {found:?}");
        assert_eq!([&found[0], &found[2]], [&ok(2), &ok(4)], "{odd}");
    }
    // The last of a row or the first of the next: both are told of.
    let row = "<row r=\"3\"><c r=\"A3\" t=\"s\"><v>0</v></c><c r=\"B3\" t=\"s\"><v>7</v></c></row>";
    let workbook = of(&[&good(1), &good(2), row, &good(4), &good(5)]);
    assert_eq!(
        rows(&workbook, 0, 1, 2),
        [ok(2), (3, Err("damaged-cell")), (4, Err("damaged-cell")), ok(5)]
    );
    // Where a row might be lost, the sheet is.
    let workbook = of(&[&good(1), &good(2), row]);
    assert_eq!(workbook.sheets()[0].fault, Some(Fault::Damaged));
    let workbook = of(&[&good(1), row, &good(9)]);
    assert_eq!(workbook.sheets()[0].fault, Some(Fault::Damaged));
}

#[test]
fn a_long_cell_costs_its_row() {
    let long = "x".repeat(super::super::super::texts::ROW_BYTES_MAX + 1);
    let sheet = format!(
        "<worksheet><sheetData><row r=\"1\"><c r=\"A1\" t=\"str\"><v>a</v></c></row>\
         <row r=\"2\"><c r=\"A2\" t=\"str\"><v>{long}</v></c></row>\
         <row r=\"3\"><c r=\"A3\" t=\"str\"><v>b</v></c></row></sheetData></worksheet>"
    );
    let workbook = open(&xlsx_of(&sheet, "<sst/>"));
    assert_eq!(rows(&workbook, 0, 1, 1), [(2, Err("row-too-long")), row(3, &["b"])]);
}

#[test]
fn what_parts_unpack_to_is_measured_and_not_believed() {
    let zeros = vec![b' '; 100_000];
    let bytes = archive(&[("xl/worksheets/sheet1.xml", &zeros), ("xl/sharedStrings.xml", b"x")]);
    let limits = |sheets_bytes, others_bytes| Limits { parts: 2, sheets_bytes, others_bytes };
    let check = |bytes: &[u8], limits| check(Cursor::new(bytes), limits).map(drop);
    assert_eq!(check(&bytes, limits(100_000, 1)), Ok(()));
    assert_eq!(check(&bytes, limits(99_999, 1)), Err(Fault::TooLarge));
    assert_eq!(check(&bytes, limits(100_000, 0)), Err(Fault::TooLarge));
    assert_eq!(check(&bytes, Limits { parts: 1, ..limits(100_000, 1) }), Err(Fault::TooMany));
    // The directory says less than there is, which a reader that believes it
    // would take memory for.
    let mut lying = bytes.clone();
    let size = 100_000u32.to_le_bytes();
    let places: Vec<usize> = (0..lying.len() - 4).filter(|at| lying[*at..at + 4] == size).collect();
    assert!(!places.is_empty());
    for at in places {
        lying[at..at + 4].copy_from_slice(&10u32.to_le_bytes());
    }
    assert_ne!(check(&lying, limits(1000, 1000)), Ok(()));
}

#[test]
fn fronts_of_many_sheets_have_a_limit() {
    let mut book = xlsx::Workbook::new();
    for _ in 0..40 {
        let sheet = book.add_worksheet();
        for row in 0..20 {
            sheet.write(row, 0, "x".repeat(30_000)).unwrap();
        }
    }
    let bytes = book.save_to_buffer().unwrap();
    assert_eq!(fault(&bytes), Some(Fault::TooLarge));
}
