//! What counts as too much, and how rules are told.

use super::*;

#[test]
fn a_share_is_exceeded_and_a_number_is_reached() {
    for (count, all, percent, least, expected) in [
        (20, 100, 20, 3, false),
        (21, 100, 20, 3, true),
        (2, 2, 20, 3, false),
        (3, 3, 20, 3, true),
        (1, 100, 0, 0, true),
        (0, 0, 0, 0, false),
        (7, 7, 100, 1, false),
        (u64::MAX, u64::MAX, 99, 1, true),
    ] {
        assert_eq!(exceeds(count, all, percent, least), expected, "{count} of {all}");
    }
}

#[test]
fn every_rule_has_a_name_numbers_and_two_languages() {
    let fields = vec![FieldCount {
        field: "phone".into(),
        title_zh: "电话".into(),
        title_en: "telephone".into(),
        records: 41,
    }];
    for (reason, rule, number) in [
        (HoldReason::Empty { stored: 41 }, "empty", 41),
        (HoldReason::Deletes { deletes: 41, stored: 99 }, "deletes", 41),
        (HoldReason::Cut { deletes: 41 }, "cut", 41),
        (HoldReason::Unreadable { unreadable: 41, deletes: 2 }, "unreadable", 41),
        (HoldReason::Suspicious { suspicious: 41, deletes: 2 }, "suspicious", 41),
        (HoldReason::BlanksColumns { fields: fields.clone() }, "blanks-columns", 41),
        (HoldReason::ChangesColumn { fields, compared: 60 }, "changes-column", 60),
        (HoldReason::Garbled { garbled: 41, rows: 50 }, "garbled", 41),
        (HoldReason::DoubtfulKeys { doubtful: 41, inserted: 50 }, "doubtful-keys", 41),
    ] {
        assert_eq!(reason.rule(), rule);
        let json = serde_json::to_value(&reason).unwrap();
        assert_eq!(json["rule"], rule);
        assert!(reason.detail().get("rule").is_none(), "{reason:?}");
        let number = number.to_string();
        assert!(reason.zh().contains(&number) && reason.en().contains(&number), "{reason}");
        assert_eq!(serde_json::from_value::<HoldReason>(json).unwrap(), reason);
    }
}

#[test]
fn a_note_begins_with_the_most_serious_rule() {
    let hold = |reason| Hold { reason, samples: vec!["k".into()] };
    let holds =
        [hold(HoldReason::Deletes { deletes: 5, stored: 9 }), hold(HoldReason::Cut { deletes: 5 })];
    let note = HeldNote::new("list-1", &holds).unwrap();
    assert_eq!((note.id.as_str(), note.rule.as_str()), ("list-1", "deletes"));
    assert_eq!(note.also[0].rule, "cut");
    assert_eq!(HeldNote::new("list-1", &[]), None);
}

#[test]
fn the_defaults_are_those_of_the_settings() {
    let settings = config::ImportConfig::default();
    let limits = HoldLimits {
        deletes_percent: settings.hold_deletes_percent,
        deletes_min: settings.hold_deletes_min,
        changes_percent: settings.hold_changes_percent,
        changes_min: settings.hold_changes_min,
        doubtful_percent: settings.hold_doubtful_percent,
        doubtful_min: settings.hold_doubtful_min,
    };
    assert_eq!(limits, HoldLimits::default());
}
