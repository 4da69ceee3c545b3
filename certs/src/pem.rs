//! Certificates in files: PEM, the node's own first.
//!
//! Used by everything here that reads or writes certificates, and by the
//! daemon's `join`. Invariant: a file written here is whole or as it was before.
//!
//! Not here: private keys ([`crate::keyfile`]), and what a certificate means.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use crate::{CertError, keyfile};

/// Writes certificates as PEM, leaf first, replacing the file in one step.
pub fn save_chain(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), CertError> {
    let mut text = String::new();
    for cert in chain {
        section(&mut text, "CERTIFICATE", cert);
    }
    keyfile::write_public(path, text.as_bytes())
}

/// Reads the certificates of a PEM file; at least one is expected.
pub fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let bytes = keyfile::read_public(path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertError::content(path, format!("not PEM: {error:?}")))?;
    if chain.is_empty() {
        return Err(CertError::content(
            path,
            "holds no certificate; '-----BEGIN CERTIFICATE-----' is expected",
        ));
    }
    Ok(chain)
}

/// Reads the only certificate of a PEM file.
pub(crate) fn load_single(path: &Path) -> Result<CertificateDer<'static>, CertError> {
    let mut chain = load_chain(path)?;
    match (chain.pop(), chain.is_empty()) {
        (Some(cert), true) => Ok(cert),
        _ => Err(CertError::content(path, "holds several certificates; exactly one is expected")),
    }
}

/// Appends one PEM section (RFC 7468: lines of 64 characters).
pub(crate) fn section(text: &mut String, label: &str, der: &[u8]) {
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    // 48 bytes are 64 characters.
    for line in der.chunks(48) {
        text.push_str(&Zeroizing::new(BASE64_STANDARD.encode(line)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::authority::tests::TestAuthority;

    #[test]
    fn chains_read_back() {
        let authority = TestAuthority::now("zhengzhou");
        let path = authority.directory.path().join("node.pem");
        let chain = [authority.issuing().clone(), authority.root().clone()];
        save_chain(&path, &chain).unwrap();
        assert_eq!(load_chain(&path).unwrap(), chain);
        assert!(load_single(&path).unwrap_err().to_string().contains("exactly one"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");

        for bad in ["", "no certificate here", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load_chain(&path), Err(CertError::Content { .. })), "{bad}");
        }
    }
}
