//! What admission and enrolment need of certificates (sections 12 and 16 of
//! `protocol/SPEC.md`): who issued whom, for which name, from when on.
//!
//! Not a check of chains: that of dates and other extensions is TLS's business.

use super::{Checked, Refused, anchor::RootKey, ensure, reader::is_label};

/// Below this zone stands a node's DNS name and nobody else's.
const ZONE: &str = "creditsync.internal";
/// Of a subject alternative name (RFC 5280, 4.2.1.6): a DNS name, a URI.
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
/// The OID 2.5.29.17 of the extension that holds them.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// The OID 1.2.840.113549.1.9.14: of an attribute with extensions that are asked for.
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

/// Parts of a certificate (RFC 5280, 4.1), each as DER without its outer header.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub spki: &'a [u8],
    serial: &'a [u8],
    validity: &'a [u8],
    extensions: &'a [u8],
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
        let parts = elements(tbs)?;
        let [
            (0xa0, _),
            (0x02, serial),
            _,
            (0x30, issuer),
            (0x30, validity),
            (0x30, subject),
            (0x30, spki),
            ref more @ ..,
        ] = parts[..]
        else {
            return None;
        };
        let extensions = more.iter().find(|(tag, _)| *tag == 0xa3);
        let extensions = extensions.map_or(Some(&[][..]), |(_, content)| inside(0x30, content))?;
        // The first byte of a bit string says how many bits are not used.
        let signature = signature.strip_prefix(&[0])?;
        Some(Self { issuer, subject, spki, serial, validity, extensions, signed, signature })
    }

    /// Whether the other one's name and key stand behind this one.
    pub fn is_issued_by(&self, issuer: &Self) -> Checked<()> {
        ensure(self.issuer == issuer.subject, "another issuer's name")?;
        RootKey::new(issuer.spki)?.verify(self.signed, self.signature)
    }

    /// Whether it is for a node, and for no other one.
    pub fn is_for(&self, federation: &str, node: &str) -> Checked<()> {
        let wanted = (federation.to_owned(), node.to_owned());
        ensure(self.identity()? == wanted, "a certificate for another node")
    }

    /// The federation and the node whose two names stand in it.
    pub fn identity(&self) -> Checked<(String, String)> {
        let names =
            alternative_names(self.extensions).ok_or(Refused("names that cannot be read"))?;
        let of = |kind: u8| {
            let texts = names.iter().filter(move |(tag, _)| *tag == kind);
            texts.filter_map(|(_, text)| std::str::from_utf8(text).ok())
        };
        let mut uris = of(URI).filter_map(identity_of);
        let (Some((federation, node)), None) = (uris.next(), uris.next()) else {
            return Err(Refused("not one name of a node"));
        };
        let fits = |name: &str| !name.starts_with('-') && !name.ends_with('-');
        ensure(fits(federation) && fits(node), "no label of DNS")?;
        let own = format!("{node}.{federation}.{ZONE}");
        // DNS knows no upper case.
        let below: Vec<String> = of(DNS).map(str::to_ascii_lowercase).collect();
        let mut below = below.iter().filter(|name| name.ends_with(&format!(".{ZONE}"))).peekable();
        ensure(below.peek().is_some(), "no DNS name of a node")?;
        ensure(below.all(|name| *name == own), "another node's DNS name")?;
        Ok((federation.to_owned(), node.to_owned()))
    }

    /// Its number as `_federation` writes it: without zeros before it.
    pub fn serial(&self) -> String {
        let mut octets = self.serial;
        while let [0, rest @ ..] = octets
            && !rest.is_empty()
        {
            octets = rest;
        }
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Its first second and its last one, since 1970.
    pub fn validity(&self) -> Checked<(i64, i64)> {
        let both = || {
            let (tag, first, rest) = element(self.validity)?;
            let (end_tag, last, []) = element(rest)? else { return None };
            Some((moment(tag, first)?, moment(end_tag, last)?))
        };
        both().ok_or(Refused("dates that cannot be read"))
    }
}

/// By kind; none where the extension is not there.
fn alternative_names(extensions: &[u8]) -> Option<Names<'_>> {
    for (_, extension) in elements(extensions)? {
        let parts = elements(extension)?;
        if parts.first()?.1 == ALTERNATIVE_NAMES {
            // A boolean may stand between.
            return elements(inside(0x30, parts.last()?.1)?);
        }
    }
    Some(vec![])
}

/// The federation and the node of a URI of the form that nodes have.
fn identity_of(uri: &str) -> Option<(&str, &str)> {
    let (federation, node) = uri.strip_prefix("spiffe://")?.split_once("/node/")?;
    (is_label(federation) && is_label(node)).then_some((federation, node))
}

/// Seconds since 1970 of a time of RFC 5280, 4.1.2.5.
fn moment(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let year: i64 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        0x18 => (text.get(..4)?.parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let months = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: i64 = months.iter().take(usize::try_from(month - 1).ok()?).sum();
    let years: i64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    (rest.len() == 10).then_some((years + before + day - 1) * 86_400 + seconds)
}

/// A chain as a node shows it, up to a root: the leaf, its issuer, and others of which
/// some may lead from that to the root.
pub fn check_chain(chain: &[Vec<u8>], root: &[u8], federation: &str, node: &str) -> Checked<()> {
    let all = chain.iter().map(|der| Certificate::read(der)).collect::<Checked<Vec<_>>>()?;
    let root = Certificate::read(root)?;
    let [leaf, above @ ..] = &all[..] else { return Err(Refused("a chain that is too short")) };
    leaf.is_for(federation, node)?;
    let [second, further @ ..] = above else { return leaf.is_issued_by(&root) };
    leaf.is_issued_by(second)?;
    let further: Vec<_> = further.iter().filter(|one| one.subject != second.subject).collect();
    ensure(leads_to(second, &further, &root), "a chain that leads to another root")
}

fn leads_to(from: &Certificate<'_>, further: &[&Certificate<'_>], root: &Certificate<'_>) -> bool {
    let through = |at: usize| {
        let mut rest = further.to_vec();
        let next = rest.remove(at);
        from.is_issued_by(next).is_ok() && leads_to(next, &rest, root)
    };
    from.is_issued_by(root).is_ok() || (0..further.len()).any(through)
}

/// A request for a certificate (PKCS#10, RFC 2986): by its key, and for these two names
/// of a node alone. Answers the key.
pub fn check_request<'a>(der: &'a [u8], federation: &str, node: &str) -> Checked<&'a [u8]> {
    let (signed, names, spki, signature) = request(der).ok_or(Refused("no request"))?;
    RootKey::new(spki)?.verify(signed, signature)?;
    let uri = format!("spiffe://{federation}/node/{node}");
    let dns = format!("{node}.{federation}.{ZONE}");
    let wanted = [(URI, uri.as_bytes()), (DNS, dns.as_bytes())];
    let exactly = names.len() == 2 && wanted.iter().all(|name| names.contains(name));
    ensure(exactly, "a request for other names")?;
    Ok(spki)
}

type Names<'a> = Vec<(u8, &'a [u8])>;

/// What is signed, the names, the key and the signature.
fn request(der: &[u8]) -> Option<(&[u8], Names<'_>, &[u8], &[u8])> {
    let content = inside(0x30, der)?;
    let (0x30, info, rest) = element(content)? else { return None };
    let signed = &content[..content.len() - rest.len()];
    let [(0x02, _), (0x30, _), (0x30, spki), (0xa0, attributes)] = elements(info)?[..] else {
        return None;
    };
    let [(0x30, _), (0x03, signature)] = elements(rest)?[..] else { return None };
    let mut names = None;
    for (_, attribute) in elements(attributes)? {
        let [(0x06, kind), (0x31, values)] = elements(attribute)?[..] else { return None };
        if kind == EXTENSION_REQUEST {
            names = Some(alternative_names(inside(0x30, values)?)?);
        }
    }
    Some((signed, names?, spki, signature.strip_prefix(&[0])?))
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

/// The content of the only element in some bytes.
fn inside(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    element(bytes).filter(|(own, _, behind)| *own == tag && behind.is_empty()).map(|found| found.1)
}

/// Elements one after the other, by tag.
fn elements(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, content, behind) = element(bytes)?;
        found.push((tag, content));
        bytes = behind;
    }
    Some(found)
}
