//! The content of a partition as a test expects it: rows of text by their key.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use protocol::uscc::check_character;

/// The Chinese header of `enterprise`, as deliveries have it.
pub const ENTERPRISE_TITLES: [&str; 9] = [
    "企业名称",
    "统一社会信用代码",
    "注册日期",
    "企业类型",
    "注册资金",
    "经营范围",
    "所在省份",
    "地区",
    "注册地址",
];
/// Its fields, as an export names them.
pub const ENTERPRISE_FIELDS: [&str; 9] =
    ["name", "uscc", "registered_on", "type", "capital", "scope", "province", "city", "address"];
/// Where its key is.
const KEY_COLUMN: usize = 1;
/// Why writing a CSV text cannot fail.
const IN_MEMORY: &str = "rows of equal length are written to memory";

/// Rows of `enterprise`, by code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(pub BTreeMap<String, Vec<String>>);

impl Table {
    /// Synthetic rows, numbered; `owner` tells apart who delivers them, `batch`
    /// what was written when.
    pub fn synthetic(owner: u32, rows: std::ops::Range<u32>, batch: &str) -> Self {
        let mut table = Self::default();
        rows.for_each(|row| table.put(synthetic_row(owner, row, batch)));
        table
    }

    /// Reads a delivered file, or an export of one partition.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        let header: Vec<String> =
            reader.headers().expect("a header").iter().map(str::to_owned).collect();
        assert!(header == ENTERPRISE_TITLES || header == ENTERPRISE_FIELDS, "{header:?}");
        let mut table = Self::default();
        for row in reader.records() {
            table.put(row.expect("a well-formed row").iter().map(str::to_owned).collect());
        }
        table
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(path: &Path) -> Self {
        Self::parse(&fs::read_to_string(path).expect("a readable file"))
    }

    /// Adds a row, or replaces the one with its key.
    pub fn put(&mut self, row: Vec<String>) {
        self.0.insert(row[KEY_COLUMN].clone(), row);
    }

    /// Adds or replaces all rows of `other`.
    pub fn put_all(&mut self, other: &Table) {
        self.0.extend(other.0.clone());
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file's text, in the order of the codes, under Chinese titles.
    pub fn to_csv(&self) -> String {
        csv_text(&ENTERPRISE_TITLES, self.0.values())
    }

    /// What an export of a partition with these rows looks like, byte by byte.
    pub fn to_export(&self) -> String {
        csv_text(&ENTERPRISE_FIELDS, self.0.values())
    }

    /// Writes a file into `dir`.
    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, self.to_csv()).expect("the file is written");
        path
    }
}

/// A CSV text with this header and these rows.
pub fn csv_text<'a>(header: &[&str], rows: impl IntoIterator<Item = &'a Vec<String>>) -> String {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(header).expect(IN_MEMORY);
    for row in rows {
        out.write_record(row).expect(IN_MEMORY);
    }
    let bytes = out.into_inner().expect(IN_MEMORY);
    String::from_utf8(bytes).expect("text went in")
}

/// A credit code with a valid check character that no authority has issued: the
/// division 999999 does not exist.
pub fn synthetic_code(owner: u32, row: u32) -> String {
    let first = format!("91999999{owner:02}{row:07}");
    let check = check_character(first.as_bytes());
    first + &check.to_string()
}

/// One synthetic row; its values try quotes, commas and line ends.
pub fn synthetic_row(owner: u32, row: u32, batch: &str) -> Vec<String> {
    let (month, day) = (row % 12 + 1, row % 28 + 1);
    vec![
        format!("合成示例企业{owner}-{row}号（{batch}）"),
        synthetic_code(owner, row),
        format!("20{:02}-{month:02}-{day:02}", row % 24),
        "有限责任公司".to_owned(),
        if row.is_multiple_of(7) {
            String::new()
        } else {
            format!("{}万人民币", row % 900 + 100)
        },
        format!("演示数据，\"非真实\"企业, 第{row}行\n软件开发"),
        "示例省".to_owned(),
        "示例市".to_owned(),
        format!("示例路{row}号"),
    ]
}
