//! The keys that the engine uses itself. `crate::keys` has the table of all
//! keys; none of the others begins like one of these.

use protocol::suite::checksum::Checksum;

/// The format's version, and the number of the suite.
pub const FORMAT: &[u8] = b"f";

/// The number of the last batch that was applied. It lies beside the heads,
/// which are small and written in most batches anyway.
pub const APPLIED: &[u8] = b"i";

/// A further chunk of the value under `key`.
pub fn chunk(key: &[u8], index: u16) -> Vec<u8> {
    let hash = Checksum::of(&[key]);
    [b"c", &hash.as_bytes()[..16], &index.to_be_bytes()].concat()
}
