//! Certificates that somebody else's PKI made, as PEM files.
//!
//! Used by the daemon where its configuration names such files. Invariant: what
//! is loaded is as good as what the federation's own authority issues: both
//! names, a key that fits, a chain that leads to a root.
//!
//! Not here: which files, and when to look at them again.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::{CertError, credentials::Credentials, identity::Identity, keyfile, pem};

/// Roots in a CA file: a large organisation's, not a browser's whole store.
const CA_CERTS_MAX: usize = 64;

/// The files of a foreign PKI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PkiFiles {
    /// The node's certificate, then those that lead to a root.
    pub certificate: Option<PathBuf>,
    /// Its key: PKCS#8, PKCS#1 or SEC1, not encrypted, mode 0600.
    pub key: Option<PathBuf>,
    /// Roots that are trusted beside the federation's own.
    pub ca: Option<PathBuf>,
}

impl PkiFiles {
    /// The node's credentials, if there is a certificate. Trusted are the CA
    /// file's roots and `federation_roots`.
    ///
    /// Errors name the file: a name that is missing in the certificate, a key
    /// that does not fit or that others can read, a chain without a root.
    pub fn load(
        &self,
        identity: &Identity,
        federation_roots: &[CertificateDer<'static>],
    ) -> Result<Option<Credentials>, CertError> {
        let (certificate, key) = match (&self.certificate, &self.key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(only), None) => {
                return Err(CertError::content(only, "no key file is configured beside it"));
            }
            (None, Some(only)) => {
                return Err(CertError::content(
                    only,
                    "no certificate file is configured beside it",
                ));
            }
        };
        let chain = pem::load_chain(certificate)?;
        let roots = self.roots(federation_roots)?;
        Credentials::new(chain, load_key(key)?, roots, identity.clone())
            .map(Some)
            .map_err(|error| CertError::content(certificate, error.to_string()))
    }

    /// `federation_roots`, and those of the CA file that are not among them.
    pub fn roots(
        &self,
        federation_roots: &[CertificateDer<'static>],
    ) -> Result<Vec<CertificateDer<'static>>, CertError> {
        let mut roots = federation_roots.to_vec();
        if let Some(path) = &self.ca {
            let added = pem::load_chain(path)?;
            if added.len() > CA_CERTS_MAX {
                return Err(CertError::content(
                    path,
                    format!(
                        "holds more than {CA_CERTS_MAX} certificates; name only the CAs of nodes"
                    ),
                ));
            }
            for root in added {
                if !crate::identity::facts(&root)?.is_ca {
                    return Err(CertError::content(path, "holds a certificate that is not a CA's"));
                }
                if !roots.contains(&root) {
                    roots.push(root);
                }
            }
        }
        Ok(roots)
    }

    /// What tells cheaply whether a file has changed.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint([&self.certificate, &self.key, &self.ca].map(|path| {
            let metadata = fs::metadata(path.as_ref()?).ok()?;
            Some(FileState {
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                size: metadata.size(),
                inode: metadata.ino(),
            })
        }))
    }
}

/// The state of the three files at a moment: equal states mean that nothing has
/// to be loaded again. A file that is absent or out of reach has a state too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([Option<FileState>; 3]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    /// Seconds since 1970, nanoseconds.
    modified: (i64, i64),
    /// Bytes.
    size: u64,
    /// A file that was replaced is another one, also within a second.
    inode: u64,
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let bytes = keyfile::read_private(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        // PKCS#8 has it in its label, the older form in a header.
        let encrypted = String::from_utf8_lossy(&bytes).contains("ENCRYPTED");
        let problem = if encrypted {
            "is encrypted, and only keys that this program made can be; write it without a \
             passphrase, for this user only: openssl pkey -in KEY -out FILE"
                .to_owned()
        } else {
            format!("not a private key in PEM ({error:?}); PKCS#8, PKCS#1 or SEC1 is expected")
        };
        CertError::content(path, problem)
    })
}

#[cfg(test)]
mod tests;
