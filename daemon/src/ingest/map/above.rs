//! What stands above a header: titles, dates, remarks, and sometimes the unit of
//! all amounts below.
//!
//! Used by readers that looked for a header. They are no rows, and people are told
//! that they were passed over. Invariant: a unit of money that no label repeats is
//! doubtful, for who overlooks it stores ten thousand times the amount.

use protocol::text::visible_within;

use super::super::{source::LeftOut, validate::shown};

/// Lines that a note quotes.
const LINES_SHOWN: usize = 3;
/// Characters of each.
const LINE_CHARS_SHOWN: usize = 40;
/// Units of money, longer ones before those that end them.
const UNITS: [&str; 7] = ["百万元", "千万元", "万美元", "亿元", "万元", "千元", "元"];

/// What to say of the lines above a header with these labels.
pub fn passed_over(lines: &[String], labels: &[String]) -> Option<LeftOut> {
    if lines.is_empty() {
        return None;
    }
    let count = lines.len();
    let quoted = |line: &String| visible_within(&shown(line.trim()), LINE_CHARS_SHOWN).into_owned();
    let quoted: Vec<String> = lines.iter().take(LINES_SHOWN).map(quoted).collect();
    let more = if count > LINES_SHOWN { "…" } else { "" };
    let mut zh = format!("表头上方的 {count} 行不是数据，未读取：“{}”{more}", quoted.join("”“"));
    let mut en =
        format!("{count} lines above the header are no rows: '{}'{more}", quoted.join("', '"));
    let unit = lines.iter().find_map(|line| unit_of(line));
    let has_unit =
        |label: &String, unit| UNITS.into_iter().find(|one| label.contains(one)) == Some(unit);
    let unit = unit.filter(|unit| !labels.iter().any(|label| has_unit(label, unit)));
    if let Some(unit) = unit {
        zh.push_str(&format!(
            "；其中写明单位为“{unit}”，而列名中没有这个单位，金额已按原数值读取；请核对是否需要换算"
        ));
        en.push_str(&format!(
            "; they name the unit '{unit}', which no label has, and amounts were read as they stand: check whether they have to be converted"
        ));
    }
    Some(LeftOut { zh, en, doubtful: unit.is_some() })
}

/// The unit of money that a line such as 单位：万元 names; 单位：某局 names an office.
fn unit_of(line: &str) -> Option<&'static str> {
    let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    let (_, behind) = line.split_once("单位")?;
    let behind = behind.trim_start_matches([':', '：', '为', '(', '（', '是']);
    UNITS.into_iter().find(|unit| behind.starts_with(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_no_label_has_is_doubtful() {
        let texts =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let labels = texts(&["企业名称", "罚款金额(万元)"]);
        for (line, doubtful) in [
            ("2024 年行政处罚汇总表", false),
            ("填报单位：郑州市市场监督管理局", false),
            ("单位：万元", false),
            ("单位: 元", true),
            ("（单位：亿元）", true),
            ("金额单位为千元", true),
        ] {
            let said = passed_over(&texts(&["汇总表", line]), &labels).unwrap();
            assert_eq!(said.doubtful, doubtful, "{line}: {}", said.zh);
            assert!(said.zh.contains(line) && said.en.contains(line), "{}", said.zh);
        }
        assert_eq!(passed_over(&[], &labels), None);
    }
}
