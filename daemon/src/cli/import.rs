//! `import`: one file into this node's own partition.

use std::{path::PathBuf, str::FromStr as _};

use protocol::text::printable;
use serde_json::Value as Json;

use super::{Done, ask::ask_with, print_json, text_of};
use crate::{
    admin::Request,
    app::dir::NodeDir,
    ingest::report::{Details, Note, text::kinds},
    sources::{Links, Reading, csv::Encoding, file::open_regular},
};

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync import enterprise 2024-05.csv\nExit code 3 means that rows were rejected, that the delivery waits for approval, or that the hub did not get it in the time that --wait allows."
)]
pub(super) struct Arguments {
    /// The dataset, for example enterprise / 数据集
    dataset: String,
    /// A CSV, Excel (.xlsx, .xls), .ods or JSON file, also as .zip or .gz / 数据文件：CSV、Excel、ODS、JSON，或其 ZIP、gzip 压缩包
    file: PathBuf,
    /// The file is the whole partition: what it lacks is deleted / 全量文件：文件中没有的记录将被删除
    #[arg(long)]
    full: bool,
    /// auto, utf-8, gbk, utf-16, big5 or another of the WHATWG's encodings / 文件编码
    #[arg(long, default_value = "auto", value_parser = Encoding::from_str)]
    encoding: Encoding,
    /// Pass over the column with this label; may be given several times / 忽略该列，可多次给出
    #[arg(long = "ignore-column", value_name = "LABEL")]
    ignored: Vec<String>,
    /// Which sheet of a workbook; without it, all whose header fits / 读取工作簿中的哪个工作表
    #[arg(long, value_name = "NAME")]
    sheet: Option<String>,
    /// Also wait until the hub holds it, at most so many seconds / 等待市中心保存完成，最多等待的秒数
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait: Option<u32>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { dataset, file, full, encoding, ignored, sheet, wait, json } = arguments;
    // The daemon may not be allowed to read it, or not see it; and this process
    // may be allowed less than the daemon.
    let opened = open_regular(&file, Links::Follow)?;
    let path = std::path::absolute(&file).unwrap_or(file).to_string_lossy().into_owned();
    let reading = Reading { encoding, ignored, sheet };
    let request = Request::Import { dataset, path, full, reading, wait_s: wait };
    let (report, attention) = ask_with(dir, &request, Some(opened), &mut |_| Ok(()))?;
    if json {
        print_json(&report)?;
    } else {
        print_report(&report);
    }
    Ok(Done::from_attention(attention))
}

/// The report for people, in Chinese and English.
pub(super) fn print_report(report: &Json) {
    let count = |name: &str| text_of(&report[name]);
    if report["held"].is_object() {
        let held = text_of(&report["held"]["id"]);
        println!("held / 待审批: {held}");
        let also = report["held"]["also"].as_array().map(Vec::as_slice).unwrap_or_default();
        for why in std::iter::once(&report["held"]).chain(also) {
            println!("  {}", text_of(&why["zh"]));
            println!("  {}", text_of(&why["en"]));
        }
        println!("  creditsync delivery show {held}");
        println!("  creditsync delivery approve {held}");
        println!("  creditsync delivery discard {held}");
    }
    // Of a delivery that waits, what it would do stands in `delivery show`.
    let did = ["inserted", "updated", "deleted", "unchanged"];
    let waits = report["held"].is_object();
    for (name, zh) in [
        ("rows", "总行数"),
        ("inserted", "新增"),
        ("updated", "更新"),
        ("deleted", "删除"),
        ("unchanged", "未变"),
        ("duplicates", "重复"),
        ("rejected", "拒绝"),
        ("skipped", "跳过（空行、重复表头、合计、表尾说明）"),
        ("warnings", "警告"),
        ("suspicious", "可能错位的行"),
    ] {
        if !(waits && did.contains(&name)) {
            println!("{:>10} {name} / {zh}", count(name));
        }
    }
    println!(
        "{:>10} change sets / 变更集, now at number / 当前序号 {}",
        count("change_sets"),
        count("seq")
    );
    if let Some(seconds) = report["seconds"].as_f64() {
        println!("{seconds:>10.2} seconds / 秒");
    }
    match report["at_hub"].as_bool() {
        Some(true) => println!("the hub holds it / 市中心已保存"),
        Some(false) => match report["at_hub_reason"].as_str().map(printable) {
            Some(reason) => println!(
                "the hub does not hold it yet; it goes there by itself once this is over / 市中心尚未保存，以下原因消除后自动送达：\n  {reason}"
            ),
            None => println!(
                "the hub does not hold it yet; it goes there by itself / 市中心尚未保存，稍后会自动送达；进展见 creditsync status"
            ),
        },
        None => {}
    }
    for line in told(report) {
        println!("{line}");
    }
    if let (Some(id), true) = (report["delivery"].as_str().map(printable), report["held"].is_null())
    {
        println!("交付编号 / delivery: {id} (creditsync delivery undo {id})");
    }
    if let Some(rejects) = report["rejects_file"].as_str().map(printable) {
        println!(
            "rejected rows as they were delivered: correct them as the first two columns say and import the file again / 被拒绝的行（与交付时相同），按前两列的说明改正后可直接重新导入: {rejects}"
        );
    }
}

/// What was wrong, the most frequent first, and what there is to say about the
/// delivery as a whole.
fn told(report: &Json) -> Vec<String> {
    let read = |name: &str| -> Vec<Details> {
        serde_json::from_value(report[name].clone()).unwrap_or_default()
    };
    let (rejects, warnings) = (read("reject_details"), read("warning_details"));
    let notes: Vec<Note> = serde_json::from_value(report["notes"].clone()).unwrap_or_default();
    let mut lines = Vec::new();
    let mut line = |one: &str| lines.push(printable(one).into_owned());
    for (zh, rejected, warning, note) in
        [(true, "拒绝", "警告", "注意："), (false, "rejected", "warning", "note: ")]
    {
        kinds(&rejects, rejected, zh, &mut line);
        kinds(&warnings, warning, zh, &mut line);
        for Note { zh: in_chinese, en, .. } in &notes {
            line(&format!("{note}{}", if zh { in_chinese } else { en }));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_and_notes_are_told_in_both_languages() {
        let details = json!({
            "rule": "uscc-check", "field": "code", "title": "代码\u{1b}", "count": 12,
            "places": ["2", "3"], "sample": "91X\n", "zh": "校验位不符", "en": "check it",
        });
        let report = json!({
            "warning_details": [details],
            "notes": [{ "code": "cut", "zh": "没有传完", "en": "cut off" }],
        });
        assert_eq!(
            told(&report),
            [
                "警告 12 个，“代码\\u{1b}”校验位不符；例如“91X\\u{a}”（行 2, 3 等）",
                "注意：没有传完",
                "12 x warning: code check it; for example '91X\\u{a}' (lines 2, 3 and more)",
                "note: cut off",
            ]
        );
        // An answer of another version says what it says.
        assert_eq!(told(&json!({ "warning_details": 5 })), [""; 0]);
    }
}
