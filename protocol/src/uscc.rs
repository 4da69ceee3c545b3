//! Unified social credit codes: the structure and check character of
//! GB 32100-2015.

/// The 31 characters of a code: digits and capitals without I, O, S, V, Z.
const ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
/// The place of each byte in [`ALPHABET`], or [`NOT_IN_ALPHABET`].
const VALUES: [u8; 256] = {
    let mut values = [NOT_IN_ALPHABET; 256];
    let mut index = 0;
    while index < ALPHABET.len() {
        values[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    values
};
const NOT_IN_ALPHABET: u8 = u8::MAX;
/// The registering authorities that GB 32100-2015 and its first amendment list.
const AUTHORITIES: &[u8] = b"123456789ANY";

/// What a text turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// 18 characters with the right check character.
    Valid,
    /// Well-formed, but another check character was expected. A few codes were
    /// really issued like that.
    CheckFailed {
        /// The character that the standard computes.
        expected: char,
    },
    /// 15 digits: a registration number from before 2015.
    Legacy,
}

/// Why a text cannot be a credit code at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Neither 18 characters nor 15 digits.
    #[error("has {0} characters instead of 18")]
    Length(usize),
    /// A character that the standard leaves out.
    #[error("has '{0}' at position {1}, which no code contains")]
    Character(char, usize),
    /// The first character names no authority.
    #[error("begins with '{0}', which is no registering authority")]
    Authority(char),
}

/// Judges a code that is already trimmed and upper case.
pub fn judge(code: &str) -> Result<Quality, Impossible> {
    let length = code.chars().count();
    if length == 15 && code.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Quality::Legacy);
    }
    if length != 18 {
        return Err(Impossible::Length(length));
    }
    for (index, character) in code.chars().enumerate() {
        // Positions 1 and 2 are authority and category, 3 to 8 the division.
        let digit_expected = (2..8).contains(&index);
        let known = u8::try_from(character).is_ok_and(|byte| {
            if digit_expected {
                byte.is_ascii_digit()
            } else {
                VALUES[usize::from(byte)] != NOT_IN_ALPHABET
            }
        });
        if !known {
            return Err(Impossible::Character(character, index + 1));
        }
    }
    let first = code.as_bytes()[0];
    if !AUTHORITIES.contains(&first) {
        return Err(Impossible::Authority(char::from(first)));
    }
    let expected = check_character(&code.as_bytes()[..17]);
    if char::from(code.as_bytes()[17]) == expected {
        Ok(Quality::Valid)
    } else {
        Ok(Quality::CheckFailed { expected })
    }
}

/// The check character of the first 17 characters: weights 3^i modulo 31.
///
/// Characters outside of the alphabet count as zero.
pub fn check_character(first_17: &[u8]) -> char {
    let mut weight = 1;
    let mut sum = 0;
    for byte in first_17 {
        let value = match VALUES[usize::from(*byte)] {
            NOT_IN_ALPHABET => 0,
            value => usize::from(value),
        };
        sum += value * weight;
        weight = weight * 3 % 31;
    }
    char::from(ALPHABET[(31 - sum % 31) % 31])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_codes_pass() {
        for code in
            ["91410000170001401D", "9152000071430580XT", "12440300MB2C92173E", "53532601790270522T"]
        {
            let with_check: String =
                code[..17].chars().chain([check_character(&code.as_bytes()[..17])]).collect();
            assert_eq!(judge(&with_check), Ok(Quality::Valid), "{code}");
        }
        assert_eq!(judge("91410000170001401D"), Ok(Quality::Valid));
        assert_eq!(judge("410100100012345"), Ok(Quality::Legacy));
    }

    #[test]
    fn a_wrong_check_character_is_told_apart_from_an_impossible_code() {
        assert_eq!(judge("91410000170001401E"), Ok(Quality::CheckFailed { expected: 'D' }));
        assert_eq!(judge("91350100M0001TGQXM"), Ok(Quality::CheckFailed { expected: '1' }));
        assert_eq!(judge("91410000170001401"), Err(Impossible::Length(17)));
        assert_eq!(judge("9141000017000140ID"), Err(Impossible::Character('I', 17)));
        assert_eq!(judge("9141000O170001401D"), Err(Impossible::Character('O', 8)));
        assert_eq!(judge("000000000000000000"), Err(Impossible::Authority('0')));
        assert_eq!(judge("00000000000000000X"), Err(Impossible::Authority('0')));
    }
}
