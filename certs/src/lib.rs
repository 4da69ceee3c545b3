//! Identities and certificates: who a node is, who says so, and how the other
//! side of a connection is checked.
//!
//! Used by the daemon (its network and its command line) and by the tests.
//! Nothing here reads a clock: `now` is passed in, except inside rustls, which
//! reads it during a handshake. Nothing here opens a connection.
//!
//! Reading order:
//! 1. [`identity`]: the name inside a certificate, and how it is read;
//! 2. [`keyfile`], [`pem`]: private keys and certificates in files;
//! 3. [`authority`]: the generations of root and issuing CAs, issuing;
//! 4. [`bundle`]: the roots that a node trusts, and how another joins them;
//! 5. [`credentials`], [`pki`]: what a node shows, its own or a foreign PKI's;
//! 6. [`rotate`]: when certificates and connections are renewed;
//! 7. [`enrol`]: the anchor, and the token that a member pastes;
//! 8. [`tls`], [`observe`], [`verify`]: the TLS configurations, what is
//!    remembered of refusals, and [`verify::VerifiedPeer`];
//! 9. [`explain`], [`error`]: everything that can go wrong, in words for an
//!    administrator; [`fault`]: where tests let a process die.
//!
//! Invariants: a private key never leaves the machine it was made on and its
//! file is never readable by others, not even for a moment; an identity is
//! the pair of names in a certificate, never its hash; certificates are judged
//! by rustls' own verifiers only.
//!
//! Deliberately absent: revocation lists (a revocation is a record of
//! `_federation`, and bites when the daemon looks a peer up) and change set
//! signatures (`protocol::sign`).

pub mod authority;
pub mod bundle;
pub mod credentials;
pub mod enrol;
pub mod error;
pub mod explain;
pub mod fault;
pub mod identity;
pub mod keyfile;
pub mod observe;
pub mod pem;
pub mod pki;
pub mod rotate;
pub mod tls;
mod verifiers;
pub mod verify;

pub use error::{CertError, date};
