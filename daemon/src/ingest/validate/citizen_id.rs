//! Citizen ids (GB 11643) inside free text.
//!
//! Used for text fields that are not personal, and by everything that shows a
//! value. Not here: what happens to an id that was found.

use std::ops::Range;

use protocol::value::Date;

/// The first citizen id of GB 11643 from `from` on: 18 digits, the last of
/// which may be an X, with a province, a plausible day of birth and the right
/// check digit, and no digit around it.
pub(super) fn citizen_id(text: &[u8], from: usize) -> Option<Range<usize>> {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    // Seventeen digits in a row cannot avoid every seventeenth byte.
    let mut at = from + 16;
    while at < text.len() {
        if !digit(at) {
            at += 17;
            continue;
        }
        let (mut start, mut end) = (at, at);
        while start > from && digit(start - 1) {
            start -= 1;
        }
        while digit(end) {
            end += 1;
        }
        let with_x = matches!(text.get(end), Some(b'X' | b'x'))
            && !text.get(end + 1).is_some_and(u8::is_ascii_alphanumeric);
        let id = match end - start {
            17 if with_x => start..end + 1,
            18 => start..end,
            _ => start..start,
        };
        if is_citizen_id(&text[id.clone()]) {
            return Some(id);
        }
        at = end + 17;
    }
    None
}

/// Whether a text without blanks and marks may have a citizen id anywhere, with a wrong
/// check digit or too many digits, or one of 15 digits as they were until 1999: for
/// what is shown, where one too many is hidden rather than one too few.
pub(super) fn may_be_citizen_id(bare: &[u8]) -> bool {
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let old =
        |part: &[u8]| digits(part) && is_province(part) && is_day(1900, &part[6..8], &part[8..12]);
    let new =
        |part: &[u8]| digits(part) && is_province(part) && is_day(0, &part[6..10], &part[10..14]);
    let run = |at: usize| bare[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let begins = |at: &usize| *at == 0 || !bare[at - 1].is_ascii_digit();
    bare.windows(17).any(new)
        || (0..bare.len()).filter(begins).any(|at| run(at) == 15 && old(&bare[at..at + 15]))
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0'))
}

fn is_province(id: &[u8]) -> bool {
    matches!(
        number(&id[..2]),
        11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83
    )
}

fn is_day(century: u32, year: &[u8], day: &[u8]) -> bool {
    let year = century + number(year);
    (1900..2100).contains(&year)
        && Date::new(year as u16, number(&day[..2]) as u8, number(&day[2..]) as u8).is_some()
}

pub(super) fn is_citizen_id(id: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    if id.len() != 18 {
        return false;
    }
    let sum: u32 = id.iter().zip(WEIGHTS).map(|(b, weight)| u32::from(b - b'0') * weight).sum();
    let check = b"10X98765432"[(sum % 11) as usize];
    is_province(id) && is_day(0, &id[6..10], &id[10..14]) && id[17].to_ascii_uppercase() == check
}
