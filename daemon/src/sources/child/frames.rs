//! What a child says to its parent, as bytes.
//!
//! A frame is a kind (one byte), a length (four, big-endian) and so many bytes.
//! Written by the child's side of [`super::super::sheet`] and
//! [`super::super::packed`], read by [`super::Child`], fuzzed through
//! [`Message::decode`].
//!
//! Invariants: a child is a stranger once a file has got the better of it. So
//! each length has a limit, a frame is consumed to its last byte or refused, and
//! what is decoded encodes to the same bytes. Not here: who speaks when.

use std::{
    fmt,
    io::{self, Read, Write},
    ops::Range,
};

use super::super::texts::{COLUMNS_MAX, ROW_BYTES_MAX};

/// Longest frame: one row of the greatest length, and what stands beside it.
pub const FRAME_BYTES_MAX: usize = ROW_BYTES_MAX + 16 * 1024;
/// Bytes of rows after which a frame is full: few enough that two of them wait in
/// a pipe, so that both sides work at the same time.
const ROWS_BYTES: usize = 32 * 1024;
/// Longest name of a sheet or of an archive's entry. Workbooks allow 31
/// characters, file systems 255 bytes, archives 65 535 with their folders.
pub const NAME_BYTES_MAX: usize = 4096;

/// What is wrong with a file, as a child found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is cut, or not what it claims to be.
    Damaged,
    /// It is protected by a password.
    Encrypted,
    /// What is inside is larger than allowed.
    TooLarge,
    /// It holds more parts than allowed.
    TooMany,
    /// Several files in it have one name.
    Twins,
    /// It uses a method that nothing common writes.
    Unsupported,
    /// The file cannot be read, or what is unpacked cannot be written.
    Io,
    /// The disk is full.
    DiskFull,
    /// The sheet or entry is not there: the file is another one than before.
    Gone,
    /// The task makes no sense: the fault is the program's.
    Internal,
}

impl Fault {
    const ALL: [Fault; 10] = [
        Fault::Damaged,
        Fault::Encrypted,
        Fault::TooLarge,
        Fault::TooMany,
        Fault::Twins,
        Fault::Unsupported,
        Fault::Io,
        Fault::DiskFull,
        Fault::Gone,
        Fault::Internal,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Damaged => {
                "文件已损坏或不完整，请在 Excel 或 WPS 中打开后另存，或重新传输后再交付 / \
                 the file is damaged or not whole: open it and save it again, or copy it again, and deliver that"
            }
            Fault::Encrypted => {
                "文件设有密码，请去掉密码（另存时清除“打开权限密码”）后重新交付 / \
                 the file is protected by a password: remove the password and deliver it again"
            }
            Fault::TooLarge => {
                "解压后的内容过大，已停止读取；请拆分，或直接交付 CSV 文件 / \
                 what is inside is too large when unpacked, so it was not read: split it, or deliver CSV files"
            }
            Fault::TooMany => {
                "文件包含的部分过多，已停止读取；请分成几个文件交付 / \
                 it holds too many parts, so it was not read: deliver it as several files"
            }
            Fault::Twins => {
                "压缩包内有同名的文件，只能读出其中一个；请改名后重新打包 / \
                 files in the archive have the same name, and only one of them can be read: rename them and pack it again"
            }
            Fault::Unsupported => {
                "压缩方式不受支持，请用普通 ZIP 或 gzip 重新压缩，或直接交付 CSV 文件 / \
                 its way of compression is not supported: pack it as plain ZIP or gzip, or deliver CSV files"
            }
            Fault::Io => {
                "读取文件或写入临时文件失败，请稍后重试 / \
                 the file cannot be read or a temporary file cannot be written: try again later"
            }
            Fault::DiskFull => {
                "磁盘空间不足，无法解压；请清理磁盘后重试 / \
                 there is no room on the disk to unpack it: make room and try again"
            }
            Fault::Gone => {
                "文件在读取过程中被修改，请重新交付 / it changed while it was read: deliver it again"
            }
            Fault::Internal => {
                "程序内部错误，请联系维护人员 / an internal error: tell those who maintain creditsync"
            }
        })
    }
}

/// Why a row of a sheet is no row. Columns are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is longer than [`ROW_BYTES_MAX`] or has more than [`COLUMNS_MAX`] columns,
    /// and its cells were left out.
    TooLong,
    /// The first column whose formula failed, or was never computed.
    ErrorCell(u16),
    /// The first column that has no cell of its own: it is merged with those above.
    MergedCell(u16),
    /// A cell of it, or of the row beside it, cannot be read.
    DamagedCell,
}

impl Trouble {
    fn to_bytes(one: Option<Self>) -> [u8; 3] {
        let (kind, column) = match one {
            None => (0, 0),
            Some(Trouble::TooLong) => (1, 0),
            Some(Trouble::ErrorCell(column)) => (2, column),
            Some(Trouble::MergedCell(column)) => (3, column),
            Some(Trouble::DamagedCell) => (4, 0),
        };
        let [high, low] = u16::to_be_bytes(column);
        [kind, high, low]
    }

    fn from_bytes([kind, high, low]: [u8; 3]) -> Result<Option<Self>, FrameError> {
        let column = u16::from_be_bytes([high, low]);
        let counts = (1..=COLUMNS_MAX).contains(&usize::from(column));
        match (kind, column) {
            (0, 0) => Ok(None),
            (1, 0) => Ok(Some(Trouble::TooLong)),
            (2, _) if counts => Ok(Some(Trouble::ErrorCell(column))),
            (3, _) if counts => Ok(Some(Trouble::MergedCell(column))),
            (4, 0) => Ok(Some(Trouble::DamagedCell)),
            _ => Err(FrameError::Malformed("row trouble")),
        }
    }
}

/// One row of a sheet, before anybody knows what its columns mean.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SheetRow {
    line: u32,
    trouble: Option<Trouble>,
    cells: Range<usize>,
}

/// A row of [`SheetRows`].
#[derive(Debug, Clone, Copy)]
pub struct SheetRowRef<'a> {
    /// The number that a spreadsheet shows, from 1.
    pub line: u32,
    /// Why it is no row.
    pub trouble: Option<Trouble>,
    text: &'a str,
    ends: &'a [Range<u32>],
}

impl<'a> SheetRowRef<'a> {
    /// How many cells there are, up to the last one that is not empty.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The cells' texts.
    pub fn cells(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let text = self.text;
        self.ends.iter().map(move |range| &text[range.start as usize..range.end as usize])
    }
}

/// Consecutive rows of a sheet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SheetRows {
    text: String,
    cells: Vec<Range<u32>>,
    rows: Vec<SheetRow>,
}

impl SheetRows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, in the sheet's order.
    pub fn iter(&self) -> impl Iterator<Item = SheetRowRef<'_>> {
        self.rows.iter().map(|row| SheetRowRef {
            line: row.line,
            trouble: row.trouble,
            text: &self.text,
            ends: &self.cells[row.cells.clone()],
        })
    }

    pub(in super::super) fn is_full(&self) -> bool {
        self.text.len() >= ROWS_BYTES || self.rows.len() >= ROWS_BYTES / 16
    }

    pub(in super::super) fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
        self.rows.clear();
    }

    /// Adds a row, whose cells are kept if they do not exceed the limits. The last
    /// cell is not empty.
    pub(in super::super) fn push<'c>(
        &mut self,
        line: u32,
        trouble: Option<Trouble>,
        cells: impl Iterator<Item = &'c str> + Clone,
    ) {
        let (count, bytes) =
            cells.clone().fold((0, 0), |(count, bytes), cell| (count + 1, bytes + cell.len()));
        let too_long = count > COLUMNS_MAX || bytes > ROW_BYTES_MAX;
        let start = self.cells.len();
        if !too_long {
            for cell in cells {
                // Below the limit of a frame, which 32 bits hold.
                let at = self.text.len() as u32;
                self.text.push_str(cell);
                self.cells.push(at..self.text.len() as u32);
            }
        }
        let trouble = if too_long { Some(Trouble::TooLong) } else { trouble };
        self.rows.push(SheetRow { line, trouble, cells: start..self.cells.len() });
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for row in self.iter() {
            out.extend(row.line.to_be_bytes());
            out.extend(Trouble::to_bytes(row.trouble));
            // `push` saw to it that it fits: there are at most COLUMNS_MAX columns.
            out.extend((row.len() as u16).to_be_bytes());
            for cell in row.cells() {
                out.extend((cell.len() as u32).to_be_bytes());
                out.extend(cell.as_bytes());
            }
        }
    }

    fn decode(mut rest: &[u8]) -> Result<Self, FrameError> {
        let mut rows = Self::default();
        while !rest.is_empty() {
            let line = u32::from_be_bytes(take(&mut rest)?);
            let trouble = Trouble::from_bytes(take(&mut rest)?)?;
            let count = u16::from_be_bytes(take(&mut rest)?);
            let too_long = trouble == Some(Trouble::TooLong);
            if usize::from(count) > COLUMNS_MAX || (too_long && count > 0) {
                return Err(FrameError::Malformed("column count"));
            }
            let (start, mut bytes) = (rows.cells.len(), 0);
            for _ in 0..count {
                let length = u32::from_be_bytes(take(&mut rest)?) as usize;
                bytes += length;
                let cell = rest.split_off(..length).filter(|_| bytes <= ROW_BYTES_MAX);
                let cell = cell.ok_or(FrameError::Malformed("cell length"))?;
                let cell = str::from_utf8(cell).map_err(|_| FrameError::Malformed("cell text"))?;
                let at = rows.text.len() as u32;
                rows.text.push_str(cell);
                rows.cells.push(at..rows.text.len() as u32);
            }
            rows.rows.push(SheetRow { line, trouble, cells: start..rows.cells.len() });
        }
        Ok(rows)
    }
}

/// One thing that a child says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A sheet begins; rows of it follow.
    Sheet {
        /// Its name.
        name: String,
        /// People do not see it.
        hidden: bool,
    },
    /// Rows of the sheet.
    Rows(SheetRows),
    /// A sheet that cannot be read, though others may be.
    BrokenSheet(Fault),
    /// An entry of an archive.
    Entry {
        /// Its name with its folders.
        name: String,
        /// What its size is said to be; 0 where nothing says it.
        bytes: u64,
        /// A password is needed.
        encrypted: bool,
    },
    /// So many bytes of an entry are unpacked.
    Unpacked(u64),
    /// The file cannot be read; nothing follows.
    Failed(Fault),
    /// All is said; nothing follows.
    Done,
}

const SHEET: u8 = 1;
const ROWS: u8 = 2;
const BROKEN_SHEET: u8 = 3;
const ENTRY: u8 = 4;
const UNPACKED: u8 = 5;
const FAILED: u8 = 6;
const DONE: u8 = 7;

/// Why bytes are no [`Message`].
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// They cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes")]
    TooLong(usize),
    /// Of no known kind.
    #[error("a frame of kind {0}")]
    Kind(u8),
    /// Not what its kind asks for.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl Message {
    /// Kind and content, without the length.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        let kind = match self {
            Message::Sheet { name, hidden } => {
                out.push(u8::from(*hidden));
                out.extend(shortened(name).as_bytes());
                SHEET
            }
            Message::Rows(rows) => {
                rows.encode(&mut out);
                ROWS
            }
            Message::BrokenSheet(fault) => {
                out.push(fault_code(*fault));
                BROKEN_SHEET
            }
            Message::Entry { name, bytes, encrypted } => {
                out.push(u8::from(*encrypted));
                out.extend(bytes.to_be_bytes());
                out.extend(shortened(name).as_bytes());
                ENTRY
            }
            Message::Unpacked(bytes) => {
                out.extend(bytes.to_be_bytes());
                UNPACKED
            }
            Message::Failed(fault) => {
                out.push(fault_code(*fault));
                FAILED
            }
            Message::Done => DONE,
        };
        (kind, out)
    }

    /// The message of these bytes.
    pub fn decode(kind: u8, mut rest: &[u8]) -> Result<Self, FrameError> {
        if rest.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(rest.len()));
        }
        let message = match kind {
            SHEET => {
                let hidden = flag(&mut rest)?;
                Message::Sheet { hidden, name: name(&mut rest)? }
            }
            ROWS => {
                let rows = SheetRows::decode(rest)?;
                rest = &[];
                Message::Rows(rows)
            }
            BROKEN_SHEET => Message::BrokenSheet(fault(&mut rest)?),
            ENTRY => {
                let encrypted = flag(&mut rest)?;
                let bytes = u64::from_be_bytes(take(&mut rest)?);
                Message::Entry { encrypted, bytes, name: name(&mut rest)? }
            }
            UNPACKED => Message::Unpacked(u64::from_be_bytes(take(&mut rest)?)),
            FAILED => Message::Failed(fault(&mut rest)?),
            DONE => Message::Done,
            other => return Err(FrameError::Kind(other)),
        };
        if rest.is_empty() { Ok(message) } else { Err(FrameError::Malformed("left-over bytes")) }
    }

    /// Writes it as a frame.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (kind, bytes) = self.encode();
        // Rows are handed over long before a frame is full, so this holds.
        debug_assert!(bytes.len() <= FRAME_BYTES_MAX + ROWS_BYTES * 2);
        out.write_all(&[kind])?;
        out.write_all(&(bytes.len() as u32).to_be_bytes())?;
        out.write_all(&bytes)
    }

    /// Reads a frame; none at the end, where no frame has begun.
    pub fn read(from: &mut dyn Read) -> Result<Option<Self>, FrameError> {
        let mut front = [0; 5];
        let mut filled = 0;
        while filled < front.len() {
            match from.read(&mut front[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let [kind, length @ ..] = front;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        Self::decode(kind, &bytes).map(Some)
    }
}

fn fault_code(fault: Fault) -> u8 {
    // There are ten of them.
    Fault::ALL.iter().position(|one| *one == fault).unwrap_or_default() as u8
}

fn fault(rest: &mut &[u8]) -> Result<Fault, FrameError> {
    let [code] = take(rest)?;
    Fault::ALL.get(usize::from(code)).copied().ok_or(FrameError::Malformed("fault"))
}

fn flag(rest: &mut &[u8]) -> Result<bool, FrameError> {
    match take(rest)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [_] => Err(FrameError::Malformed("flag")),
    }
}

fn name(rest: &mut &[u8]) -> Result<String, FrameError> {
    if rest.len() > NAME_BYTES_MAX {
        return Err(FrameError::Malformed("name length"));
    }
    let name = str::from_utf8(rest).map_err(|_| FrameError::Malformed("name"))?;
    *rest = &[];
    Ok(name.to_owned())
}

/// The beginning of a name that is too long for a frame.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (taken, left) = rest.split_first_chunk().ok_or(FrameError::Malformed("cut"))?;
    *rest = left;
    Ok(*taken)
}
