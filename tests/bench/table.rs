//! What came out, as a Markdown table that a document can include as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use crate::{systems::System, works::Line};

/// Every measured value, round by round.
#[derive(Default)]
pub struct Results {
    values: BTreeMap<(Line, System), Vec<f64>>,
}

impl Results {
    /// Where a system puts its values.
    pub fn column(&mut self, system: System) -> Column<'_> {
        Column { results: self, system }
    }

    /// The table: a line a measurement, a column a system; medians, smallest and
    /// largest values, and how often creditsync's median goes into another's.
    pub fn markdown(&self) -> String {
        let systems: BTreeSet<System> = self.values.keys().map(|(_, system)| *system).collect();
        let lines: BTreeSet<Line> = self.values.keys().map(|(line, _)| *line).collect();
        let mut text = String::from("| |");
        for system in &systems {
            let _ = write!(text, " {} |", system.title());
        }
        let _ = writeln!(text, "\n| --- |{}", " ---: |".repeat(systems.len()));
        let mut heading = None;
        for line in lines {
            let (work, what, _) = line.describe();
            if heading != Some(work) {
                heading = Some(work);
                let _ = writeln!(text, "| **{}** |{}", work.title(), " |".repeat(systems.len()));
            }
            let _ = write!(text, "| {what} |");
            for system in &systems {
                let _ = write!(text, " {} |", self.cell(line, *system));
            }
            text.push('\n');
        }
        text
    }

    fn cell(&self, line: Line, system: System) -> String {
        let Some(values) = self.values.get(&(line, system)) else {
            return "-".into();
        };
        let (_, _, decimals) = line.describe();
        let mut cell = with_spread(values, decimals);
        if system != System::Creditsync
            && let Some(own) = self.values.get(&(line, System::Creditsync))
            && shows(median(own), decimals)
        {
            let _ = write!(cell, " · {}×", two_digits(median(values) / median(own)));
        }
        cell
    }
}

/// Whether a value is more than a few of its last decimals: a ratio to less is noise.
fn shows(value: f64, decimals: usize) -> bool {
    value > 0.1_f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX)) * 4.0
}

/// A system's share of the results.
pub struct Column<'a> {
    results: &'a mut Results,
    system: System,
}

impl Column<'_> {
    /// A number of a round, in the line's unit.
    pub fn put(&mut self, line: Line, value: f64) {
        let (work, what, decimals) = line.describe();
        eprintln!("{}: {}: {what}: {value:.decimals$}", self.system.name(), work.name());
        self.results.values.entry((line, self.system)).or_default().push(value);
    }

    /// A time of a line in seconds.
    pub fn put_seconds(&mut self, line: Line, time: Duration) {
        self.put(line, time.as_secs_f64());
    }

    /// Bytes of a line in kB.
    pub fn put_kilobytes(&mut self, line: Line, bytes: u64) {
        self.put(line, bytes as f64 / 1e3);
    }

    /// Bytes of a line in MB.
    pub fn put_megabytes(&mut self, line: Line, bytes: u64) {
        self.put(line, bytes as f64 / 1e6);
    }

    /// Bytes of a line in MiB.
    pub fn put_mebibytes(&mut self, line: Line, bytes: u64) {
        self.put(line, bytes as f64 / f64::from(1 << 20));
    }
}

/// The median, and if there are several values the smallest and the largest.
pub fn with_spread(values: &[f64], decimals: usize) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = median(values);
    if values.len() < 2 {
        format!("{middle:.decimals$}")
    } else {
        format!("{middle:.decimals$} ({low:.decimals$}–{high:.decimals$})")
    }
}

/// The middle value; of an even count the mean of both.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which a share of all lies, between two values in proportion.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len().saturating_sub(1)) as f64 * share;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    at(place.floor()) + (at(place.ceil()) - at(place.floor())) * place.fract()
}

fn two_digits(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0}")
    } else if ratio >= 1.0 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.2}")
    }
}
