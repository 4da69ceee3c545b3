//! What is measured: the works, and the lines of the table that each fills.

/// Something that every system is asked to do, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// The rows come to the county; the hub is away.
    Import,
    /// The hub, empty until now, gets everything.
    Copy,
    /// The county delivers its whole register again.
    FullAgain,
    /// Ten percent of the rows change at once, all over the register.
    Updates,
    /// One row changes, again and again.
    OneRow,
    /// The two sides differ without knowing where.
    Differences,
    /// Either side comes back after it was stopped.
    Restart,
    /// 13 counties import their share at the same time.
    Counties,
    /// A register as it really is: rows that warn, repeat or are rejected.
    Messy,
    /// A register as a workbook.
    Workbook,
}

impl Work {
    /// All, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Import,
        Self::Copy,
        Self::FullAgain,
        Self::Updates,
        Self::OneRow,
        Self::Differences,
        Self::Restart,
        Self::Counties,
        Self::Messy,
        Self::Workbook,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Copy => "copy",
            Self::FullAgain => "full-again",
            Self::Updates => "updates",
            Self::OneRow => "one-row",
            Self::Differences => "differences",
            Self::Restart => "restart",
            Self::Counties => "counties",
            Self::Messy => "messy",
            Self::Workbook => "workbook",
        }
    }

    /// The heading of its lines.
    pub fn title(self) -> &'static str {
        match self {
            Self::Import => "Initial import at the county, hub away",
            Self::Copy => "Initial copy to an empty hub",
            Self::FullAgain => "The whole file again",
            Self::Updates => "Scattered updates of 10 % of the rows, until durable at the hub",
            Self::OneRow => "One changed row, until durable at the hub",
            Self::Differences => "Differences found and repaired",
            Self::Restart => "Restart until serving",
            Self::Counties => "13 counties import 1/13 each at once, until durable at the hub",
            Self::Messy => "A file of which 1 % of the rows warn, 1 % repeat and 1 % are rejected",
            Self::Workbook => "A workbook (.xlsx) of 100 000 rows at most",
        }
    }
}

/// A line of the table. The order is the table's; a number is the better the
/// smaller it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`describe` says what each is")]
pub enum Line {
    ImportTime,
    ImportMemory,
    ImportDisk,
    CopyTime,
    CopyWire,
    CopyCountyMemory,
    CopyHubMemory,
    CopyHubDisk,
    SameTime,
    SameWire,
    ShuffledTime,
    ShuffledWire,
    OneChangedTime,
    OneChangedWire,
    FullAgainMemory,
    UpdatesTime,
    UpdatesWire,
    UpdatesCountyMemory,
    UpdatesHubMemory,
    OneRowMedian,
    OneRowP99,
    OneRowWire,
    Find1Time,
    Find1Wire,
    Find1Trips,
    Find100Time,
    Find100Wire,
    Find100Trips,
    Find10000Time,
    Find10000Wire,
    Find10000Trips,
    RestartCounty,
    RestartHub,
    CountyDiskAtEnd,
    HubDiskAtEnd,
    CountiesTime,
    CountiesWire,
    CountiesHubMemory,
    CountiesHubDisk,
    MessyTime,
    MessyMemory,
    MessyAgainTime,
    MessyAgainMemory,
    WorkbookTime,
    WorkbookMemory,
}

impl Line {
    /// The work it belongs to, what it says, and with how many decimals.
    pub fn describe(self) -> (Work, &'static str, usize) {
        use Work::{
            Copy, Counties, Differences, FullAgain, Import, Messy, OneRow, Restart, Updates,
            Workbook,
        };
        match self {
            Self::ImportTime => (Import, "time, s", 2),
            Self::ImportMemory => (Import, "county: peak memory, MiB", 0),
            Self::ImportDisk => (Import, "county: disk afterwards, MB", 0),
            Self::CopyTime => (Copy, "time, s", 2),
            Self::CopyWire => (Copy, "on the wire, MB", 1),
            Self::CopyCountyMemory => (Copy, "county: peak memory, MiB", 0),
            Self::CopyHubMemory => (Copy, "hub: peak memory, MiB", 0),
            Self::CopyHubDisk => (Copy, "hub: disk afterwards, MB", 0),
            Self::SameTime => (FullAgain, "unchanged: time, s", 2),
            Self::SameWire => (FullAgain, "unchanged: on the wire, kB", 1),
            Self::ShuffledTime => (FullAgain, "in another order: time, s", 2),
            Self::ShuffledWire => (FullAgain, "in another order: on the wire, kB", 1),
            Self::OneChangedTime => (FullAgain, "one row changed: time to the hub, s", 2),
            Self::OneChangedWire => (FullAgain, "one row changed: on the wire, kB", 1),
            Self::FullAgainMemory => (FullAgain, "county: peak memory, MiB", 0),
            Self::UpdatesTime => (Updates, "time, s", 2),
            Self::UpdatesWire => (Updates, "on the wire, MB", 1),
            Self::UpdatesCountyMemory => (Updates, "county: peak memory, MiB", 0),
            Self::UpdatesHubMemory => (Updates, "hub: peak memory, MiB", 0),
            Self::OneRowMedian => (OneRow, "median, ms", 2),
            Self::OneRowP99 => (OneRow, "99th percentile, ms", 2),
            Self::OneRowWire => (OneRow, "on the wire, kB", 2),
            Self::Find1Time => (Differences, "1 row: time, s", 3),
            Self::Find1Wire => (Differences, "1 row: on the wire, kB", 1),
            Self::Find1Trips => (Differences, "1 row: round trips", 0),
            Self::Find100Time => (Differences, "100 rows: time, s", 3),
            Self::Find100Wire => (Differences, "100 rows: on the wire, kB", 1),
            Self::Find100Trips => (Differences, "100 rows: round trips", 0),
            Self::Find10000Time => (Differences, "10 000 rows: time, s", 3),
            Self::Find10000Wire => (Differences, "10 000 rows: on the wire, kB", 1),
            Self::Find10000Trips => (Differences, "10 000 rows: round trips", 0),
            Self::RestartCounty => (Restart, "county: time, s", 3),
            Self::RestartHub => (Restart, "hub: time, s", 3),
            Self::CountyDiskAtEnd => (Restart, "county: disk after all of the above, MB", 0),
            Self::HubDiskAtEnd => (Restart, "hub: disk after all of the above, MB", 0),
            Self::CountiesTime => (Counties, "time, s", 2),
            Self::CountiesWire => (Counties, "on the wire, MB", 1),
            Self::CountiesHubMemory => (Counties, "hub: peak memory, MiB", 0),
            Self::CountiesHubDisk => (Counties, "hub: disk afterwards, MB", 0),
            Self::MessyTime => (Messy, "first import: time, s", 2),
            Self::MessyMemory => (Messy, "first import: peak memory, MiB", 0),
            Self::MessyAgainTime => (Messy, "the same full file again: time, s", 2),
            Self::MessyAgainMemory => (Messy, "the same full file again: peak memory, MiB", 0),
            Self::WorkbookTime => (Workbook, "time, s", 2),
            Self::WorkbookMemory => (Workbook, "peak memory with its reader, MiB", 0),
        }
    }
}

/// How many differences are looked for, and the lines of time, bytes and round trips.
pub const DIFFERENCES: [(u64, Line, Line, Line); 3] = [
    (1, Line::Find1Time, Line::Find1Wire, Line::Find1Trips),
    (100, Line::Find100Time, Line::Find100Wire, Line::Find100Trips),
    (10_000, Line::Find10000Time, Line::Find10000Wire, Line::Find10000Trips),
];
