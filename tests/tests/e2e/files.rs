//! Delivered files, good and bad: what is refused, what is described, what is
//! masked, and what waits for a person.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use harness::{
    federation::Federation,
    node::{Node, path_text},
    table::{ENTERPRISE_TITLES, Table, csv_text, synthetic_code, synthetic_row},
};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::cli::{stopped_hub, text};

/// What a report counts: rule, field, and the places of the first ones.
fn details(report: &Json, kind: &str) -> Vec<[String; 3]> {
    let row = |one: &Json| {
        assert!(one["zh"] != one["en"], "no explanation in two languages");
        let field = one["field"].as_str().unwrap_or_default();
        let places: Vec<&str> = one["places"].as_array().unwrap().iter().map(text).collect();
        [text(&one["rule"]).to_owned(), field.to_owned(), places.join(" ")]
    };
    report[kind].as_array().unwrap().iter().map(row).collect()
}

/// A stopped hub, and a function that writes a file for it.
fn hub_and_files() -> (TempDir, Node, impl Fn(&str, &[u8]) -> PathBuf) {
    let (dir, hub) = stopped_hub();
    let files = dir.path().to_owned();
    let write = move |name: &str, bytes: &[u8]| {
        let path = files.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    (dir, hub, write)
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let (dir, hub, write) = hub_and_files();
    let import = |file: &PathBuf, options: &[&str]| {
        hub.cli(&[&["import", "enterprise", path_text(file)], options].concat())
    };
    let good = write("good.csv", Table::synthetic(1, 0..3, "一").to_csv().as_bytes());
    let unknown = hub.cli(&["import", "enterprises", path_text(&good)]);
    unknown.expect_failure(&[
        "'enterprises'",
        "the catalogue has",
        "enterprise, serious-violators",
    ]);
    hub.cli(&["import", "_federation", path_text(&good)]).expect_failure(&["_federation"]);
    let missing = dir.path().join("missing.csv");
    import(&missing, &[]).expect_failure(&[path_text(&missing), "不存在", "does not exist"]);
    let output = import(&dir.path().to_owned(), &[]);
    output.expect_failure(&["not a regular file"]);
    let header = write("header.csv", "企业名称,统一社会信用代码,电话\n".as_bytes());
    import(&header, &[]).expect_failure(&["header.csv", "电话", "3"]);
    let header = write("nokey.csv", "企业名称,注册地址\n甲,乙\n".as_bytes());
    import(&header, &[]).expect_failure(&["nokey.csv", "uscc", "统一社会信用代码"]);
    let twice = write("twice.csv", "企业名称,名称,统一社会信用代码\n".as_bytes());
    import(&twice, &[]).expect_failure(&["twice.csv", "企业名称", "名称"]);
    let empty = write("empty.csv", b"");
    import(&empty, &[]).expect_failure(&["empty.csv", "是空的", "is empty"]);
    let other = hub.cli(&["import", "serious-violators", path_text(&good)]);
    other.expect_failure(&[
        "表头与数据集不符",
        "符合数据集 enterprise，",
        "fit the dataset enterprise:",
    ]);
    // A local file header of PKZIP: signature, 22 bytes, lengths, the first name.
    let book = [b"PK\x03\x04", &[0; 22][..], &[19, 0, 0, 0], b"[Content_Types].xml<xl/>"].concat();
    let xlsx = write("book.xlsx", &book);
    import(&xlsx, &[]).expect_failure(&["book.xlsx", "损坏", "damaged"]);
    let klingon = import(&good, &["--encoding", "klingon"]);
    let klingon = klingon.expect_code(2);
    assert!(klingon.stderr.contains("klingon") && klingon.stderr.contains("gbk"));
    // None of them made a partition.
    assert_eq!(hub.partitions(), ["_federation/410100"]);
    hub.cli(&["export", "enterprise/410999"])
        .expect_failure(&["enterprise/410999", "creditsync status"]);
    hub.cli(&["export", "nothing"]).expect_failure(&["nothing", "the catalogue has"]);
    hub.cli(&["get", "enterprise", "91410100MA00000000"]).expect_failure(&["no origin has"]);
    hub.cli(&["get", "enterprise", "1"]).expect_failure(&["'1'", "enterprise"]);
    hub.cli(&["verify", "enterprise/410999"])
        .expect_failure(&["enterprise/410999", "creditsync status"]);
    hub.cli(&["delivery", "show", "x-1"]).expect_failure(&["'x-1'", "creditsync delivery list"]);
}

#[test]
fn bad_rows_are_described_and_the_rest_goes_in() {
    let (_dir, hub, write) = hub_and_files();
    let good = |row: u32| synthetic_row(1, row, "一");
    let mut rows = vec![good(0), good(1), good(2), good(3), good(1)];
    rows[2][1] = "91410100MA0".into();
    rows[3][2] = "2023-02-30".into();
    rows[4][0] = "另一个名称".into();
    // One line a row, so that line numbers are easy to tell.
    rows.iter_mut().for_each(|row| row[5] = "经营".into());
    let mut text = csv_text(&ENTERPRISE_TITLES, &rows);
    text.push_str("too,few\n");
    let file = write("rows.csv", text.as_bytes());
    let output = hub.cli(&["import", "enterprise", path_text(&file), "--json"]).expect_code(3);
    let report = output.json();
    let counts = ["rows", "inserted", "rejected", "duplicates", "warnings"];
    assert_eq!(counts.map(|field| report[field].as_u64().unwrap()), [6, 2, 3, 1, 1], "{report:#}");
    assert_eq!(
        details(&report, "reject_details"),
        [
            ["uscc-impossible", "uscc", "4"],
            ["date-impossible", "registered_on", "5"],
            ["field-count", "", "7"],
        ]
    );
    assert_eq!(details(&report, "warning_details"), [["duplicate-differing", "", "3"]]);
    // The rejected rows as they were delivered, behind two columns.
    let rejects = std::fs::read_to_string(report["rejects_file"].as_str().unwrap()).unwrap();
    let rejects: Vec<&str> = rejects.lines().collect();
    assert!(
        rejects[0].starts_with("\u{feff}问题/problem,怎么办/what to do,企业名称,"),
        "{rejects:?}"
    );
    for (line, row) in [(1, &rows[2]), (2, &rows[3])] {
        assert!(
            rejects[line].ends_with(
                csv_text(&ENTERPRISE_TITLES, std::slice::from_ref(row)).lines().nth(1).unwrap()
            ),
            "{rejects:?}"
        );
    }
    assert!(rejects[3].contains(",too,few,") && rejects.len() == 4, "{rejects:?}");
    assert_eq!(hub.status()["partitions"][1]["records"], 2);
    let stored = Table::parse(&hub.export("enterprise/410100"));
    assert_eq!(stored.0[&rows[4][1]][0], "另一个名称", "the last row of a key wins");
    // For people the same exit code, and where to look.
    let output = hub.cli(&["import", "enterprise", path_text(&file)]).expect_code(3);
    assert!(output.stdout.contains("rejects.csv"), "{output:?}");
}

#[test]
fn a_column_that_a_command_passed_over_is_passed_over_in_the_rejects_too() {
    let (_dir, hub, write) = hub_and_files();
    let code = |number: u32| synthetic_code(1, number);
    let rows =
        format!("统一社会信用代码,秘密,企业名称\n{},x,甲\n{},y\n123,z,丙\n", code(1), code(2));
    let file = write("more.csv", rows.as_bytes());
    let import = ["import", "enterprise", path_text(&file), "--ignore-column", "秘密", "--json"];
    let report = hub.cli(&import).expect_code(3).json();
    assert_eq!((&report["inserted"], &report["rejected"]), (&json!(1), &json!(2)));
    let rejects = PathBuf::from(text(&report["rejects_file"]));
    let rejected = std::fs::read_to_string(&rejects).unwrap();
    assert!(rejected.contains(",秘密（已忽略/ignored）,"), "{rejected}");
    // Mended, it goes in without the option; the short row has its value to the left.
    let mended = rejected.replace("123,z,丙", &format!("{},z,丙", code(3)));
    let mended = mended
        .replace(",y,,", ",y,乙,")
        .replace(",←改好后删除本格/delete this cell when mended", "");
    let mended = write("mended.csv", mended.as_bytes());
    let report = hub.import("enterprise", &mended);
    assert_eq!((&report["inserted"], &report["rejected"]), (&json!(2), &json!(0)), "{report:#}");
}

#[test]
fn personal_values_are_masked_in_reports_and_logs() {
    let mut federation = Federation::new(&["410122"]);
    let code = synthetic_code(1, 1);
    let secret_name = "欧阳不可见";
    let citizen = "11010519491231002X";
    let row = |number: &str, category: &str, name: &str, document: &str| -> Vec<String> {
        let mut row = vec![String::new(); 25];
        row[0] = "示例公司".into();
        row[1] = category.into();
        row[2] = code.clone();
        row[8] = name.into();
        row[9] = "身份证".into();
        row[10] = document.into();
        row[11] = number.into();
        for (column, value) in
            [(12, "违法"), (13, "事实"), (14, "依据"), (15, "罚款"), (16, "罚款")]
        {
            row[column] = value.into();
        }
        row
    };
    let shown = federation.hub.json(&["dataset", "show", "admin-penalty"]);
    let fields: Vec<&str> =
        shown["field"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
    assert_eq!((fields[8], fields[10]), ("CF_FRDB", "CF_FR_ZJHM"), "the layout has changed");
    let mut rows = vec![row("罚1号", "法人及非法人组织", secret_name, citizen)];
    // A control character in each personal field.
    rows.push(row("罚2号", "法人及非法人组织", &format!("{secret_name}\u{1}"), citizen));
    rows.push(row("罚3号", "法人及非法人组织", secret_name, &format!("{citizen}\u{1}")));
    for row in &mut rows {
        row.resize(fields.len(), String::new());
        for field in ["CF_JDRQ", "CF_YXQ", "CF_GSJZQ"] {
            row[fields.iter().position(|name| *name == field).unwrap()] = "2024-01-02".into();
        }
        for field in ["CF_CFJG", "CF_SJLY"] {
            row[fields.iter().position(|name| *name == field).unwrap()] = "示例局".into();
        }
        for field in ["CF_CFJGDM", "CF_SJLYDM"] {
            row[fields.iter().position(|name| *name == field).unwrap()] = code.clone();
        }
    }
    let file = federation.dir().join("penalties.csv");
    std::fs::write(&file, csv_text(&fields, &rows)).unwrap();
    let county = &federation.counties[0];
    let output =
        county.cli(&["import", "admin-penalty", path_text(&file), "--json"]).expect_code(3);
    let report = output.json();
    assert_eq!((&report["inserted"], &report["rejected"]), (&json!(1), &json!(2)), "{report:#}");
    let rejected = details(&report, "reject_details");
    assert_eq!(rejected.iter().map(|one| &*one[1]).collect::<Vec<_>>(), ["CF_FRDB", "CF_FR_ZJHM"]);
    // Only the rows to be mended are as they were delivered, and those are for the
    // owner of the node.
    let rejects = Path::new(text(&report["rejects_file"]));
    assert!(std::fs::read_to_string(rejects).unwrap().contains(citizen));
    assert_eq!(std::fs::metadata(rejects).unwrap().permissions().mode() & 0o777, 0o600);
    let written = report.to_string();
    federation.wait_converged();
    for node in federation.counties.iter_mut().chain([&mut federation.hub]) {
        node.stop();
    }
    let logs: String = federation.nodes().map(Node::log).collect();
    for (place, said) in [("report", &written), ("logs", &logs), ("stderr", &output.stderr)] {
        assert!(!said.contains(secret_name) && !said.contains(citizen), "{place}: {said}");
    }
    // The owner's own export is not masked.
    assert!(federation.hub.export("admin-penalty/410122").contains(citizen));
}

#[test]
fn a_gbk_file_is_read_as_a_utf8_one() {
    let (_dir, hub, write) = hub_and_files();
    let table = Table::synthetic(1, 0..200, "一");
    let text = table.to_csv();
    let (gbk, _, unmappable) = encoding_rs::GBK.encode(&text);
    assert!(!unmappable);
    let gbk = write("gbk.csv", &gbk);
    assert_eq!(hub.import("enterprise", &gbk)["inserted"], 200);
    assert_eq!(hub.export("enterprise/410100"), table.to_export());
    let utf8 = write("bom.csv", format!("\u{feff}{}", table.to_csv()).as_bytes());
    assert_eq!(hub.import("enterprise", &utf8)["unchanged"], 200);
    let named = ["import", "enterprise", path_text(&gbk), "--encoding", "gbk"];
    assert_eq!(hub.json(&named)["unchanged"], 200);
}

#[test]
fn a_full_file_that_deletes_too_much_waits_for_a_person() {
    let federation = Federation::new(&["410122"]);
    let county = &federation.counties[0];
    let table = Table::synthetic(1, 0..1000, "一");
    county.import("enterprise", &table.write(federation.dir(), "all.csv"));
    federation.wait_converged();
    let hold = |name: &str, rows: std::ops::Range<u32>| {
        let file = Table::synthetic(1, rows, "一").write(federation.dir(), name);
        let import = ["import", "enterprise", path_text(&file), "--full", "--json"];
        let report = county.cli(&import).expect_code(3).json();
        std::fs::remove_file(&file).unwrap();
        text(&report["held"]["id"]).to_owned()
    };
    // A newer full file says more than an older one that waits.
    let oldest = hold("oldest.csv", 0..10);
    let empty = hold("empty.csv", 0..0);
    let listed = || -> Vec<Json> {
        let list = county.json(&["delivery", "list"]);
        list["deliveries"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
    };
    assert_eq!(listed(), [json!(empty)]);
    county.cli(&["delivery", "approve", &oldest, "--yes"]).expect_failure(&[
        &oldest,
        &empty,
        "取代",
        "took its place",
    ]);
    county
        .cli(&["delivery", "approve", "enterprise-20200101-000000-1", "--yes"])
        .expect_failure(&["enterprise-20200101-000000-1", "creditsync delivery list"]);
    let own = county.partition("enterprise/410122").unwrap();
    assert_eq!((&own["state"], &own["records"]), (&json!("held"), &json!(1000)), "{own:#}");
    county.cli(&["delivery", "discard", &empty]).expect_code(0);
    assert_eq!(listed(), [] as [Json; 0]);
    assert_eq!(county.partition("enterprise/410122").unwrap()["state"], "origin");

    let first = hold("most.csv", 0..300);
    let shown = county.json(&["delivery", "show", &first]);
    assert_eq!((text(&shown["dataset"]), text(&shown["file"])), ("enterprise", "most.csv"));
    assert!(shown["explanation"].as_str().unwrap().contains("700 of 1000"), "{shown:#}");
    // The delivered file is gone: what was kept of it is what counts.
    let report = county.json(&["delivery", "approve", &first, "--yes"]);
    assert_eq!((&report["deleted"], &report["unchanged"]), (&json!(700), &json!(300)));
    assert_eq!(listed(), [] as [Json; 0]);
    federation.wait_converged();
    let expected = Table::synthetic(1, 0..300, "一");
    assert_eq!(federation.hub.export("enterprise/410122"), expected.to_export());
    federation.finish();
}
