//! What a workbook's parts unpack to, measured before any of them is believed.
//!
//! Called by [`super::reading`] in the child before a workbook is opened.
//! Invariant: nothing is kept of what is unpacked here. Not here: the child's
//! limit on memory, which holds whatever this lets pass.

use std::io::{self, Read, Seek, Write};

use zip::{ZipArchive, result::ZipError};

use super::super::child::frames::Fault;

/// How much a workbook may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Parts of the archive.
    pub(super) parts: usize,
    /// Bytes of all sheets together.
    pub(super) sheets_bytes: u64,
    /// Bytes of all other parts together, such as the table of texts.
    pub(super) others_bytes: u64,
}

/// Each sheet has a few parts, and large workbooks have some hundred pictures. A
/// million rows of twenty columns take 2 GiB. The other parts are held in memory:
/// half of what the child may take.
pub(super) const LIMITS: Limits =
    Limits { parts: 10_000, sheets_bytes: 4 << 30, others_bytes: 512 << 20 };

/// Unpacks every part into nothing, and refuses what is more than allowed or
/// damaged. What the archive says about sizes is only looked at first.
pub(super) fn check<R: Read + Seek>(file: R, limits: Limits) -> Result<Parts, Fault> {
    let mut archive = ZipArchive::new(file).map_err(|error| fault_of(&error))?;
    if archive.len() > limits.parts {
        return Err(Fault::TooMany);
    }
    let mut parts = Parts::default();
    let (mut claimed, mut unpacked) = ((0u64, 0u64), (0u64, 0u64));
    for index in 0..archive.len() {
        let part = archive.by_index_raw(index).map_err(|error| fault_of(&error))?;
        let sum = if is_sheet(part.name_raw()) { &mut claimed.0 } else { &mut claimed.1 };
        *sum = sum.saturating_add(part.size());
        parts.encrypted |= part.encrypted();
        parts.binary |= part.name_raw() == b"xl/workbook.bin";
        parts.open_document |= part.name_raw() == b"mimetype";
    }
    if parts.encrypted {
        return Err(Fault::Encrypted);
    }
    if claimed.0 > limits.sheets_bytes || claimed.1 > limits.others_bytes {
        return Err(Fault::TooLarge);
    }
    for index in 0..archive.len() {
        let part = archive.by_index(index).map_err(|error| fault_of(&error))?;
        let is_sheet = is_sheet(part.name_raw());
        let (sum, max) = if is_sheet {
            (&mut unpacked.0, limits.sheets_bytes)
        } else {
            (&mut unpacked.1, limits.others_bytes)
        };
        let left = max - *sum;
        let mut seen = Elements::default();
        *sum += io::copy(&mut part.take(left.saturating_add(1)), &mut seen)
            .map_err(|_| Fault::Damaged)?;
        parts.formulas |= is_sheet && seen.formula;
        parts.merges |= is_sheet && seen.merge;
        if *sum > max {
            return Err(Fault::TooLarge);
        }
    }
    Ok(parts)
}

/// What the parts' names and contents say.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// An OpenDocument file.
    pub(super) open_document: bool,
    /// Sheets of records instead of XML.
    pub(super) binary: bool,
    /// A sheet of XML may have formulas.
    pub(super) formulas: bool,
    /// And merged cells.
    pub(super) merges: bool,
    encrypted: bool,
}

/// Looks for the beginnings of a formula's and of a merged region's element, and
/// keeps nothing.
#[derive(Default)]
struct Elements {
    formula: bool,
    merge: bool,
    /// The last bytes that were seen, in which one may have begun.
    last: Vec<u8>,
}

impl Elements {
    /// What begins a formula's element, with a byte behind it, and the others.
    const MERGE: &[u8] = b"mergeCell";

    fn look(&mut self, bytes: &[u8]) {
        // Names may have a prefix.
        let is_formula = |name: &[u8]| {
            matches!(name, [b'<' | b':', b'f', b'>' | b' ' | b'/' | b'\n' | b'\r' | b'\t'])
        };
        self.formula = self.formula || bytes.windows(3).any(is_formula);
        self.merge =
            self.merge || bytes.windows(Self::MERGE.len()).any(|window| window == Self::MERGE);
    }
}

impl Write for Elements {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let kept = Self::MERGE.len() - 1;
        let mut seam = std::mem::take(&mut self.last);
        seam.extend(bytes.iter().take(kept));
        self.look(&seam);
        self.look(bytes);
        let tail = if bytes.len() >= kept { bytes } else { &seam };
        self.last.extend(&tail[tail.len().saturating_sub(kept)..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Parts that are read cell by cell. An OpenDocument's sheets are in one.
fn is_sheet(name: &[u8]) -> bool {
    name == b"content.xml" || name.to_ascii_lowercase().starts_with(b"xl/worksheets/")
}

pub(in super::super) fn fault_of(error: &ZipError) -> Fault {
    match error {
        ZipError::InvalidPassword => Fault::Encrypted,
        ZipError::UnsupportedArchive(text) if text.contains("assword") => Fault::Encrypted,
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => {
            Fault::Unsupported
        }
        _ => Fault::Damaged,
    }
}
