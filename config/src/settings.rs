//! The numbers that can be set: default, range, unit and meaning in one place.
//!
//! [`crate::resolve`] checks against this table and [`crate::render`] prints
//! it, so a file's comments cannot drift from what the daemon accepts.

/// What holds where a setting is not written down.
#[derive(Clone, Copy)]
pub(crate) enum Fallback {
    /// This number.
    Is(u64),
    /// It is derived from the machine. The example is what a new file shows: a
    /// sensible number, because somebody will just take the `#` away.
    Derived { example: u64 },
}

/// One numeric setting.
pub(crate) struct Number {
    /// The table it stands in.
    pub(crate) table: &'static str,
    /// Its key there.
    pub(crate) key: &'static str,
    /// What holds without it.
    pub(crate) default: Fallback,
    /// Smallest value.
    pub(crate) min: u64,
    /// Largest value.
    pub(crate) max: u64,
    /// In English and in Chinese.
    pub(crate) unit: [&'static str; 2],
    /// In English and in Chinese, without a full stop.
    pub(crate) meaning: [&'static str; 2],
}

const MIB: [&str; 2] = ["MiB", "MiB"];
const SECONDS: [&str; 2] = ["seconds", "秒"];
const PERCENT: [&str; 2] = ["percent", "%"];
const RECORDS: [&str; 2] = ["records", "条"];
/// Far above any partition's records.
const RECORDS_MAX: u64 = 1_000_000_000;
const DAY_S: u64 = 24 * 3600;

/// 64 MiB were no faster on a county of a million records, whose pages lie mostly
/// beside the database, and of small values the cache takes several times its
/// size. Upper bound: 64 GiB, more than the machines this runs on
/// have.
pub(crate) const CACHE_MB: Number = Number {
    table: "store",
    key: "cache_mb",
    default: Fallback::Is(16),
    min: 8,
    max: 65_536,
    unit: MIB,
    meaning: ["Memory for the database's cache", "数据库缓存占用的内存"],
};

/// Upper bound: 16 TiB, ext4's largest file.
pub(crate) const DISK_RESERVE_MB: Number = Number {
    table: "store",
    key: "disk_reserve_mb",
    default: Fallback::Derived { example: 1024 },
    min: 0,
    max: 16 * 1024 * 1024,
    unit: MIB,
    meaning: [
        "Free disk space below which nothing is written any more; reading goes on",
        "磁盘剩余空间低于此值时停止写入，仍可读取",
    ],
};

/// What another node's data may take here. Lower bound: one, so that nobody is locked
/// out by a slip; the derived value is half of the disk at most.
pub(crate) const ORIGIN_QUOTA_MB: Number = Number {
    table: "store",
    key: "origin_quota_mb",
    default: Fallback::Derived { example: 20_480 },
    min: 1,
    max: 16 * 1024 * 1024,
    unit: MIB,
    meaning: [
        "The room that the data of each other node may take here, uncompressed; by default a part of the disk",
        "其他每个节点的数据在本节点可占用的空间（按未压缩计），默认按磁盘大小推算",
    ],
};

/// Upper bound: a replica counts as in sync only with a heartbeat under 30
/// seconds old, and one has to have time to arrive.
pub(crate) const HEARTBEAT_S: Number = Number {
    table: "sync",
    key: "heartbeat_s",
    default: Fallback::Is(10),
    min: 1,
    max: 25,
    unit: SECONDS,
    meaning: ["Time between two heartbeats to a peer", "向对端发送心跳的间隔"],
};

/// Upper bound: an hour, so that a mended line is noticed the same morning.
pub(crate) const RETRY_MAX_S: Number = Number {
    table: "sync",
    key: "retry_max_s",
    default: Fallback::Is(60),
    min: 1,
    max: 3600,
    unit: SECONDS,
    meaning: ["Longest wait before dialling the hub again", "重新连接中心节点前的最长等待时间"],
};

/// Lower bound: a second, which tests need. Upper bound: ten minutes of a stream
/// that holds memory and does nothing.
pub(crate) const STALL_S: Number = Number {
    table: "sync",
    key: "stall_s",
    default: Fallback::Is(30),
    min: 1,
    max: 600,
    unit: SECONDS,
    meaning: [
        "A peer that owes something and does not get on with it for so long loses the stream",
        "对端有应发或应收的数据而无进展，超过此时间即放弃该数据流",
    ],
};

/// Lower bound: one change set's limit, 8 MiB.
pub(crate) const IMPORT_MEMORY_MB: Number = Number {
    table: "import",
    key: "memory_mb",
    default: Fallback::Is(64),
    min: 8,
    max: 4096,
    unit: MIB,
    meaning: [
        "Memory for sorting a delivery; what exceeds it is sorted on disk",
        "导入排序使用的内存，超出部分在磁盘上排序",
    ],
};

/// 100 never holds a file, except one that suddenly is empty.
pub(crate) const HOLD_DELETES_PERCENT: Number = Number {
    table: "import",
    key: "hold_deletes_percent",
    default: Fallback::Is(20),
    min: 0,
    max: 100,
    unit: PERCENT,
    meaning: [
        "A full file that would delete more than this share of the records waits for approval",
        "全量文件将删除的记录超过此比例时，等待人工批准",
    ],
};

/// Lower default than a share alone would need: two of a list of five may go in
/// an ordinary month. Upper bound: far above any partition's records.
pub(crate) const HOLD_DELETES_MIN: Number = Number {
    table: "import",
    key: "hold_deletes_min",
    default: Fallback::Is(3),
    min: 0,
    max: RECORDS_MAX,
    unit: RECORDS,
    meaning: [
        "A full file that deletes fewer records than this is not held for their share",
        "删除条数少于此值的全量文件，不因删除比例而暂缓",
    ],
};

/// 100 never holds a file for this reason.
pub(crate) const HOLD_CHANGES_PERCENT: Number = Number {
    table: "import",
    key: "hold_changes_percent",
    default: Fallback::Is(50),
    min: 0,
    max: 100,
    unit: PERCENT,
    meaning: [
        "A full file that changes one and the same column in more than this share of the records waits \
         for approval; shifted columns and wrong encodings look like that",
        "全量文件使同一列在超过此比例的记录中发生变化时（如列错位、编码错误），等待人工批准",
    ],
};

/// Ten: in a list of a few records, half of them is one evening's work.
pub(crate) const HOLD_CHANGES_MIN: Number = Number {
    table: "import",
    key: "hold_changes_min",
    default: Fallback::Is(10),
    min: 0,
    max: RECORDS_MAX,
    unit: RECORDS,
    meaning: [
        "A full file that changes a column in fewer records than this is not held for their share",
        "同一列发生变化的记录少于此值的全量文件，不因变化比例而暂缓",
    ],
};

/// 100 never holds a file for this reason.
pub(crate) const HOLD_DOUBTFUL_PERCENT: Number = Number {
    table: "import",
    key: "hold_doubtful_percent",
    default: Fallback::Is(50),
    min: 0,
    max: 100,
    unit: PERCENT,
    meaning: [
        "A file waits for approval if more than this share of its new credit codes have a wrong check \
         character, as codes have that a spreadsheet has changed",
        "文件中新的信用代码校验位不符的超过此比例时（如被表格软件改动），等待人工批准",
    ],
};

/// Three: one or two codes are typing errors.
pub(crate) const HOLD_DOUBTFUL_MIN: Number = Number {
    table: "import",
    key: "hold_doubtful_min",
    default: Fallback::Is(3),
    min: 0,
    max: RECORDS_MAX,
    unit: RECORDS,
    meaning: [
        "A file with fewer such codes than this is not held for their share",
        "校验位不符的新代码少于此值的文件，不因其比例而暂缓",
    ],
};

/// Upper bound: ten years.
pub(crate) const UNDO_DAYS: Number = Number {
    table: "import",
    key: "undo_days",
    default: Fallback::Is(30),
    min: 1,
    max: 3650,
    unit: ["days", "天"],
    meaning: [
        "How long a delivery can be taken back with 'creditsync delivery undo'",
        "交付在多少天内可以用 creditsync delivery undo 撤销",
    ],
};

/// 1 GiB holds what 10 million changed records were before. Upper bound: 16 TiB,
/// ext4's largest file.
pub(crate) const UNDO_MB: Number = Number {
    table: "import",
    key: "undo_mb",
    default: Fallback::Is(1024),
    min: 1,
    max: 16 * 1024 * 1024,
    unit: MIB,
    meaning: [
        "Disk space for what deliveries have replaced, so that they can be taken back; the oldest go first",
        "为撤销交付而保留的原有内容占用的磁盘空间，超出时最早的先清除",
    ],
};

/// Upper bound: an hour; a slower copy should be renamed in.
pub(crate) const STABLE_S: Number = Number {
    table: "inbox",
    key: "stable_s",
    default: Fallback::Is(5),
    min: 1,
    max: 3600,
    unit: SECONDS,
    meaning: [
        "How long a file's size has to stay the same before it is taken",
        "文件大小保持不变多久后开始导入",
    ],
};

/// Lower bound: as a file's own rest. Upper bound: a day, so that nobody looks for a
/// file of yesterday.
pub(crate) const INCOMPLETE_WAIT_S: Number = Number {
    table: "inbox",
    key: "incomplete_wait_s",
    default: Fallback::Is(600),
    min: 1,
    max: DAY_S,
    unit: SECONDS,
    meaning: [
        "How long a file is waited for that seems not to be complete: its writer has it open, or \
         its last line has no end; also for how long a file is looked at after it was taken",
        "文件似乎未传完（仍被打开写入，或最后一行没有换行符）时最多等待多久；也是导入后继续检查文件是否又有变化的时间",
    ],
};

/// Lower bound: a handshake and a renewal have to fit. Upper bound: a year, the
/// life of the CA that issues them.
pub(crate) const LIFETIME_S: Number = Number {
    table: "certificates",
    key: "lifetime_s",
    default: Fallback::Is(30 * DAY_S),
    min: 5,
    max: 365 * DAY_S,
    unit: SECONDS,
    meaning: [
        "Life of the node certificates that this hub issues, each renewed by itself at two thirds \
         of its life; 30 days are 2592000",
        "本中心节点签发的节点证书的有效期，过三分之二时自动更新；30 天为 2592000",
    ],
};

/// Lower bound: four of the shortest node certificates. Upper bound: 5 years,
/// half the life of the root, which signs it.
pub(crate) const ISSUING_LIFETIME_S: Number = Number {
    table: "certificates",
    key: "issuing_lifetime_s",
    default: Fallback::Is(365 * DAY_S),
    min: 20,
    max: 5 * 365 * DAY_S,
    unit: SECONDS,
    meaning: [
        "Life of the issuing CA, renewed by itself at two thirds of its life while the root key is \
         within reach, else 'creditsync ca rotate' is asked for; 365 days are 31536000",
        "签发 CA 的有效期，过三分之二时，若能读取根密钥则自动更新，否则提示运行 \
         creditsync ca rotate；365 天为 31536000",
    ],
};

impl Number {
    /// The key's path.
    pub(crate) fn place(&self) -> String {
        format!("{}.{}", self.table, self.key)
    }

    /// The default, unless it is derived.
    pub(crate) const fn fixed(&self) -> Option<u64> {
        match self.default {
            Fallback::Is(number) => Some(number),
            Fallback::Derived { .. } => None,
        }
    }
}
