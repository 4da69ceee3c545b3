//! Join tokens: section 16 of `protocol/SPEC.md`.

use super::{
    Checked, Refused, anchor::RootKey, certificate::Certificate, ensure, hashes, hashes::Hash,
    layout, reader::Reader, reader::is_label,
};

/// A token's content. Its anchor is still bytes: [`Token::root_key`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub anchor: Vec<u8>,
    pub root_subject: Vec<u8>,
    pub root_spki: Vec<u8>,
    pub node: String,
    pub display_name: String,
    pub addresses: Vec<String>,
    pub federation_seq: u64,
    pub federation_head: Hash,
    pub end_s: i64,
    pub id: [u8; 8],
    pub secret: [u8; 32],
}

impl Token {
    pub fn parse(text: &str) -> Checked<Self> {
        ensure(text.len() <= layout::TOKEN_TEXT_BYTES_MAX, "a token over its limit")?;
        let invisible = ['\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{ad}'];
        let ignored = |c: &char| c.is_whitespace() || invisible.contains(c);
        let text: String = text.chars().filter(|c| !ignored(c)).collect();
        let encoded = text.strip_prefix(layout::TOKEN_PREFIX).ok_or(Refused("no token"))?;
        let bytes = base64url(encoded)?;
        let split = bytes.len().checked_sub(layout::TOKEN_CHECKSUM_BYTES);
        let (content, checksum) = bytes.split_at(split.ok_or(Refused("cut short"))?);
        let counted = [layout::TOKEN_CHECKSUM_PREFIX, content].concat();
        let sum = hashes::hash(layout::hash::CHECKSUM, &counted);
        ensure(checksum == &sum[..layout::TOKEN_CHECKSUM_BYTES], "another checksum")?;
        Self::decode(content)
    }

    fn decode(content: &[u8]) -> Checked<Self> {
        let mut reader = Reader::new(content);
        // No length stands before the anchor: its own fields tell its end.
        layout::anchor_from(&mut reader)?;
        let anchor = content[..content.len() - reader.left()].to_vec();
        let max = layout::TOKEN_FIELD_BYTES_MAX;
        let root_subject = reader.bytes(max)?.to_vec();
        let root_spki = reader.bytes(max)?.to_vec();
        let node = reader.name(is_label)?;
        let display_name = reader.text(max)?.to_owned();
        let count = usize::from(reader.u16()?);
        ensure(count <= layout::ADDRESSES_MAX, "too many addresses")?;
        let address = |_| Ok(reader.text(layout::ADDRESS_BYTES_MAX)?.to_owned());
        let addresses = (0..count).map(address).collect::<Checked<Vec<_>>>()?;
        let token = Self {
            anchor,
            root_subject,
            root_spki,
            node,
            display_name,
            addresses,
            federation_seq: reader.u64()?,
            federation_head: reader.raw()?,
            end_s: reader.i64()?,
            id: reader.raw()?,
            secret: reader.raw()?,
        };
        reader.end()?;
        Ok(token)
    }

    /// The root's key, with which the anchor verifies.
    pub fn root_key(&self) -> Checked<RootKey> {
        RootKey::new(&self.root_spki)
    }

    /// What the hub keeps in place of the secret.
    pub fn secret_hash(&self) -> Hash {
        hashes::hash(layout::hash::TOKEN_SECRET, &[&self.id[..], &self.secret].concat())
    }

    /// Whether a certificate (DER) has the subject and the key of the token's root.
    pub fn is_root(&self, certificate: &[u8]) -> Checked<()> {
        let root = Certificate::read(certificate)?;
        let well = root.subject == self.root_subject && root.spki == self.root_spki;
        ensure(well, "another root")
    }
}

/// RFC 4648, section 5, without padding and without bits that say nothing.
fn base64url(text: &str) -> Checked<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Ok(byte - b'A'),
        b'a'..=b'z' => Ok(byte - b'a' + 26),
        b'0'..=b'9' => Ok(byte - b'0' + 52),
        b'-' => Ok(62),
        b'_' => Ok(63),
        _ => Err(Refused("no base64url")),
    };
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        held = held << 6 | u32::from(digit(byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).expect("it was masked"));
            held &= (1 << bits) - 1;
        }
    }
    ensure(bits < 6 && held == 0, "base64url with bits left over")?;
    Ok(bytes)
}
