//! Private keys encrypted at rest: PKCS#8, PBES2 with scrypt and AES-256-CBC
//! (RFC 5958, RFC 8018, RFC 7914), as `openssl pkcs8` reads and writes them.
//!
//! Used by [`super::KeyDir`] and [`super::Passphrase`]. Invariant: what a file asks this program to
//! spend on deriving a key is looked at before it is spent.
//!
//! Not here: which kind of key it is, and where its file lies.

use pkcs8::{
    EncryptedPrivateKeyInfoOwned, EncryptedPrivateKeyInfoRef, LineEnding, SecretDocument,
    der::asn1::OctetString,
    pkcs5::{
        EncryptionScheme,
        pbes2::{Kdf, Parameters},
        scrypt,
    },
};
use zeroize::Zeroizing;

/// The label of an encrypted key (RFC 7468, section 11).
pub(super) const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// scrypt's cost: 16 MiB, because OpenSSL refuses to spend more than 32 MiB;
/// five passes make up for it (OWASP's password storage recommendations name
/// N = 2^14, r = 8, p = 5 as equal to N = 2^17 with one pass).
const LOG_N: u8 = 14;
const BLOCK_SIZE: u32 = 8;
const PASSES: u32 = 5;

/// Somebody else's parameters: memory up to 256 MiB, which every machine that
/// runs a node has, and
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// about half a minute of work on an old machine.
const WORK_BYTES_MAX: u64 = 8 << 30;
/// Likewise for PBKDF2; OWASP asks for 600 000, and this is some seconds.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Why a file could not be opened; none of them says more than an attacker with
/// the file knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealable {
    /// Not PEM, or not an encrypted PKCS#8 key.
    Damaged,
    /// The passphrase is another one, or the ciphertext was altered.
    WrongPassphrase,
    /// The file asks for an algorithm that is not supported, or for too much
    /// work.
    Parameters,
}

/// Encrypts a PKCS#8 key; answers PEM.
pub(super) fn seal(der: &[u8], passphrase: &str) -> Result<Zeroizing<String>, String> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    getrandom::fill(&mut salt)
        .and_then(|()| getrandom::fill(&mut iv))
        .map_err(|error| error.to_string())?;
    let cost = scrypt::Params::new(LOG_N, BLOCK_SIZE, PASSES).map_err(|error| error.to_string())?;
    let parameters = Parameters::generate_scrypt_aes256cbc(cost, &salt, iv)
        .map_err(|error| error.to_string())?;
    let encrypted = parameters.encrypt(passphrase, der).map_err(|error| error.to_string())?;
    let info = EncryptedPrivateKeyInfoOwned {
        encryption_algorithm: parameters.into(),
        encrypted_data: OctetString::new(encrypted).map_err(|error| error.to_string())?,
    };
    SecretDocument::try_from(info)
        .map_err(|error| error.to_string())?
        .to_pem(LABEL, LineEnding::LF)
        .map_err(|error| error.to_string())
}

/// Decrypts what [`seal`] or OpenSSL wrote; answers the PKCS#8 key.
pub(super) fn open(pem: &str, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
    let (label, document) = SecretDocument::from_pem(pem).map_err(|_| Unsealable::Damaged)?;
    if label != LABEL {
        return Err(Unsealable::Damaged);
    }
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .map_err(|_| Unsealable::Damaged)?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(Unsealable::Parameters);
    };
    if !is_affordable(&parameters.kdf) {
        return Err(Unsealable::Parameters);
    }
    parameters
        .decrypt(passphrase, info.encrypted_data.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| Unsealable::WrongPassphrase)
}

fn is_affordable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= ITERATIONS_MAX,
        Kdf::Scrypt(scrypt) => {
            let n: u64 = scrypt.cost_parameter;
            let memory = n.saturating_mul(128).saturating_mul(scrypt.block_size.into());
            // The library takes a power of two for granted.
            n.is_power_of_two()
                && memory <= MEMORY_BYTES_MAX
                && memory.saturating_mul(scrypt.parallelization.into()) <= WORK_BYTES_MAX
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sealed_with(kdf_n: u64, passes: u16) -> String {
        let cost = scrypt::Params::new(4, 8, 1).unwrap();
        let mut parameters =
            Parameters::generate_scrypt_aes256cbc(cost, &[1; 16], [2; 16]).unwrap();
        let encrypted = parameters.encrypt("x", b"secret").unwrap();
        if let Kdf::Scrypt(scrypt) = &mut parameters.kdf {
            scrypt.cost_parameter = kdf_n;
            scrypt.parallelization = passes;
        }
        let info = EncryptedPrivateKeyInfoOwned {
            encryption_algorithm: parameters.into(),
            encrypted_data: OctetString::new(encrypted).unwrap(),
        };
        let document = SecretDocument::try_from(info).unwrap();
        document.to_pem(LABEL, LineEnding::LF).unwrap().to_string()
    }

    #[test]
    fn what_is_sealed_opens_with_its_passphrase_only() {
        let pem = seal(b"secret bytes", "合成口令").unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{}", *pem);
        assert_eq!(open(&pem, "合成口令").unwrap().as_slice(), b"secret bytes");
        assert!(open(&pem, "合成口").is_err_and(|e| e == Unsealable::WrongPassphrase));
        assert_ne!(*seal(b"secret bytes", "合成口令").unwrap(), *pem, "salt and IV are drawn");
        for damaged in ["", &pem[1..], &pem[..pem.len() / 2], &pem.replace("ENCRYPTED ", "")] {
            assert_eq!(open(damaged, "合成口令"), Err(Unsealable::Damaged), "{damaged}");
        }
    }

    #[test]
    fn a_file_cannot_ask_for_endless_work() {
        assert_eq!(open(&sealed_with(16, 1), "x").unwrap().as_slice(), b"secret");
        for (n, passes) in [(0, 1), (17, 1), (1 << 40, 1), (1 << 18, 60_000), (u64::MAX, 1)] {
            assert_eq!(open(&sealed_with(n, passes), "x"), Err(Unsealable::Parameters), "{n}");
        }
    }
}
