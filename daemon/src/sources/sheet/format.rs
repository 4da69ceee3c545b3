//! Number formats, as far as they decide what a code is: digits that are always
//! shown, and words around them.
//!
//! Used in the child for numbers of `.xlsx`. People enter 5 and see 豫罚〔2019〕5号;
//! stored as 5, two such codes are one. Invariants: what is not understood changes
//! nothing; a separator of thousands, a currency, a percent sign and an exponent are
//! never shown, for they are no part of a number. Not here: dates.

/// Digits that a format may ask for: more than a number has would be nonsense.
const DIGITS_MAX: usize = 15;
/// Characters of a format: the longest that a spreadsheet allows.
const FORMAT_CHARS_MAX: usize = 255;

/// How whole numbers are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Format {
    items: Vec<Item>,
    /// Digits that are shown at least.
    zeros: usize,
    /// Those behind the point.
    decimals: usize,
    /// There are words, or marks between digits.
    words: bool,
    /// Among them one that makes the number another: 万.
    scale: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Digit,
    Word(String),
}

impl Format {
    /// What a format's code asks for; none if it only says how a quantity looks.
    pub fn parse(code: &str) -> Option<Self> {
        if code.chars().count() > FORMAT_CHARS_MAX {
            return None;
        }
        let mut format = Format::default();
        // As the number is, in English and as a Chinese program calls it.
        let code = ["General", "GENERAL", "general", "G/通用格式"]
            .into_iter()
            .fold(code.to_owned(), |code, name| code.replace(name, "#"));
        let mut chars = code.chars().peekable();
        let mut fraction = false;
        while let Some(c) = chars.next() {
            match c {
                // What negative numbers look like.
                ';' => break,
                '"' => {
                    let word: String = chars.by_ref().take_while(|c| *c != '"').collect();
                    format.word(&word);
                }
                '\\' | '!' => format.word(&chars.next()?.to_string()),
                // Room as wide as a character, or filled with one.
                '_' | '*' => {
                    chars.next()?;
                }
                '[' => {
                    let inside: String = chars.by_ref().take_while(|c| *c != ']').collect();
                    // A condition, or hours beyond a day.
                    let is_time = inside.chars().all(|c| "hHmMsS".contains(c));
                    let is_colour = inside.chars().all(char::is_alphabetic) && !is_time;
                    if !is_colour && !inside.starts_with('$') {
                        return None;
                    }
                }
                '0' | '#' | '?' if fraction => format.decimals += usize::from(c == '0'),
                '0' | '#' | '?' | '@' => {
                    format.zeros += usize::from(c == '0');
                    format.items.push(Item::Digit);
                }
                '.' => fraction = true,
                // Behind the last digit it stands for thousands.
                ',' if !chars.clone().take_while(|c| *c != ';').any(|c| "0#?".contains(c)) => {
                    return None;
                }
                ',' | '￥' | '¥' | '$' | '€' | '£' => {}
                // A share, an exponent, anything, a fraction.
                '%' | 'E' | 'e' | 'G' | 'g' | '/' => return None,
                // Parts of days and times.
                'y' | 'Y' | 'm' | 'M' | 'd' | 'D' | 'h' | 'H' | 's' | 'S' | 'b' | 'a' | 'A' => {
                    return None;
                }
                other => format.word(&other.to_string()),
            }
        }
        let digits = format.items.iter().filter(|item| **item == Item::Digit).count();
        let useful = format.words || format.zeros > 1;
        (useful && (1..=DIGITS_MAX).contains(&digits)).then_some(format)
    }

    fn word(&mut self, word: &str) {
        self.scale |= has_scale(word);
        self.words |= word.chars().any(|c| !c.is_whitespace() && !"()（）".contains(c));
        match self.items.last_mut() {
            Some(Item::Word(before)) => before.push_str(word),
            _ => self.items.push(Item::Word(word.to_owned())),
        }
    }

    /// What `number`, which is written without an exponent, looks like; with its words
    /// only in a column of texts, but for a unit that makes it another number.
    pub fn show(&self, number: &str, in_texts: bool, out: &mut String) {
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (number, None),
        };
        let is_plain = whole.bytes().all(|byte| byte.is_ascii_digit());
        let hides_words = self.words && !self.scale && !in_texts;
        if !is_plain || hides_words || !self.words && fraction.is_some() {
            out.push_str(number);
            return;
        }
        let padded = format!("{whole:0>width$}", width = self.zeros);
        let places = self.items.iter().filter(|item| **item == Item::Digit).count();
        // Digits for which there is no place stand at the first.
        let surplus = padded.len().saturating_sub(places);
        let mut digits = padded.chars();
        let mut empty = places.saturating_sub(padded.len());
        let (mut first, mut left) = (true, places);
        for item in &self.items {
            match item {
                Item::Word(word) => out.push_str(word),
                Item::Digit => {
                    left -= 1;
                    if empty > 0 {
                        empty -= 1;
                    } else {
                        let count = if first { surplus + 1 } else { 1 };
                        out.extend(digits.by_ref().take(count));
                        first = false;
                    }
                    if left == 0 && (fraction.is_some() || self.decimals > 0) {
                        out.push('.');
                        let width = self.decimals;
                        out.push_str(&format!("{:0<width$}", fraction.unwrap_or_default()));
                    }
                }
            }
        }
    }
}

/// Whether words beside a number say that ten thousand times as much is meant: then it
/// is not what it is without them, unless its column says the same.
pub(super) fn has_scale(words: &str) -> bool {
    words.contains(['万', '亿', '千', '百', '萬', '億'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: &str, number: &str, in_texts: bool) -> String {
        let mut out = String::new();
        match Format::parse(code) {
            Some(format) => format.show(number, in_texts, &mut out),
            None => out.push_str(number),
        }
        out
    }

    #[test]
    fn codes_are_what_a_person_sees() {
        for (code, number, expected) in [
            ("000000", "7", "000007"),
            ("000000", "1234567", "1234567"),
            ("000000", "7.5", "7.5"),
            ("\"豫罚〔2019〕\"0\"号\"", "5", "豫罚〔2019〕5号"),
            ("\"豫罚\"000\"号\"", "6", "豫罚006号"),
            ("000\"号\"", "7", "007号"),
            ("\"A\"000", "10", "A010"),
            ("\\A000", "10", "A010"),
            ("0000-0000", "20190007", "2019-0007"),
            ("0000-0000", "120190007", "12019-0007"),
            ("0000\"-\"00", "7", "0000-07"),
            ("#\"号\"", "5", "5号"),
            ("##-##", "5", "-5"),
            ("0.00\"万元人民币\"", "500", "500.00万元人民币"),
            ("General\"号\"", "5", "5号"),
            ("\"豫罚〔2018〕\"G/通用格式\"号\"", "5", "豫罚〔2018〕5号"),
            ("@\"号\"", "5", "5号"),
            ("0.0\"版\"", "1", "1.0版"),
            ("0.00\"万元\"", "500.5", "500.50万元"),
            ("000;\\-000", "7", "007"),
            // Quantities, days, and what is not understood.
            ("#,##0.00", "1234.5", "1234.5"),
            ("0", "7", "7"),
            ("0.00", "7", "7"),
            ("General", "7", "7"),
            ("¥#,##0.00", "7", "7"),
            ("[$¥-804]#,##0.00", "7", "7"),
            ("0.00_);[Red]\\(0.00\\)", "7", "7"),
            ("0.00_ ", "7", "7"),
            ("0%", "7", "7"),
            ("0.00E+00", "7", "7"),
            ("yyyy\"年\"m\"月\"", "7", "7"),
            ("[>100]0\"多\";0", "7", "7"),
            ("\"是\"", "1", "1"),
            ("@", "7", "7"),
            ("000", "-7", "-7"),
            ("0,\"千元\"", "500000", "500000"),
            ("0!.0,\"万元\"", "12345", "12345"),
            ("#,##0\"元\"", "1500", "1500元"),
            ("# ?/?", "0.5", "0.5"),
            ("[White]000", "7", "007"),
            ("[DBNum1]000", "7", "7"),
            ("[h]:mm", "7", "7"),
            ("000!号", "7", "007号"),
            ("\"", "7", "7"),
            ("\\", "7", "7"),
            ("_", "7", "7"),
        ] {
            assert_eq!(shown(code, number, true), expected, "{code} {number}");
        }
        // A column of amounts has numbers, and units that change them.
        assert_eq!(shown("0\"元\"", "500", false), "500");
        assert_eq!(shown("0\"件\"", "5", false), "5");
        assert_eq!(shown("0\"万元\"", "500", false), "500万元");
        assert_eq!(shown("000000", "7", false), "000007");
    }
}
