//! A cell's value as the text that a person sees in it.
//!
//! Used by [`super::reading`] in the child. Invariant: an empty cell is an empty
//! text, and no number is written with an exponent. Not here: what a text means
//! to a dataset (`ingest/validate`).

use std::fmt::Write as _;

use calamine::{Data, DataRef, ExcelDateTime};

use super::format::Format;

/// Spreadsheets store and show 15 significant digits; what a binary fraction has
/// beyond them nobody entered.
const DIGITS_SHOWN: usize = 15;
/// Below it every integer is a value of its own.
const INTEGER_EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// The day after the last one that spreadsheets know, 9999-12-31.
const SERIAL_END: f64 = 2_958_466.0;

/// What failed formulas show. OpenDocument stores it as a text, and whoever
/// pastes values keeps it as one.
const ERRORS: [&str; 7] = ["#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"];

/// Writes a cell's text behind what `out` has; answers whether it is an error
/// such as `#N/A`. `format` is the cell's, if it decides what a code is; its words are
/// shown in a column of texts only.
pub(super) fn write(
    value: &DataRef<'_>,
    format: Option<&Format>,
    in_texts: bool,
    out: &mut String,
) -> bool {
    let mut number = |number: &str| match format {
        Some(format) => format.show(number, in_texts, out),
        None => out.push_str(number),
    };
    match value {
        DataRef::Empty => {}
        DataRef::Int(value) => number(&value.to_string()),
        DataRef::Float(value) => {
            number(&plain(*value));
            return !value.is_finite();
        }
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text)
            if text.is_empty() => {}
        DataRef::String(text) => {
            out.push_str(text);
            return ERRORS.contains(&text.as_str());
        }
        DataRef::SharedString(text) => {
            out.push_str(text);
            return ERRORS.contains(text);
        }
        DataRef::Bool(value) => out.push_str(if *value { "TRUE" } else { "FALSE" }),
        DataRef::DateTime(moment) => date_time(moment, out),
        DataRef::DateTimeIso(text) => iso_date_time(text, out),
        DataRef::DurationIso(text) => iso_duration(text, out),
        DataRef::Error(error) => {
            let _ = write!(out, "{error}");
            return true;
        }
    }
    false
}

/// As [`write`], for formats whose sheets are read as a whole.
pub(super) fn write_owned(value: &Data, out: &mut String) -> bool {
    let borrowed = match value {
        Data::Empty => DataRef::Empty,
        Data::Int(number) => DataRef::Int(*number),
        Data::Float(number) => DataRef::Float(*number),
        Data::String(text) => DataRef::SharedString(text),
        Data::Bool(value) => DataRef::Bool(*value),
        Data::DateTime(moment) => DataRef::DateTime(*moment),
        Data::DateTimeIso(text) => {
            iso_date_time(text, out);
            return false;
        }
        Data::DurationIso(text) => {
            iso_duration(text, out);
            return false;
        }
        Data::Error(error) => {
            let _ = write!(out, "{error}");
            return true;
        }
    };
    write(&borrowed, None, false, out)
}

/// A number without an exponent. A code of 18 digits that was entered as a number
/// lost its last ones when it was entered; the zeros in their place are what the
/// spreadsheet stores, and let the code's check character tell.
fn plain(number: f64) -> String {
    if number == 0.0 {
        // Not "-0".
        return "0".into();
    }
    if !number.is_finite() || (number.fract() == 0.0 && number.abs() < INTEGER_EXACT_MAX) {
        return format!("{number}");
    }
    let rounded = format!("{number:.*e}", DIGITS_SHOWN - 1).parse::<f64>().unwrap_or(number);
    format!("{rounded}")
}

fn date_time(moment: &ExcelDateTime, out: &mut String) {
    let serial = moment.as_f64();
    if !(0.0..SERIAL_END).contains(&serial) {
        // Shown as "####": no day that a spreadsheet knows.
        out.push_str(&plain(serial));
        return;
    }
    if moment.is_duration() {
        // Below the limit above, so it fits.
        let seconds = (serial * 86_400.0).round() as u64;
        let _ = write!(out, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        return;
    }
    let (year, month, day, hour, minute, second, milli) = moment.to_ymd_hms_milli();
    let has_time = (hour, minute, second, milli) != (0, 0, 0, 0);
    if serial >= 1.0 || !has_time {
        let _ = write!(out, "{year:04}-{month:02}-{day:02}");
        if has_time {
            out.push(' ');
        }
    }
    if has_time {
        let _ = write!(out, "{hour:02}:{minute:02}:{second:02}");
        if milli > 0 {
            let _ = write!(out, ".{milli:03}");
        }
    }
}

/// `2019-03-01T00:00:00` as `2019-03-01`, others with a blank for the T.
fn iso_date_time(text: &str, out: &mut String) {
    match text.split_once('T') {
        None => out.push_str(text),
        Some((date, time)) => {
            out.push_str(date);
            let time = time.strip_suffix('Z').unwrap_or(time);
            let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
            let time = if fraction.bytes().all(|byte| byte == b'0') { whole } else { time };
            if time != "00:00:00" {
                out.push(' ');
                out.push_str(time);
            }
        }
    }
}

/// `PT10H20M30S` as `10:20:30`; what has another shape stays as it is.
fn iso_duration(text: &str, out: &mut String) {
    let parts = || {
        let rest = text.strip_prefix("PT")?;
        let (hours, rest) = rest.split_once('H')?;
        let (minutes, rest) = rest.split_once('M')?;
        let seconds = rest.strip_suffix('S')?.split('.').next()?;
        let number = |text: &str| text.parse::<u32>().ok();
        Some((number(hours)?, number(minutes)?, number(seconds)?))
    };
    match parts() {
        Some((hours, minutes, seconds)) => {
            let _ = write!(out, "{hours:02}:{minutes:02}:{seconds:02}");
        }
        None => out.push_str(text),
    }
}

#[cfg(test)]
mod tests {
    use calamine::{CellErrorType, ExcelDateTimeType};

    use super::*;

    fn text(value: DataRef<'_>) -> String {
        let mut out = String::new();
        write(&value, None, true, &mut out);
        out
    }

    #[test]
    fn numbers_are_what_a_person_sees() {
        for (number, shown) in [
            (5245.0, "5245"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.3"),
            (1.1 * 3.0, "3.3"),
            (-0.0, "0"),
            (-15800.5, "-15800.5"),
            (1e-7, "0.0000001"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (1e21, "1000000000000000000000"),
            (914_101_001_700_014_012.0, "914101001700014000"),
            (110_101_199_003_070_000.0, "110101199003070000"),
        ] {
            assert_eq!(text(DataRef::Float(number)), shown);
        }
        assert_eq!(text(DataRef::Int(-7)), "-7");
        assert_eq!(text(DataRef::Bool(true)), "TRUE");
    }

    #[test]
    fn dates_are_iso_and_have_a_time_where_there_is_one() {
        let moment = |serial, kind, is_1904| {
            text(DataRef::DateTime(ExcelDateTime::new(serial, kind, is_1904)))
        };
        let day = ExcelDateTimeType::DateTime;
        assert_eq!(moment(43525.0, day, false), "2019-03-01");
        assert_eq!(moment(42063.0, day, true), "2019-03-01");
        assert_eq!(moment(43_525.430_902_777_8, day, false), "2019-03-01 10:20:30");
        assert_eq!(moment(0.430_902_777_8, day, false), "10:20:30");
        assert_eq!(moment(-1.0, day, false), "-1");
        assert_eq!(moment(3_000_000.0, day, false), "3000000");
        assert_eq!(moment(1.5, ExcelDateTimeType::TimeDelta, false), "36:00:00");
        assert_eq!(text(DataRef::DateTimeIso("2019-03-01".into())), "2019-03-01");
        assert_eq!(text(DataRef::DateTimeIso("2019-03-01T00:00:00".into())), "2019-03-01");
        assert_eq!(
            text(DataRef::DateTimeIso("2019-03-01T10:20:30.000".into())),
            "2019-03-01 10:20:30"
        );
        assert_eq!(text(DataRef::DurationIso("PT10H20M30S".into())), "10:20:30");
        assert_eq!(text(DataRef::DurationIso("P1D".into())), "P1D");
    }

    #[test]
    fn an_error_is_told() {
        let mut out = String::new();
        assert!(write(&DataRef::Error(CellErrorType::NA), None, true, &mut out));
        assert_eq!(out, "#N/A");
        assert!(write(&DataRef::SharedString("#REF!"), None, true, &mut out));
        assert!(!write(&DataRef::SharedString("#1"), None, true, &mut out));
    }
}
