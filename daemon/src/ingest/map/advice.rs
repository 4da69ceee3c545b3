//! Which known label an unknown one probably means.
//!
//! Invariants: no label is advised for two columns; no advice changes a unit, for
//! who follows it from 元 to 万元 stores ten thousand times the amount. A label that
//! only the unit tells apart is named as that ([`in_another_unit`]).

use protocol::schema::fold_label;

/// Longest label that is compared, in characters.
const LABEL_CHARS_MAX: usize = 60;
/// Unknown columns that are compared: beyond, the file is another one, and every
/// pair costs time.
const COLUMNS_MAX: usize = 64;
/// Most edits that still are a slip of the pen.
const EDITS_MAX: usize = 4;
/// What units are written with. Two labels in which these differ name different
/// quantities.
const UNIT_CHARACTERS: &str = "万亿千百元角美欧港%‰㎡亩顷米吨克斤升";

/// For each of the unknown labels the known one that it probably means; `known`
/// labels come with the field that they name.
pub(super) fn advise<'a>(unknown: &[&str], known: &[(usize, &'a str)]) -> Vec<Option<&'a str>> {
    let folded: Vec<(usize, &str, String)> =
        known.iter().map(|(field, label)| (*field, *label, fold_label(label))).collect();
    let mut pairs = Vec::new();
    for (at, label) in unknown.iter().take(COLUMNS_MAX).enumerate() {
        if label.chars().count() > LABEL_CHARS_MAX {
            continue;
        }
        let own = fold_label(label);
        for (place, (field, _, other)) in folded.iter().enumerate() {
            let longer = own.chars().count().max(other.chars().count());
            let edits = strsim::levenshtein(&own, other);
            if edits <= (longer / 3).clamp(1, EDITS_MAX) && units(&own) == units(other) {
                pairs.push((edits, at, place, *field));
            }
        }
    }
    // The nearest pair first; each column and each field once.
    pairs.sort_unstable();
    let mut advice = vec![None; unknown.len()];
    let mut given = Vec::new();
    for (_, at, place, field) in pairs {
        if advice[at].is_none() && !given.contains(&field) {
            advice[at] = Some(folded[place].1);
            given.push(field);
        }
    }
    advice
}

/// The known label from which only the unit tells this one apart.
pub(super) fn in_another_unit<'a>(label: &str, known: &[(usize, &'a str)]) -> Option<&'a str> {
    if label.chars().count() > LABEL_CHARS_MAX {
        return None;
    }
    let own = fold_label(label);
    let found = known.iter().find(|(_, other)| {
        let other = fold_label(other);
        units(&own) != units(&other) && bare(&own) == bare(&other) && !bare(&own).is_empty()
    });
    found.map(|(_, label)| *label)
}

/// A label without its unit and the brackets around it.
fn bare(label: &str) -> String {
    let is_unit = |c: char| UNIT_CHARACTERS.contains(c) || "()（）[]【】:：".contains(c);
    label.chars().filter(|c| !is_unit(*c)).collect()
}

/// The characters of a label that units are written with, in order.
fn units(label: &str) -> Vec<char> {
    label.chars().filter(|character| UNIT_CHARACTERS.contains(*character)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_unit_never_changed() {
        let known = [(0, "企业名称"), (1, "罚款金额(万元)"), (2, "处罚类别"), (3, "注册资本")];
        let advise = |unknown: &[&str]| advise(unknown, &known);
        assert_eq!(advise(&["企业名成"]), [Some("企业名称")]);
        assert_eq!(advise(&["罚款金额（万元)"]), [Some("罚款金额(万元)")]);
        for other in
            ["罚款金额(元)", "罚款金额", "罚款金额(千元)", "罚款金额(亿元)", "罚款金额万美元"]
        {
            assert_eq!(advise(&[other]), [None], "{other}");
        }
        assert_eq!(advise(&["注册资本(万元)"]), [None]);
        for (label, other) in [
            ("罚款金额(元)", Some("罚款金额(万元)")),
            ("罚款金额", Some("罚款金额(万元)")),
            ("注册资本（万元）", Some("注册资本")),
            ("罚款金额（万元）", None),
            ("火星", None),
            ("元", None),
        ] {
            assert_eq!(in_another_unit(label, &known), other, "{label}");
        }
        // Five columns, one field: the nearest one.
        let many = advise(&["处罚名称", "处罚类别1", "处罚类别2", "处罚事由", "处罚结果"]);
        assert_eq!(many.iter().flatten().count(), 1, "{many:?}");
        assert_eq!(many[1], Some("处罚类别"));
        assert_eq!(advise(&["", "火星", &"长".repeat(100_000)]), [None, None, None]);
    }
}
