//! What stands above a header: titles, dates, remarks, the unit of all amounts below,
//! and sometimes rows, when somebody has sorted the table with its header.
//!
//! Used by readers that looked for a header. What is above one is not read, and
//! people are told. Invariants: a line that may be a row, and a unit of money that no
//! label repeats, are doubtful: overlooked, the one is deleted by a full file, and the
//! other makes an amount ten thousand times as large. No line is quoted, for a row has
//! personal values.

use protocol::uscc::{self, Quality};

/// Line numbers that are named.
const LINES_SHOWN: usize = 5;
/// Units of money, longer ones before those that end them.
const UNITS: [&str; 8] = ["百万元", "千万元", "万美元", "美元", "亿元", "万元", "千元", "元"];

/// A line above a header, split as the header is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Above {
    /// The line or row, from 1.
    pub line: u64,
    /// Its texts.
    pub cells: Vec<String>,
}

impl Above {
    /// Whether it may be a row: it is nearly as wide as the header, or has a credit
    /// code.
    fn may_be_row(&self, labels: &[String]) -> bool {
        let filled = |texts: &[String]| texts.iter().filter(|text| !text.trim().is_empty()).count();
        let (own, all) = (filled(&self.cells), filled(labels));
        let is_code = |text: &String| matches!(uscc::judge(text.trim()), Ok(Quality::Valid));
        if own > 1 && self.cells.iter().any(is_code) {
            return true;
        }
        // Numbers or letters of columns, kinds of values: hardly a word, or the same
        // ones; and what somebody fills in behind a colon.
        let mut words: Vec<&str> = self.cells.iter().map(|text| text.trim()).collect();
        words.retain(|word| word.chars().count() > 2);
        words.sort_unstable();
        words.dedup();
        let is_form =
            self.cells.iter().any(|text| text.contains(['：', ':']) && !text.contains("://"));
        if words.len() * 2 <= own || is_form {
            return false;
        }
        own > 2 && own * 3 > all * 2
    }
}

/// What there is to say of the lines above a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// In Chinese.
    pub zh: String,
    /// The same in English.
    pub en: String,
    /// It may be data, or change what the data means.
    pub doubtful: bool,
}

/// What to say of the lines above a header with these labels.
pub fn passed_over(above: &[Above], labels: &[String]) -> Option<PassedOver> {
    let numbers = |lines: &[&Above]| {
        let more = if lines.len() > LINES_SHOWN { "…" } else { "" };
        let lines = lines.iter().take(LINES_SHOWN).map(|above| above.line.to_string());
        lines.collect::<Vec<_>>().join(", ") + more
    };
    let all = numbers(&above.iter().collect::<Vec<_>>());
    let rows: Vec<&Above> = above.iter().filter(|above| above.may_be_row(labels)).collect();
    if above.is_empty() {
        return None;
    }
    let mut zh = format!("表头上方的行（第 {all} 行）未读取");
    let mut en = format!("what stands above the header (line {all}) was not read");
    if !rows.is_empty() {
        let rows = numbers(&rows);
        zh.push_str(&format!(
            "；但第 {rows} 行看起来是数据（例如排序时表头被排到了中间），请把表头放在第一行后重新交付"
        ));
        en.push_str(&format!(
            "; but line {rows} looks like data (a table may have been sorted with its header): put the header into the first line and deliver it again"
        ));
    }
    let unit = above.iter().find_map(|above| unit_of(&above.cells.concat()));
    let has_unit = |label: &String, unit| unit_of_label(label) == Some(unit);
    let has_any = labels.iter().any(|label| unit_of_label(label).is_some());
    // What nothing else is said of is in 元.
    let is_usual = |unit: &&str| *unit == "元" && !has_any;
    let unit = unit.filter(|unit| !labels.iter().any(|label| has_unit(label, unit)));
    let unit = unit.filter(|unit| !is_usual(unit));
    if let Some(unit) = unit {
        zh.push_str(&format!(
            "；其中写明单位为“{unit}”，而列名中没有这个单位，金额已按原数值读取；请核对是否需要换算"
        ));
        en.push_str(&format!(
            "; it names the unit '{unit}', which no label has, and amounts were read as they stand: check whether they have to be converted"
        ));
    }
    Some(PassedOver { zh, en, doubtful: unit.is_some() || !rows.is_empty() })
}

/// The unit of money that a label names.
pub fn unit_of_label(label: &str) -> Option<&'static str> {
    UNITS.into_iter().find(|unit| label.contains(unit))
}

/// The unit of money that a line such as 单位：万元 names; 单位：某局 names an office.
fn unit_of(line: &str) -> Option<&'static str> {
    let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    line.match_indices("单位").find_map(|(at, word)| {
        let behind = line[at + word.len()..].trim_start_matches([':', '：', '为', '(', '（', '是']);
        let behind = behind.trim_start_matches("人民币").trim_start_matches("RMB");
        UNITS.into_iter().find(|unit| behind.starts_with(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_unit_that_no_label_has_is_doubtful() {
        let labels = texts(&["企业名称", "罚款金额(万元)"]);
        for (line, doubtful) in [
            ("2024 年行政处罚汇总表", false),
            ("填报单位：郑州市市场监督管理局", false),
            ("单位：万元", false),
            ("单位: 元", true),
            ("（单位：亿元）", true),
            ("金额单位为千元", true),
            ("填报单位：某局    单位：亿元", true),
            ("金额单位：人民币元", true),
            ("单位：美元", true),
        ] {
            let above = [(1, "汇总表"), (3, line)];
            let above = above.map(|(line, text)| Above { line, cells: texts(&[text]) });
            let said = passed_over(&above, &labels).unwrap();
            assert_eq!(said.doubtful, doubtful, "{line}: {}", said.zh);
            assert!(said.zh.contains("第 1, 3 行") && said.en.contains("line 1, 3"), "{}", said.zh);
        }
        assert_eq!(passed_over(&[], &labels), None);
    }

    #[test]
    fn a_line_that_may_be_a_row_is_doubtful_and_not_quoted() {
        let labels = texts(&["名称", "代码", "日期", "备注"]);
        for (cells, doubtful) in [
            (&["甲公司", "豫罚1", "2024-01-01", ""][..], true),
            (&["甲", "91410000170001401E", "", ""], false),
            (&["甲", "91410000170001401D", "", ""], true),
            (&["填表单位：某局", "", "", "2024 年"], false),
            (&["名单", "", "", ""], false),
            (&["1", "2", "3", "4"], false),
            (&["必填", "必填", "选填", "选填"], false),
            (&["文本", "文本", "日期", "文本"], false),
            (&["联系人：张三", "0371-1234567", "", "2019年1月"], false),
            (&["甲公司", "豫罚1号", "2024-01-01", "无"], true),
        ] {
            let said = passed_over(&[Above { line: 2, cells: texts(cells) }], &labels).unwrap();
            assert_eq!(said.doubtful, doubtful, "{cells:?}: {}", said.zh);
            assert!(!said.zh.contains('甲') && !said.en.contains('甲'), "{}", said.zh);
        }
    }
}
