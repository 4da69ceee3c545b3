//! P-256 private keys: a node's for TLS, and those of CAs.
//!
//! Used wherever a certificate is asked for or made. Invariant: the private half
//! leaves this type only for its own file and for rustls, and is wiped with it.
//!
//! Not here: the files ([`crate::keyfile::KeyDir`]) and certificates.

use std::fmt;

use protocol::suite::{CERTIFICATE_KEYS, CertificateKeys};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SignatureAlgorithm,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{name, sans};
use crate::{CertError, identity::Identity, keyfile::StoredKey, pem};

/// What certificates and requests are signed with.
pub(super) fn algorithm() -> &'static SignatureAlgorithm {
    match CERTIFICATE_KEYS {
        CertificateKeys::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
    }
}

/// An ECDSA P-256 private key. It never leaves its machine.
pub struct NodeKey(Zeroizing<KeyPair>);

impl NodeKey {
    /// Draws a new key.
    pub fn generate() -> Result<Self, CertError> {
        KeyPair::generate_for(algorithm())
            .map(|pair| Self(Zeroizing::new(pair)))
            .map_err(CertError::crypto("draw a key"))
    }

    /// A request (DER) for a certificate that carries both names of `identity`.
    pub fn csr(&self, identity: &Identity) -> Result<Vec<u8>, CertError> {
        identity.check()?;
        let failed = || CertError::crypto("write the certificate request");
        let mut params = CertificateParams::default();
        params.distinguished_name = name(identity.node.as_str(), &identity.federation);
        params.subject_alt_names = sans(identity).map_err(failed())?;
        let request = params.serialize_request(self.pair()).map_err(failed())?;
        Ok(request.der().to_vec())
    }

    /// The form that rustls takes.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// The public half as a certificate carries it: DER SubjectPublicKeyInfo.
    pub fn public_key_info(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl StoredKey for NodeKey {
    const WHAT: &'static str = "an ECDSA P-256 private key";

    fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from(der);
        KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm())
            .map(|pair| Self(Zeroizing::new(pair)))
            .map_err(|error| error.to_string())
    }

    fn to_text(&self) -> Zeroizing<String> {
        // A P-256 key has about 240 characters; room for it, so that growing
        // leaves no copy behind.
        let mut text = Zeroizing::new(String::with_capacity(1024));
        pem::section(&mut text, "PRIVATE KEY", self.0.serialized_der());
        text
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("PKCS#8 in PEM is expected ({error:?})"))?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}
