//! Deliveries as people read them, in Chinese and English.
//!
//! Used by [`super`]. Invariant: what is shown stands in the JSON answer, too;
//! nothing of it can steer a terminal.

use std::fmt::Write as _;

use protocol::text::printable;
use serde_json::Value as Json;

use crate::{
    cli::{print_table, text_of},
    ingest::stamp::local_of,
};

/// What a report counts, as far as it is about records.
const COUNTS: [(&str, &str); 6] = [
    ("inserted", "新增"),
    ("updated", "更新"),
    ("deleted", "删除"),
    ("unchanged", "未变"),
    ("rejected", "拒绝"),
    ("warnings", "警告"),
];

/// All deliveries, one a line.
pub(super) fn list(answer: &Json) {
    let items = answer["deliveries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let when = if item["received"].is_null() { &item["at"] } else { &item["received"] };
            let why = match (&item["explanation"], &item["held"]["zh"]) {
                (Json::String(_), _) => text_of(&item["explanation"]),
                (_, Json::String(_)) => {
                    format!("{} / {}", text_of(&item["held"]["zh"]), text_of(&item["held"]["en"]))
                }
                _ => "-".to_owned(),
            };
            vec![
                text_of(&item["id"]),
                text_of(&item["dataset"]),
                text_of(&item["file"]),
                kind(item).to_owned(),
                local_of(&text_of(when)),
                state(item).to_owned(),
                why,
            ]
        })
        .collect();
    let heading = [
        "编号 DELIVERY",
        "数据集 DATASET",
        "文件 FILE",
        "类型 KIND",
        "时间 TIME",
        "状态 STATE",
        "原因 WHY",
    ];
    print_table(&heading, &rows);
    if let Some(earlier) = answer["earlier"].as_u64().filter(|earlier| *earlier > 0) {
        println!("另有 {earlier} 次更早的交付未列出 / {earlier} earlier ones are not listed");
    }
}

/// One delivery.
pub(super) fn delivery(answer: &Json) -> String {
    let mut out = String::new();
    head(&mut out, answer);
    line(&mut out, "状态 / state", state(answer));
    let by = match &answer["decided"]["author"] {
        Json::Null => &answer["author"],
        decided => decided,
    };
    if let Json::String(at) = &answer["decided"]["at"] {
        line(&mut out, "处理时间 / decided", &local_of(at));
    }
    if let Json::String(newer) = &answer["decided"]["newer"] {
        line(&mut out, "取代它的交付 / in its place", newer);
    }
    for (who, what) in [(by, "操作人 / by"), (&answer["undone_by"], "撤销 / undone by")] {
        match who {
            Json::Null => {}
            Json::Object(author) => {
                let by = author.get("by").map(text_of).unwrap_or_default();
                let reason = author.get("reason").map(|reason| format!("：{}", text_of(reason)));
                line(&mut out, what, &format!("{by}{}", reason.unwrap_or_default()));
            }
            other => line(&mut out, what, &text_of(other)),
        }
    }
    why(&mut out, &answer["held"]);
    if answer["would"].is_object() {
        out.push_str("若批准（以收到时为准）/ if it is approved, as of its arrival:\n");
        counts(&mut out, &answer["would"]);
        let id = text_of(&answer["id"]);
        let _ = writeln!(out, "下一步 / next: creditsync delivery approve {id}");
        let _ = writeln!(out, "          或 / or: creditsync delivery discard {id}");
    } else if answer["report"].is_object() {
        out.push_str("结果 / what it did:\n");
        counts(&mut out, &answer["report"]);
    }
    out
}

/// What approving a delivery would do now.
pub(super) fn preview(answer: &Json) -> String {
    let mut out = String::new();
    head(&mut out, answer);
    why(&mut out, &answer["held"]);
    out.push_str("若现在批准 / if it is approved now:\n");
    counts(&mut out, &answer["would"]);
    let undoes = &answer["undoes"];
    match undoes["records"].as_u64() {
        Some(0) => {}
        Some(records) => {
            let _ = writeln!(
                out,
                "注意：其中 {records} 条记录在此后的交付中有过变化，这些变化将被撤销，例如 {} /\n\
                 note: {records} of these records were changed by newer deliveries, and that would be undone",
                samples(&undoes["samples"])
            );
        }
        None => out.push_str(
            "注意：此后变更过多，无法列出将被撤销的较新变更 /\n\
             note: too much has changed since to say what of it would be undone\n",
        ),
    }
    out
}

/// What taking a delivery back did.
pub(super) fn undone(answer: &Json) -> String {
    let mut out = String::new();
    let (id, undoes) = (text_of(&answer["id"]), text_of(&answer["undoes"]));
    let _ = writeln!(out, "已撤销 {undoes} / took back {undoes}");
    counts(&mut out, answer);
    if let Some(records) = answer["changed_since"].as_u64().filter(|records| *records > 0) {
        let _ = writeln!(
            out,
            "其中 {records} 条记录此后又有变化，例如 {} / {records} records had changed since",
            samples(&answer["samples"])
        );
    }
    let _ = writeln!(out, "当前序号 / now at number: {}", text_of(&answer["seq"]));
    let _ = writeln!(out, "恢复 / bring it back: creditsync delivery undo {id}");
    out
}

fn head(out: &mut String, answer: &Json) {
    line(out, "交付 / delivery", &text_of(&answer["id"]));
    line(out, "数据集 / dataset", &text_of(&answer["dataset"]));
    if !answer["file"].is_null() {
        line(out, "文件 / file", &text_of(&answer["file"]));
    }
    line(out, "类型 / kind", kind(answer));
    if !answer["undoes"].is_null() && !answer["undoes"].is_object() {
        line(out, "所撤销的交付 / takes back", &text_of(&answer["undoes"]));
    }
    let when = if answer["received"].is_null() { &answer["at"] } else { &answer["received"] };
    line(out, "时间 / time", &local_of(&text_of(when)));
}

/// The rules that apply, with numbers and examples.
fn why(out: &mut String, held: &Json) {
    if !held.is_object() {
        return;
    }
    out.push_str("等待原因 / why it waits:\n");
    let also = held["also"].as_array().map(Vec::as_slice).unwrap_or_default();
    for one in std::iter::once(held).chain(also) {
        let _ = writeln!(out, "  [{}] {}", text_of(&one["rule"]), text_of(&one["zh"]));
        let _ = writeln!(out, "    {}", text_of(&one["en"]));
        let samples = samples(&one["samples"]);
        if !samples.is_empty() {
            let _ = writeln!(out, "    例如 / for example: {samples}");
        }
    }
}

fn counts(out: &mut String, report: &Json) {
    for (name, zh) in COUNTS {
        if let Some(count) = report[name].as_u64() {
            let _ = writeln!(out, "{count:>10} {zh} / {name}");
        }
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "{name}: {}", printable(value));
}

fn samples(list: &Json) -> String {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text_of).collect::<Vec<_>>().join(", ")
}

fn kind(item: &Json) -> &'static str {
    match (item["full"].as_bool(), item["kind"].as_str()) {
        (Some(true), _) | (_, Some("full")) => "全量 / full",
        (Some(false), _) | (_, Some("upsert")) => "增量 / upsert",
        (_, Some("undo")) => "撤销 / undo",
        (_, Some("record-delete")) => "删除单条 / record delete",
        _ => "-",
    }
}

fn all_rejected(report: &Json) -> bool {
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    count("rows") > 0 && count("rejected") == count("rows") && count("deleted") == 0
}

fn state(item: &Json) -> &'static str {
    match item["state"].as_str() {
        Some("taken" | "approved") if all_rejected(&item["report"]) => {
            "全部行被拒绝 / every row rejected"
        }
        Some("taken") => "已导入 / taken",
        Some("approved") => "已批准 / approved",
        Some("discarded") => "已丢弃 / discarded",
        Some("undone") => "已撤销 / undone",
        Some("interrupted") => "未完成 / interrupted",
        // Without one, it is of the list of those that wait.
        _ => "待审批 / held",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_a_delivery_says_steers_the_terminal() {
        let evil = "甲\u{1b}[2J\u{9b}\u{202e}乙\nFORGED";
        let why = json!({ "rule": evil, "zh": evil, "en": evil, "samples": [evil, evil] });
        let mut held = why.clone();
        held["also"] = json!([why]);
        let author = json!({ "by": evil, "reason": evil });
        let answer = json!({
            "id": evil, "dataset": evil, "file": evil, "undoes": evil, "kind": evil, "at": evil,
            "state": evil, "held": held, "decided": { "author": author, "at": evil, "newer": evil },
            "author": author, "report": { "inserted": 1, "held": held }, "would": { "held": held },
            "now": { "inserted": 1 }, "seq": evil, "changed_since": 1, "samples": [evil],
            "rejects_file": evil, "explanation": evil,
        });
        let mut preview = answer.clone();
        preview["undoes"] = json!({ "records": 2, "samples": [evil] });
        for text in [delivery(&answer), super::preview(&preview), undone(&answer)] {
            assert!(text.contains(r"甲\u{1b}[2J\u{9b}\u{202e}乙\u{a}FORGED"), "{text}");
            let steers =
                |c: char| c != '\n' && c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            assert!(!text.contains(steers) && !text.contains("\nFORGED"), "{text:?}");
        }
    }
}
