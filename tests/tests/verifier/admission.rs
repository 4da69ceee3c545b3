//! Who is let in behind a handshake: section 12 of `protocol/SPEC.md`, with the codes
//! of section 15.
//!
//! Not here: the path to a root and all that TLS looks at before.

use super::{certificate::Certificate, federation::Records};

/// A close code.
pub type Code = u64;

pub const NOT_A_MEMBER: Code = 11;
pub const REVOKED: Code = 14;
pub const CERTIFICATE_ENDED: Code = 15;
pub const SUPERSEDED: Code = 16;

/// The side that decides.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub federation: &'a str,
    pub hub: &'a str,
    /// Whether it is the hub itself.
    pub is_hub: bool,
}

/// The table of section 12 but for its last row: whether who shows this chain is
/// welcome, or the code that closes the connection.
pub fn admits(side: Side<'_>, records: &Records, chain: &[Vec<u8>]) -> Result<(), Code> {
    let (leaf, second) = shown(chain).ok_or(NOT_A_MEMBER)?;
    let (federation, node) = leaf.identity().map_err(|_| NOT_A_MEMBER)?;
    ensure(federation == side.federation, NOT_A_MEMBER)?;

    let is_revoked = |serial| records.revoked.contains(&(node.clone(), serial));
    ensure(!is_revoked(None) && !is_revoked(Some(leaf.serial())), REVOKED)?;

    let member = records.members.get(&node);
    let belongs = member.is_some_and(|member| !member.removed && !member.is_hub);
    let is_peer = if side.is_hub { belongs && node != side.hub } else { node == side.hub };
    ensure(is_peer, NOT_A_MEMBER)?;

    // An authority is known by its key: its certificate has more than one signature.
    let named = records.issuing.iter().filter(|(certificate, _)| {
        let named = Certificate::read(certificate);
        second.is_some_and(|second| named.is_ok_and(|named| named.spki == second.spki))
    });
    let named: Vec<bool> = named.map(|(_, retired)| *retired).collect();
    if let Some(from) = member.and_then(|member| member.certificates_from) {
        let (begins, _) = leaf.validity().map_err(|_| NOT_A_MEMBER)?;
        ensure(named.is_empty() || begins >= from, SUPERSEDED)?;
    }
    ensure(!named.contains(&true), CERTIFICATE_ENDED)
}

/// The leaf and its issuer; none for a chain out of order.
fn shown(chain: &[Vec<u8>]) -> Option<(Certificate<'_>, Option<Certificate<'_>>)> {
    let leaf = Certificate::read(chain.first()?).ok()?;
    let second = match chain.get(1) {
        None => None,
        Some(second) => Some(Certificate::read(second).ok()?),
    };
    let in_order = second.is_none_or(|second| second.subject == leaf.issuer);
    in_order.then_some((leaf, second))
}

fn ensure(holds: bool, code: Code) -> Result<(), Code> {
    if holds { Ok(()) } else { Err(code) }
}
