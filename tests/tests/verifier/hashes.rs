//! Hashes, signatures and key ids: sections 3 and 4 of `protocol/SPEC.md`.

use ed25519_dalek::{Signature, VerifyingKey};

use super::{Checked, Refused, layout, reader::write_bytes};

/// 32 bytes without an algorithm before them.
pub type Hash = [u8; 32];

/// `H_purpose`.
pub fn hash(context: &str, bytes: &[u8]) -> Hash {
    blake3::derive_key(context, bytes)
}

/// Fills with zeros to whole blocks; nothing if there are whole ones already.
pub fn pad(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(layout::BLOCK_BYTES), 0);
    bytes
}

/// The hash that stands for a page's first key in its parent.
pub fn key_hash(key: &[u8]) -> Checked<Hash> {
    let mut counted = key_length(key)?.to_vec();
    counted.extend_from_slice(key);
    Ok(hash(layout::hash::KEY, &pad(counted)))
}

/// An entry as it lies in a leaf.
pub fn entry_bytes(key: &[u8], record: &[u8]) -> Checked<Vec<u8>> {
    let mut entry = key_length(key)?.to_vec();
    entry.extend_from_slice(key);
    write_bytes(&mut entry, record);
    Ok(entry)
}

/// An entry's digest.
pub fn entry_digest(key: &[u8], record: &[u8]) -> Checked<Hash> {
    Ok(hash(layout::hash::ENTRY, &pad(entry_bytes(key, record)?)))
}

/// `u16` key length.
pub fn key_length(key: &[u8]) -> Checked<[u8; 2]> {
    super::ensure(key.len() <= layout::KEY_BYTES_MAX, "a key over its limit")?;
    let length = u16::try_from(key.len()).map_err(|_| Refused("a key over its limit"))?;
    Ok(length.to_be_bytes())
}

/// The id of a public signing key.
pub fn key_id(public: &[u8; 32]) -> Hash {
    hash(layout::hash::KEY_ID, &[layout::KEY_ID_PREFIX, public].concat())
}

/// A public key that can be one: on the curve and not of small order.
pub fn public_key(public: &[u8; 32]) -> Checked<VerifyingKey> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| Refused("no public key"))?;
    super::ensure(!key.is_weak(), "a public key of small order")?;
    Ok(key)
}

/// An Ed25519 signature over `context || 0x00 || bytes`.
pub fn verify(public: &[u8; 32], context: &str, bytes: &[u8], signature: &[u8; 64]) -> Checked<()> {
    let message = with_context(context, bytes);
    public_key(public)?
        .verify_strict(&message, &Signature::from_bytes(signature))
        .map_err(|_| Refused("the signature does not verify"))
}

/// What is signed for bytes in a context.
pub fn with_context(context: &str, bytes: &[u8]) -> Vec<u8> {
    [context.as_bytes(), &[0], bytes].concat()
}

/// The bytes that both keys of a succession sign.
pub fn succession_bytes(federation: &str, node: &str, earlier: &Hash, new: &[u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_bytes(&mut bytes, federation.as_bytes());
    write_bytes(&mut bytes, node.as_bytes());
    bytes.extend_from_slice(earlier);
    bytes.extend_from_slice(new);
    bytes
}

/// Lower-case hexadecimal digits, an even number of them.
pub fn unhex(text: &str) -> Checked<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(Refused("no lower-case hexadecimal digit")),
    };
    super::ensure(text.len().is_multiple_of(2), "half a byte of hexadecimal digits")?;
    text.as_bytes().chunks(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// So many bytes of hexadecimal digits.
pub fn unhex_exactly<const N: usize>(text: &str) -> Checked<[u8; N]> {
    unhex(text)?.try_into().map_err(|_| Refused("another number of hexadecimal digits"))
}
