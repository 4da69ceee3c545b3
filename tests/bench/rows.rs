//! Made-up registrations of enterprises, for every system the same.
//!
//! A row follows from its number and its version alone, so that a file can be
//! written again, shuffled, or with some rows changed, without keeping it. The
//! word lists and the shares below are chosen so that 64 neighbouring rows of a
//! county, sorted by code, compress with zstd as well as real registrations do
//! (`bench rows-like FILE…` compares): a database that stores compressed pages
//! would look too good with rows that repeat themselves. Codes have the length,
//! the alphabet and the check character of GB 32100, in divisions that do not
//! exist.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::Context as _;
use harness::{sim::rng::Rng, table::ENTERPRISE_TITLES};
use protocol::uscc::check_character;

use crate::words::{
    ACTIONS, CHARACTERS, CLAUSES, DISTRICTS, FORMS, INDUSTRIES, OBJECTS, PLACES, STREETS, TYPES,
};

/// The rows come from so many counties, in turn.
pub const COUNTIES: u64 = 13;

/// Of 100 phrases of a scope, so many are of no list: real scopes have a long
/// tail of phrases that occur once.
const RARE_PHRASES_PERCENT: u64 = 27;
/// Of 100 phrases, so many are a thing alone, as "日用百货".
const BARE_OBJECTS_PERCENT: u64 = 45;
/// A multiplier without common factors with the counts of rows in use: it
/// spreads changes over all rows.
const SCATTER: u64 = 7919;

/// The code of a row. Codes are spread over the key range of their county, as
/// real ones are, and files are not in their order.
pub fn code(number: u64) -> String {
    const ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
    // 31^6 codes of a prime base: a multiplier that is no multiple of it meets
    // each once.
    let mut place = number.wrapping_mul(2_654_435_761) % 31_u64.pow(6);
    let check_digit = place % 10;
    let mut digits = [0_u8; 6];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(place % 31) as usize];
        place /= 31;
    }
    let digits = String::from_utf8_lossy(&digits);
    let first = format!("919999{:02}MA{digits}{check_digit}", number % COUNTIES + 1);
    let check = check_character(first.as_bytes());
    format!("{first}{check}")
}

/// Row `number` after its `version`th change: another capital, another address.
pub fn row(number: u64, version: u32) -> [String; 9] {
    let mut rng = Rng::new(number.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let district = DISTRICTS[(number % COUNTIES) as usize];
    let characters = 2 + usize::from(rng.chance(20));
    let name = format!(
        "示例市{}{}{}",
        word(&mut rng, characters),
        often(&mut rng, INDUSTRIES),
        often(&mut rng, FORMS)
    );
    let date = format!(
        "{}-{:02}-{:02}",
        2024 - rng.below(28).min(rng.below(40)),
        1 + rng.below(12),
        1 + rng.below(28)
    );
    let kind = often(&mut rng, TYPES).to_owned();
    let scope = scope(&mut rng);
    let mut changed = Rng::new(rng.u64() ^ u64::from(version));
    let capital = capital(&mut changed);
    let address = address(&mut changed, district);
    [name, code(number), date, kind, capital, scope, "示例省".into(), "示例市".into(), address]
}

fn capital(rng: &mut Rng) -> String {
    let round = [10, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000];
    match rng.below(10) {
        0 => "N/A".into(),
        1 => format!("{}万人民币", rng.below(9000) + 1),
        2 => format!("{}.{}万人民币", rng.below(900) + 1, rng.below(90) + 10),
        _ => format!("{}(万元)", round[rng.index(round.len())]),
    }
}

fn scope(rng: &mut Rng) -> String {
    let phrases = 2 + rng.below(10).min(rng.below(10)) + rng.below(4) * rng.below(4);
    let mut text = String::new();
    for phrase in 0..phrases {
        if phrase > 0 {
            text.push_str(if rng.chance(60) { "、" } else { "；" });
        }
        if rng.chance(RARE_PHRASES_PERCENT) {
            let characters = 2 + rng.index(3);
            text.push_str(&word(rng, characters));
        }
        text.push_str(often(rng, OBJECTS));
        if !rng.chance(BARE_OBJECTS_PERCENT) {
            text.push_str(often(rng, ACTIONS));
        }
    }
    if rng.chance(25) {
        text.push_str(often(rng, CLAUSES));
    }
    text
}

fn address(rng: &mut Rng, district: &str) -> String {
    let street = often(rng, STREETS);
    let mut text = format!("示例市{district}{}{street}{}号", word(rng, 2), rng.below(300) + 1);
    match rng.below(4) {
        0 => {}
        1 => text.push_str(&format!("{}单元{}室", rng.below(6) + 1, rng.below(2800) + 101)),
        2 => text.push_str(&format!("{}{}", word(rng, 2), often(rng, PLACES))),
        _ => text.push_str(&format!(
            "{}{}{}层{}号",
            word(rng, 2),
            often(rng, PLACES),
            rng.below(30) + 1,
            rng.below(2800) + 101
        )),
    }
    text
}

/// An entry of a list, the first ones more often.
fn often<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.index(list.len()).min(rng.index(list.len()))]
}

/// A made-up word.
fn word(rng: &mut Rng, characters: usize) -> String {
    /// Every character of [`CHARACTERS`] has so many bytes.
    const BYTES: usize = 3;
    let mut text = String::new();
    for _ in 0..characters {
        let at = rng.index(CHARACTERS.len() / BYTES) * BYTES;
        text.push_str(&CHARACTERS[at..at + BYTES]);
    }
    text
}

/// Which row is the `change`th that changes, of `rows`.
pub fn scattered(change: u64, rows: u64) -> u64 {
    change * SCATTER % rows
}

/// A file's rows, each with its version.
pub type Numbers<'a> = &'a mut dyn Iterator<Item = (u64, u32)>;

/// Writes a CSV file with a header; answers its bytes.
pub fn write(path: &Path, rows: Numbers<'_>) -> anyhow::Result<u64> {
    write_rows(path, &mut rows.map(|(number, version)| row(number, version)))
}

/// Writes rows of which one in a hundred warns, one comes twice, and one is
/// rejected.
pub fn write_messy(path: &Path, rows: u64) -> anyhow::Result<u64> {
    /// The example of GB 11643 itself.
    const CITIZEN_ID: &str = "11010519491231002X";
    const SCOPE: usize = 5;
    const DATE: usize = 2;
    let mut messy = (0..rows).flat_map(|number| {
        let mut row = row(number, 0);
        let again = (number % 100 == 1).then(|| self::row(number, 1));
        match number % 100 {
            0 => row[SCOPE].push_str(CITIZEN_ID),
            2 => row[DATE] = "2019-13-01".into(),
            _ => {}
        }
        std::iter::once(row).chain(again)
    });
    write_rows(path, &mut messy)
}

/// Writes rows as a workbook, all cells as texts but the days.
pub fn write_workbook(path: &Path, rows: u64) -> anyhow::Result<u64> {
    const DATE: u16 = 2;
    let mut book = rust_xlsxwriter::Workbook::new();
    let day = rust_xlsxwriter::Format::new().set_num_format("yyyy-mm-dd");
    let sheet = book.add_worksheet();
    sheet.write_row(0, 0, ENTERPRISE_TITLES)?;
    for number in 0..rows {
        let line = u32::try_from(number + 1)?;
        for (column, text) in (0..).zip(row(number, 0)) {
            if column == DATE {
                let date = rust_xlsxwriter::ExcelDateTime::parse_from_str(&text)?;
                sheet.write_with_format(line, column, &date, &day)?;
            } else {
                sheet.write(line, column, text)?;
            }
        }
    }
    book.save(path)?;
    Ok(path.metadata()?.len())
}

fn write_rows(path: &Path, rows: &mut dyn Iterator<Item = [String; 9]>) -> anyhow::Result<u64> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut out = csv::Writer::from_writer(BufWriter::with_capacity(1 << 20, file));
    out.write_record(ENTERPRISE_TITLES)?;
    for row in rows {
        out.write_record(row)?;
    }
    out.flush()?;
    let file = out.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
    let file = file.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?;
    // No system under test shall pay for writing the file.
    file.sync_all()?;
    Ok(file.metadata()?.len())
}
