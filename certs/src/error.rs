//! What can go wrong with keys and certificates.
//!
//! Each message names the file or the thing, says what is wrong with it and,
//! where the cause is known, what to do next. Messages never hold key bytes.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::id::FederationId;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// The variable with the path of the file whose first line is the passphrase.
pub const PASSPHRASE_VARIABLE: &str = "CREDITSYNC_PASSPHRASE_FILE";

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A private file is there already, and is never overwritten.
    #[error(
        "{} exists already and is not overwritten; move it away first if it shall be replaced",
        .0.display()
    )]
    Exists(PathBuf),
    /// Others can read a private file.
    #[error(
        "{0} can be read or written by others (mode {mode:03o}); run: chmod 600 {0}",
        path.display()
    )]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A private key is encrypted, and there is no passphrase.
    #[error(
        "{} is encrypted, and no passphrase was given; write it as the first line of a file that \
         only this user can read, and name that file in {PASSPHRASE_VARIABLE}",
        .0.display()
    )]
    PassphraseMissing(PathBuf),
    /// A private key is encrypted with another passphrase.
    #[error(
        "{} does not open with the passphrase that was given; check the file that \
         {PASSPHRASE_VARIABLE} names; if it is right, restore the key from a backup",
        .0.display()
    )]
    PassphraseWrong(PathBuf),
    /// A file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the next step.
        problem: String,
    },
    /// Bytes that are not an X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    NotACertificate(String),
    /// A certificate whose names do not make an identity.
    #[error("the certificate of '{subject}' {problem}")]
    Identity {
        /// The certificate's subject.
        subject: String,
        /// Which name is missing or too many.
        problem: IdentityProblem,
    },
    /// A name that a certificate cannot carry.
    #[error(
        "'{0}' cannot be a name in a certificate: node and federation names there may not begin \
         or end with '-'; choose another name"
    )]
    NotADnsName(String),
    /// A certificate signing request that is not granted.
    #[error("the certificate request for {identity} is refused: {problem}")]
    Request {
        /// For whom a certificate was requested.
        identity: String,
        /// Why it is refused.
        problem: String,
    },
    /// This authority speaks for another federation.
    #[error("this authority issues for the federation '{ours}', not for '{theirs}'")]
    OtherFederation {
        /// The authority's own.
        ours: FederationId,
        /// The requested one.
        theirs: FederationId,
    },
    /// A CA's certificate has ended, or has not begun.
    #[error(
        "the certificate {} is valid from {} to {}, and it is {} now, so it can issue nothing; \
         check this machine's clock; if it is right, make a CA of the next number",
        path.display(), date(*not_before), date(*not_after), date(*now)
    )]
    IssuerNotValid {
        /// Its file.
        path: PathBuf,
        /// Its first moment.
        not_before: OffsetDateTime,
        /// Its last moment.
        not_after: OffsetDateTime,
        /// The moment of the attempt.
        now: OffsetDateTime,
    },
    /// The root key is not on this machine.
    #[error(
        "the root key {} is not here; it signs anchors and the certificates of CAs, so put it back \
         from where it is kept offline, or name the directory where it is (--root-key DIR), and take \
         it away again afterwards",
        .0.display()
    )]
    RootKeyAbsent(PathBuf),
    /// A certificate that may not become a trusted root.
    #[error("the certificate of '{subject}' is not accepted as a further root: {problem}")]
    RootRefused {
        /// The certificate's subject.
        subject: String,
        /// Why not.
        problem: &'static str,
    },
    /// A renewed certificate that is not valid at the moment it is to be installed.
    #[error(
        "the new certificate is valid from {} to {}, and this machine's clock says {}; it is not \
         installed; compare this machine's clock with the hub's",
        date(*not_before), date(*not_after), date(*now)
    )]
    NotValidNow {
        /// Its first moment.
        not_before: OffsetDateTime,
        /// Its last moment.
        not_after: OffsetDateTime,
        /// The moment of the attempt.
        now: OffsetDateTime,
    },
    /// The root's key is of a kind that anchors are not signed with.
    #[error("the root's key is not ECDSA P-256, so it cannot vouch for a hub; use a P-256 root CA")]
    RootKeyKind,
    /// An anchor that the root did not sign.
    #[error(
        "the anchor of hub '{hub}' was not signed by the root CA; the token or the hub is not of \
         this federation"
    )]
    AnchorSignature {
        /// The hub that the anchor names.
        hub: String,
    },
    /// Bytes that are not an anchor.
    #[error("not an anchor: {0}")]
    Anchor(#[from] protocol::encoding::DecodeError),
    /// The system's random source failed, or the library refused to sign.
    #[error("cannot {action}: {problem}")]
    Crypto {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the library says.
        problem: String,
    },
    /// rustls refuses the credentials or the configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// Which name of a certificate keeps it from being an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityProblem {
    /// No URI name of the right form.
    #[error(
        "has no URI subject alternative name of the form spiffe://FEDERATION/node/ID; both that \
         and the DNS name ID.FEDERATION.creditsync.internal are needed"
    )]
    NoUri,
    /// Several URI names of the right form.
    #[error("names more than one node ({0}); a certificate is for exactly one")]
    SeveralUris(String),
    /// The DNS name that belongs to the URI is missing.
    #[error("has no DNS subject alternative name {0}, which its URI name calls for; add it")]
    NoDns(String),
    /// A DNS name of another node.
    #[error("also carries the DNS name {0}, which belongs to another node; leave it out")]
    ForeignDns(String),
}

impl CertError {
    /// For `map_err` on file operations.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| CertError::File { action, path: path.to_owned(), source }
    }

    pub(crate) fn content(path: &Path, problem: impl Into<String>) -> Self {
        CertError::Content { path: path.to_owned(), problem: problem.into() }
    }

    /// For `map_err` on the libraries' own errors.
    pub(crate) fn crypto<E: ToString>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| CertError::Crypto { action, problem: error.to_string() }
    }
}

/// A moment as administrators read it, in UTC to the second.
pub fn date(moment: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    moment.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_else(|_| moment.to_string())
}
