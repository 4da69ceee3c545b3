//! A verifier of federations, written from `protocol/SPEC.md` and from nothing
//! else: what a stranger needs who trusts neither side.
//!
//! It takes bytes (a token, an anchor, frames, signed headers, bodies, pages)
//! and says what they prove, or refuses them with one reason. It shares no line
//! with the program, so a mistake of the program that its own tests repeat is
//! found here, and so is a sentence of the page that is wrong or missing. Every
//! length, number and context of the page is in [`layout`].
//!
//! Not here: TLS and paths of certificates, what an importer makes of
//! a file's rows (but for each text's value), and clocks.
//!
//! [`golden`] holds it against the vectors, [`live`] and [`refused`] against what
//! a federation of real processes said ([`recorded`]). Beside the program stand its
//! decoders ([`beside`]), its judge of records ([`beside_records`]), its registry
//! ([`beside_federation`], [`beside_schemas`], [`beside_labels`], [`beside_keys`]), its
//! trust in new roots ([`beside_authorities`]), in anchors and statements of freshness
//! ([`beside_anchors`]), whom it lets in ([`beside_admission`]), what it reads of tokens
//! ([`beside_tokens`]), whom it joins ([`beside_joining`]) and what its hub grants
//! ([`beside_hub`]), its importer of texts ([`beside_deliveries`]), what it takes at the
//! bounds of a change set ([`beside_work`]), its updates ([`beside_roots`]), its proofs of
//! histories ([`beside_history`]) and its differences of pages ([`beside_differences`]);
//! what a reader could take either way stands in [`beside_edges`]. Of these `live`,
//! `recorded` and those whose names begin with `beside` name crates of the workspace, and
//! nothing else does (`tests/tests/layout.rs` looks). What no such federation says comes
//! from keys of the tests' own ([`made`]): [`rules`], [`bounds`] and [`strict`].

pub mod admission;
pub mod anchor;
pub mod certificate;
pub mod change;
pub mod delivered;
pub mod enrolment;
pub mod entries;
pub mod federation;
pub mod frames;
pub mod hashes;
pub mod history;
pub mod json;
pub mod label;
pub mod layout;
pub mod messages;
pub mod pages;
pub mod reader;
pub mod record;
pub mod replica;
pub mod schema;
pub mod schema_rules;
pub mod token;
pub mod tree;
pub mod work;

mod beside;
mod beside_admission;
mod beside_anchors;
mod beside_authorities;
mod beside_deliveries;
mod beside_differences;
mod beside_edges;
mod beside_federation;
mod beside_history;
mod beside_hub;
mod beside_joining;
mod beside_json;
mod beside_keys;
mod beside_labels;
mod beside_records;
mod beside_roots;
mod beside_schemas;
mod beside_tokens;
mod beside_work;
mod bounds;
mod golden;
mod golden_frames;
mod golden_spec;
mod golden_trees;
mod live;
mod made;
mod recorded;
mod refused;
mod rules;
mod strict;
mod strict_messages;

/// Why something was refused; the words are the verifier's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// What was checked, or why it does not count.
pub type Checked<T> = Result<T, Refused>;

/// Refuses unless `holds`.
pub fn ensure(holds: bool, why: &'static str) -> Checked<()> {
    if holds { Ok(()) } else { Err(Refused(why)) }
}
