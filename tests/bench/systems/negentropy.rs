//! negentropy: finds which ids differ between two sets, and nothing more.

use std::process::Command;

use serde_json::Value as Json;

use super::{Setting, peers_program};
use crate::{
    files::RowFile,
    network::text_of,
    table::Column,
    works::{DIFFERENCES, Work},
};

/// How it was used.
pub const NOTES: &str = "A library: two sets of the rows' hashes (BLAKE3 of its fields, as 32-byte ids) in its sorted vector storage, \
     reconciled in one process without a limit on the size of frames. The bytes are those of its messages alone, \
     and the rows themselves would come on top; a changed row counts twice, since its old and its new hash differ. \
     The time is that of reconciling: reading the rows, hashing and sorting them is left to its user and not counted.";

/// The crate.
pub fn version() -> anyhow::Result<String> {
    Ok("crate negentropy 0.5".into())
}

/// One round.
pub fn measure(setting: &Setting<'_>, column: &mut Column<'_>) -> anyhow::Result<()> {
    if !setting.wants(Work::Differences) {
        return Ok(());
    }
    let base = setting.files.get(RowFile::Base)?;
    for (count, time_line, wire_line, trips_line) in DIFFERENCES {
        let differing = setting.files.get(RowFile::Differing(count))?;
        let answer =
            text_of(Command::new(peers_program()?).arg("negentropy").arg(&base).arg(&differing))?;
        let answer: Json = serde_json::from_str(&answer)?;
        let number = |name: &str| answer[name].as_f64().unwrap_or_default();
        anyhow::ensure!(number("ids") as u64 == 2 * count, "not all was found: {answer}");
        column.put(time_line, number("seconds"));
        column.put(wire_line, number("bytes") / 1e3);
        column.put(trips_line, number("round_trips"));
    }
    Ok(())
}
