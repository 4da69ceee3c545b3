//! Workbooks, JSON and archives through the real program: by command and inbox,
//! and those that were made to end their reader.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::PathBuf,
};

use flate2::{Compression, write::GzEncoder};
use harness::{
    federation::Federation,
    node::{Node, path_text, wait_until, workspace},
    table::{ENTERPRISE_TITLES, Table},
};
use rust_xlsxwriter::{ExcelDateTime, Format, Workbook, Worksheet};
use serde_json::{Map, Value as Json};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::cli::stopped_hub;

/// Writes a table below a title; the third column as dates.
fn fill(sheet: &mut Worksheet, table: &Table) {
    fill_columns(sheet, table, ENTERPRISE_TITLES.len());
}

/// As [`fill`], only the first columns.
fn fill_columns(sheet: &mut Worksheet, table: &Table, columns: usize) {
    let date = Format::new().set_num_format("yyyy/m/d");
    sheet.write(0, 0, "合成数据，仅供测试").unwrap();
    for (column, title) in ENTERPRISE_TITLES.iter().take(columns).enumerate() {
        sheet.write(1, column as u16, *title).unwrap();
    }
    for (line, row) in table.0.values().enumerate() {
        for (column, text) in row.iter().take(columns).enumerate() {
            let (line, column) = (line as u32 + 2, column as u16);
            if column == 2 {
                let day = ExcelDateTime::parse_from_str(text).unwrap();
                sheet.write_with_format(line, column, &day, &date).unwrap();
            } else if !text.is_empty() {
                sheet.write(line, column, text).unwrap();
            }
        }
    }
}

pub(crate) fn xlsx(table: &Table) -> Vec<u8> {
    let mut book = Workbook::new();
    book.add_worksheet().write(0, 0, "说明：本表为合成数据").unwrap();
    fill(book.add_worksheet().set_name("企业").unwrap(), table);
    book.save_to_buffer().unwrap()
}

fn objects(table: &Table) -> Vec<Json> {
    let object = |row: &Vec<String>| {
        let member = |(title, text): (&&str, &String)| {
            let value = if text.is_empty() { Json::Null } else { text.as_str().into() };
            ((*title).to_owned(), value)
        };
        Json::Object(ENTERPRISE_TITLES.iter().zip(row).map(member).collect::<Map<_, _>>())
    };
    table.0.values().map(object).collect()
}

pub(crate) fn lines(table: &Table) -> Vec<u8> {
    objects(table).iter().flat_map(|object| format!("{object}\n").into_bytes()).collect()
}

pub(crate) fn array(table: &Table) -> Vec<u8> {
    serde_json::to_vec_pretty(&objects(table)).unwrap()
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A workbook of `sheet` and `texts` as XML.
fn raw_xlsx(sheet: &str, texts: &str) -> Vec<u8> {
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let related = |kind: &str, target: &str| {
        format!(
            "<Relationships><Relationship Id=\"rId1\" Type=\"{office}/{kind}\" Target=\"{target}\"/></Relationships>"
        )
    };
    archive(&[
        ("[Content_Types].xml", b"<Types/>"),
        ("_rels/.rels", related("officeDocument", "xl/workbook.xml").as_bytes()),
        (
            "xl/workbook.xml",
            b"<workbook xmlns:r=\"r\"><sheets><sheet name=\"a\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>",
        ),
        (
            "xl/_rels/workbook.xml.rels",
            related("worksheet", "worksheets/sheet1.xml").as_bytes(),
        ),
        ("xl/sharedStrings.xml", texts.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}

fn write(hub: &Node, name: &str, content: &[u8]) -> PathBuf {
    let path = hub.dir().with_file_name(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn the_same_rows_come_out_of_every_format() {
    let (_dir, hub) = stopped_hub();
    let table = Table::synthetic(1, 0..5, "模糊");
    let (xlsx, csv) = (xlsx(&table), table.to_csv().into_bytes());
    let xls = fs::read(workspace().join("tests/fixtures/workbooks/enterprise.xls")).unwrap();
    let files = [
        ("a.xlsx", xlsx.clone()),
        // The name says nothing.
        ("b.csv", xlsx.clone()),
        ("c.xls", xls.clone()),
        ("d.json", array(&table)),
        ("e.jsonl", lines(&table)),
        ("f.txt", lines(&table)),
        ("g.csv.gz", gzip(&csv)),
        ("h.xlsx.gz", gzip(&xlsx)),
        ("i.zip", archive(&[("五月/企业.csv", &csv), ("__MACOSX/x", b"x")])),
        ("j.zip", archive(&[("说明.txt", b"readme"), ("企业.xls", &xls)])),
        ("k.json.gz", gzip(&array(&table))),
    ];
    for (at, (name, content)) in files.into_iter().enumerate() {
        let file = write(&hub, name, &content);
        let report = hub.import_full("enterprise", &file);
        let expected = if at == 0 { ("inserted", 5) } else { ("unchanged", 5) };
        assert_eq!(report[expected.0], expected.1, "{name}: {report:#}");
        assert_eq!((&report["rows"], &report["deleted"]), (&5.into(), &0.into()), "{name}");
        assert_eq!(hub.export("enterprise/410100"), table.to_export(), "{name}");
    }
    hub.verify_deep();
}

#[test]
fn sheets_that_fit_are_read_and_one_can_be_named() {
    let (_dir, hub) = stopped_hub();
    let parts = [Table::synthetic(1, 0..3, "一"), Table::synthetic(1, 3..7, "二")];
    let mut book = Workbook::new();
    for (name, part) in ["一月", "二月"].iter().zip(&parts) {
        fill(book.add_worksheet().set_name(*name).unwrap(), part);
    }
    let hidden = book.add_worksheet().set_name("旧").unwrap().set_hidden(true);
    fill(hidden, &Table::synthetic(1, 90..92, "旧"));
    let file = write(&hub, "year.xlsx", &book.save_to_buffer().unwrap());
    let import = |options: &[&str]| {
        hub.cli(&[&["import", "enterprise", path_text(&file), "--json"], options].concat())
    };
    import(&["--sheet", "三月"]).expect_failure(&["三月", "一月", "there is no sheet"]);
    assert_eq!(import(&["--sheet", "二月"]).expect_code(0).json()["inserted"], 4);
    // A hidden sheet may be data, so somebody has to look.
    let report = import(&[]).expect_code(3).json();
    assert_eq!((&report["inserted"], &report["unchanged"]), (&3.into(), &4.into()), "{report:#}");
    assert_eq!(import(&["--sheet", "旧"]).expect_code(0).json()["inserted"], 2);
    // Sheets whose columns differ are not mixed.
    let mut book = Workbook::new();
    fill(book.add_worksheet(), &parts[0]);
    fill_columns(book.add_worksheet(), &parts[1], 8);
    let file = write(&hub, "mixed.xlsx", &book.save_to_buffer().unwrap());
    hub.cli(&["import", "enterprise", path_text(&file)])
        .expect_failure(&["different columns", "--sheet"]);
}

#[test]
fn parts_that_may_be_data_and_were_not_read_need_somebody() {
    let (_dir, hub) = stopped_hub();
    let [all, most] = [Table::synthetic(1, 0..9, "一"), Table::synthetic(1, 0..8, "一")];
    let file = write(&hub, "all.xlsx", &xlsx(&all));
    assert_eq!(hub.import_full("enterprise", &file)["inserted"], 9);
    let import = |name: &str, content: &[u8]| {
        let file = write(&hub, name, content);
        hub.cli(&["import", "enterprise", path_text(&file), "--full", "--json"])
    };
    // Eight records, and a sheet with the ninth whose header has a slip.
    let mut book = Workbook::new();
    fill(book.add_worksheet(), &most);
    let slip = book.add_worksheet().set_name("六月").unwrap();
    fill(slip, &Table::synthetic(1, 8..9, "一"));
    slip.write(1, 0, "企业名字").unwrap();
    let content = book.save_to_buffer().unwrap();
    let report = import("slip.xlsx", &content).expect_code(3).json();
    assert_eq!(report["held"]["rule"], "left-out", "{report:#}");
    // Words about the data are no data.
    let mut book = Workbook::new();
    fill(book.add_worksheet(), &most);
    book.add_worksheet().set_name("说明").unwrap().write(0, 0, "请勿外传").unwrap();
    let report = import("words.xlsx", &book.save_to_buffer().unwrap()).expect_code(0).json();
    assert_eq!((&report["deleted"], &report["unchanged"]), (&1.into(), &8.into()), "{report:#}");
    assert_eq!(report["notes"][0]["code"], "passed-over", "{report:#}");
    // In an archive; and blank lines of a part do not end it.
    let csv = all.to_csv();
    let blank = csv.lines().next().unwrap().to_owned() + "\n\n\n";
    let parts: [(&str, &[u8]); 2] = [("a.csv", blank.as_bytes()), ("b.csv", csv.as_bytes())];
    let report = import("blank.zip", &archive(&parts)).expect_code(0).json();
    assert_eq!((&report["rows"], &report["inserted"]), (&9.into(), &1.into()), "{report:#}");
    let csv = most.to_csv();
    let parts: [(&str, &[u8]); 2] = [("a.csv", csv.as_bytes()), ("b.xlsx", b"damaged")];
    let report = import("damaged.zip", &archive(&parts)).expect_code(3).json();
    assert_eq!(report["held"]["rule"], "left-out", "{report:#}");
}

#[test]
fn what_is_something_else_is_named_with_the_way_out() {
    let (_dir, hub) = stopped_hub();
    for (name, content, words) in [
        ("a.xls", b"<html><table><tr><td>1".to_vec(), ["网页", ".xlsx"]),
        ("dump.sql.csv", "INSERT INTO `t` (`代码`) VALUES ('1')".into(), ["SQL", "CSV"]),
        ("a.doc", b"{\\rtf1\\ansi x}".to_vec(), ["RTF", ".xlsx"]),
        ("a.pdf", b"%PDF-1.7 x".to_vec(), ["PDF", "CSV"]),
        ("a.rar", b"Rar!\x1a\x07\0".to_vec(), ["RAR", "ZIP"]),
        ("a.xlsx", raw_xlsx("", "")[..300].to_vec(), ["损坏", "damaged"]),
        ("b.zip", archive(&[("a.zip", b"x")]), ["a.zip", "unpack"]),
        ("c.zip", archive(&[("a.pdf", b"%PDF-1.7")]), ["a.pdf", "PDF"]),
        ("a.json", b"[1,2]".to_vec(), ["JSON", "no objects"]),
        ("b.json", "[{\"电话\":1}]".into(), ["电话", "统一社会信用代码"]),
    ] {
        let file = write(&hub, name, &content);
        let output = hub.cli(&["import", "enterprise", path_text(&file)]);
        output.expect_failure(&[&[name][..], &words].concat());
    }
    assert_eq!(hub.partitions(), ["_federation/410100"]);
}

/// Names of all temporary files of a node.
fn left_behind(node: &Node) -> Vec<String> {
    let names = fs::read_dir(node.dir().join("run")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".tmp")).collect()
}

#[test]
fn a_formula_that_nobody_has_computed_is_not_taken_for_nothing() {
    let (_dir, hub) = stopped_hub();
    let table = Table::synthetic(1, 0..2, "一");
    let text = |text: &str| format!("<c t=\"inlineStr\"><is><t>{text}</t></is></c>");
    let mut rows: String =
        ["企业名称", "统一社会信用代码", "注册地址"].map(text).concat() + "</row><row>";
    // One without a result, and one whose result is an empty text.
    let formulas = ["<c><f>A2&amp;\"x\"</f></c></row><row>", "<c t=\"str\"><f>\"\"</f><v></v></c>"];
    for (row, formula) in table.0.values().zip(formulas) {
        rows += &(text(&row[0]) + &text(&row[1]) + formula);
    }
    let sheet = format!("<worksheet><sheetData><row>{rows}</row></sheetData></worksheet>");
    let file = write(&hub, "exported.xlsx", &raw_xlsx(&sheet, "<sst></sst>"));
    let report = hub.cli(&["import", "enterprise", path_text(&file), "--json"]).expect_code(3);
    let report = report.json();
    assert_eq!((&report["inserted"], &report["rejected"]), (&1.into(), &1.into()), "{report:#}");
    let details = &report["reject_details"][0];
    assert!(details["zh"].as_str().unwrap().contains("从未计算"), "{report:#}");
    assert_eq!(details["places"][0], "a!2", "{report:#}");
}

#[test]
fn a_file_that_ends_its_reader_costs_itself_only() {
    let mut federation = Federation::hub_only();
    let row =
        "<worksheet><sheetData><row r=\"1\"><c r=\"A1\"><v>1</v></c></row></sheetData></worksheet>";
    // A claim of four thousand million texts, for which room is made at once.
    let claim = "<sst uniqueCount=\"4294967295\"><si><t>a</t></si></sst>";
    let bomb = vec![b'0'; 80 << 20];
    let many = format!("<sst>{}</sst>", "<si><t>a</t></si>".repeat(25_000_000));
    let hub = &federation.hub;
    for (name, content, words) in [
        ("claim.xlsx", raw_xlsx(row, claim), ["signal 6", "1 GiB"]),
        ("many.xlsx", raw_xlsx(row, &many), ["signal 6", "1 GiB"]),
        ("bomb.zip", archive(&[("a.csv", &bomb)]), ["a.csv", "too large"]),
        ("bomb.csv.gz", gzip(&bomb), ["bomb.csv", "too large"]),
    ] {
        assert!(content.len() < 8 << 20, "{name}: {}", content.len());
        let file = write(hub, name, &content);
        hub.cli(&["import", "enterprise", path_text(&file)])
            .expect_failure(&[&[name][..], &words].concat());
        assert_eq!(left_behind(hub), Vec::<String>::new());
    }
    // The daemon has lived through all of them.
    let table = Table::synthetic(1, 0..5, "一");
    let file = write(hub, "good.xlsx", &xlsx(&table));
    assert_eq!(hub.import("enterprise", &file)["inserted"], 5);
    assert!(federation.hub.is_running());
    federation.finish();
}

#[test]
fn an_inbox_takes_every_format() {
    let mut federation = Federation::new(&["410122"]);
    federation.counties[0].configure("stable_s", "1");
    federation.counties[0].restart();
    let county = &federation.counties[0];
    let inbox = county.dir().join("inbox/enterprise");
    let mut all = Table::default();
    let part = |number: u32| Table::synthetic(1, number * 10..number * 10 + 5, "一");
    let csv = part(2).to_csv();
    for (number, name, content) in [
        (0, "一.xlsx", xlsx(&part(0))),
        (1, "二.json", array(&part(1))),
        (2, "三.zip", archive(&[("企业.csv", csv.as_bytes())])),
        (3, "四.ndjson.gz", gzip(&lines(&part(3)))),
    ] {
        all.put_all(&part(number));
        let outside = inbox.with_file_name(format!("{name}.part"));
        fs::write(&outside, content).unwrap();
        fs::rename(&outside, inbox.join(name)).unwrap();
        let report = inbox.join("done").join(format!("{name}.report.json"));
        wait_until("the file is taken", || report.exists());
        let report: Json = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        assert_eq!(report["inserted"], 5, "{name}: {report:#}");
    }
    fs::write(inbox.join("bad.xlsx"), b"PK\x03\x04 cut").unwrap();
    let report = inbox.join("failed/bad.xlsx.report.json");
    wait_until("the damaged file is put aside", || report.exists());
    assert!(fs::read_to_string(&report).unwrap().contains("bad.xlsx"));
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), all.to_export());
    federation.finish();
}

#[test]
fn a_bad_cell_costs_its_row_and_names_the_row_of_the_sheet() {
    let (_dir, hub) = stopped_hub();
    let mut book = Workbook::new();
    let sheet = book.add_worksheet().set_name("企业").unwrap();
    fill(sheet, &Table::synthetic(1, 0..3, "一"));
    sheet.write(3, 4, rust_xlsxwriter::Formula::new("=NA()").set_result("#N/A")).unwrap();
    // A text that stands to the right of all labels.
    sheet.write(4, 12, "多").unwrap();
    let file = write(&hub, "bad.xlsx", &book.save_to_buffer().unwrap());
    let output = hub.cli(&["import", "enterprise", path_text(&file), "--json"]).expect_code(3);
    let report = output.json();
    assert_eq!((&report["inserted"], &report["rejected"]), (&1.into(), &2.into()), "{report:#}");
    let rejects = fs::read_to_string(report["rejects_file"].as_str().unwrap()).unwrap();
    for words in [
        "'企业' row 4: '注册资金': the formula in column E",
        "'企业' row 5: ",
        "column M",
        // As it was in its cell, with commas, quotes and a line end.
        ",#N/A,\"演示数据，\"\"非真实\"\"企业, 第1行\n软件开发\",示例省,",
    ] {
        assert!(rejects.contains(words), "{words}: {rejects}");
    }
}
