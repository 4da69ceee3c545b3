//! A report for people: a few sentences, in Chinese first and then in English.
//!
//! Used by the inbox, which puts it beside the file, and by the command line.
//! Invariant: values are masked, as in the report itself. Not here: what is
//! counted (`tally`).

use super::{Details, ImportReport};

/// Kinds of problems that are told; the report for programs has more.
const KINDS_TOLD_MAX: usize = 8;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All of it was taken.
    Done,
    /// Some rows were rejected, or a person has to approve it.
    Attention,
    /// Nothing was taken.
    Failed,
}

impl Outcome {
    /// The name of the folder for such files.
    pub fn folder(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Attention => "attention",
            Outcome::Failed => "failed",
        }
    }
}

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The file's name, as it may be shown.
    pub file: &'a str,
    /// The dataset.
    pub dataset: &'a str,
    /// Whether it was the whole partition.
    pub full: bool,
    /// When, in local time with its zone.
    pub at: &'a str,
    /// The rejects file's name.
    pub rejects: Option<&'a str>,
}

/// The report of a delivery that was read to its end.
pub fn for_people(report: &ImportReport, about: &About<'_>) -> String {
    let mut text = String::new();
    let mut line = |one: &str| {
        text.push_str(one);
        text.push_str("\r\n");
    };
    let ImportReport { rows, inserted, updated, deleted, unchanged, rejected, .. } = report;
    let ImportReport { duplicates, skipped, warnings, .. } = report;
    let About { file, dataset, at, .. } = about;

    line(&head_zh(file, dataset, about.full, at));
    line(match report.outcome() {
        Outcome::Done => "结果：已全部导入。",
        Outcome::Attention if report.held.is_some() => {
            "结果：尚未导入，等待人工批准；现有数据没有变化。"
        }
        Outcome::Attention if *rejected == 0 => "结果：已导入，但文件的一部分没有读取，需要处理。",
        Outcome::Attention => "结果：已导入，但有些行被拒绝，需要处理。",
        Outcome::Failed => "结果：没有导入任何内容，所有行都被拒绝。",
    });
    if let Some(held) = &report.held {
        line(&format!("原因：{}。", held.zh));
        held.also.iter().for_each(|also| line(&format!("另外：{}。", also.zh)));
        let held = &held.id;
        line(&format!(
            "查看详情：creditsync delivery show {held}；确认无误后批准：creditsync delivery approve {held}；不需要则丢弃：creditsync delivery discard {held}。"
        ));
    }
    line(&if report.held.is_some() {
        format!(
            "共 {rows} 行，其中拒绝 {rejected}，重复 {duplicates}；跳过 {skipped} 行（空行、重复表头、合计、表尾说明），警告 {warnings} 个。"
        )
    } else {
        format!(
            "共 {rows} 行：新增 {inserted}，更新 {updated}，未变 {unchanged}，重复 {duplicates}，拒绝 {rejected}；另删除 {deleted} 条记录，跳过 {skipped} 行（空行、重复表头、合计、表尾说明），警告 {warnings} 个。"
        )
    });
    if let Some(id) = report.delivery.as_ref().filter(|_| report.held.is_none()) {
        line(&format!("交付编号：{id}（撤销：creditsync delivery undo {id}）。"));
    }
    let mend_all = about.full && report.held.is_some() || report.is_cut();
    if let Some(rejects) = about.rejects.filter(|_| mend_all) {
        line(&format!(
            "被拒绝的行在 {rejects} 中，供核对。{}，不要单独交付被拒绝的行。",
            if report.is_cut() {
                "文件可能不完整：请重新导出并整份重新交付"
            } else {
                "请在原文件中改正，再整份放入 full/"
            }
        ));
    }
    if let Some(rejects) = about.rejects.filter(|_| !mend_all) {
        line(&format!(
            "被拒绝的行在 {rejects} 中，与交付时相同。请按前两列的说明改正后保存，把该文件放进收件目录 {dataset}/（不要放进 full/）即可，前两列会被忽略。"
        ));
        line(
            "用 Excel 打开时，请用“数据→从文本/CSV”导入并把代码列设为文本，否则长数字会被改成近似值。",
        );
    }
    for note in &report.notes {
        line(&format!("注意：{}", note.zh));
    }
    kinds(&report.reject_details, "拒绝", true, &mut line);
    kinds(&report.warning_details, "警告", true, &mut line);

    line("");
    line(&head_en(file, dataset, about.full, at));
    line(match report.outcome() {
        Outcome::Done => "Result: all of it was imported.",
        Outcome::Attention if report.held.is_some() => {
            "Result: nothing was imported yet, somebody has to approve it; the stored data is as it was."
        }
        Outcome::Attention if *rejected == 0 => {
            "Result: imported, but a part of the file was not read and needs somebody."
        }
        Outcome::Attention => "Result: imported, but some rows were rejected and need somebody.",
        Outcome::Failed => "Result: nothing was imported, every row was rejected.",
    });
    if let Some(held) = &report.held {
        line(&format!("Why: {}.", held.en));
        held.also.iter().for_each(|also| line(&format!("Besides: {}.", also.en)));
        let held = &held.id;
        line(&format!(
            "More: creditsync delivery show {held}; approve it if that is right: creditsync delivery approve {held}; otherwise: creditsync delivery discard {held}."
        ));
    }
    line(&if report.held.is_some() {
        format!(
            "{rows} rows, {rejected} of them rejected, {duplicates} repeated; {skipped} lines skipped (blank ones, repeated headers, totals, remarks below the table), {warnings} warnings."
        )
    } else {
        format!(
            "{rows} rows: {inserted} inserted, {updated} updated, {unchanged} unchanged, {duplicates} repeated, {rejected} rejected; besides, {deleted} records deleted, {skipped} lines skipped (blank ones, repeated headers, totals, remarks below the table), {warnings} warnings."
        )
    });
    if let Some(id) = report.delivery.as_ref().filter(|_| report.held.is_none()) {
        line(&format!("Delivery: {id} (to take it back: creditsync delivery undo {id})."));
    }
    if let Some(rejects) = about.rejects.filter(|_| mend_all) {
        line(&format!(
            "The rejected rows are in {rejects}, to be looked at. {}; do not deliver the rejected rows alone.",
            if report.is_cut() {
                "The file may not be whole: export it again and deliver all of it"
            } else {
                "Correct them in the original file and put all of it into full/ again"
            }
        ));
    }
    if let Some(rejects) = about.rejects.filter(|_| !mend_all) {
        line(&format!(
            "The rejected rows are in {rejects}, as they were delivered. Correct them as its first two columns say, save it, and drop it into the inbox's folder {dataset}/ (not into full/); those two columns are ignored."
        ));
        line(
            "In Excel open it by Data > From Text/CSV with the code columns as text: otherwise long numbers are rounded.",
        );
    }
    for note in &report.notes {
        line(&format!("Note: {}", note.en));
    }
    kinds(&report.reject_details, "rejected", false, &mut line);
    kinds(&report.warning_details, "warning", false, &mut line);
    text
}

/// The report of a delivery that could not be read; `error` says why, in Chinese and
/// English.
pub fn failure_for_people(error: &[String; 2], about: &About<'_>) -> String {
    let About { file, dataset, at, full, .. } = *about;
    let [zh, en] = error.each_ref().map(|text| text.replace('\n', "\r\n"));
    format!(
        "{}\r\n结果：没有导入任何内容。请按下面的原因改正后重新交付。\r\n{zh}\r\n\r\n{}\r\nResult: nothing was imported. Mend what is said here and deliver it again.\r\n{en}\r\n",
        head_zh(file, dataset, full, at),
        head_en(file, dataset, full, at),
    )
}

fn head_zh(file: &str, dataset: &str, full: bool, at: &str) -> String {
    let kind = if full { "全量文件" } else { "增量文件" };
    format!("{kind} {file}（数据集 {dataset}），处理时间 {at}。")
}

fn head_en(file: &str, dataset: &str, full: bool, at: &str) -> String {
    let kind = if full { "The full file" } else { "The file" };
    format!("{kind} {file} of dataset {dataset}, dealt with at {at}.")
}

/// The most frequent kinds, one a line.
pub fn kinds(details: &[Details], what: &str, zh: bool, line: &mut impl FnMut(&str)) {
    for detail in details.iter().take(KINDS_TOLD_MAX) {
        let (count, places) = (detail.count, detail.places.join(", "));
        let title = detail.title.as_deref().or(detail.field.as_deref());
        let more = detail.count > detail.places.len() as u64;
        let mut one = match (zh, title) {
            (true, Some(title)) => format!("{what} {count} 个，“{title}”{}", detail.zh),
            (true, None) => format!("{what} {count} 个，{}", detail.zh),
            (false, title) => {
                let title = detail.field.as_deref().or(title);
                let title = title.map_or(String::new(), |title| format!("{title} "));
                format!("{count} x {what}: {title}{}", detail.en)
            }
        };
        if let Some(sample) = &detail.sample {
            one.push_str(&if zh {
                format!("；例如“{sample}”")
            } else {
                format!("; for example '{sample}'")
            });
        }
        if !places.is_empty() {
            one.push_str(&match (zh, more) {
                (true, true) => format!("（行 {places} 等）"),
                (true, false) => format!("（行 {places}）"),
                (false, true) => format!(" (lines {places} and more)"),
                (false, false) => format!(" (lines {places})"),
            });
        }
        line(&one);
    }
    let left: u64 = details.iter().skip(KINDS_TOLD_MAX).map(|detail| detail.count).sum();
    if left > 0 {
        line(&if zh {
            format!("{what}：另有 {left} 个，见 .report.json")
        } else {
            format!("{left} more x {what}: see the .report.json")
        });
    }
}
