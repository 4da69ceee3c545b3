//! A real hub against peers that break every rule that they can reach.
//!
//! A hostile client speaks QUIC by itself ([`peer`]), with certificates and
//! signing keys of its own choosing, so that it can send what no build of
//! creditsync would. After each attack [`world`] looks whether the hub answered
//! with the code that `protocol/SPEC.md` promises, counted it, kept nothing of
//! it, and still takes an honest county's row. Each test has a federation of its
//! own.
//!
//! Not here: bytes that never reach a connection (the fuzz targets), and what
//! the state machines do among themselves (the simulation).

// Everything here is a test, also what lies in functions of its own.
#![allow(clippy::unwrap_used)]
#![allow(clippy::type_complexity, reason = "a table of attacks reads best with its types in place")]

#[path = "hostile/addresses.rs"]
mod addresses;
#[path = "hostile/control.rs"]
mod control;
#[path = "hostile/differences.rs"]
mod differences;
#[path = "hostile/enrolment.rs"]
mod enrolment;
#[path = "hostile/flood.rs"]
mod flood;
#[path = "hostile/forge.rs"]
mod forge;
#[path = "hostile/handshake.rs"]
mod handshake;
#[path = "hostile/histories.rs"]
mod histories;
#[path = "hostile/hub.rs"]
mod hub;
#[path = "hostile/intrusions.rs"]
mod intrusions;
#[path = "hostile/intrusions_certificates.rs"]
mod intrusions_certificates;
#[path = "hostile/intrusions_enrolment.rs"]
mod intrusions_enrolment;
#[path = "hostile/intrusions_hub.rs"]
mod intrusions_hub;
#[path = "hostile/intrusions_keys.rs"]
mod intrusions_keys;
#[path = "hostile/intrusions_transport.rs"]
mod intrusions_transport;
#[path = "hostile/limits.rs"]
mod limits;
#[path = "hostile/lure.rs"]
mod lure;
#[path = "hostile/mint.rs"]
mod mint;
#[path = "hostile/peer.rs"]
mod peer;
#[path = "hostile/provider.rs"]
mod provider;
#[path = "hostile/streams.rs"]
mod streams;
#[path = "hostile/tree.rs"]
mod tree;
#[path = "hostile/trust.rs"]
mod trust;
#[path = "hostile/world.rs"]
mod world;

// Not hostile, but a stranger: it dials as those do, and takes the hub's word for
// nothing.
#[path = "verifier/verifier.rs"]
mod verifier;
