//! Identities and certificates: who a node is, who says so, and how the other
//! side of a connection is checked.
//!
//! Used by the daemon (its network and its command line) and by the tests.
//! Nothing here reads a clock: `now` is passed in, except inside rustls, which
//! reads it during a handshake. Nothing here opens a connection.
//!
//! Reading order:
//! 1. [`identity`]: the name inside a certificate, and how it is read;
//! 2. [`keyfile`]: files that only their owner reads;
//! 3. [`authority`]: the root and issuing CA, a node's key, issuing;
//! 4. [`enrol`]: the anchor, and the token that a member pastes;
//! 5. [`verify`]: the TLS configurations and [`verify::VerifiedPeer`];
//! 6. [`error`]: everything that can go wrong, in words for an administrator.
//!
//! Invariants: a private key never leaves the machine it was made on and its
//! file is never readable by others, not even for a moment; an identity is
//! the pair of names in a certificate, never its hash; certificates are checked
//! by rustls' own verifiers only.
//!
//! Deliberately absent: revocation lists (a revocation is a record of
//! `_federation`, and bites when the daemon looks a peer up) and change set
//! signatures (`protocol::sign`).

pub mod authority;
pub mod enrol;
pub mod error;
pub mod identity;
pub mod keyfile;
pub mod verify;

pub use error::CertError;
