//! The examples of `protocol/SPEC.md` itself: bytes that a reader would copy from
//! the page have to be those of the vectors, also where they are shortened.

use super::{golden::Vectors, layout};

const PAGE: &str = include_str!("../../../protocol/SPEC.md");

/// What stands behind a label in the page's examples, with its lines that go on.
fn example(label: &str) -> String {
    let mut lines = PAGE
        .lines()
        .skip_while(|line| line.strip_prefix(label).is_none_or(|rest| !rest.starts_with(' ')));
    let first = lines.next().unwrap_or_else(|| panic!("{label} is not in the page"));
    let more = lines.take_while(|line| line.starts_with("   "));
    let words = first[label.len()..].split(' ').chain(more.flat_map(|line| line.split(' ')));
    words.collect()
}

/// Whether a text is another one but for what `…` stands for.
fn is_short_for(short: &str, whole: &str) -> bool {
    let mut pieces = short.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = whole.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, between)) = pieces.split_last() else { return rest.is_empty() };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn the_examples_of_the_page_are_those_of_the_vectors() {
    assert!(is_short_for("01…02…03", "010002000003") && is_short_for("01", "01"));
    assert!(!is_short_for("01…03", "0102") && !is_short_for("01", "0102"));
    let vectors = Vectors::read();
    for (label, vector) in [
        ("null", "record.null"),
        ("text 县", "record.text"),
        ("integer -1", "record.integer_negative"),
        ("decimal 15800.5", "record.decimal"),
        ("date 2019-03-01", "record.date"),
        ("leaf.raw", "leaf.raw"),
        ("leaf.hash", "leaf.hash"),
        ("inner.body", "inner.body"),
        ("inner.hash", "inner.hash"),
        ("changes.body", "changes.body"),
        ("changes.hash", "changes.hash"),
        ("header.bytes", "header.bytes"),
        ("header.hash", "header.hash"),
        ("signature", "header.signature"),
        ("heartbeat, 1 700 000 000 000", "frame.control.heartbeat"),
        ("follow, from the start", "frame.open.follow.from_start"),
        ("ack of number 251", "frame.follow.ack"),
        ("pages \"\" and \"key\" of level 1", "frame.tree.pages"),
        ("differences from a page of 2", "frame.tree.differences"),
        ("a part with more to come", "frame.tree.part"),
        ("refused: expired", "frame.join.refused.expired"),
    ] {
        let shown = example(label);
        assert!(is_short_for(&shown, vectors.text(vector)), "{label}: {shown} is not {vector}");
    }
}

/// The cells of the rows of all tables, without their quotes.
fn rows() -> impl Iterator<Item = Vec<String>> {
    PAGE.lines().filter(|line| line.starts_with('|')).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().into()).collect()
    })
}

#[test]
fn unicodes_tables_are_of_the_versions_that_the_page_names() {
    let (nfkc, other) = (unicode_normalization::UNICODE_VERSION.0, char::UNICODE_VERSION.0);
    for named in [
        format!("NFKC is that of Unicode {nfkc}"),
        format!("case mappings are those of Unicode {other}"),
    ] {
        assert!(PAGE.contains(&named), "{named}");
    }
}

#[test]
fn the_tables_of_the_page_are_those_of_the_vectors() {
    let vectors = Vectors::read();
    let hashes = [
        ("key", "hash.key", layout::hash::KEY),
        ("entry", "hash.entry", layout::hash::ENTRY),
        ("page", "hash.page", layout::hash::PAGE),
        ("changes", "hash.changes", layout::hash::CHANGES),
        ("header", "hash.header", layout::hash::HEADER),
        ("history", "hash.history", layout::hash::HISTORY),
        ("name", "hash.name", layout::hash::NAME),
        ("key id", "hash.key_id", layout::hash::KEY_ID),
        ("token secret", "hash.token_secret", layout::hash::TOKEN_SECRET),
        ("checksum", "hash.checksum", layout::hash::CHECKSUM),
    ];
    for (purpose, vector, context) in hashes {
        let row = rows().find(|row| row[0] == purpose && row[1] == context);
        let row = row.unwrap_or_else(|| panic!("{purpose}: another context"));
        assert!(vectors.text(vector).starts_with(row.last().unwrap()), "{purpose}");
    }
    let trees = rows().filter(|row| row.len() == 3 && row[2].ends_with('…'));
    let mut found = 0;
    for row in trees {
        let name = row[0].split(" (").next().unwrap().replace(' ', "");
        let pages = vectors.text(&format!("tree.{name}.pages"));
        assert_eq!(pages.trim_matches(['[', ']']), row[1], "{row:?}");
        assert!(is_short_for(&row[2], vectors.text(&format!("tree.{name}.root"))), "{row:?}");
        found += 1;
    }
    assert_eq!(found, 6, "rows of generated trees");
}
