//! Bytes as hexadecimal digits, as texts and records have them.
//!
//! Used by [`crate::hash`], the records of `_federation`, key files and messages.
//! Invariant: no copy is left behind by growing, so keys may go through here: what
//! [`push`] needs can be reserved before, and [`decode_into`] allocates nothing.
//! Not here: what the bytes mean.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two lower-case digits for each byte.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push(&mut text, bytes);
    text
}

/// Appends two lower-case digits for each byte.
pub fn push(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
}

/// The bytes of lower-case digits; `None` if there is anything else, or an odd number
/// of them. As long as half of the text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    decode_into(text, &mut bytes).then_some(bytes)
}

/// Fills `bytes` from exactly twice as many lower-case digits. If there is anything
/// else it answers false, and `bytes` may have changed.
#[must_use]
pub fn decode_into(text: &str, bytes: &mut [u8]) -> bool {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() || pairs.len() != bytes.len() {
        return false;
    }
    pairs.zip(bytes).all(|(pair, byte)| match (digit(pair[0]), digit(pair[1])) {
        (Some(high), Some(low)) => {
            *byte = high << 4 | low;
            true
        }
        _ => false,
    })
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encode(&bytes);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"), "{text}");
        assert_eq!(decode(&text), Some(bytes));
        assert_eq!((encode(&[]), decode("")), (String::new(), Some(vec![])));
    }

    #[test]
    fn anything_else_is_no_bytes() {
        for wrong in ["0", "000", "0g", "0A", "F0", "+1", " 1", "0x00", "é", "００", "1\n"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
        assert!(!decode_into("0000", &mut [0; 1]));
        assert!(!decode_into("00", &mut [0; 2]));
    }

    #[test]
    fn what_was_reserved_is_enough() {
        let mut text = String::with_capacity(64);
        let place = text.as_ptr();
        push(&mut text, &[0xab; 32]);
        assert_eq!((text.as_ptr(), text), (place, "ab".repeat(32)));
    }
}
