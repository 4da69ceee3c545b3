//! The generations of a federation's CAs: root and issuing CAs, numbered from 1,
//! and the certificates by which an old root vouches for a new one.
//!
//! Used by `init` and by the rotation of CAs. Invariants: a key is durable before
//! the certificate that names it, so a step that was stopped anywhere completes
//! when it is taken again; a step that was done answers what there is, and
//! refuses files that do not fit together; a root's key is read for the one
//! signature that needs it, and may otherwise be offline.
//!
//! Not here: which number is in use, and when the next one is due.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use protocol::id::{FederationId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyUsagePurpose, SigningKey as _,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::{NodeKey, backdate, name, serial_number};
use crate::{
    CertError,
    enrol::{Anchor, RootOfTrust},
    fault,
    identity::{self, Identity},
    keyfile::KeyDir,
    pem,
};

/// A root CA's life unless it is said otherwise: ten years.
pub const ROOT_LIFETIME: Duration = Duration::days(3652);
/// An issuing CA's life unless it is said otherwise: one year.
pub const ISSUING_LIFETIME: Duration = Duration::days(365);

/// Below a root: the certificate by which it vouches for its successor, and the
/// successor's issuing CA.
const ROOT_PATH_LENGTH: u8 = 2;
/// Below a certificate of one root by another: an issuing CA. So it is the oldest
/// root still trusted somewhere that has to vouch, not a line of roots.
const CROSS_PATH_LENGTH: u8 = 1;
/// Below an issuing CA: nodes only.
const ISSUING_PATH_LENGTH: u8 = 0;

/// One of the two kinds of CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaRole {
    /// Issues issuing CAs, and signs anchors.
    Root,
    /// Issues nodes' certificates.
    Issuing,
}

impl CaRole {
    fn as_str(self) -> &'static str {
        match self {
            CaRole::Root => "root",
            CaRole::Issuing => "issuing",
        }
    }

    /// `ca-root-2.pem`.
    pub fn cert_file(self, number: u32) -> String {
        format!("ca-{}-{number}.pem", self.as_str())
    }

    /// `root.key` for number 1, `root-2.key` for number 2.
    pub fn key_file(self, number: u32) -> String {
        match number {
            1 => format!("{}.key", self.as_str()),
            _ => format!("{}-{number}.key", self.as_str()),
        }
    }

    /// Differs by number, so that a verifier never has two CAs of one name.
    fn common_name(self, federation: &FederationId, number: u32) -> String {
        match number {
            1 => format!("creditsync {} {federation}", self.as_str()),
            _ => format!("creditsync {} {federation} {number}", self.as_str()),
        }
    }
}

/// The file of root `new`'s certificate by root `old`: `ca-root-2-by-1.pem`.
pub fn cross_cert_file(old: u32, new: u32) -> String {
    format!("ca-root-{new}-by-{old}.pem")
}

/// Where a federation's CAs lie.
#[derive(Debug, Clone)]
pub struct CaDirs {
    /// All certificates, public.
    pub certs: PathBuf,
    /// The issuing CAs' keys.
    pub keys: KeyDir,
    /// The roots' keys: the same directory, or one that can be taken offline.
    pub root_keys: KeyDir,
}

impl CaDirs {
    /// Makes root `number`: its key, and a certificate by itself.
    ///
    /// Idempotent; what exists keeps its dates. Without the key, but with the
    /// certificate, it answers the certificate: the key is offline.
    pub fn create_root(
        &self,
        federation: &FederationId,
        number: u32,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, CertError> {
        check_number(number)?;
        check_federation(federation)?;
        let path = self.cert_path(CaRole::Root, number);
        if path.symlink_metadata().is_ok() {
            let root = self.root(number)?;
            check_subject(&path, &root, federation, CaRole::Root, number)?;
            if self.has_root_key(number) {
                self.root_key(number)?;
            }
            return Ok(root);
        }
        let key = self.make_key(CaRole::Root, number, "ca.root-key-written")?;
        let root =
            ca_params(CaRole::Root, federation, number, ROOT_PATH_LENGTH, now, now + lifetime)?
                .self_signed(key.pair())
                .map_err(CertError::crypto("make a root certificate"))?
                .into();
        self.save_cert(&path, &root)?;
        fault::point("ca.root-cert-written");
        Ok(root)
    }

    /// Makes the certificate by which root `old` vouches for root `new`; needs
    /// the old root's key. It ends with either root.
    ///
    /// Idempotent; what exists keeps its dates.
    pub fn cross_sign(
        &self,
        old: u32,
        new: u32,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, CertError> {
        let path = self.certs.join(cross_cert_file(old, new));
        if path.symlink_metadata().is_ok() {
            return self.cross(old, new);
        }
        let (old_root, new_root) = (self.root(old)?, self.root(new)?);
        let old_facts = self.check_valid(CaRole::Root, old, &old_root, now)?;
        let new_facts = self.check_valid(CaRole::Root, new, &new_root, now)?;
        let federation = federation_of(&self.cert_path(CaRole::Root, new), &new_root)?;
        let key = self.root_key(old)?;

        let failed = || CertError::crypto("let one root vouch for another");
        let issuer = Issuer::from_ca_cert_der(&old_root, key.pair()).map_err(failed())?;
        let parsed = identity::parse(&new_root)?;
        let new_key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw).map_err(failed())?;
        let end = old_facts.not_after.min(new_facts.not_after);
        let cross = ca_params(CaRole::Root, &federation, new, CROSS_PATH_LENGTH, now, end)?
            .signed_by(&new_key, &issuer)
            .map_err(failed())?
            .into();
        check_cross(&path, &cross, &old_root, &new_root)?;
        self.save_cert(&path, &cross)?;
        fault::point("ca.cross-cert-written");
        Ok(cross)
    }

    /// Makes issuing CA `number` under root `root_number`, whose key it needs.
    /// It ends with its root, if that is earlier than `lifetime`.
    ///
    /// Idempotent; what exists keeps its dates.
    pub fn create_issuing(
        &self,
        federation: &FederationId,
        number: u32,
        root_number: u32,
        now: OffsetDateTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, CertError> {
        check_number(number)?;
        let path = self.cert_path(CaRole::Issuing, number);
        let root_path = self.cert_path(CaRole::Root, root_number);
        let root = self.root(root_number)?;
        check_subject(&root_path, &root, federation, CaRole::Root, root_number)?;
        if path.symlink_metadata().is_ok() {
            let issuing = self.issuing(number)?;
            check_subject(&path, &issuing, federation, CaRole::Issuing, number)?;
            check_issued(&path, &issuing, &root_path, &root)?;
            if self.keys.exists(&CaRole::Issuing.key_file(number)) {
                self.issuing_key(number)?;
            }
            return Ok(issuing);
        }
        let root_facts = self.check_valid(CaRole::Root, root_number, &root, now)?;
        let root_key = self.root_key(root_number)?;
        let key = self.make_key(CaRole::Issuing, number, "ca.issuing-key-written")?;

        let failed = || CertError::crypto("make an issuing certificate");
        let issuer = Issuer::from_ca_cert_der(&root, root_key.pair()).map_err(failed())?;
        let end = (now + lifetime).min(root_facts.not_after);
        let issuing =
            ca_params(CaRole::Issuing, federation, number, ISSUING_PATH_LENGTH, now, end)?
                .signed_by(key.pair(), &issuer)
                .map_err(failed())?
                .into();
        self.save_cert(&path, &issuing)?;
        fault::point("ca.issuing-cert-written");
        Ok(issuing)
    }

    /// Removes issuing CA `number` if another root than `root_number` issued it.
    ///
    /// For a number that nobody knows yet: a rotation may have been interrupted and
    /// another kind of rotation begun.
    pub fn discard_issuing_of_others(
        &self,
        number: u32,
        root_number: u32,
    ) -> Result<(), CertError> {
        let path = self.cert_path(CaRole::Issuing, number);
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let (issuing, root) = (self.issuing(number)?, self.root(root_number)?);
        let root_path = self.cert_path(CaRole::Root, root_number);
        if check_issued(&path, &issuing, &root_path, &root).is_err() {
            fs::remove_file(&path).map_err(CertError::file("remove", &path))?;
            self.keys.delete(&CaRole::Issuing.key_file(number))?;
        }
        Ok(())
    }

    /// Reads root `number`'s certificate: a CA that signed itself.
    pub fn root(&self, number: u32) -> Result<CertificateDer<'static>, CertError> {
        let path = self.cert_path(CaRole::Root, number);
        let root = pem::load_single(&path)?;
        check_issued(&path, &root, &path, &root)?;
        Ok(root)
    }

    /// Reads issuing CA `number`'s certificate; says nothing about who issued it.
    pub fn issuing(&self, number: u32) -> Result<CertificateDer<'static>, CertError> {
        pem::load_single(&self.cert_path(CaRole::Issuing, number))
    }

    /// Reads the certificate of root `new` by root `old`, and checks that it is.
    pub fn cross(&self, old: u32, new: u32) -> Result<CertificateDer<'static>, CertError> {
        let path = self.certs.join(cross_cert_file(old, new));
        let cert = pem::load_single(&path)?;
        check_cross(&path, &cert, &self.root(old)?, &self.root(new)?)?;
        Ok(cert)
    }

    /// Whether root `number`'s key is here now.
    pub fn has_root_key(&self, number: u32) -> bool {
        self.root_keys.exists(&CaRole::Root.key_file(number))
    }

    /// Deletes the key of a retired CA, durably; its certificate stays, for
    /// history. False if there was none, as when it is done again.
    ///
    /// Whether it is retired is the caller's to know: nothing is signed with it
    /// any more, and a root's key cannot be made again.
    pub fn delete_key(&self, role: CaRole, number: u32) -> Result<bool, CertError> {
        let deleted = self.key_dir(role).delete(&role.key_file(number))?;
        fault::point("ca.key-deleted");
        Ok(deleted)
    }

    /// Signs an anchor with root `root_number`'s key, which is read now;
    /// whatever signature it had is replaced.
    pub fn sign_anchor(&self, root_number: u32, anchor: &Anchor) -> Result<Anchor, CertError> {
        let root_path = self.cert_path(CaRole::Root, root_number);
        let root = self.root(root_number)?;
        let ours = federation_of(&root_path, &root)?;
        if anchor.federation != ours {
            return Err(CertError::OtherFederation { ours, theirs: anchor.federation.clone() });
        }
        let key = self.root_key(root_number)?;
        let mut signed = anchor.clone();
        signed.signature = key
            .pair()
            .sign(&anchor.signed_message())
            .map_err(CertError::crypto("sign the anchor"))?;
        // What is signed has to read back: it will be copied to every node.
        Anchor::decode(&signed.encode())?;
        signed.verify(&RootOfTrust::from_certificate(&root)?)?;
        Ok(signed)
    }

    /// Reads an issuing CA's key, which has to fit its certificate.
    pub(super) fn issuing_key(&self, number: u32) -> Result<NodeKey, CertError> {
        self.load_key(CaRole::Issuing, number, &self.issuing(number)?)
    }

    fn root_key(&self, number: u32) -> Result<NodeKey, CertError> {
        if !self.has_root_key(number) {
            return Err(CertError::RootKeyAbsent(
                self.root_keys.file(&CaRole::Root.key_file(number)),
            ));
        }
        self.load_key(CaRole::Root, number, &self.root(number)?)
    }

    fn load_key(
        &self,
        role: CaRole,
        number: u32,
        cert: &CertificateDer<'_>,
    ) -> Result<NodeKey, CertError> {
        let file = role.key_file(number);
        let key: NodeKey = self.key_dir(role).load(&file)?;
        if identity::parse(cert)?.public_key().raw != key.public_key_info() {
            return Err(CertError::content(
                &self.key_dir(role).file(&file),
                format!(
                    "does not fit {}; restore both from one backup",
                    self.cert_path(role, number).display()
                ),
            ));
        }
        Ok(key)
    }

    /// A key without a certificate was left by a step that did not end: nobody
    /// has seen it, so it is used.
    fn make_key(
        &self,
        role: CaRole,
        number: u32,
        point: &'static str,
    ) -> Result<NodeKey, CertError> {
        let (keys, file) = (self.key_dir(role), role.key_file(number));
        if keys.exists(&file) {
            return keys.load(&file);
        }
        keys.create()?;
        let key = NodeKey::generate()?;
        keys.save(&file, &key)?;
        fault::point(point);
        Ok(key)
    }

    fn save_cert(&self, path: &Path, cert: &CertificateDer<'_>) -> Result<(), CertError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.certs)
            .map_err(CertError::file("create", &self.certs))?;
        pem::save_chain(path, std::slice::from_ref(cert))
    }

    fn key_dir(&self, role: CaRole) -> &KeyDir {
        match role {
            CaRole::Root => &self.root_keys,
            CaRole::Issuing => &self.keys,
        }
    }

    pub(super) fn cert_path(&self, role: CaRole, number: u32) -> PathBuf {
        self.certs.join(role.cert_file(number))
    }

    fn check_valid(
        &self,
        role: CaRole,
        number: u32,
        cert: &CertificateDer<'_>,
        now: OffsetDateTime,
    ) -> Result<identity::CertificateFacts, CertError> {
        let facts = identity::facts(cert)?;
        if now < facts.not_before || now >= facts.not_after {
            return Err(CertError::IssuerNotValid {
                path: self.cert_path(role, number),
                not_before: facts.not_before,
                not_after: facts.not_after,
                now,
            });
        }
        Ok(facts)
    }
}

/// Every node's DNS name ends in the federation's, so that must be one that DNS
/// allows, whatever the nodes are called.
fn check_federation(federation: &FederationId) -> Result<(), CertError> {
    let any = NodeId::new("any").expect("three letters are a name");
    Identity::new(federation, &any).check()
}

fn check_number(number: u32) -> Result<(), CertError> {
    if number == 0 {
        return Err(CertError::Crypto {
            action: "make a CA",
            problem: "CAs are numbered from 1".into(),
        });
    }
    Ok(())
}

/// The federation that a CA's certificate names.
pub(super) fn federation_of(
    path: &Path,
    cert: &CertificateDer<'_>,
) -> Result<FederationId, CertError> {
    identity::parse(cert)?
        .subject()
        .iter_organization()
        .next()
        .and_then(|name| FederationId::new(name.as_str().ok()?).ok())
        .ok_or_else(|| CertError::content(path, "names no federation as its organisation (O)"))
}

fn check_subject(
    path: &Path,
    cert: &CertificateDer<'_>,
    federation: &FederationId,
    role: CaRole,
    number: u32,
) -> Result<(), CertError> {
    let parsed = identity::parse(cert)?;
    let ours = federation_of(path, cert)?;
    if ours != *federation {
        return Err(CertError::OtherFederation { ours, theirs: federation.clone() });
    }
    let expected = role.common_name(federation, number);
    let found = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if found != Some(&expected) || !parsed.is_ca() {
        return Err(CertError::content(
            path,
            format!(
                "is for '{}', but a CA named '{expected}' is expected; restore the file from a \
                 backup",
                parsed.subject()
            ),
        ));
    }
    Ok(())
}

/// Checks that `issuer` issued the CA certificate `cert`.
pub(super) fn check_issued(
    path: &Path,
    cert: &CertificateDer<'_>,
    issuer_path: &Path,
    issuer: &CertificateDer<'_>,
) -> Result<(), CertError> {
    if identity::is_issued_by(cert, issuer)? && identity::parse(cert)?.is_ca() {
        return Ok(());
    }
    Err(CertError::content(
        path,
        format!("was not issued by {}; restore both from one backup", issuer_path.display()),
    ))
}

fn check_cross(
    path: &Path,
    cross: &CertificateDer<'_>,
    old_root: &CertificateDer<'_>,
    new_root: &CertificateDer<'_>,
) -> Result<(), CertError> {
    if identity::vouches(cross, old_root, new_root)? {
        return Ok(());
    }
    Err(CertError::content(
        path,
        "is not the older root's certificate for the newer root's name and key; move it away, and \
         make it anew with the older root's key",
    ))
}

fn ca_params(
    role: CaRole,
    federation: &FederationId,
    number: u32,
    path_length: u8,
    now: OffsetDateTime,
    end: OffsetDateTime,
) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&role.common_name(federation, number), federation);
    params.not_before = now - backdate(end - now);
    params.not_after = end;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial_number()?);
    Ok(params)
}
