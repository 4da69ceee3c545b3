//! Where a row stands, in words.
//!
//! Used by everything that tells people of rows. Invariant: the number that a
//! spreadsheet shows is named wherever it is not the line's. Not here: what a
//! place is (`rows`).

use super::super::rows::Place;

/// For programs and lists: `15`, `15 (row 12)` where a spreadsheet shows another
/// number, or `五月!12` in a part.
pub(in crate::ingest) fn place_name(place: Place, parts: &[String]) -> String {
    match part_of(place, parts) {
        Some(part) => format!("{part}!{}", place.row()),
        None if place.row() == place.line() => place.line().to_string(),
        None => format!("{} (row {})", place.line(), place.row()),
    }
}

/// In a sentence, in Chinese and in English.
pub(in crate::ingest) fn place_words(place: Place, parts: &[String]) -> [String; 2] {
    let (line, row) = (place.line(), place.row());
    match part_of(place, parts) {
        Some(part) => [format!("“{part}”第 {row} 行"), format!("'{part}' row {row}")],
        None if row == line => [format!("第 {line} 行"), format!("line {line}")],
        None => [
            format!("第 {line} 行（表格中第 {row} 行）"),
            format!("line {line} (row {row} in a spreadsheet)"),
        ],
    }
}

/// The part's name, or its number where it has none, if there is more than one.
fn part_of(place: Place, parts: &[String]) -> Option<String> {
    match parts.get(place.part()) {
        Some(name) => Some(name.clone()),
        None if place.part() == 0 => None,
        None => Some((place.part() + 1).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_as_a_spreadsheet_shows_it_too() {
        let parts = ["五月".to_owned()];
        for (place, parts, name, zh, en) in [
            (Place::new(0, 5, 5), &[][..], "5", "第 5 行", "line 5"),
            (
                Place::new(0, 15, 12),
                &[],
                "15 (row 12)",
                "第 15 行（表格中第 12 行）",
                "line 15 (row 12 in a spreadsheet)",
            ),
            (Place::new(0, 5, 4), &parts, "五月!4", "“五月”第 4 行", "'五月' row 4"),
            (Place::new(2, 5, 5), &[], "3!5", "“3”第 5 行", "'3' row 5"),
        ] {
            assert_eq!(place_name(place, parts), name);
            assert_eq!(place_words(place, parts), [zh, en]);
        }
    }
}
