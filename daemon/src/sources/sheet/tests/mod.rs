//! Workbooks as texts: what a person sees comes out, whatever wrote the file.

mod hostile;
mod made;

use std::{fs::File, io::Write as _};

use rust_xlsxwriter as xlsx;

use super::*;
use crate::sources::child::finish;
use made::{ods, xlsb};

const TYPED_XLS: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/workbooks/typed.xls"));
const EPOCH_1904_XLS: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/workbooks/epoch-1904.xls"
));

/// A thread in the child's place.
fn program() -> Program {
    Program::Thread(|task, input, answer, _| {
        let done = match task {
            Task::SheetFronts { rows } => reading::fronts(input, *rows, answer),
            Task::Sheet { index, header_line, columns } => {
                reading::sheet(input, (*index, *header_line), columns, answer)
            }
            _ => Err(Fault::Internal.into()),
        };
        finish(done, answer)
    })
}

/// A file without a name.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(bytes: &[u8]) -> Workbook {
    Workbook::open(file(bytes), program()).unwrap()
}

type Shown = Vec<(u64, Result<Vec<String>, &'static str>)>;

/// All rows below `header_line`.
fn rows(workbook: &Workbook, index: u32, header_line: u32, columns: usize) -> Shown {
    // The first and the last column are texts.
    let (last, others) = (columns as u16 - 1, (1..columns as u16 - 1).collect());
    let fields = Columns { texts: vec![0, last], others };
    // The second says 万元.
    let header: Vec<String> =
        (0..columns).map(|at| if at == 1 { "额(万元)" } else { "x" }.to_owned()).collect();
    let mut reader = workbook.read(index, header_line, &header, fields).unwrap();
    let mut all = Vec::new();
    loop {
        let rows = reader.next_rows().unwrap();
        if rows.is_empty() {
            return all;
        }
        all.extend(rows.shown());
    }
}

fn row(line: u64, cells: &[&str]) -> (u64, Result<Vec<String>, &'static str>) {
    (line, Ok(cells.iter().map(|cell| (*cell).to_owned()).collect()))
}

#[test]
fn cells_of_an_xlsx_are_what_a_person_sees() {
    let mut book = xlsx::Workbook::new();
    let format = |code: &str| xlsx::Format::new().set_num_format(code);
    let sheet = book.add_worksheet().set_name("名单").unwrap();
    for (column, label) in ["代码", "数", "日期", "标志", "公式", "富文本"].iter().enumerate()
    {
        sheet.write(0, column as u16, *label).unwrap();
    }
    sheet.write(1, 0, "007").unwrap();
    sheet.write(1, 1, 5245.0).unwrap();
    let date = xlsx::ExcelDateTime::from_ymd(2019, 3, 1).unwrap();
    sheet.write_with_format(1, 2, &date, &format("yyyy\"年\"m\"月\"d\"日\"")).unwrap();
    sheet.write(1, 3, true).unwrap();
    sheet.write(1, 4, xlsx::Formula::new("=B2*2").set_result("10490")).unwrap();
    let bold = xlsx::Format::new().set_bold();
    let rich = [(&bold, "合成"), (&xlsx::Format::default(), "企业, \"甲\"\n乙")];
    sheet.write_rich_string(1, 5, &rich).unwrap();
    // Row 3 is blank.
    sheet.write_with_format(3, 0, 7, &format("000000")).unwrap();
    sheet.write(3, 1, 914_101_001_700_014_000.0).unwrap();
    let moment = xlsx::ExcelDateTime::parse_from_str("2019-03-01T10:20:30").unwrap();
    sheet.write_with_format(3, 2, &moment, &format("yyyy-mm-dd hh:mm:ss")).unwrap();
    // Formats without content to the right and below.
    sheet.write_blank(3, 9, &bold).unwrap();
    sheet.write_blank(99, 0, &bold).unwrap();
    sheet.write(4, 0, xlsx::Formula::new("=NA()").set_result("#N/A")).unwrap();
    sheet.merge_range(5, 0, 6, 0, "合并", &bold).unwrap();
    sheet.write(5, 1, 0.1).unwrap();
    sheet.write(6, 1, 1).unwrap();
    sheet.write(7, 7, "多").unwrap();
    // Words around a number are shown in columns of texts, the first and the last.
    sheet.write_with_format(8, 0, 5, &format("\"豫罚〔2019〕\"0\"号\"")).unwrap();
    sheet.write_with_format(8, 1, 500, &format("0\"万元\"")).unwrap();
    sheet.write_with_format(8, 2, 3, &format("0\"亿元\"")).unwrap();
    sheet.write_with_format(8, 5, 20190007, &format("0000-0000")).unwrap();
    book.add_worksheet().set_name("隐藏").unwrap().set_hidden(true).write(0, 0, "x").unwrap();
    let workbook = open(&book.save_to_buffer().unwrap());
    let sheets: Vec<(&str, bool)> =
        workbook.sheets().iter().map(|sheet| (sheet.name.as_str(), sheet.hidden)).collect();
    assert_eq!(sheets, [("名单", false), ("隐藏", true)]);
    assert_eq!(workbook.sheets()[0].rows[0].cells[0], "代码");
    assert_eq!(
        rows(&workbook, 0, 1, 6),
        [
            row(2, &["007", "5245", "2019-03-01", "TRUE", "10490", "合成企业, \"甲\"\n乙"]),
            row(4, &["000007", "914101001700014000", "2019-03-01 10:20:30", "", "", ""]),
            (5, Err("error-cell")),
            row(6, &["合并", "0.1", "", "", "", ""]),
            (7, Err("merged-cell")),
            (8, Err("field-count")),
            // A unit that its label has not makes it no number.
            row(9, &["豫罚〔2019〕5号", "500", "3亿元", "", "", "2019-0007"]),
        ]
    );
}

#[test]
fn cells_of_an_xls_are_what_a_person_sees() {
    let workbook = open(TYPED_XLS);
    let sheets: Vec<(&str, bool, usize)> = workbook
        .sheets()
        .iter()
        .map(|sheet| (sheet.name.as_str(), sheet.hidden, sheet.rows.len()))
        .collect();
    assert_eq!(sheets, [("名单", false, 7), ("隐藏", true, 1), ("空", false, 0)]);
    assert_eq!(workbook.sheets()[0].rows[1].line, 3);
    let date = ["2019-03-01", "2019-03-01 10:20:30"];
    assert_eq!(
        rows(&workbook, 0, 3, 7),
        [
            row(4, &["007", "合成企业一", "5245", date[0], date[1], "TRUE", ""]),
            row(6, &["914101001700014000", "合成企业二", "0.1", "2019年3月1日", "", "", ""]),
            (7, Err("error-cell")),
            row(8, &["合并", "一", "", "", "", "", ""]),
            (9, Err("merged-cell")),
        ]
    );
    assert_eq!(rows(&open(EPOCH_1904_XLS), 0, 1, 1), [row(2, &["2019-03-01"])]);
}

#[test]
fn cells_of_an_ods_are_what_a_person_sees() {
    let workbook = open(&ods("<table:table table:name=\"名单\">\
         <table:table-row table:number-rows-repeated=\"2\"><table:table-cell/></table:table-row>\
         <table:table-row><table:table-cell office:value-type=\"string\"><text:p>代码</text:p></table:table-cell>\
         <table:table-cell office:value-type=\"string\"><text:p>日期</text:p></table:table-cell></table:table-row>\
         <table:table-row><table:table-cell office:value-type=\"float\" office:value=\"5245\"><text:p>5,245.00</text:p></table:table-cell>\
         <table:table-cell office:value-type=\"date\" office:date-value=\"2019-03-01\"><text:p>01.03.19</text:p></table:table-cell></table:table-row>\
         <table:table-row table:number-rows-repeated=\"3\"><table:table-cell/></table:table-row>\
         <table:table-row><table:table-cell office:value-type=\"string\"><text:p>甲</text:p></table:table-cell>\
         <table:table-cell office:value-type=\"boolean\" office:boolean-value=\"true\"><text:p>TRUE</text:p></table:table-cell></table:table-row>\
         <table:table-row><table:table-cell office:value-type=\"string\" office:string-value=\"\" calcext:value-type=\"error\"><text:p>#N/A</text:p></table:table-cell></table:table-row>\
         <table:table-row table:number-rows-repeated=\"1048560\"><table:table-cell table:number-columns-repeated=\"16384\"/></table:table-row>\
         </table:table>"));
    assert_eq!(workbook.sheets()[0].rows[0].line, 3);
    assert_eq!(
        rows(&workbook, 0, 3, 2),
        [row(4, &["5245", "2019-03-01"]), row(8, &["甲", "TRUE"]), (9, Err("error-cell"))]
    );
}

#[test]
fn cells_of_an_xlsb_are_what_a_person_sees() {
    let workbook = open(&xlsb());
    assert_eq!(workbook.sheets()[0].name, "名单");
    assert_eq!(rows(&workbook, 0, 1, 2), [row(2, &["甲", "5245"]), row(4, &["乙", "0.5"])]);
}

#[test]
fn a_cell_of_an_ods_is_what_it_shows() {
    let text = |text: &str| {
        format!(
            "<table:table-cell office:value-type=\"string\"><text:p>{text}</text:p></table:table-cell>"
        )
    };
    let number = |value: &str, shown: &str| {
        format!(
            "<table:table-cell office:value-type=\"float\" office:value=\"{value}\"><text:p>{shown}</text:p></table:table-cell>"
        )
    };
    let failed = |kind: &str, value: &str, shown: &str| {
        format!(
            "<table:table-cell table:formula=\"of:=1/0\" {kind} {value}><text:p>{shown}</text:p></table:table-cell>"
        )
    };
    let float = "office:value-type=\"float\"";
    let merged = "<table:table-cell table:number-rows-spanned=\"2\" office:value-type=\"string\"><text:p>市</text:p></table:table-cell>";
    let covered = "<table:covered-table-cell/>";
    let rows_of = [
        text("代码") + &text("数") + &text("备注"),
        number("7", "000007") + &number("7", "000007") + &number("500", "500.00万元人民币"),
        number("5", "豫罚〔2019〕5号") + &number("5", "5件") + &number("1234.5", "1,234.50"),
        number("20190007", "2019-0007") + &number("0.5", "50%") + &number("1500", "￥1,500.00"),
        number("1e21", "1E+21") + &number("-7", "-7") + &number("7", "-7.0E+00"),
        failed(
            "calcext:value-type=\"error\" office:value-type=\"string\"",
            "office:string-value=\"\"",
            "Err:502",
        ),
        failed(float, "office:value=\"0\"", "#DIV/0!"),
        failed(float, "office:value=\"0\"", "#名称?"),
        failed(float, "office:value=\"x\"", "1"),
        failed("office:value-type=\"string\"", "", "#3-101室"),
        number("5", "NE-005"),
        merged.to_owned() + &number("1", "1"),
        covered.to_owned() + &number("2", "2"),
        text("豫<![CDATA[罚]]>&amp;&#21495;<text:s text:c=\"2\"/>a<text:tab/>b<text:line-break/>c")
            + &text("x\n   y")
            + &text(
                "甲<office:annotation><text:p>批注</text:p></office:annotation><draw:line><text:p>线</text:p></draw:line></text:p><text:p>乙",
            ),
        "<table:table-cell><text:p>没有类型</text:p></table:table-cell>".to_owned(),
    ];
    let rows_of: String =
        rows_of.iter().map(|row| format!("<table:table-row>{row}</table:table-row>")).collect();
    let workbook = open(&ods(&format!("<table:table table:name=\"a\">{rows_of}</table:table>")));
    assert_eq!(
        rows(&workbook, 0, 1, 3),
        [
            row(2, &["000007", "000007", "500.00万元人民币"]),
            row(3, &["豫罚〔2019〕5号", "5", "1234.5"]),
            row(4, &["2019-0007", "0.5", "1500"]),
            row(5, &["1000000000000000000000", "-7", "7"]),
            (6, Err("error-cell")),
            (7, Err("error-cell")),
            (8, Err("error-cell")),
            (9, Err("error-cell")),
            row(10, &["#3-101室", "", ""]),
            row(11, &["NE-005", "", ""]),
            row(12, &["市", "1", ""]),
            (13, Err("merged-cell")),
            row(14, &["豫罚&号  a\tb\nc", "x y", "甲\n乙"]),
            row(15, &["没有类型", "", ""]),
        ]
    );
}

#[test]
fn hidden_and_many_sheets_of_an_ods_are_told_of_and_read_by_their_place() {
    let table = |name: &str, style: &str, text: &str| {
        format!(
            "<table:table table:name=\"{name}\" table:style-name=\"{style}\"><table:table-row><table:table-cell table:number-columns-repeated=\"16384\"/></table:table-row><table:table-row table:number-rows-repeated=\"3\"><table:table-cell office:value-type=\"string\" table:number-columns-repeated=\"2\"><text:p>{text}</text:p></table:table-cell></table:table-row></table:table>"
        )
    };
    let tables = ["<style:style style:name=\"h\"><style:table-properties table:display=\"false\"/></style:style>".to_owned(),
        table("一", "v", "x"), table("二", "h", "y"), table("三", "v", "z")];
    let workbook = open(&ods(&tables.concat()));
    let sheets: Vec<_> = workbook
        .sheets()
        .iter()
        .map(|sheet| (&*sheet.name, sheet.hidden, sheet.rows.len()))
        .collect();
    assert_eq!(sheets, [("一", false, 3), ("二", true, 3), ("三", false, 3)]);
    for (index, text) in [(0, "x"), (1, "y"), (2, "z")] {
        assert_eq!(rows(&workbook, index, 2, 2), [row(3, &[text, text]), row(4, &[text, text])]);
    }
}

#[test]
fn formulas_that_nobody_has_computed_are_no_values() {
    let text = |text: &str| {
        format!(
            "<table:table-cell office:value-type=\"string\"><text:p>{text}</text:p></table:table-cell>"
        )
    };
    let computed = "<table:table-cell table:formula=\"of:=1+1\" office:value-type=\"float\" office:value=\"2\"><text:p>2</text:p></table:table-cell>";
    let empty_text = "<table:table-cell table:formula=\"of:=T(1)\" office:value-type=\"string\"/>";
    let unknown = "<table:table-cell table:formula=\"of:=1+1\"/>";
    let rows_of = [
        text("代码") + &text("数"),
        text("甲") + computed,
        text("乙") + unknown,
        text("丙") + empty_text,
        unknown.to_owned(),
    ];
    let rows_of: String =
        rows_of.iter().map(|row| format!("<table:table-row>{row}</table:table-row>")).collect();
    let workbook = open(&ods(&format!("<table:table table:name=\"a\">{rows_of}</table:table>")));
    assert_eq!(
        rows(&workbook, 0, 1, 2),
        [row(2, &["甲", "2"]), (3, Err("error-cell")), row(4, &["丙", ""]), (5, Err("error-cell"))]
    );
}

#[test]
fn a_row_that_is_merged_with_the_one_above_has_no_value_of_its_own() {
    let mut book = xlsx::Workbook::new();
    let plain = xlsx::Format::default();
    let sheet = book.add_worksheet();
    // A header of two lines, as people merge it, and a total across two columns.
    sheet.merge_range(0, 0, 1, 0, "代码", &plain).unwrap();
    sheet.write(0, 1, "名称").unwrap();
    sheet.write(1, 1, "第二行").unwrap();
    sheet.write(2, 0, "甲").unwrap();
    sheet.merge_range(2, 1, 4, 1, "同一个", &plain).unwrap();
    sheet.write(3, 0, "乙").unwrap();
    sheet.write(4, 0, "丙").unwrap();
    sheet.merge_range(5, 0, 5, 1, "合计", &plain).unwrap();
    // In columns that name no field.
    sheet.merge_range(5, 3, 6, 3, "", &plain).unwrap();
    sheet.write(6, 0, "丁").unwrap();
    let workbook = open(&book.save_to_buffer().unwrap());
    assert_eq!(
        rows(&workbook, 0, 1, 2),
        [
            row(2, &["", "第二行"]),
            row(3, &["甲", "同一个"]),
            (4, Err("merged-cell")),
            (5, Err("merged-cell")),
            row(6, &["合计", ""]),
            row(7, &["丁", ""]),
        ]
    );
}

#[test]
fn a_sheet_of_many_batches_comes_whole_and_in_order() {
    let mut book = xlsx::Workbook::new();
    let sheet = book.add_worksheet();
    for line in 0..20_000u32 {
        sheet.write(line, 0, line).unwrap();
        sheet.write(line, 1, format!("合成企业{line}")).unwrap();
    }
    let workbook = open(&book.save_to_buffer().unwrap());
    assert_eq!(workbook.sheets()[0].rows.len(), FRONT_ROWS as usize);
    let all = rows(&workbook, 0, 1, 2);
    assert_eq!(all.len(), 19_999);
    for (at, one) in all.iter().enumerate() {
        let number = at as u64 + 1;
        assert_eq!(*one, row(number + 1, &[&number.to_string(), &format!("合成企业{number}")]));
    }
}
