//! The roots that a node trusts: `root.pem`, and which root may join it.
//!
//! Used by [`crate::credentials`] and by whoever applies what `_federation` says
//! about roots. Invariant: a root enters the bundle only at the beginning, from a
//! token, or because a root of the bundle vouched for exactly its name and key.
//!
//! Not here: when a root may leave the bundle.

use std::path::Path;

use protocol::suite::checksum::Checksum;
use rustls_pki_types::CertificateDer;

use crate::{
    CertError, fault,
    identity::{self, is_issued_by},
    pem,
};

/// A node's trusted roots, in its `certs/`.
pub const ROOTS_FILE: &str = "root.pem";

/// Roots in a bundle. A rotation needs two at a time and takes years; eight
/// leave room for one that went wrong, and bound the work of a handshake.
pub const ROOTS_MAX: usize = 8;

/// What a CA's certificate is called in the federation's registry: a checksum over
/// its DER.
pub fn root_id(cert: &CertificateDer<'_>) -> Checksum {
    Checksum::of(&[cert])
}

/// Reads the bundle in `dir_certs`: 1 to 8 certificates.
pub fn load_bundle(dir_certs: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let path = dir_certs.join(ROOTS_FILE);
    let roots = pem::load_chain(&path)?;
    check_count(&path, roots.len())?;
    Ok(roots)
}

/// Replaces the bundle in `dir_certs` in one step, durably.
pub fn save_bundle(dir_certs: &Path, roots: &[CertificateDer<'_>]) -> Result<(), CertError> {
    let path = dir_certs.join(ROOTS_FILE);
    check_count(&path, roots.len())?;
    pem::save_chain(&path, roots)?;
    fault::point("bundle.written");
    Ok(())
}

/// Whether `candidate` may be trusted beside the roots of `bundle`: it is a CA
/// that signed itself, and `cross` is a certificate by a root of the bundle for
/// exactly its name and key. One that is in the bundle needs nothing.
///
/// Dates are not looked at: a handshake does that. Whether there is room is
/// [`save_bundle`]'s to say.
pub fn bundle_accepts(
    bundle: &[CertificateDer<'_>],
    candidate: &CertificateDer<'_>,
    cross: Option<&CertificateDer<'_>>,
) -> Result<(), CertError> {
    if bundle.contains(candidate) {
        return Ok(());
    }
    let facts = identity::facts(candidate)?;
    let refused = |problem| Err(CertError::RootRefused { subject: facts.subject.clone(), problem });
    if !facts.is_ca || !is_issued_by(candidate, candidate)? {
        return refused("it is not a CA that signed itself");
    }
    let Some(cross) = cross else {
        return refused("no certificate by a root that is trusted here came with it");
    };
    for root in bundle {
        if identity::vouches(cross, root, candidate)? {
            return Ok(());
        }
    }
    refused(
        "what came with it is not a certificate by a root that is trusted here for exactly its \
         name and key",
    )
}

fn check_count(path: &Path, count: usize) -> Result<(), CertError> {
    if (1..=ROOTS_MAX).contains(&count) {
        return Ok(());
    }
    Err(CertError::content(
        path,
        format!(
            "{count} trusted roots; 1 to {ROOTS_MAX} are possible; retire old ones before another \
             is added"
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::authority::{
        ROOT_LIFETIME,
        tests::{TestAuthority, now},
    };

    #[test]
    fn a_bundle_reads_back_and_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let root = TestAuthority::at("zhengzhou", now()).root().clone();
        for count in [1, 2, ROOTS_MAX] {
            let roots = vec![root.clone(); count];
            save_bundle(directory.path(), &roots).unwrap();
            assert_eq!(load_bundle(directory.path()).unwrap(), roots);
        }
        for count in [0, ROOTS_MAX + 1] {
            let roots = vec![root.clone(); count];
            assert!(save_bundle(directory.path(), &roots).is_err(), "{count}");
            pem::save_chain(&directory.path().join(ROOTS_FILE), &roots).unwrap();
            assert!(load_bundle(directory.path()).is_err(), "{count}");
        }
        assert_eq!(root_id(&root), Checksum::of(&[&root]));
    }

    #[test]
    fn a_new_root_needs_the_word_of_an_old_one_for_itself() {
        let authority = TestAuthority::at("zhengzhou", now());
        let dirs = authority.dirs();
        let old = authority.root().clone();
        let new = dirs.create_root(&authority.federation, 2, now(), ROOT_LIFETIME).unwrap();
        let third = dirs.create_root(&authority.federation, 3, now(), ROOT_LIFETIME).unwrap();
        let cross = dirs.cross_sign(1, 2, now()).unwrap();
        let bundle = [old.clone()];
        bundle_accepts(&bundle, &new, Some(&cross)).unwrap();
        bundle_accepts(&bundle, &old, None).unwrap();

        let stranger = TestAuthority::at("zhengzhou", now());
        let their_new =
            stranger.dirs().create_root(&stranger.federation, 2, now(), ROOT_LIFETIME).unwrap();
        let their_cross = stranger.dirs().cross_sign(1, 2, now()).unwrap();
        for (what, bundle, candidate, cross) in [
            ("no word", &bundle[..], &new, None),
            ("the word of a stranger", &bundle, &their_new, Some(&their_cross)),
            ("a word for somebody else of that name", &bundle, &their_new, Some(&cross)),
            ("a word for another root", &bundle, &third, Some(&cross)),
            ("its own word", &bundle, &new, Some(&new)),
            ("a root that is not trusted here", &[], &new, Some(&cross)),
            ("not a root", &bundle, authority.issuing(), Some(authority.issuing())),
            ("not self-signed", &bundle, &cross, Some(&cross)),
        ] {
            let error = bundle_accepts(bundle, candidate, cross).unwrap_err();
            assert!(matches!(error, CertError::RootRefused { .. }), "{what}: {error}");
        }
        // One character of the signature.
        let mut altered = cross.to_vec();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        assert!(bundle_accepts(&bundle, &new, Some(&altered.into())).is_err());
    }
}
