//! What spreadsheets, other programs and wrong encodings leave in a value.

use super::*;

#[test]
fn what_protects_a_code_from_a_spreadsheet_is_taken_off() {
    let code = field("c", FieldType::Code);
    accepted(
        &code,
        &[
            ("=\"007\"", "007"),
            ("＝＂007＂", "007"),
            ("'007", "007"),
            ("=\" 007 \"", "007"),
            ("='007", "='007"),
            ("'=\"007\"", "007"),
            ("=\"'007\"", "007"),
            ("=\"a\"\"b\"", "a\"b"),
            ("=\"\"", ""),
            ("'", ""),
            ("5245.0", "5245"),
            ("2019000017.00", "2019000017"),
            // A version, a section or an amount may be what is meant.
            ("1.0", "1.0"),
            ("524.0", "524.0"),
            ("5245.10", "5245.10"),
            ("5245.", "5245."),
            ("5245.0.0", "5245.0.0"),
            ("=007", "=007"),
            ("=\"007", "=\"007"),
            ("'2019'1号", "'2019'1号"),
            ("豫罚〔2019〕1号", "豫罚〔2019〕1号"),
        ],
    );
    let uscc = field("u", FieldType::Uscc);
    accepted(
        &uscc,
        &[
            ("=\"91410000170001401D\"", "91410000170001401D"),
            ("'91410000170001401d", "91410000170001401D"),
        ],
    );
    let legacy = Field { legacy_codes: true, ..uscc };
    assert_eq!(check(&legacy, "410100100012345.0").0.unwrap(), "410100100012345");
    accepted(
        &field("n", FieldType::Integer),
        &[
            ("5245.0", "5245"),
            ("1.0", "1"),
            ("-5,245.00", "-5245"),
            ("=\"007\"", "7"),
            ("'12", "12"),
        ],
    );
    found(&field("n", FieldType::Integer), "reject integer", &["5245.5", "5245.", ".0", "5.0.0"]);
    accepted(&field("d", FieldType::Decimal), &[("=\"5245.50\"", "5245.5"), ("'1,000.0", "1000")]);
    accepted(
        &field("d", FieldType::Date),
        &[
            ("=\"2019-03-01\"", "2019-03-01"),
            ("'2019/3/1", "2019-03-01"),
            ("20190301.0", "2019-03-01"),
        ],
    );
    // Free text keeps what it has.
    let text = field("t", FieldType::Text);
    accepted(&text, &[("=\"007\"", "=\"007\""), ("'007", "'007"), ("5245.0", "5245.0")]);
}

#[test]
fn numbers_with_an_exponent_are_rejected_and_the_spreadsheet_is_named() {
    let lost =
        ["4.10101E+14", "4.10101e14", "9E+14", "4,10101E+14", "＝＂4.1E+14＂", "41.0101E+13"];
    for kind in [FieldType::Code, FieldType::Uscc] {
        found(&field("c", kind), "reject scientific", &lost);
    }
    // Such a code is possible; such a credit code is not.
    accepted(&field("c", FieldType::Code), &[("1E10", "1E10"), ("E+14", "E+14"), ("4.1E", "4.1E")]);
    found(&field("u", FieldType::Uscc), "reject scientific", &["1E15"]);
    for kind in [FieldType::Integer, FieldType::Decimal] {
        found(&field("n", kind), "reject scientific", &["1e5", "1.58E+04", "-1.5E-3", "4.1E+14"]);
    }
    found(&field("n", FieldType::Decimal), "reject decimal", &["E5", "1E", "1E5E5", "1E12345"]);
    let checked = validator(field("c", FieldType::Code)).row(["1", "4.10101E+14"]);
    let rule = &checked.issues[0].rule;
    assert!(rule.zh().contains("Excel") && rule.zh().contains("导出时把该列设为文本"));
    assert!(rule.en().contains("Excel") && rule.en().contains("as text"));
}

#[test]
fn rounded_credit_codes_are_rejected_and_have_no_key() {
    let mut validator = validator_of(
        vec![
            Field { required: true, legacy_codes: true, ..field("u", FieldType::Uscc) },
            field("t", FieldType::Text),
        ],
        &["u"],
    );
    for rounded in ["914101001700014000", "914101082680458000"] {
        let checked = validator.row([rounded, "甲"]);
        assert_eq!(checked.issues.len(), 1);
        assert_eq!(checked.issues[0].rule, Rule::UsccRounded);
        assert!(checked.issues[0].rule.zh().contains("导出时把该列设为文本"));
        // Whose row it was nobody knows: a full file deletes nothing because of it.
        assert_eq!((checked.key, checked.record), (None, None));
    }
    let uscc = field("u", FieldType::Uscc);
    // A right check character, or digits behind the fifteenth, are not rounded.
    let right = (0..10_000)
        .map(|number| format!("91410100{number:07}00"))
        .find(|start| protocol::uscc::check_character(start.as_bytes()) == '0')
        .unwrap();
    accepted(&uscc, &[(&format!("{right}0"), &format!("{right}0"))]);
    found(&uscc, "warning uscc-check", &["914101001700014100", "914101001700014001"]);
}

#[test]
fn codes_that_may_have_been_rounded_warn() {
    let code = field("c", FieldType::Code);
    found(&code, "warning code-rounded", &["4101010000123450", "41010100001234500000"]);
    found(&Field { strict: true, ..code.clone() }, "reject code-rounded", &["410101000012345000"]);
    accepted(
        &code,
        &[
            ("410101000012300", "410101000012300"),
            ("4101010000123451", "4101010000123451"),
            ("4101010000123450-1", "4101010000123450-1"),
        ],
    );
}

#[test]
fn format_characters_belong_to_no_code_number_or_day() {
    for (kind, text, value) in [
        (FieldType::Code, "豫罚1号\u{200b}", "豫罚1号"),
        (FieldType::Code, "\u{feff}豫罚1号", "豫罚1号"),
        (FieldType::Code, "\u{202d}豫罚\u{ad}1号\u{202c}", "豫罚1号"),
        (FieldType::Code, "\u{200e} 007 \u{200f}", "007"),
        (FieldType::Code, "\u{2060}=\"007\"", "007"),
        (FieldType::Code, "\u{200b}", ""),
        (FieldType::Uscc, "91410000170001401D\u{200b}", "91410000170001401D"),
        (FieldType::Uscc, "91410000\u{2066}170001401D\u{2069}", "91410000170001401D"),
        (FieldType::Integer, "1\u{200b}5,800", "15800"),
        (FieldType::Decimal, "\u{feff}1.5", "1.5"),
        (FieldType::Date, "2019\u{200e}-03-01\u{200e}", "2019-03-01"),
    ] {
        accepted(&field("x", kind), &[(text, value)]);
    }
    accepted(&field("t", FieldType::Text), &[("甲\u{200b}乙", "甲\u{200b}乙")]);
    let required = Field { required: true, ..field("t", FieldType::Text) };
    found(&required, "reject required", &["\u{200b}", " \u{feff}\u{3000}"]);
    // What is rejected for something else shows them.
    let checked = validator(field("u", FieldType::Uscc)).row(["1", "9141\u{200b}"]);
    assert_eq!(checked.issues[0].value, "9141⟨U+200B 零宽空格 ZERO WIDTH SPACE⟩");
    let checked = validator(field("u", FieldType::Uscc)).row(["1", "9141000017000140\tD"]);
    assert!(!checked.issues[0].rule.zh().contains('\t'), "{}", checked.issues[0].rule.zh());
    assert!(!checked.issues[0].rule.en().contains('\t'), "{}", checked.issues[0].rule.en());
}

#[test]
fn lost_characters_warn_once_in_every_type() {
    let text = field("t", FieldType::Text);
    found(
        &text,
        "warning mojibake",
        &[
            "河南\u{fffd}\u{fffd}公司",
            "锟斤拷锟斤拷有限公司",
            "a烫烫烫烫",
            "屯屯屯",
            "姓\u{e000}",
            "\u{f8ff}",
            "x\u{100000}",
            "\u{fffd}",
            "????",
            "河南??有限公司",
            // 企业, 河南省 in GBK and 公司 in UTF-8, read as Latin letters.
            "ÆóÒµ",
            "ºÓÄÏÊ¡",
            "A ÆóÒµ 3",
            "å…¬å®‰",
            // 有限公司 in UTF-8, read as GBK; the lost byte of 公司 is a private character.
            "鏈夐檺鍏\u{e100}徃",
        ],
    );
    accepted(
        &text,
        &[
            ("是否在营？", "是否在营？"),
            ("是否?", "是否?"),
            ("Müller & Söhne, Zürich, Österreich", "Müller & Söhne, Zürich, Österreich"),
            ("Crème brûlée à l'été, naïveté", "Crème brûlée à l'été, naïveté"),
            ("河南（郑州）有限公司，住所：Ａ座", "河南（郑州）有限公司，住所：Ａ座"),
            ("三家屯村，铁锟，烫伤", "三家屯村，铁锟，烫伤"),
            ("烫", "烫"),
            ("屯", "屯"),
            ("😀𠮷", "😀𠮷"),
        ],
    );
    found(&field("c", FieldType::Code), "warning mojibake", &["豫\u{fffd}1号"]);
    assert_eq!(
        check(&field("n", FieldType::Integer), "1\u{fffd}").1,
        ["warning mojibake", "reject integer"]
    );
}
