//! What may separate columns.

/// A separator of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Separator(char);

impl Separator {
    pub const COMMA: Self = Self(',');

    /// Those that are tried, the most usual first: it wins where several fit.
    pub const ALL: [Self; 9] = [
        Self::COMMA,
        Self('\t'),
        Self(';'),
        Self('|'),
        // Hive.
        Self('\x01'),
        Self('^'),
        Self('~'),
        // Typed with a Chinese keyboard.
        Self('，'),
        Self('；'),
    ];

    /// One that a `sep=` line names.
    pub fn named(character: char) -> Option<Self> {
        let sound = !character.is_alphanumeric()
            && !matches!(character, '"' | '\n' | '\r' | '\0' | '=')
            && (character.is_ascii() || Self::ALL.contains(&Self(character)));
        sound.then_some(Self(character))
    }

    /// As it stands in a file.
    pub fn character(self) -> char {
        self.0
    }

    /// Where it takes several bytes; then another byte stands for it.
    pub fn wide(self) -> Option<char> {
        (!self.0.is_ascii()).then_some(self.0)
    }

    /// The byte by which rows are split: the separator itself, or a control
    /// character (UNIT SEPARATOR) that stands for it.
    pub fn byte(self) -> u8 {
        if self.0.is_ascii() { self.0 as u8 } else { 0x1f }
    }

    /// Whether a character of GB18030 may have it as a later byte.
    pub fn is_in_gb18030(self) -> bool {
        // Digits are, of characters of four bytes, and what lies from 0x40 on.
        matches!(self.byte(), 0x30..=0x39 | 0x40..)
    }

    /// For people.
    pub fn name(self) -> String {
        match self.0 {
            '\t' => "制表符(tab)".to_owned(),
            '\x01' => "\\x01".to_owned(),
            character => character.to_string(),
        }
    }
}
