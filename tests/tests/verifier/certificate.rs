//! What enrolment needs of certificates (sections 12 and 16 of
//! `protocol/SPEC.md`): who issued whom, and for which name.
//!
//! Not a check of chains: dates, extensions and revocations are TLS's business.

use super::{Checked, Refused, anchor::RootKey, ensure};

/// Parts of a certificate (RFC 5280, 4.1), each as DER without its outer header.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub spki: &'a [u8],
    whole: &'a [u8],
    signed: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub fn read(der: &'a [u8]) -> Checked<Self> {
        Self::parts(der).ok_or(Refused("no certificate"))
    }

    fn parts(der: &'a [u8]) -> Option<Self> {
        let (0x30, content, []) = element(der)? else { return None };
        let (0x30, tbs, rest) = element(content)? else { return None };
        let signed = &content[..content.len() - rest.len()];
        let (0x30, _, rest) = element(rest)? else { return None };
        let (0x03, signature, []) = element(rest)? else { return None };
        // [0] version, serial number, algorithm, issuer, validity, subject, key.
        let (mut parts, mut rest) = (Vec::new(), tbs);
        while !rest.is_empty() {
            let (tag, content, behind) = element(rest)?;
            parts.push((tag, content));
            rest = behind;
        }
        let [(0xa0, _), _, _, (0x30, issuer), _, (0x30, subject), (0x30, spki), ..] = parts[..]
        else {
            return None;
        };
        // The first byte of a bit string says how many bits are not used.
        let signature = signature.strip_prefix(&[0])?;
        Some(Self { issuer, subject, spki, whole: der, signed, signature })
    }

    /// Whether the other one's name and key stand behind this one.
    pub fn is_issued_by(&self, issuer: &Self) -> Checked<()> {
        ensure(self.issuer == issuer.subject, "another issuer's name")?;
        RootKey::new(issuer.spki)?.verify(self.signed, self.signature)
    }

    /// Whether both names of a node stand in it.
    pub fn is_for(&self, federation: &str, node: &str) -> Checked<()> {
        let uri = format!("spiffe://{federation}/node/{node}");
        let dns = format!("{node}.{federation}.creditsync.internal");
        // As DER: a name of a kind (RFC 5280, 4.2.1.6), its length, its text.
        let stands = |kind: u8, name: &str| {
            let length = u8::try_from(name.len()).expect("these names are short");
            let wanted = [&[kind, length], name.as_bytes()].concat();
            self.whole.windows(wanted.len()).any(|window| window == wanted)
        };
        ensure(stands(0x86, &uri) && stands(0x82, &dns), "a certificate for another node")
    }
}

/// The chain of an enrolment: the leaf, its issuer, and the root that was named.
pub fn check_chain(chain: &[Vec<u8>], root: &[u8], federation: &str, node: &str) -> Checked<()> {
    let [leaf, issuing, ..] = chain else { return Err(Refused("a chain that is too short")) };
    let (leaf, issuing) = (Certificate::read(leaf)?, Certificate::read(issuing)?);
    leaf.is_for(federation, node)?;
    leaf.is_issued_by(&issuing)?;
    issuing.is_issued_by(&Certificate::read(root)?)
}

/// Whether one of the trusted roots has certified a new root's own name and key.
pub fn check_cross(trusted: &[&[u8]], root: &[u8], cross: &[u8]) -> Checked<()> {
    let (root, cross) = (Certificate::read(root)?, Certificate::read(cross)?);
    ensure(cross.subject == root.subject, "a cross for another name")?;
    ensure(cross.spki == root.spki, "a cross for another key")?;
    let signs = |der: &&[u8]| Certificate::read(der).and_then(|one| cross.is_issued_by(&one));
    ensure(trusted.iter().any(|der| signs(der).is_ok()), "a cross by nobody who is trusted")
}

/// A DER element: its tag, its content, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}
