//! What holds for all texts: hidden characters change nothing, and a value that is
//! delivered as it was exported stays what it is.

use std::sync::LazyLock;

use proptest::prelude::*;
use protocol::{
    schema::{DateOrder, OpenEnd},
    text::is_format,
    value::Date,
};

use super::*;

static HIDDEN: LazyLock<Vec<char>> =
    LazyLock::new(|| ('\0'..=char::MAX).filter(|c| is_format(*c)).collect());

/// Values that mean something to one type or another, and traces of spreadsheets.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,20}(\\.0{1,2})?",
        "[+-]?[0-9]{1,3}(,[0-9]{3}){0,3}(\\.[0-9]{1,3})?",
        "(19|20)[0-9]{2}[-/.][01]?[0-9][-/.][0-3]?[0-9]",
        "[0-3]?[0-9]/[01]?[0-9]/(19|20)[0-9]{2}",
        "9[1-3]41010[0-9][0-9A-HJ-NP-RTUWXY]{10}",
        "[0-9](\\.[0-9]{1,5})?[eE][+-]?[0-9]{1,2}",
        "[豫罚字〔〕第号0-9A-Za-z'=\".\\- ]{0,16}",
        "=\"[0-9']{1,6}\"",
        "'{1,2}[0-9=\"]{1,6}",
        Just("长期".to_owned()),
    ]
}

fn kinds() -> impl Strategy<Value = Field> {
    (0..KINDS.len(), any::<bool>()).prop_map(|(kind, open)| {
        let is_date = KINDS[kind] == FieldType::Date;
        Field {
            date_order: is_date.then_some(DateOrder::Dmy),
            open_end: (is_date && open).then(|| OpenEnd(Date::new(9999, 12, 31))),
            legacy_codes: KINDS[kind] == FieldType::Uscc,
            ..field("x", KINDS[kind])
        }
    })
}

proptest! {
    #[test]
    fn hidden_characters_change_no_code_number_or_day(
        field in kinds().prop_filter("texts keep them", |field| field.kind != FieldType::Text),
        text in texts(),
        hidden in proptest::collection::vec((0usize..24, any::<prop::sample::Index>()), 1..4),
    ) {
        let mut with: Vec<char> = text.chars().collect();
        for (at, which) in hidden {
            with.insert(at.min(with.len()), *which.get(&HIDDEN));
        }
        let with: String = with.into_iter().collect();
        prop_assert_eq!(check(&field, &with), check(&field, &text));
    }

    #[test]
    fn a_value_delivered_again_as_it_was_exported_is_the_same(
        field in kinds(),
        text in prop_oneof![texts(), "\\PC{0,12}"],
    ) {
        if let (Some(value), _) = check(&field, &text) {
            prop_assert_eq!(check(&field, &value).0, Some(value));
        }
    }
}
